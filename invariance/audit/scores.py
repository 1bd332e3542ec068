"""The audit as a flat table: one row per figure, with its unit, count and meaning."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from numbers import Integral, Real
from typing import Any

from ctinv.invariance.infra.pages import number

from .record import Figure

__all__ = ["Score", "scores"]

_TITLES = {
    "embedding.rmse": "Error of the reconstruction D(E(x))",
    "embedding.ssim": "Similarity of D(E(x)) and x (SSIM)",
    "embedding.cut_off": "Finest detail that D(E(x)) carries",
    "leakage.refined": "Leakage of the refined samples",
    "leakage.flow_from_reconstruction": "Leakage before refinement, counted from D(E(x))",
    "leakage.flow": "Leakage before refinement, counted from x",
    "noise_ratio.refined": "Noise ratio of the refined samples",
    "noise_ratio.flow": "Noise ratio before refinement",
    "output.refined": "Change of f(x) by the refined samples",
    "output.flow": "Change of f(x) before refinement",
    "flow.nll": "Held-out NLL of the flow, given z",
    "flow.nll_shuffled": "Held-out NLL, given z of other patches",
    "flow.nll_unconditional": "Held-out NLL without z",
    "flow.coverage": "Coverage error of the flow",
    "flow.error_ratio": "Overconfidence of the flow",
    "bounds.lower": "Anatomy hidden, at least",
    "bounds.noise": "Noise hidden, at least",
    "bounds.upper": "Hidden at most, on held-out slices",
    "bounds.upper_here": "Hidden at most, in this image",
    "bounds.reread": "Moved by the refined changes: the image read back",
    "bounds.decoded": "Hidden at most, as the autoencoder shows it",
    "bounds.decoded_held_out": "Hidden at most, as the autoencoder shows it, on held-out patches",
    "map.std": "Spread of the samples (RMS of the map)",
    "map.std_flow": "Spread of the samples before refinement",
    "map.noise": "Noise of the image",
}


@dataclass(frozen=True)
class Score:
    """One audit figure, ready to be shown.

    Arguments:
        key: Its path in the audit, parts joined by dots.
        title: What to call it.
        value: The number; None where it could not be computed.
        unit: For example HU; empty for a ratio.
        n: On how many draws or images it rests, where known.
        low: Lower end of an interval around the value, in the same unit.
        high: Upper end of it.
        interval: What the interval is, for example "5 % to 95 % of samples".
        meaning: One sentence for the reader.
    """

    key: str
    title: str
    value: float | None
    unit: str = ""
    n: int | None = None
    low: float | None = None
    high: float | None = None
    interval: str = ""
    meaning: str = ""

    @property
    def text(self) -> str:
        """Value, interval and unit, with as many digits as a reader needs.

        Example:
            >>> Score("a", "A", 41.2345, "HU", low=38.0, high=44.9).text
            '41.2 (38.0 to 44.9) HU'
            >>> Score("a", "A", None).text
            'not available'
        """
        if self.value is None:
            return "not available"
        shown = number(self.value)
        if self.low is not None and self.high is not None:
            shown += f" ({number(self.low)} to {number(self.high)})"
        return f"{shown} {self.unit}".strip()


def scores(record: Any) -> tuple[Score, ...]:
    """Every figure of an audit, or of another record of figures, in its order.

    Example:
        >>> from ctinv.invariance.audit.record import Audit, Leakage
        >>> [(row.title, row.text, row.n) for row in scores(Audit(leakage=Leakage(Figure(0.1, n=250))))]
        [('Leakage of the refined samples', '0.100', 250)]
    """
    return tuple(_walk(record, ()))


def _walk(record: Any, path: tuple[str, ...]) -> Iterator[Score]:
    if isinstance(record, Figure):
        yield _score(path, record)
    elif is_dataclass(record):
        for part in fields(record):
            yield from _walk(getattr(record, part.name), (*path, part.name))
    elif isinstance(record, Mapping):
        for key, entry in record.items():
            yield from _walk(entry, (*path, str(key)))


def _finite(value: Any) -> float | None:
    usable = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not usable:
        return None
    return int(value) if isinstance(value, Integral) else float(value)


def _score(path: tuple[str, ...], entry: Figure) -> Score:
    key = ".".join(path)
    words = ", ".join(part.replace("_", " ") for part in path)
    return Score(
        key=key,
        title=entry.title or _TITLES.get(key) or words[:1].upper() + words[1:],
        value=_finite(entry.value),
        unit=entry.unit or "",
        n=entry.n,
        low=_finite(entry.low),
        high=_finite(entry.high),
        interval=entry.interval or "",
        meaning=entry.meaning or "",
    )
