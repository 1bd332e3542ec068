"""The order of the slices of a series, and what a user should know of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np

from .slices import CTSlice

__all__ = ["notes_on", "sort_slices", "steps_of"]


def sort_slices(slices: list[CTSlice]) -> list[CTSlice]:
    """By place along the slice normal, else by number, else as they come."""
    heights = [s.height for s in slices]
    numbers = [s.meta.get("instance") for s in slices]
    if all(h is not None for h in heights):
        times = _times(slices)
        order = sorted(
            range(len(slices)),
            key=lambda k: (
                str(slices[k].meta.get("phase", "")),
                times[k],
                heights[k],
                slices[k].meta.get("instance", 0),
                k,
            ),
        )
        return [slices[k] for k in order]
    if all(n is not None for n in numbers) and len(set(numbers)) == len(slices):
        return sorted(slices, key=lambda s: s.meta["instance"])
    return slices


def _times(slices: Sequence[CTSlice]) -> list[int]:
    """How often the place of each frame came before in its file; 0 for slices of files of their own."""
    if len({s.height for s in slices}) == 1:
        return [0] * len(slices)
    seen: Counter[tuple[object, ...]] = Counter()
    times = []
    for s in slices:
        place = (s.source, s.meta.get("phase"), None if s.height is None else round(s.height, 2))
        times.append(seen[place] if "frame" in s.meta else 0)
        seen[place] += 1
    return times


def notes_on(slices: Sequence[CTSlice]) -> Iterable[str]:
    """What a user should know of a series as a whole."""
    for kind in ("doubt", "remark"):
        yield from sorted({str(s.meta[kind]) for s in slices if kind in s.meta})
    phases = {s.meta["phase"] for s in slices if "phase" in s.meta}
    if len(phases) > 1:
        yield f"{len(phases)} phases at the same places"
    elif (most := max(_times(slices), default=0)) > 0:
        yield f"{most + 1} phases at the same places, as the order of the frames tells"
    elif len(slices) > 1 and len({s.height for s in slices} - {None}) == 1:
        yield "all slices lie at the same place"
    if len(slices) > 1 and all("frame" in s.meta and s.position is None for s in slices):
        yield "the file does not say where its frames lie"
    uids = [s.meta["sop_uid"] for s in slices if "sop_uid" in s.meta and "frame" not in s.meta]
    if len(set(uids)) < len(uids):
        yield "several slices have the same SOP instance UID; all are kept, as their pixels differ"
    steps = np.array(steps_of(slices))
    if len(steps) > 1 and (middle := float(np.median(steps))) > 0.0:
        wide = np.flatnonzero(steps > 1.5 * middle)
        if wide.size:
            missing = int(np.rint(steps[wide] / middle - 1.0).sum())
            yield f"{missing} slices seem to be missing: gaps of up to {steps.max():g} mm, else {middle:g} mm"
        elif float(steps.max() - steps.min()) > max(0.1 * middle, 0.01):
            yield f"slices lie unevenly, {steps.min():g} to {steps.max():g} mm apart"


def steps_of(slices: Sequence[CTSlice]) -> list[float]:
    """Distances of neighbouring slices of one phase in mm; none where places are not known."""
    return [
        b.height - a.height
        for a, b in pairwise(slices)
        if a.height is not None
        and b.height is not None
        and a.meta.get("phase") == b.meta.get("phase")
        and b.height >= a.height  # a phase that no tag tells begins anew at the bottom
    ]
