"""The audit as a flat table: one row per figure, with its unit, count and meaning."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np

__all__ = ["Score", "figure", "scores", "verdict"]

_TITLES = {
    "embedding.rmse": "Reconstruction error",
    "embedding.ssim": "Similarity of the reconstruction",
    "embedding.cut_off": "Finest detail of the reconstruction",
    "leakage.refined": "Leakage, refined",
    "leakage.flow_from_reconstruction": "Leakage before, from D(E(x))",
    "leakage.flow": "Leakage before, from x",
    "noise_ratio.refined": "Noise ratio, refined",
    "noise_ratio.flow": "Noise ratio before",
    "output.refined": "Change of f(x), refined",
    "output.flow": "Change of f(x) before",
    "flow.nll": "Held-out NLL of the flow",
    "flow.nll_shuffled": "The same, wrong z",
    "flow.nll_unconditional": "The same, no z",
    "flow.coverage": "Coverage error of the flow",
    "flow.error_ratio": "Overconfidence of the flow",
    "map.std": "Spread of the samples",
    "map.std_flow": "Spread before refinement",
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


def number(value: float) -> str:
    """A number with three significant digits, without exponents where they can be avoided.

    Example:
        >>> number(0.01234), number(1234.5), number(12), number(12.0), number(3e-7)
        ('0.0123', '1234', '12', '12.0', '3.00e-07')
    """
    size = abs(value)
    if isinstance(value, Integral) or size == 0:
        return f"{int(value)}"
    if size < 1e-4 or size >= 1e6:
        return f"{value:.2e}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(size)))}f}"


def scores(audit: Mapping[str, Any]) -> tuple[Score, ...]:
    """Every figure of an audit, in its order; groups are walked, sentences are left out.

    Example:
        >>> rows = scores({"leakage": {"value": 0.1, "n": 250}, "verdict": "fine"})
        >>> [(row.title, row.text, row.n) for row in rows]
        [('Leakage', '0.100', 250)]
    """
    return tuple(_walk(audit, ()))


def verdict(audit: Mapping[str, Any]) -> tuple[str, ...]:
    """The sentences that sum an audit up; none where the audit has none."""
    said = audit.get("verdict") or ()
    return (said,) if isinstance(said, str) else tuple(str(line) for line in said)


def _walk(audit: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[Score]:
    for key, entry in audit.items():
        here = (*path, str(key))
        if here == ("verdict",):
            continue
        if isinstance(entry, Mapping):
            if "value" in entry:
                yield _score(here, entry)
            else:
                yield from _walk(entry, here)
        elif isinstance(entry, Real) and not isinstance(entry, bool):
            yield _score(here, {"value": entry})


def _finite(value: Any) -> float | None:
    usable = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not usable:
        return None
    return int(value) if isinstance(value, Integral) else float(value)


def _score(path: tuple[str, ...], entry: Mapping[str, Any]) -> Score:
    key = ".".join(path)
    words = ", ".join(part.replace("_", " ") for part in path)
    count = entry.get("n")
    return Score(
        key=key,
        title=str(entry.get("title") or _TITLES.get(key) or words[:1].upper() + words[1:]),
        value=_finite(entry.get("value")),
        unit=str(entry.get("unit") or ""),
        n=int(float(count)) if isinstance(count, Real) else None,
        low=_finite(entry.get("low")),
        high=_finite(entry.get("high")),
        interval=str(entry.get("interval") or ""),
        meaning=str(entry.get("meaning") or ""),
    )


def figure(values: Any, unit: str, meaning: str, n: int | None = None) -> dict[str, Any]:
    """The median of some values, with their 90 % interval where there are several.

    Arguments:
        values: One value or several.
        unit: For example HU; empty for a ratio.
        meaning: One sentence for the reader.
        n: On how many draws a single value rests.

    Example:
        >>> figure([1.0, 2.0, 3.0], "HU", "Three.")["value"]
        2.0
    """
    values = np.atleast_1d(np.asarray(values, dtype=float))
    found: dict[str, Any] = {"value": float(np.median(values)), "unit": unit, "n": n or len(values)}
    if len(values) > 1:
        low, high = np.quantile(values, (0.05, 0.95))
        found.update(low=float(low), high=float(high), interval="90 %")
    return {**found, "meaning": meaning}
