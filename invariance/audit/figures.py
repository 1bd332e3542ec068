"""One figure of an audit: a value with its unit, count, interval and meaning."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["figure"]


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
