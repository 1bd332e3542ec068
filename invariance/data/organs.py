"""The anatomy of the phantoms: which shapes, where, and with what HU."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .canvas import Canvas, Region
from .vessels import lung_vessels, organ_vessels

__all__ = ["TISSUES", "Lesion", "Tissue", "draw_abdomen", "draw_thorax"]

_Array = NDArray[np.float32]


@dataclass(frozen=True)
class Tissue:
    """HU range of a tissue and the HU of its fine, broad and strand-like texture."""

    hu: tuple[float, float]
    grain: tuple[float, float, float] = (0.0, 0.0, 0.0)


TISSUES: dict[str, Tissue] = {
    "air": Tissue((-1000, -1000), (0, 0, 0)),
    "table": Tissue((-250, 50)),
    "skin": Tissue((-20, 30), (4, 3, 0)),
    "fat": Tissue((-112, -92), (6, 10, 62)),
    "muscle": Tissue((36, 62), (8, 11, -52)),
    "bone": Tissue((350, 800), (40, 40, 0)),
    "marrow": Tissue((110, 230), (38, 22, 0)),
    "lung": Tissue((-935, -820), (24, 18, 40)),
    "airway": Tissue((-995, -960), (3, 0, 0)),
    "vessel": Tissue((40, 55), (3, 2, 0)),
    "heart": Tissue((30, 55), (5, 8, 0)),
    "liver": Tissue((50, 110), (5, 5, 0)),
    "spleen": Tissue((50, 120), (4, 4, 0)),
    "kidney": Tissue((60, 190), (5, 8, 0)),
    "bowel": Tissue((0, 60), (10, 14, 0)),
    "gas": Tissue((-990, -900), (5, 0, 0)),
    "cord": Tissue((15, 40), (4, 4, 0)),
    "lesion": Tissue((0, 0), (3, 3, 0)),
}
"""Tissues in the order of their labels; contrast media raise vessels and organs above these HU."""

_LABELS = {name: index for index, name in enumerate(TISSUES)}


@dataclass(frozen=True)
class Lesion:
    """An inserted lesion.

    Arguments:
        kind: ``nodule``, ``ground glass`` or ``focal``.
        centre: Row and column.
        radius: Mean radius in mm.
        contrast: HU above (or below) the tissue it lies in.
    """

    kind: str
    centre: tuple[int, int]
    radius: float
    contrast: float


def _hu(canvas: Canvas, name: str) -> float:
    low, high = TISSUES[name].hu
    return float(canvas.rng.uniform(low, high))


def _paint(canvas: Canvas, region: Region, name: str, hu: float | None = None, width: float = 0.0) -> float:
    value = _hu(canvas, name) if hu is None else hu
    canvas.paint(region, value, _LABELS[name], width=width)
    return value


def _bone(canvas: Canvas, region: Region, shell: float, cortex: float | None = None) -> None:
    _paint(canvas, region, "bone", cortex)
    _paint(canvas, region.inset(shell), "marrow", width=1.5)


def _table(canvas: Canvas, below: float) -> None:
    rng = canvas.rng
    radius = float(rng.uniform(300.0, 700.0))
    for gap in (0.0, float(rng.uniform(12.0, 35.0))):
        y = below + float(rng.uniform(1.0, 12.0)) + gap
        ring = canvas.blob(0.0, y - radius, radius, radius)
        shell = Region(ring.window, np.abs(ring.distance) - np.float32(rng.uniform(0.5, 1.2)))
        lower = canvas.axis[shell.window[0], None] < np.float32(y - 45.0)
        shell = Region(shell.window, np.where(lower, np.float32(9.0), shell.distance).astype(np.float32))
        _paint(canvas, shell, "table")


def _body(canvas: Canvas, half_width: float, flat: float, fat: float) -> tuple[Region, float]:
    """Skin, subcutaneous fat and the muscle wall; gives the outline of the muscle and its half height."""
    rng = canvas.rng
    height = half_width * flat
    outline = canvas.blob(
        0.0, 0.0, half_width, height, wobble=0.012, power=float(rng.uniform(2.0, 2.5)), waves=6
    )
    _table(canvas, height)
    _paint(canvas, outline, "skin")
    _paint(canvas, outline.inset(float(rng.uniform(1.3, 2.2))), "fat")
    inner = canvas.blob(
        0.0,
        float(rng.uniform(-0.15, 0.35)) * fat * 0.4,
        half_width - fat * float(rng.uniform(0.8, 1.1)),
        height - fat * float(rng.uniform(0.75, 1.0)),
        wobble=0.012,
        power=2.25,
        waves=7,
    )
    _paint(canvas, inner, "muscle")
    return inner, height - fat


def _fat_seams(canvas: Canvas, within: Region, count: int) -> None:
    """Thin fat planes between muscles."""
    rng = canvas.rng
    cover = canvas.cover(within)
    reach = canvas.size * canvas.spacing / 2
    fat = _hu(canvas, "fat")
    for _ in range(count):
        angle = float(rng.uniform(0, 2 * math.pi))
        x, y = 0.85 * reach * math.cos(angle) * 0.85, 0.6 * reach * math.sin(angle)
        along = angle + math.pi / 2 + float(rng.normal(0, 0.35))
        length = float(rng.uniform(8, 40))
        line = canvas.stroke(
            x,
            y,
            x + length * math.cos(along),
            y + length * math.sin(along),
            float(rng.uniform(0.4, 1.4)),
            0.4,
        )
        canvas.paint(line, fat, _LABELS["fat"], within=cover, opacity=float(rng.uniform(0.4, 1.0)))


def _sheets(canvas: Canvas, within: Region, rx: float, ry: float, y0: float, depth: float) -> None:
    """Flat muscles around the rib cage (half axes rx, ry, centre y0), fat between them."""
    rng = canvas.rng
    cover = canvas.cover(within)
    canvas.paint(within, _hu(canvas, "fat"), _LABELS["fat"])
    muscle = _hu(canvas, "muscle")
    count = int(rng.integers(9, 14))
    for side in (-1, 1):
        for k in range(count):
            theta = -math.pi / 2 + (k + float(rng.uniform(0.2, 0.8))) * math.pi / count
            out = float(rng.uniform(0.15, 0.85)) * depth
            x, y = side * (rx + out) * math.cos(theta), y0 + (ry + out) * math.sin(theta)
            turn = math.atan2(ry * math.cos(theta), -side * rx * math.sin(theta)) + float(rng.normal(0, 0.15))
            long, thick = float(rng.uniform(18, 48)), float(rng.uniform(0.2, 0.5)) * depth + 2.0
            sheet = canvas.blob(x, y, long, thick, turn=turn, wobble=0.05, power=2.6, waves=7)
            value = muscle + float(rng.normal(0, 6))
            canvas.paint(sheet, value, _LABELS["muscle"], within=cover, width=float(rng.uniform(0.8, 3.0)))


def _spine(canvas: Canvas, y: float, scale: float) -> None:
    """Vertebral body in front of the canal, with pedicles, transverse and spinous processes."""
    rng = canvas.rng
    rx, ry = 19.0 * scale * float(rng.uniform(0.9, 1.15)), 15.0 * scale * float(rng.uniform(0.9, 1.1))
    muscle = _hu(canvas, "muscle")
    for side in (-1, 1):
        back = canvas.blob(side * 24.0 * scale, y + 30.0 * scale, 22.0 * scale, 15.0 * scale, wobble=0.06)
        _paint(canvas, back, "muscle", muscle)
    back_y = y + ry + 9.0 * scale
    arms = float(rng.uniform(0.0, 1.0)) < 0.7
    for side in (-1, 1):
        _bone(
            canvas,
            canvas.stroke(side * 11.0 * scale, y + ry * 0.7, side * 13.0 * scale, back_y, 4.5, 5.0),
            1.6,
        )
        if arms:
            tip = (side * float(rng.uniform(30, 42)) * scale, back_y + float(rng.uniform(-4, 10)))
            _bone(canvas, canvas.stroke(side * 13.0 * scale, back_y, *tip, 5.0, 3.5), 1.8)
        _bone(
            canvas, canvas.stroke(side * 12.0 * scale, back_y + 2, 0.0, back_y + 12.0 * scale, 4.0, 4.0), 1.5
        )
    spike = float(rng.uniform(12, 34)) * scale
    _bone(
        canvas, canvas.stroke(0.0, back_y + 11.0 * scale, 0.0, back_y + 11.0 * scale + spike, 4.0, 3.0), 1.5
    )
    canal = canvas.blob(0.0, back_y + 1.0, 10.0 * scale, 8.5 * scale, wobble=0.03)
    _paint(canvas, canal, "fat", float(rng.uniform(-60, 10)))
    _paint(canvas, canal.inset(2.0), "cord")
    _bone(canvas, canvas.blob(0.0, y, rx, ry, wobble=0.03), float(rng.uniform(1.0, 2.2)))


def _ribs(canvas: Canvas, cage: tuple[float, float, float], count: int, gap: float) -> None:
    """Cut ribs along the rib cage's ellipse (centre y and half axes), away from the spine by ``gap`` rad."""
    rng = canvas.rng
    y0, rx, ry = cage
    for k in range(count):
        for side in (-1, 1):
            if rng.uniform() < 0.12:
                continue
            theta = math.pi / 2 - gap - (k + float(rng.uniform(-0.3, 0.3))) * (math.pi - 1.6 * gap) / count
            x, y = side * rx * math.cos(theta), y0 + ry * math.sin(theta)
            turn = math.atan2(ry * math.cos(theta), -side * rx * math.sin(theta)) + float(rng.normal(0, 0.12))
            rib = canvas.blob(
                x,
                y,
                float(rng.uniform(7, 26)),
                float(rng.uniform(3.6, 5.6)),
                turn=turn,
                wobble=0.04,
                power=2.4,
            )
            _bone(canvas, rib, float(rng.uniform(1.0, 1.9)))


def _insert(
    canvas: Canvas, where: NDArray[np.bool_], kind: str, radius: float, contrast: float, rim: float
) -> Lesion | None:
    """A lesion wholly inside the pixels ``where``; None when there is no room."""
    from scipy.ndimage import distance_transform_edt

    coarse = where[::2, ::2]
    room = np.argwhere(distance_transform_edt(coarse) * 2.0 * canvas.spacing > radius * 1.2 + canvas.spacing)
    if len(room) == 0:
        return None
    row, column = (int(v) * 2 for v in room[canvas.rng.integers(len(room))])
    half = canvas.size // 2
    x, y = (column - half) * canvas.spacing, (row - half) * canvas.spacing
    shape = canvas.blob(x, y, radius, radius, wobble=0.06)
    canvas.paint(shape, canvas.hu + np.float32(contrast), _LABELS["lesion"], width=rim)
    return Lesion(kind, (row, column), radius, contrast)


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
    wall, inner_height = _body(canvas, half_width, float(rng.uniform(0.64, 0.78)), fat)
    inner_width = half_width - fat
    cage_x = inner_width - float(rng.uniform(12, 26))
    cage_y = inner_height - float(rng.uniform(8, 16))
    shift = float(rng.uniform(-6, 2))
    _sheets(canvas, wall, cage_x, cage_y, shift, inner_width - cage_x)
    _fat_seams(canvas, wall, 14)
    cage = canvas.blob(0.0, shift, cage_x, cage_y, wobble=0.015, power=2.35, waves=6)
    _paint(canvas, cage, "muscle")
    _ribs(canvas, (shift, cage_x - 4.0, cage_y - 3.5), int(rng.integers(4, 7)), 0.5)
    lungs = cage.inset(float(rng.uniform(7.5, 10.0)))
    slope = (canvas.axis[:, None] / np.float32(cage_y)) * np.float32(rng.uniform(10, 60))
    lung_hu = np.broadcast_to(np.float32(_hu(canvas, "lung")) + slope, canvas.hu.shape).astype(np.float32)
    canvas.paint(lungs, lung_hu, _LABELS["lung"], width=1.2)
    cover = canvas.cover(lungs.inset(1.0))

    contrast = float(rng.choice([0.0, rng.uniform(80, 280)]))
    blood = _hu(canvas, "vessel") + contrast
    lung_vessels(canvas, cover, (40.0, 0.0), blood - 25.0, _LABELS["vessel"])
    fat_hu = _hu(canvas, "fat") + 8.0
    middle = float(rng.uniform(26, 44))
    column = canvas.blob(
        float(rng.normal(3, 4)), shift - 2.0, middle, cage_y + 6.0, wobble=0.08, power=2.6, waves=7
    )
    canvas.paint(column, fat_hu, _LABELS["fat"], width=1.5, within=canvas.cover(cage))
    spine_y = shift + cage_y * float(rng.uniform(0.62, 0.74))
    _paint(canvas, canvas.blob(0.0, spine_y, 27, 20, wobble=0.05), "muscle")

    if rng.uniform() < 0.6:
        heart_x, heart_y = float(rng.uniform(12, 26)), shift - cage_y * float(rng.uniform(0.1, 0.3))
        heart = canvas.blob(
            heart_x, heart_y, float(rng.uniform(48, 66)), float(rng.uniform(36, 50)), turn=0.45, wobble=0.05
        )
        canvas.paint(heart, fat_hu, _LABELS["fat"], width=2.0)
        muscle = _paint(
            canvas, heart.inset(float(rng.uniform(2, 6))), "heart", _hu(canvas, "heart") + contrast * 0.3
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
                _LABELS["heart"],
                width=3.0,
                within=inside,
            )
    for _ in range(int(rng.integers(2, 6))):
        r = float(rng.uniform(6, 15))
        x, y = float(rng.normal(2, 16)), shift - cage_y * float(rng.uniform(-0.15, 0.5))
        vessel = canvas.blob(
            x, y, r, r * float(rng.uniform(0.6, 1.3)), turn=float(rng.uniform(0, 3)), wobble=0.05
        )
        _paint(canvas, vessel, "vessel", blood + float(rng.normal(0, 8)) * (contrast > 0))
    aorta = canvas.blob(
        float(rng.uniform(16, 26)), spine_y - float(rng.uniform(10, 18)), 12.5, 12.0, wobble=0.03
    )
    _paint(canvas, aorta, "vessel", blood)
    for side in (-1, 1):
        x, y = side * float(rng.uniform(6, 24)), min(shift - float(rng.uniform(-14, 10)), spine_y - 34.0)
        y = max(y, spine_y - 48.0)
        tube = canvas.blob(x, y, float(rng.uniform(4.5, 8.5)), float(rng.uniform(4.5, 8)), wobble=0.05)
        _paint(canvas, tube, "muscle")
        _paint(canvas, tube.inset(1.3), "airway")
    _paint(canvas, canvas.blob(float(rng.normal(2, 4)), spine_y - 25.0, 9.0, 6.0, wobble=0.08), "muscle")
    _spine(canvas, spine_y, float(rng.uniform(0.85, 1.05)))
    sternum = canvas.blob(
        float(rng.normal(0, 2)), shift - cage_y + 1.0, float(rng.uniform(14, 26)), 6.0, wobble=0.06
    )
    _bone(canvas, sternum, 1.3)
    if rng.uniform() < 0.4:  # shoulder blades
        for side in (-1, 1):
            x, y = side * inner_width * 0.72, inner_height * 0.52
            _bone(canvas, canvas.stroke(x, y, x + side * 20.0, y - float(rng.uniform(15, 38)), 3.0, 4.5), 1.3)

    placed: list[Lesion] = []
    for _ in range(lesions):
        solid = rng.uniform() < 0.7
        radius = float(rng.uniform(2.5, 11.0))
        lift = float(rng.uniform(750, 900)) if solid else float(rng.uniform(120, 350))
        found = _insert(
            canvas,
            canvas.labels == _LABELS["lung"],
            "nodule" if solid else "ground glass",
            radius,
            lift,
            1.0 if solid else 4.0,
        )
        placed += [found] if found else []
    return placed


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
    wall, inner_height = _body(canvas, half_width, float(rng.uniform(0.60, 0.76)), fat)
    _fat_seams(canvas, wall, 20)
    inner_width = half_width - fat
    cavity = wall.inset(float(rng.uniform(9, 16)))
    upper = rng.uniform() < 0.6
    _paint(canvas, cavity, "fat")
    inside = canvas.cover(cavity)
    if upper:
        _ribs(canvas, (0.0, inner_width - 8.0, inner_height - 7.0), int(rng.integers(4, 6)), 0.7)
    contrast = float(rng.choice([0.0, rng.uniform(40, 150)]))
    blood = _hu(canvas, "vessel") + contrast
    spine_y = inner_height * float(rng.uniform(0.36, 0.48))

    _bowel(
        canvas,
        inside,
        inner_width,
        inner_height,
        int(rng.integers(12, 20) if upper else rng.integers(26, 44)),
    )
    for side in (-1, 1):
        psoas = canvas.blob(
            side * float(rng.uniform(32, 40)), spine_y + 6.0, 13.0, float(rng.uniform(14, 22)), wobble=0.06
        )
        _paint(canvas, psoas, "muscle")
        quad = canvas.blob(
            side * float(rng.uniform(58, 68)), spine_y + 24.0, 15.0, 11.0, turn=side * 0.4, wobble=0.06
        )
        canvas.paint(quad, _hu(canvas, "muscle"), _LABELS["muscle"], within=inside)
    if upper:
        spleen_hu = _hu(canvas, "spleen") + 0.3 * contrast
        spleen = canvas.blob(
            inner_width * 0.66,
            inner_height * 0.12,
            float(rng.uniform(20, 34)),
            float(rng.uniform(36, 52)),
            turn=0.35,
            wobble=0.07,
        )
        canvas.paint(spleen, spleen_hu, _LABELS["spleen"], within=inside, width=2.0)
        stomach = canvas.blob(
            inner_width * 0.36,
            -inner_height * 0.34,
            float(rng.uniform(28, 46)),
            float(rng.uniform(22, 34)),
            turn=-0.5,
            wobble=0.08,
        )
        _loop(canvas, stomach, inside, 4.0)
        liver_hu = _hu(canvas, "liver") + 0.25 * contrast
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
            canvas.paint(lobe, liver_hu, _LABELS["liver"], within=inside, width=float(rng.uniform(1, 4)))
        liver = (canvas.labels == _LABELS["liver"]).astype(np.float32)
        organ_vessels(
            canvas,
            liver,
            (-0.3 * inner_width, -0.1 * inner_height),
            liver_hu + (0.35 * contrast if contrast else -14.0),
            _LABELS["liver"],
        )
    for side in (-1, 1):
        if rng.uniform() < 0.85:
            _kidney(
                canvas, side * float(rng.uniform(62, 76)), spine_y - float(rng.uniform(0, 14)), side, contrast
            )
    for x, y, r in ((12.0, -26.0, 10.0), (-17.0, -27.0, 12.0)):
        trunk = canvas.blob(
            x + float(rng.normal(0, 3)), spine_y + y, r, r * float(rng.uniform(0.75, 1.1)), wobble=0.04
        )
        _paint(canvas, trunk, "vessel", blood)
    for _ in range(int(rng.integers(25, 60))):  # mesenteric vessels
        x, y = (
            float(rng.normal(0, inner_width * 0.38)),
            float(rng.normal(-inner_height * 0.2, inner_height * 0.3)),
        )
        turn, r = float(rng.uniform(0, math.pi)), float(rng.uniform(0.7, 2.6))
        long = r * float(rng.choice([0.5, rng.uniform(1, 9)]))
        line = canvas.stroke(x, y, x + long * math.cos(turn), y + long * math.sin(turn), r, r * 0.7)
        free = inside * (canvas.labels == _LABELS["fat"])
        canvas.paint(line, blood, _LABELS["vessel"], within=free, opacity=float(rng.uniform(0.4, 1.0)))
    _spine(canvas, spine_y, float(rng.uniform(1.0, 1.25)))
    if not upper and rng.uniform() < 0.5:  # wings of the pelvis
        for side in (-1, 1):
            x, y = side * inner_width * 0.55, inner_height * 0.5
            _bone(canvas, canvas.stroke(x, y, x + side * 30.0, y - 45.0, 7.0, 5.0), 2.0)

    placed: list[Lesion] = []
    organ = "liver" if upper else "kidney"
    for _ in range(lesions):
        lift = float(rng.uniform(15, 60)) * (-1.0 if rng.uniform() < 0.75 else 1.0)
        found = _insert(
            canvas,
            canvas.labels == _LABELS[organ],
            "focal",
            float(rng.uniform(3, 14)),
            lift,
            float(rng.uniform(1, 4)),
        )
        placed += [found] if found else []
    return placed


def _kidney(canvas: Canvas, x: float, y: float, side: int, contrast: float) -> None:
    rng = canvas.rng
    kidney = canvas.blob(
        x, y, float(rng.uniform(19, 27)), float(rng.uniform(25, 33)), turn=side * -0.35, wobble=0.05
    )
    cortex = 32.0 + contrast * float(rng.uniform(0.7, 1.2))
    canvas.paint(Region(kidney.window, kidney.distance - np.float32(6.0)), _hu(canvas, "fat"), _LABELS["fat"])
    _paint(canvas, kidney, "kidney", cortex, 1.5)
    _paint(
        canvas,
        kidney.inset(float(rng.uniform(6, 8))),
        "kidney",
        30.0 + contrast * float(rng.uniform(0.3, 0.9)),
        3.0,
    )
    sinus = canvas.blob(
        x - side * 9.0, y, float(rng.uniform(8, 12)), float(rng.uniform(7, 12)), wobble=0.14, waves=7
    )
    _paint(canvas, sinus, "fat", -70.0, 2.0)


def _loop(canvas: Canvas, region: Region, inside: _Array, wall: float) -> None:
    """A piece of gut: wall, contents, and gas above a level."""
    rng = canvas.rng
    canvas.paint(region, _hu(canvas, "bowel") + 25.0, _LABELS["bowel"], within=inside, width=1.5)
    lumen = region.inset(wall)
    kind = rng.uniform()
    fill = _hu(canvas, "bowel") - 10.0 if kind < 0.75 else float(rng.uniform(120, 420))
    canvas.paint(lumen, fill, _LABELS["bowel"], within=inside, width=2.0)
    if rng.uniform() < 0.38:
        rows = canvas.axis[region.window[0]]
        if rows.size == 0:
            return
        level = np.float32(rng.uniform(float(rows[0]), float(rows[-1])))
        above = np.maximum(lumen.distance, rows[:, None] - level)
        canvas.paint(Region(region.window, above), _hu(canvas, "gas"), _LABELS["gas"], within=inside)


def _bowel(canvas: Canvas, inside: _Array, width: float, height: float, count: int) -> None:
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
