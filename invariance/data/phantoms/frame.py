"""What every phantom has: skin, fat, muscle, spine, ribs and a table."""

from __future__ import annotations

import math

import numpy as np

from .canvas import Canvas, Region
from .tissues import LABELS, bone, fill, tone

__all__ = ["body", "ribs", "seams", "sheets", "spine"]


def _table(canvas: Canvas, below: float) -> None:
    rng = canvas.rng
    radius = float(rng.uniform(300.0, 700.0))
    for gap in (0.0, float(rng.uniform(12.0, 35.0))):
        y = below + float(rng.uniform(1.0, 12.0)) + gap
        ring = canvas.blob(0.0, y - radius, radius, radius)
        shell = Region(ring.window, np.abs(ring.distance) - np.float32(rng.uniform(0.5, 1.2)))
        lower = canvas.axis[shell.window[0], None] < np.float32(y - 45.0)
        shell = Region(shell.window, np.where(lower, np.float32(9.0), shell.distance).astype(np.float32))
        fill(canvas, shell, "table")


def body(canvas: Canvas, half_width: float, flat: float, fat: float) -> tuple[Region, float]:
    """Skin, subcutaneous fat and the muscle wall; gives the outline of the muscle and its half height."""
    rng = canvas.rng
    height = half_width * flat
    outline = canvas.blob(
        0.0, 0.0, half_width, height, wobble=0.012, power=float(rng.uniform(2.0, 2.5)), waves=6
    )
    _table(canvas, height)
    fill(canvas, outline, "skin")
    fill(canvas, outline.inset(float(rng.uniform(1.3, 2.2))), "fat")
    inner = canvas.blob(
        0.0,
        float(rng.uniform(-0.15, 0.35)) * fat * 0.4,
        half_width - fat * float(rng.uniform(0.8, 1.1)),
        height - fat * float(rng.uniform(0.75, 1.0)),
        wobble=0.012,
        power=2.25,
        waves=7,
    )
    fill(canvas, inner, "muscle")
    return inner, height - fat


def seams(canvas: Canvas, within: Region, count: int) -> None:
    """Thin fat planes between muscles."""
    rng = canvas.rng
    cover = canvas.cover(within)
    reach = canvas.size * canvas.spacing / 2
    fat = tone(canvas, "fat")
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
        canvas.paint(line, fat, LABELS["fat"], within=cover, opacity=float(rng.uniform(0.4, 1.0)))


def sheets(canvas: Canvas, within: Region, rx: float, ry: float, y0: float, depth: float) -> None:
    """Flat muscles around the rib cage (half axes rx, ry, centre y0), fat between them."""
    rng = canvas.rng
    cover = canvas.cover(within)
    canvas.paint(within, tone(canvas, "fat"), LABELS["fat"])
    muscle = tone(canvas, "muscle")
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
            canvas.paint(sheet, value, LABELS["muscle"], within=cover, width=float(rng.uniform(0.8, 3.0)))


def spine(canvas: Canvas, y: float, scale: float) -> None:
    """Vertebral body in front of the canal, with pedicles, transverse and spinous processes."""
    rng = canvas.rng
    rx, ry = 19.0 * scale * float(rng.uniform(0.9, 1.15)), 15.0 * scale * float(rng.uniform(0.9, 1.1))
    muscle = tone(canvas, "muscle")
    for side in (-1, 1):
        back = canvas.blob(side * 24.0 * scale, y + 30.0 * scale, 22.0 * scale, 15.0 * scale, wobble=0.06)
        fill(canvas, back, "muscle", muscle)
    back_y = y + ry + 9.0 * scale
    arms = float(rng.uniform(0.0, 1.0)) < 0.7
    for side in (-1, 1):
        bone(
            canvas,
            canvas.stroke(side * 11.0 * scale, y + ry * 0.7, side * 13.0 * scale, back_y, 4.5, 5.0),
            1.6,
        )
        if arms:
            tip = (side * float(rng.uniform(30, 42)) * scale, back_y + float(rng.uniform(-4, 10)))
            bone(canvas, canvas.stroke(side * 13.0 * scale, back_y, *tip, 5.0, 3.5), 1.8)
        bone(
            canvas, canvas.stroke(side * 12.0 * scale, back_y + 2, 0.0, back_y + 12.0 * scale, 4.0, 4.0), 1.5
        )
    spike = float(rng.uniform(12, 34)) * scale
    bone(canvas, canvas.stroke(0.0, back_y + 11.0 * scale, 0.0, back_y + 11.0 * scale + spike, 4.0, 3.0), 1.5)
    canal = canvas.blob(0.0, back_y + 1.0, 10.0 * scale, 8.5 * scale, wobble=0.03)
    fill(canvas, canal, "fat", float(rng.uniform(-60, 10)))
    fill(canvas, canal.inset(2.0), "cord")
    bone(canvas, canvas.blob(0.0, y, rx, ry, wobble=0.03), float(rng.uniform(1.0, 2.2)))


def ribs(canvas: Canvas, cage: tuple[float, float, float], count: int, gap: float) -> None:
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
            bone(canvas, rib, float(rng.uniform(1.0, 1.9)))
