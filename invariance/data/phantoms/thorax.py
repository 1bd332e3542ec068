"""The chest of the phantoms."""

from __future__ import annotations

import numpy as np

from .canvas import Canvas
from .frame import body, ribs, seams, sheets, spine
from .tissues import LABELS, Lesion, bone, fill, insert, tone
from .vessels import lung_vessels

__all__ = ["draw_thorax"]


def draw_thorax(canvas: Canvas, half_width: float, lesions: int) -> list[Lesion]:
    """Chest at the height of the heart or the aortic arch.

    Arguments:
        canvas: Where to draw.
        half_width: Of the body, mm.
        lesions: How many nodules to try to insert.

    Returns:
        The lesions that found room.
    """
    rng = canvas.rng
    fat = float(rng.uniform(5.0, 20.0))
    wall, inner_height = body(canvas, half_width, float(rng.uniform(0.64, 0.78)), fat)
    inner_width = half_width - fat
    cage_x = inner_width - float(rng.uniform(12, 26))
    cage_y = inner_height - float(rng.uniform(8, 16))
    shift = float(rng.uniform(-6, 2))
    sheets(canvas, wall, cage_x, cage_y, shift, inner_width - cage_x)
    seams(canvas, wall, 14)
    cage = canvas.blob(0.0, shift, cage_x, cage_y, wobble=0.015, power=2.35, waves=6)
    fill(canvas, cage, "muscle")
    ribs(canvas, (shift, cage_x - 4.0, cage_y - 3.5), int(rng.integers(4, 7)), 0.5)
    lungs = cage.inset(float(rng.uniform(7.5, 10.0)))
    slope = (canvas.axis[:, None] / np.float32(cage_y)) * np.float32(rng.uniform(10, 60))
    lung_hu = np.broadcast_to(np.float32(tone(canvas, "lung")) + slope, canvas.hu.shape).astype(np.float32)
    canvas.paint(lungs, lung_hu, LABELS["lung"], width=1.2)
    cover = canvas.cover(lungs.inset(1.0))

    contrast = float(rng.choice([0.0, rng.uniform(80, 280)]))
    blood = tone(canvas, "vessel") + contrast
    lung_vessels(canvas, cover, (40.0, 0.0), blood - 25.0, LABELS["vessel"])
    fat_hu = tone(canvas, "fat") + 8.0
    middle = float(rng.uniform(26, 44))
    column = canvas.blob(
        float(rng.normal(3, 4)), shift - 2.0, middle, cage_y + 6.0, wobble=0.08, power=2.6, waves=7
    )
    canvas.paint(column, fat_hu, LABELS["fat"], width=1.5, within=canvas.cover(cage))
    spine_y = shift + cage_y * float(rng.uniform(0.62, 0.74))
    fill(canvas, canvas.blob(0.0, spine_y, 27, 20, wobble=0.05), "muscle")

    if rng.uniform() < 0.6:
        _heart(canvas, shift, cage_y, fat_hu, contrast, blood)
    _mediastinum(canvas, shift, cage_y, spine_y, contrast, blood)
    spine(canvas, spine_y, float(rng.uniform(0.85, 1.05)))
    sternum = canvas.blob(
        float(rng.normal(0, 2)), shift - cage_y + 1.0, float(rng.uniform(14, 26)), 6.0, wobble=0.06
    )
    bone(canvas, sternum, 1.3)
    if rng.uniform() < 0.4:  # shoulder blades
        for side in (-1, 1):
            x, y = side * inner_width * 0.72, inner_height * 0.52
            bone(canvas, canvas.stroke(x, y, x + side * 20.0, y - float(rng.uniform(15, 38)), 3.0, 4.5), 1.3)

    return _nodules(canvas, lesions)


def _heart(canvas: Canvas, shift: float, cage_y: float, fat_hu: float, contrast: float, blood: float) -> None:
    """The heart in its fat, with two to four chambers."""
    rng = canvas.rng
    heart_x, heart_y = float(rng.uniform(12, 26)), shift - cage_y * float(rng.uniform(0.1, 0.3))
    heart = canvas.blob(
        heart_x, heart_y, float(rng.uniform(48, 66)), float(rng.uniform(36, 50)), turn=0.45, wobble=0.05
    )
    canvas.paint(heart, fat_hu, LABELS["fat"], width=2.0)
    muscle = fill(
        canvas, heart.inset(float(rng.uniform(2, 6))), "heart", tone(canvas, "heart") + contrast * 0.3
    )
    for _ in range(int(rng.integers(2, 5))):
        room = canvas.blob(
            heart_x + float(rng.normal(0, 20)),
            heart_y + float(rng.normal(0, 14)),
            float(rng.uniform(12, 24)),
            float(rng.uniform(10, 19)),
            turn=float(rng.uniform(0, 3)),
            wobble=0.09,
        )
        inside = canvas.cover(heart.inset(9.0))
        canvas.paint(
            room,
            max(blood, muscle) if contrast else muscle + 4.0,
            LABELS["heart"],
            width=3.0,
            within=inside,
        )


def _mediastinum(
    canvas: Canvas, shift: float, cage_y: float, spine_y: float, contrast: float, blood: float
) -> None:
    """Great vessels, aorta, main bronchi and oesophagus."""
    rng = canvas.rng
    for _ in range(int(rng.integers(2, 6))):
        r = float(rng.uniform(6, 15))
        x, y = float(rng.normal(2, 16)), shift - cage_y * float(rng.uniform(-0.15, 0.5))
        vessel = canvas.blob(
            x, y, r, r * float(rng.uniform(0.6, 1.3)), turn=float(rng.uniform(0, 3)), wobble=0.05
        )
        fill(canvas, vessel, "vessel", blood + float(rng.normal(0, 8)) * (contrast > 0))
    aorta = canvas.blob(
        float(rng.uniform(16, 26)), spine_y - float(rng.uniform(10, 18)), 12.5, 12.0, wobble=0.03
    )
    fill(canvas, aorta, "vessel", blood)
    for side in (-1, 1):
        x, y = side * float(rng.uniform(6, 24)), min(shift - float(rng.uniform(-14, 10)), spine_y - 34.0)
        y = max(y, spine_y - 48.0)
        tube = canvas.blob(x, y, float(rng.uniform(4.5, 8.5)), float(rng.uniform(4.5, 8)), wobble=0.05)
        fill(canvas, tube, "muscle")
        fill(canvas, tube.inset(1.3), "airway")
    fill(canvas, canvas.blob(float(rng.normal(2, 4)), spine_y - 25.0, 9.0, 6.0, wobble=0.08), "muscle")


def _nodules(canvas: Canvas, lesions: int) -> list[Lesion]:
    """Those that found room, of as many as are tried."""
    rng = canvas.rng
    placed: list[Lesion] = []
    for _ in range(lesions):
        solid = rng.uniform() < 0.7
        radius = float(rng.uniform(2.5, 11.0))
        lift = float(rng.uniform(750, 900)) if solid else float(rng.uniform(120, 350))
        nodule = insert(
            canvas,
            canvas.labels == LABELS["lung"],
            "nodule" if solid else "ground glass",
            radius,
            lift,
            1.0 if solid else 4.0,
        )
        placed += [nodule] if nodule else []
    return placed
