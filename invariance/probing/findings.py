"""What a probe found, in numbers, in sentences and as plain JSON values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from ctinv.adapters._types import Image
from ctinv.invariance.audit.record import Figure
from ctinv.invariance.infra.records import plain

from .hotelling import Detectability
from .lesions import Lesion, LesionGrid
from .observation import Shift
from .provenance import ProbeProvenance
from .recovery import Recovery

__all__ = ["KEPT", "LEVEL", "Finding", "Probe", "ProbeFigures", "figures", "result", "verdict"]

_PROBE_SCHEMA = 1

LEVEL = 3.0
"""Detectability from which on a lesion counts as visible: 98 % right decisions between two images."""

KEPT = 0.5
"""Share below which most of a lesion is lost, however low the noise: of its information, and of the energy
of the change that it makes. A trace of a strong lesion exceeds any level of d', but it is no lesion."""


@dataclass(frozen=True)
class Finding:
    """How well one lesion is told in the image, in the layer and in the denoiser's output.

    Arguments:
        lesion: The lesion, with its place.
        image: ``d'`` of the image ``x``.
        layer: ``d'`` of the layer.
        output: ``d'`` of ``f(x)``.
    """

    lesion: Lesion
    image: Detectability
    layer: Detectability
    output: Detectability

    @property
    def efficiency(self) -> float:
        """``(d' of the layer / d' of the image)^2``: the share of the lesion's information that is left."""
        if self.image.value <= 0:
            return math.nan
        return (max(self.layer.value, 0.0) / self.image.value) ** 2

    def says(self, level: float = LEVEL) -> str:
        """``visible`` to the layer, ``lost`` by it, or ``below the noise`` in the image already."""
        if self.layer.value >= level:
            return "visible"
        return "lost" if self.image.value >= level else "below the noise"

    def gain(self, of: str) -> float:
        """Length of the change in ``layer`` or ``output`` over that in the image."""
        change: float = getattr(self, of).change
        return change / self.image.change if self.image.change > 0 else math.nan

    def keeps(self, of: str, gain: float) -> bool:
        """Whether half of the lesion is left: of its information, or of the change that it should make.

        Arguments:
            of: ``image``, ``layer`` or ``output``.
            gain: What :meth:`gain` is for a lesion that nothing drops: a large one of the same contrast.
        """
        value: float = getattr(self, of).value
        informed = not math.isfinite(self.image.value) or value >= math.sqrt(KEPT) * self.image.value
        own = self.gain(of)
        return informed or not (math.isfinite(own) and gain > 0) or own >= math.sqrt(KEPT) * gain


@dataclass(frozen=True, eq=False)
class Probe:
    """What probing one layer with lesions found.

    Arguments:
        x: The slice (H, W), HU.
        signal: What the lesion adds, (H, W), HU.
        denoised: ``f(x)`` and ``f`` of the slice with the lesion, (2, H, W), HU; where the network
            crops, the border is that of ``x``.
        window: The observed part of the slice.
        finding: On the lesion asked for.
        shift: How far the lesion moves the layer, over how far noise does.
        meta: Where it comes from.
        grid: Sizes and contrasts of the map, where one was asked for.
        findings: One for each contrast and, within it, size of the grid.
        recovery: What samples of the layer's invariances keep of the lesion, where they were drawn.
    """

    x: Image
    signal: Image
    denoised: Image
    window: tuple[slice, slice]
    finding: Finding
    shift: Shift
    meta: ProbeProvenance
    grid: LesionGrid | None = None
    findings: tuple[Finding, ...] = ()
    recovery: Recovery | None = None

    @property
    def level(self) -> float:
        """The ``d'`` from which on a lesion counts as visible."""
        return LEVEL if self.meta.level is None else self.meta.level

    def map(self, of: str) -> npt.NDArray[np.float64]:
        """``d'`` in ``image``, ``layer`` or ``output``, (contrasts, sizes); empty without a grid."""
        values = np.array([getattr(f, of).value for f in self.findings], dtype=np.float64)
        return values.reshape(-1, len(self.grid.sizes)) if self.grid else values.reshape(0, 0)

    def thresholds(self, of: str) -> list[float | None]:
        """Per contrast the smallest size of the grid, mm, from which on all are visible; None if none.

        Visible means a ``d'`` of the level or more, and no mere trace of what the largest size shows.
        """
        sizes: list[float | None] = []
        count = len(self.grid.sizes) if self.grid else 1
        for start in range(0, len(self.findings), count):
            row = self.findings[start : start + count]
            largest = row[-1].gain(of)
            seen = [getattr(f, of).value >= self.level and f.keeps(of, largest) for f in row]
            visible = int(np.cumprod(seen[::-1]).sum())
            sizes.append(self.grid.sizes[-visible] if self.grid and visible else None)
        return sizes

    @property
    def verdict(self) -> list[str]:
        """The finding in plain sentences."""
        return verdict(self)

    @property
    def result(self) -> dict[str, Any]:
        """What ``result.json`` holds."""
        return result(self)


def verdict(probe: Probe) -> list[str]:
    """The finding in plain sentences: the lesion, the map, the samples."""
    name, finding, level = probe.meta.layer, probe.finding, probe.level
    layer, image = _short(finding.layer.value), _short(finding.image.value)
    what = f"a lesion of {finding.lesion}"
    said = finding.says(level)
    if said == "visible":
        lines = [f"Visible: {name} can tell {what} (d' {layer}; {image} in the image, {level:g} is visible)."]
    elif said == "lost":
        lines = [f"Lost: {name} cannot tell {what} (d' {layer}; {image} in the image, {level:g} is visible)."]
    else:
        lines = [
            f"Below the noise: {what} is not visible in the image itself (d' {image}, {level:g} is "
            f"visible; {name}: {layer})."
        ]
    if probe.grid:
        in_layer, in_image = probe.thresholds("layer"), probe.thresholds("image")
        for contrast, least, at_best in zip(probe.grid.contrasts, in_layer, in_image, strict=True):
            text = f"At {contrast:+g} HU {name} sees lesions {_from(least, probe.grid.sizes)}"
            lines.append(f"{text}; in the image they are visible {_from(at_best, probe.grid.sizes)}.")
    if probe.recovery is not None:
        lines.append(probe.recovery.sentence(name))
    return lines


def _from(size: float | None, sizes: tuple[float, ...]) -> str:
    return f"of no size up to {sizes[-1]:g} mm" if size is None else f"from {size:g} mm"


def _short(value: float) -> str:
    return f"{value:.1f}" if math.isfinite(value) else "beyond measure"


def result(probe: Probe) -> dict[str, Any]:
    """What ``result.json`` holds; numbers that are not finite are None."""
    grid = None
    if probe.grid:
        grid = {
            "sizes": list(probe.grid.sizes),
            "contrasts": list(probe.grid.contrasts),
            "detectability": {
                of: [[_finite(v) for v in row] for row in probe.map(of)]
                for of in ("image", "layer", "output")
            },
            "errors": [_finite(f.layer.error) for f in probe.findings],
            "thresholds": {of: probe.thresholds(of) for of in ("image", "layer", "output")},
            "findings": [f.says(probe.level) for f in probe.findings],
        }
    finding = probe.finding
    return {
        "schema_version": _PROBE_SCHEMA,
        "kind": "probe",
        **probe.meta,
        "shape": list(probe.x.shape),
        "units": "HU",
        "lesion": {
            "size": finding.lesion.size,
            "contrast": finding.lesion.contrast,
            "at": list(finding.lesion.at or ()),
        },
        "finding": finding.says(probe.level),
        "figures": plain(figures(probe)),
        "grid": grid,
        "samples": None if probe.recovery is None else probe.recovery.as_dict(),
        "verdict": verdict(probe),
    }


@dataclass(frozen=True)
class InEach:
    """``d'`` in the image, in the layer and in the denoiser's output."""

    image: Figure
    layer: Figure
    output: Figure


@dataclass(frozen=True)
class ChangeOverNoise:
    """How far the lesion moves the layer over how far noise does: around it, and over the whole slice."""

    local: Figure
    whole: Figure


@dataclass(frozen=True)
class ProbeFigures:
    """The figures on one lesion."""

    detectability: InEach
    efficiency: Figure
    noise_ratio: ChangeOverNoise


def figures(probe: Probe) -> ProbeFigures:
    """The figures on the lesion, each with unit, count and meaning."""
    finding, n = probe.finding, probe.meta.realisations
    low, high = _efficiency_range(finding)
    return ProbeFigures(
        InEach(
            _figure("d' in the image x", finding.image, n, "What the best linear observer makes of x."),
            _figure("d' in the layer", finding.layer, n, "The same observer on the layer's output."),
            _figure("d' in f(x)", finding.output, n, "The same observer on the denoised image."),
        ),
        Figure(
            value=finding.efficiency,
            n=n,
            low=low,
            high=high,
            interval=None if low is None else "95 %",
            meaning="(d' in the layer / d' in the image) squared: the share of the lesion's information "
            "that a linear observer still finds in the layer.",
            title="Efficiency",
        ),
        ChangeOverNoise(
            Figure(
                value=probe.shift.local,
                meaning="How far the lesion moves the layer there, over how far a noise realisation does.",
                title="Change over noise, around the lesion",
            ),
            Figure(
                value=probe.shift.whole,
                meaning="The same with the noise of the whole slice.",
                title="Change over noise, whole slice",
            ),
        ),
    )


def _figure(title: str, measured: Detectability, n: int | None, meaning: str) -> Figure:
    return Figure(
        value=measured.value,
        n=n,
        low=measured.value - 1.96 * measured.error,
        high=measured.value + 1.96 * measured.error,
        interval="95 %",
        meaning=meaning,
        title=title,
    )


def _efficiency_range(finding: Finding) -> tuple[float | None, float | None]:
    value = finding.efficiency
    if not math.isfinite(value) or finding.layer.value <= 0:
        return None, None
    # Layer and image see the same noise; what their errors share cancels, so this is on the wide side.
    share = math.hypot(finding.layer.error / finding.layer.value, finding.image.error / finding.image.value)
    return max(0.0, value * (1 - 1.96 * 2 * share)), value * (1 + 1.96 * 2 * share)


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
