"""Branching vessels of the phantoms' lungs and organs."""

from __future__ import annotations

import math

import numpy as np
from ctinv.adapters._types import Image

from .canvas import Canvas

__all__ = ["lung_vessels", "organ_vessels"]


def _tree(
    canvas: Canvas,
    within: Image,
    hu: float,
    label: int,
    start: tuple[float, float, float, float],
    limit: int,
) -> None:
    """Paint a tree of tapering strokes; ``start`` is x, y, direction and radius, in mm and radians."""
    rng = canvas.rng
    stack = [(*start, 0)]
    drawn = 0
    while stack and drawn < limit:
        x, y, angle, radius, depth = stack.pop(0)
        length = radius * float(rng.uniform(3.0, 7.0)) + 3.0
        end_x, end_y = x + length * math.cos(angle), y + length * math.sin(angle)
        end_radius = radius * float(rng.uniform(0.75, 0.92))
        # Vessels leave the slice: thin ones fill only a part of its thickness.
        fill = min(1.0, 0.25 + radius * 0.5) * float(rng.uniform(0.6, 1.0))
        canvas.paint(
            canvas.stroke(x, y, end_x, end_y, radius, end_radius), hu, label, within=within, opacity=fill
        )
        drawn += 1
        if end_radius < 0.45 or rng.uniform() < 0.12 * depth:
            continue
        for turn in (-1.0, 1.0):
            if rng.uniform() < 0.85:
                bend = turn * float(rng.uniform(0.1, 0.75))
                stack.append(
                    (end_x, end_y, angle + bend, end_radius * float(rng.uniform(0.6, 0.95)), depth + 1)
                )


def lung_vessels(canvas: Canvas, within: Image, hilum: tuple[float, float], hu: float, label: int) -> None:
    """Trees from both hila, and the cross-sections of the vessels that pass through the slice.

    Arguments:
        canvas: Where to draw.
        within: Cover of the lungs, (size, size).
        hilum: Distance of a hilum from the middle and its height, mm.
        hu: Of blood.
        label: Label to give.
    """
    rng = canvas.rng
    for side in (-1, 1):
        for _ in range(int(rng.integers(4, 9))):
            outward = (0.0 if side > 0 else math.pi) + float(rng.normal(0, 0.9))
            root = (
                side * hilum[0],
                hilum[1] + float(rng.normal(0, 14)),
                outward,
                float(rng.uniform(1.2, 3.6)),
            )
            _tree(canvas, within, hu, label, root, 26)
    rows, columns = np.nonzero(within > 0.99)
    if rows.size == 0:
        return
    for pick in rng.integers(rows.size, size=int(rng.integers(280, 500))):
        x, y = float(canvas.axis[columns[pick]]), float(canvas.axis[rows[pick]])
        half = 1.0 if x > 0 else -1.0
        away = math.hypot(x - half * hilum[0], y - hilum[1])
        radius = min(0.35 * float(rng.pareto(2.2)) + 0.5, 3.0) * max(0.55, 1.3 - away / 130.0)
        long = 0.4 * radius
        if rng.uniform() < 0.4:  # lies in the slice for a while
            radius, long = min(radius, 1.1), float(rng.uniform(3.0, 22.0))
        along = math.atan2(y - hilum[1], x - half * hilum[0]) + float(rng.normal(0, 0.5))
        piece = canvas.stroke(
            x,
            y,
            x + long * math.cos(along),
            y + long * math.sin(along),
            radius,
            radius * float(rng.uniform(0.5, 1.0)),
        )
        canvas.paint(
            piece,
            hu,
            label,
            within=within,
            opacity=min(1.0, 0.4 + 0.45 * radius) * float(rng.uniform(0.5, 1.0)),
        )


def organ_vessels(canvas: Canvas, within: Image, root: tuple[float, float], hu: float, label: int) -> None:
    """Faint trees inside a solid organ; arguments as in :func:`lung_vessels`, ``root`` in mm."""
    rng = canvas.rng
    for _ in range(int(rng.integers(3, 7))):
        start = (root[0], root[1], float(rng.uniform(0, 2 * math.pi)), float(rng.uniform(1.8, 4.5)))
        _tree(canvas, within, hu, label, start, 22)
