"""The abdomen of the phantoms."""

from __future__ import annotations

import math

import numpy as np
from ctinv.adapters._types import Image

from .canvas import Canvas, Region
from .frame import body, ribs, seams, spine
from .tissues import LABELS, Lesion, bone, fill, insert, tone
from .vessels import organ_vessels

__all__ = ["draw_abdomen"]


def draw_abdomen(canvas: Canvas, half_width: float, lesions: int) -> list[Lesion]:
    """Upper abdomen with liver, spleen and kidneys, or lower with bowel.

    Arguments:
        canvas: Where to draw.
        half_width: Of the body, mm.
        lesions: How many liver or kidney lesions to try to insert.

    Returns:
        The lesions that found room.
    """
    rng = canvas.rng
    fat = float(rng.uniform(6.0, 30.0))
    wall, inner_height = body(canvas, half_width, float(rng.uniform(0.60, 0.76)), fat)
    seams(canvas, wall, 20)
    inner_width = half_width - fat
    cavity = wall.inset(float(rng.uniform(9, 16)))
    upper = rng.uniform() < 0.6
    fill(canvas, cavity, "fat")
    inside = canvas.cover(cavity)
    if upper:
        ribs(canvas, (0.0, inner_width - 8.0, inner_height - 7.0), int(rng.integers(4, 6)), 0.7)
    contrast = float(rng.choice([0.0, rng.uniform(40, 150)]))
    blood = tone(canvas, "vessel") + contrast
    spine_y = inner_height * float(rng.uniform(0.36, 0.48))

    _bowel(
        canvas,
        inside,
        inner_width,
        inner_height,
        int(rng.integers(12, 20) if upper else rng.integers(26, 44)),
    )
    _back_muscles(canvas, inside, spine_y)
    if upper:
        _upper_organs(canvas, inside, (inner_width, inner_height), contrast)
    for side in (-1, 1):
        if rng.uniform() < 0.85:
            _kidney(
                canvas, side * float(rng.uniform(62, 76)), spine_y - float(rng.uniform(0, 14)), side, contrast
            )
    _trunk_vessels(canvas, inside, (inner_width, inner_height), spine_y, blood)
    spine(canvas, spine_y, float(rng.uniform(1.0, 1.25)))
    if not upper and rng.uniform() < 0.5:  # wings of the pelvis
        for side in (-1, 1):
            x, y = side * inner_width * 0.55, inner_height * 0.5
            bone(canvas, canvas.stroke(x, y, x + side * 30.0, y - 45.0, 7.0, 5.0), 2.0)

    return _lesions(canvas, "liver" if upper else "kidney", lesions)


def _back_muscles(canvas: Canvas, inside: Image, spine_y: float) -> None:
    rng = canvas.rng
    for side in (-1, 1):
        psoas = canvas.blob(
            side * float(rng.uniform(32, 40)), spine_y + 6.0, 13.0, float(rng.uniform(14, 22)), wobble=0.06
        )
        fill(canvas, psoas, "muscle")
        quad = canvas.blob(
            side * float(rng.uniform(58, 68)), spine_y + 24.0, 15.0, 11.0, turn=side * 0.4, wobble=0.06
        )
        canvas.paint(quad, tone(canvas, "muscle"), LABELS["muscle"], within=inside)


def _upper_organs(canvas: Canvas, inside: Image, inner: tuple[float, float], contrast: float) -> None:
    """Spleen, stomach, and the liver with its vessels."""
    rng, (inner_width, inner_height) = canvas.rng, inner
    spleen_hu = tone(canvas, "spleen") + 0.3 * contrast
    spleen = canvas.blob(
        inner_width * 0.66,
        inner_height * 0.12,
        float(rng.uniform(20, 34)),
        float(rng.uniform(36, 52)),
        turn=0.35,
        wobble=0.07,
    )
    canvas.paint(spleen, spleen_hu, LABELS["spleen"], within=inside, width=2.0)
    stomach = canvas.blob(
        inner_width * 0.36,
        -inner_height * 0.34,
        float(rng.uniform(28, 46)),
        float(rng.uniform(22, 34)),
        turn=-0.5,
        wobble=0.08,
    )
    _loop(canvas, stomach, inside, 4.0)
    liver_hu = tone(canvas, "liver") + 0.25 * contrast
    size = float(rng.uniform(0.85, 1.15))
    for x, y, rx, ry, turn in ((-0.46, -0.08, 0.46, 0.72, 0.25), (-0.08, -0.42, 0.5, 0.3, 0.12)):
        lobe = canvas.blob(
            inner_width * x,
            inner_height * y,
            inner_width * rx * size,
            inner_height * ry * size,
            turn=turn,
            wobble=0.05,
        )
        canvas.paint(lobe, liver_hu, LABELS["liver"], within=inside, width=float(rng.uniform(1, 4)))
    liver = (canvas.labels == LABELS["liver"]).astype(np.float32)
    organ_vessels(
        canvas,
        liver,
        (-0.3 * inner_width, -0.1 * inner_height),
        liver_hu + (0.35 * contrast if contrast else -14.0),
        LABELS["liver"],
    )


def _trunk_vessels(
    canvas: Canvas, inside: Image, inner: tuple[float, float], spine_y: float, blood: float
) -> None:
    """Aorta and vena cava, and the vessels of the mesentery."""
    rng, (inner_width, inner_height) = canvas.rng, inner
    for x, y, r in ((12.0, -26.0, 10.0), (-17.0, -27.0, 12.0)):
        trunk = canvas.blob(
            x + float(rng.normal(0, 3)), spine_y + y, r, r * float(rng.uniform(0.75, 1.1)), wobble=0.04
        )
        fill(canvas, trunk, "vessel", blood)
    for _ in range(int(rng.integers(25, 60))):
        x, y = (
            float(rng.normal(0, inner_width * 0.38)),
            float(rng.normal(-inner_height * 0.2, inner_height * 0.3)),
        )
        turn, r = float(rng.uniform(0, math.pi)), float(rng.uniform(0.7, 2.6))
        long = r * float(rng.choice([0.5, rng.uniform(1, 9)]))
        line = canvas.stroke(x, y, x + long * math.cos(turn), y + long * math.sin(turn), r, r * 0.7)
        free = inside * (canvas.labels == LABELS["fat"])
        canvas.paint(line, blood, LABELS["vessel"], within=free, opacity=float(rng.uniform(0.4, 1.0)))


def _lesions(canvas: Canvas, organ: str, lesions: int) -> list[Lesion]:
    """Those that found room, of as many as are tried."""
    rng = canvas.rng
    placed: list[Lesion] = []
    for _ in range(lesions):
        lift = float(rng.uniform(15, 60)) * (-1.0 if rng.uniform() < 0.75 else 1.0)
        lesion = insert(
            canvas,
            canvas.labels == LABELS[organ],
            "focal",
            float(rng.uniform(3, 14)),
            lift,
            float(rng.uniform(1, 4)),
        )
        placed += [lesion] if lesion else []
    return placed


def _kidney(canvas: Canvas, x: float, y: float, side: int, contrast: float) -> None:
    rng = canvas.rng
    kidney = canvas.blob(
        x, y, float(rng.uniform(19, 27)), float(rng.uniform(25, 33)), turn=side * -0.35, wobble=0.05
    )
    cortex = 32.0 + contrast * float(rng.uniform(0.7, 1.2))
    canvas.paint(Region(kidney.window, kidney.distance - np.float32(6.0)), tone(canvas, "fat"), LABELS["fat"])
    fill(canvas, kidney, "kidney", cortex, 1.5)
    fill(
        canvas,
        kidney.inset(float(rng.uniform(6, 8))),
        "kidney",
        30.0 + contrast * float(rng.uniform(0.3, 0.9)),
        3.0,
    )
    sinus = canvas.blob(
        x - side * 9.0, y, float(rng.uniform(8, 12)), float(rng.uniform(7, 12)), wobble=0.14, waves=7
    )
    fill(canvas, sinus, "fat", -70.0, 2.0)


def _loop(canvas: Canvas, region: Region, inside: Image, wall: float) -> None:
    """A piece of gut: wall, contents, and gas above a level."""
    rng = canvas.rng
    canvas.paint(region, tone(canvas, "bowel") + 25.0, LABELS["bowel"], within=inside, width=1.5)
    lumen = region.inset(wall)
    kind = rng.uniform()
    fill = tone(canvas, "bowel") - 10.0 if kind < 0.75 else float(rng.uniform(120, 420))
    canvas.paint(lumen, fill, LABELS["bowel"], within=inside, width=2.0)
    if rng.uniform() < 0.38:
        rows = canvas.axis[region.window[0]]
        if rows.size == 0:
            return
        level = np.float32(rng.uniform(float(rows[0]), float(rows[-1])))
        above = np.maximum(lumen.distance, rows[:, None] - level)
        canvas.paint(Region(region.window, above), tone(canvas, "gas"), LABELS["gas"], within=inside)


def _bowel(canvas: Canvas, inside: Image, width: float, height: float, count: int) -> None:
    rng = canvas.rng
    for _ in range(count):
        x, y = float(rng.uniform(-0.75, 0.75)) * width, float(rng.uniform(-0.8, 0.15)) * height
        loop = canvas.blob(
            x,
            y,
            float(rng.uniform(9, 26)),
            float(rng.uniform(8, 17)),
            turn=float(rng.uniform(0, 3)),
            wobble=0.09,
            waves=6,
        )
        _loop(canvas, loop, inside, float(rng.uniform(1.8, 3.5)))
