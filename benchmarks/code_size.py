"""How much of an image codes of different sizes carry, and what that does to a flow's samples.

    python benchmarks/code_size.py --image SLICE [--data FOLDER] [--model yang] [--layer conv7]
                                   [--steps 600] [--json FILE]

Every autoencoder is trained anew for the same number of steps on the same data, and a flow fitted on top of
it; then one slice, which must not be in that data, is explained without refinement. The error is that of
``D(E(x))`` against the slice. Leakage is that of the flow's samples against the reconstruction they vary.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from ctinv import invariance, zoo
from ctinv.invariance.data import read
from ctinv.invariance.presets import preset

# A vector as in the papers (256 numbers a patch), and maps.
SIZES = {
    "vector 256": {
        "vae.code_channels": 256,
        "vae.code_size": 1,
        "vae.widths": "128,128,128,128,96,64",
        "flow.width": 256,
    },
    "map 2x8x8": {"vae.code_channels": 2},
    "map 4x8x8": {"vae.code_channels": 4},
    "map 8x8x8": {"vae.code_channels": 8},
    "map 16x8x8": {"vae.code_channels": 16},
}


def measure(model: str, layer: str, image: Path, data: Path | None, steps: int) -> dict[str, dict[str, Any]]:
    """One row of figures for each code size, in HU and seconds."""
    x = read(image)[0]
    rows: dict[str, dict[str, Any]] = {}
    for name, size in SIZES.items():
        # Another sigma than that of weights that ship, so that none are taken.
        overrides = {**size, "fit.vae_steps": steps, "vae.sigma": 24.9}
        before = time.perf_counter()
        explainer = invariance.fit(
            zoo.load(model), layer, data=data, preset="small", overrides=overrides, cache=False
        )
        found = explainer.explain(x, samples=20, refine=0, cache=False)
        leakage = found.audit["leakage"]["flow_from_reconstruction"]["value"]
        rows[name] = {
            "numbers": preset("small", overrides).vae.code_dim,
            "error": found.audit["embedding"]["rmse"]["value"],
            "spread": float((found.std.astype(float) ** 2).mean() ** 0.5),
            "leakage": leakage,
            "seconds": time.perf_counter() - before,
        }
        print(json.dumps({name: rows[name]}), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--model", default="yang")
    parser.add_argument("--layer", default="conv7")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows = measure(given.model, given.layer, given.image, given.data, given.steps)
    print("| code | numbers | error of D(E(x)), HU | spread, HU | leakage |\n|---|---|---|---|---|")
    for name, row in rows.items():
        print(
            f"| {name} | {row['numbers']} | {row['error']:.1f} | {row['spread']:.1f} | {row['leakage']:.2f} |"
        )
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
