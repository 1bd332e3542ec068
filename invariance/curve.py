"""The invariance curve: how large a change may be that moves the layer by a given noise ratio."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_curve"]

_INK, _QUIET, _LINE = "#1a1d21", "#5a6270", "#1f4e79"


def draw_curve(axes: Axes, audit: Mapping[str, Any]) -> None:
    """Draw spread against noise ratio, both logarithmic.

    The dashed line is what a layer that forgets nothing would show: spread = ratio x noise. How far
    the curve lies above it is what the layer hides.

    Arguments:
        axes: Where to draw.
        audit: With the groups ``curve`` and ``map``.
    """
    points = sorted(
        (float(p["reached"]), float(p["value"]))
        for p in audit.get("curve", {}).values()
        if p.get("reached") and p.get("value")
    )
    groups = audit.get("map") or {}
    noise, shown = ((groups.get(key) or {}) for key in ("noise", "std"))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.tick_params(labelsize=9, labelcolor=_INK, length=3)
    axes.set_xlabel("noise ratio", fontsize=9, color=_INK, labelpad=1)
    axes.set_ylabel("std [HU]", fontsize=9, color=_INK, labelpad=1)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if not points:
        axes.text(0.5, 0.5, "blind to everything", transform=axes.transAxes, ha="center", color=_QUIET)
        return
    ratios, spreads = zip(*points, strict=True)
    axes.plot(ratios, spreads, color=_LINE, marker="o", markersize=3.5, linewidth=1.5)
    if noise.get("value"):
        axes.plot(
            ratios, [r * noise["value"] for r in ratios], color=_QUIET, linewidth=1, linestyle="--", zorder=0
        )
    if shown.get("rho"):
        axes.axvline(float(shown["rho"]), color=_QUIET, linewidth=0.6, zorder=0)
