"""How much a flow makes of ``z``: held-out likelihood with the right and with wrong representations.

For every layer of the zoo's denoisers the flow is fitted on made-up slices and held against patches
of other slices, once with their own representations and once with those of other patches. The gap,
in bits per dimension, is what the layer tells about the code; a flow that ignores ``z`` has none.

    python benchmarks/flow_nll.py [--preset small] [--set fit.steps=300] [--layer conv7] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ctinv import invariance, zoo
from ctinv.invariance.data import fitting_set
from ctinv.invariance.infra.records import plain


def measure(
    name: str, layers: list[str], preset: str, fields: dict[str, str], slices: int
) -> list[dict[str, Any]]:
    """One row per layer."""
    denoiser = zoo.load(name)
    data = list(fitting_set(None, slices=slices).low)
    fitted = invariance.fit(denoiser, layers, data=data, preset=preset, overrides=fields, cache=False)
    rows = []
    for one in fitted:
        scores, seconds = one.info.scores, one.info.timings.fit
        gap = scores.nll_shuffled - scores.nll
        rows.append({"model": name, "layer": one.layer, "gap": gap, **plain(scores), "seconds": seconds})
        print(
            f"{name:5} {one.layer:7} {scores.nll:7.3f} {scores.nll_shuffled:9.3f} {gap:7.3f}"
            f" {scores.steps:6d} {seconds:7.1f}",
            flush=True,
        )
    return rows


def main() -> None:
    """Measure, print a table, and fail where a gap is not positive."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="small")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.FIELD=VALUE")
    parser.add_argument("--model", action="append", choices=["chen", "yang"])
    parser.add_argument("--layer", action="append", help="only these layers")
    parser.add_argument("--slices", type=int, default=48, help="made-up slices to fit on")
    parser.add_argument("--json", type=Path, help="where to write the rows")
    given = parser.parse_args()
    fields = dict(pair.split("=", 1) for pair in given.set)
    print("model layer       nll  shuffled     gap  steps seconds   (bits per dimension, held-out slices)")
    rows = []
    for name in given.model or ["chen", "yang"]:
        layers = [layer.name for layer in zoo.load(name).layers]
        chosen = [layer for layer in layers if not given.layer or layer in given.layer]
        if chosen:
            rows += measure(name, chosen, given.preset, fields, given.slices)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    if not all(row["gap"] > 0 for row in rows):
        raise SystemExit("a flow ignores its representation")


if __name__ == "__main__":
    main()
