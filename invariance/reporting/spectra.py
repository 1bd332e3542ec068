"""The plots of a report: the curve, the coverage, the spectrum, and how the fit went."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from ctinv.invariance.audit.record import Audit
from ctinv.invariance.data.metrics import noise_power
from ctinv.invariance.networks.fit_record import FitRecord

from .plots import Axis, Line, line_plot

if TYPE_CHECKING:
    from markupsafe import Markup

    from .result import AnalysisResult

__all__ = ["calibration_plot", "curve_plot", "fit_plot", "spectrum_plot"]

_RINGS = 40


def curve_plot(audit: Audit) -> Markup | None:
    """Hidden spread against noise ratio, beside what a layer that forgets nothing would show."""
    points = sorted((p.reached, p.value) for p in audit.curve.values() if p.reached and p.value)
    lines = [Line("samples refined to each ratio", points)]
    noise = audit.map.noise
    if noise is not None and noise.value:
        straight = [(ratio, ratio * noise.value) for ratio, _ in points]
        lines.append(Line("a layer that forgets nothing", straight, dashed=True))
    told = "Spread of hidden changes in HU against the noise ratio, both logarithmic"
    return line_plot(told, lines, Axis("noise ratio", log=True), Axis("spread [HU]", log=True))


def calibration_plot(fit: FitRecord | None) -> Markup | None:
    """Share of true codes inside the flow's regions, against the level of each region."""
    calibration = fit.scores.calibration if fit and fit.scores else None
    if calibration is None:
        return None
    points = list(zip(calibration.levels, calibration.coverage, strict=True))
    lines = [
        Line(f"held-out codes, n = {calibration.pairs}", points),
        Line("right", [(0.0, 0.0), (1.0, 1.0)], dashed=True),
    ]
    told = "Share of held-out codes inside the flow's regions against the level of the region"
    ends = (0.0, 1.0)
    return line_plot(told, lines, Axis("level of the region", ends=ends), Axis("codes inside", ends=ends))


def spectrum_plot(e: AnalysisResult) -> Markup | None:
    """Power of the hidden changes and of what the denoiser takes away, by frequency."""
    if not len(e.samples) or min(e.x.shape) < 16:
        return None
    spacing = e.meta.spacing if e.meta.spacing and all(e.meta.spacing) else None
    unit = "1/mm" if spacing else "1/pixel"
    lines = []
    for name, changes in (
        ("samples − x", e.samples - e.x),
        ("x − f(x), what the denoiser takes away", (e.x - e.denoised)[None]),
    ):
        frequency, power = noise_power(changes, spacing or (1.0, 1.0), about="image").radial(_RINGS)
        lines.append(Line(name, list(zip(frequency.tolist(), power.tolist(), strict=True))[1:]))
    told = "Power spectrum of the samples' changes beside that of what the denoiser takes away"
    area = "mm²" if spacing else "pixel²"
    return line_plot(told, lines, Axis(f"frequency [{unit}]"), Axis(f"power [HU² {area}]", log=True))


def fit_plot(fit: FitRecord | None) -> Markup | None:
    """Losses of the flow over its training."""
    curve = fit.scores.curve if fit and fit.scores else None
    if not curve:
        return None
    tested = np.asarray([row[:3] for row in curve if len(row) >= 3], dtype=float)
    if not len(tested):
        return None
    lines = [
        Line(name, list(zip(tested[:, 0].tolist(), tested[:, column].tolist(), strict=True)))
        for name, column in (("held-out patches", 2), ("training patches", 1))
    ]
    told = "Negative log-likelihood of the flow over the steps of its fit, in bits per dimension"
    return line_plot(told, lines, Axis("steps"), Axis("NLL [bits/dim]"))
