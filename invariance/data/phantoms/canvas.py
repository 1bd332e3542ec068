"""A canvas in millimetres on which smooth shapes are painted in HU, with labels beside them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from ctinv.adapters._types import Image

__all__ = ["Canvas", "Region", "texture"]


@dataclass(frozen=True, eq=False)
class Region:
    """A shape on a part of the canvas: signed distance to its outline in mm, negative inside."""

    window: tuple[slice, slice]
    distance: Image

    def inset(self, mm: float) -> Region:
        """The same shape, smaller by so many mm all around."""
        return Region(self.window, self.distance + np.float32(mm))


class Canvas:
    """An image under construction; x runs right and y runs down, in mm from the middle.

    Arguments:
        size: Pixels along each side.
        spacing: Pixel spacing in mm.
        rng: Source of every random choice.
        hu: Background in HU.
    """

    def __init__(self, size: int, spacing: float, rng: np.random.Generator, hu: float = -1000.0) -> None:
        self.size = size
        self.spacing = spacing
        self.rng = rng
        self.hu: Image = np.full((size, size), hu, dtype=np.float32)
        self.labels = np.zeros((size, size), dtype=np.uint8)
        self.axis: Image = ((np.arange(size) - size // 2) * spacing).astype(np.float32)

    def _window(self, x: float, y: float, reach_x: float, reach_y: float) -> tuple[slice, slice]:
        def cut(centre: float, reach: float) -> slice:
            low = math.floor((centre - reach) / self.spacing) + self.size // 2
            high = math.ceil((centre + reach) / self.spacing) + self.size // 2 + 1
            return slice(min(max(low, 0), self.size), max(min(high, self.size), 0))

        return cut(y, reach_y), cut(x, reach_x)

    def blob(
        self,
        x: float,
        y: float,
        rx: float,
        ry: float,
        *,
        turn: float = 0.0,
        wobble: float = 0.0,
        power: float = 2.0,
        waves: int = 5,
    ) -> Region:
        """An ellipse, made irregular.

        Arguments:
            x: Centre, mm.
            y: Centre, mm.
            rx: Half axis, mm.
            ry: Half axis, mm.
            turn: Rotation in radians, from x towards y.
            wobble: Relative depth of random waves in the outline.
            power: 2 is an ellipse; more is squarer.
            waves: The shortest wave goes so often around.
        """
        grow = 1.0 + 3.0 * wobble
        reach_x = (abs(rx * math.cos(turn)) + abs(ry * math.sin(turn)) * 1.0) * grow + 4.0
        reach_y = (abs(rx * math.sin(turn)) + abs(ry * math.cos(turn)) * 1.0) * grow + 4.0
        window = self._window(x, y, reach_x, reach_y)
        dy = self.axis[window[0], None] - np.float32(y)
        dx = self.axis[None, window[1]] - np.float32(x)
        c, s = math.cos(turn), math.sin(turn)
        u = (dx * np.float32(c) + dy * np.float32(s)) / np.float32(rx)
        v = (dy * np.float32(c) - dx * np.float32(s)) / np.float32(ry)
        if power == 2.0:
            rho = np.sqrt(u * u + v * v)
        else:
            rho = (np.abs(u) ** np.float32(power) + np.abs(v) ** np.float32(power)) ** np.float32(1.0 / power)
        edge: Any = np.float32(1.0)
        if wobble > 0.0:
            phi = np.arctan2(v, u)
            edge = np.ones_like(phi)
            for k in range(2, waves + 1):
                depth = wobble * self.rng.normal() / (k - 1.0)
                edge += np.float32(depth) * np.cos(
                    np.float32(k) * phi + np.float32(self.rng.uniform(0, 6.283))
                )
        slope = np.sqrt((u / np.float32(rx)) ** 2 + (v / np.float32(ry)) ** 2) + np.float32(1e-6)
        return Region(window, (rho - edge) * np.maximum(rho, np.float32(1e-3)) / slope)

    def stroke(self, x0: float, y0: float, x1: float, y1: float, r0: float, r1: float) -> Region:
        """A straight line with round ends whose radius goes from r0 to r1, mm."""
        r = max(r0, r1) + 2.0 * self.spacing
        window = self._window((x0 + x1) / 2, (y0 + y1) / 2, abs(x1 - x0) / 2 + r, abs(y1 - y0) / 2 + r)
        dy = self.axis[window[0], None] - np.float32(y0)
        dx = self.axis[None, window[1]] - np.float32(x0)
        length = max((x1 - x0) ** 2 + (y1 - y0) ** 2, 1e-6)
        t = (dx * np.float32((x1 - x0) / length) + dy * np.float32((y1 - y0) / length)).clip(0.0, 1.0)
        away = np.hypot(dx - t * np.float32(x1 - x0), dy - t * np.float32(y1 - y0))
        return Region(window, away - (np.float32(r0) + t * np.float32(r1 - r0)))

    def paint(
        self,
        region: Region,
        hu: float | Image,
        label: int,
        *,
        width: float = 0.0,
        opacity: float = 1.0,
        within: Image | None = None,
    ) -> None:
        """Fill a shape; its edge is anti-aliased.

        Arguments:
            region: The shape.
            hu: A value, or a full-size image to take values from.
            label: Label where the shape covers more than half a pixel.
            width: Width of the edge in mm, one pixel at least: a slanted surface in a thick slice.
            opacity: Share of the slice thickness that the shape fills.
            within: Full-size cover (0 to 1) that the shape is cut to.
        """
        target = self.hu[region.window]
        if target.size == 0:
            return
        cover = (0.5 - region.distance / np.float32(max(width, self.spacing))).clip(0.0, 1.0)
        if within is not None:
            cover = cover * within[region.window]
        value = hu[region.window] if isinstance(hu, np.ndarray) else np.float32(hu)
        target += cover * np.float32(opacity) * (value - target)
        self.labels[region.window][cover * opacity > 0.5] = label

    def cover(self, region: Region, width: float = 0.0) -> Image:
        """Full-size cover (0 to 1) of a shape."""
        full = np.zeros_like(self.hu)
        full[region.window] = (0.5 - region.distance / np.float32(max(width, self.spacing))).clip(0.0, 1.0)
        return full


def texture(rng: np.random.Generator, size: int, spacing: float, scale: float, slope: float) -> Image:
    """A random field of mean 0 and standard deviation 1 with a power-law spectrum.

    Arguments:
        rng: Source of the field.
        size: Pixels along each side.
        spacing: Pixel spacing in mm.
        scale: Structures larger than this many mm do not grow further.
        slope: Power falls as frequency to the minus ``slope`` above ``1 / scale``.
    """
    from scipy import fft

    rows = np.fft.fftfreq(size, spacing)[:, None]
    columns = np.fft.rfftfreq(size, spacing)[None, :]
    power = (1.0 + (rows**2 + columns**2) * scale**2).astype(np.float32) ** np.float32(-slope / 4.0)
    power[0, 0] = 0.0
    white = rng.standard_normal((2, *power.shape), dtype=np.float32)
    field: Image = fft.irfft2((white[0] + 1j * white[1]) * power, s=(size, size)).astype(np.float32)
    return field / np.float32(field.std() + 1e-12)
