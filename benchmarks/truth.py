"""Whether ctinv finds what is known to be there: Gaussian images, planted blindness, the papers' layers,
and lesions that a network drops.

    python benchmarks/truth.py [--data FOLDER] [--image SLICE] [--seed N] [--only PARTS]
                               [--json FILE]

PARTS are gaussian, planted, layers and lesions; all where none are named. Without ``--data`` the fits are
made on phantoms, as ``ctinv analyze`` makes them; lesions are put into the explained slice, or, with
``--data`` and without ``--image``, into one of that data. The seed is a new one each time unless it is
given. Each line ends with the goal and whether it was reached.
"""

from __future__ import annotations

import argparse
import json
import secrets
import time
from pathlib import Path
from typing import Any

import numpy as np
from ctinv.invariance.data import CTSlice, default_slice, fitting_set, read
from truth_battery.gaussian import gaussian_truth
from truth_battery.layers import layer_truth
from truth_battery.lesions import lesion_truth
from truth_battery.planted import planted_truth

PARTS = ("gaussian", "planted", "layers", "lesions")


def judge(found: dict[str, Any]) -> list[tuple[str, str, str, bool]]:
    """Rows of what, value, goal and whether the goal is reached."""
    rows: list[tuple[str, str, str, bool]] = []

    def row(what: str, value: float, goal: str, reached: bool) -> None:
        rows.append((what, f"{value:.3g}", goal, reached))

    if gaussian := found.get("gaussian"):
        row(
            "Gaussian: relative error of the std map",
            gaussian["std_error"],
            "<= 0.05",
            gaussian["std_error"] <= 0.05,
        )
        off = gaussian["coverage_deviation_points"]
        row("Gaussian: largest error of coverage, points", off, "<= 2", off <= 2)
        row("Gaussian: smallest p of SBC", gaussian["sbc_p"], ">= 0.01", gaussian["sbc_p"] >= 0.01)
        row("Gaussian: p of TARP", gaussian["tarp_p"], ">= 0.01", gaussian["tarp_p"] >= 0.01)
    if planted := found.get("planted"):
        region, band = planted["region"], planted["band"]
        row("region: AUC of the map", region["auc"], ">= 0.999", region["auc"] >= 0.999)
        row("region: std where it sees, HU", region["seen_std"], "<= 2", region["seen_std"] <= 2)
        row("band: energy inside", band["energy_inside"], ">= 0.99", band["energy_inside"] >= 0.99)
        identity = planted["identity"]["std"]
        row("identity: std, HU", identity, "<= 1", identity <= 1)
        constant = planted["constant"]
        ratio = constant["std"] / constant["data_spread"]
        row("constant: std over the data's spread", ratio, "0.9 to 1.1", 0.9 <= ratio <= 1.1)
    for name, layer in found.get("layers", {}).items():
        reached = layer["leakage"] <= 0.05 or layer["std"] <= 1
        goal = "leakage <= 0.05 or std <= 1"
        row(f"{name}: std, HU (leakage {layer['leakage']:.2f})", layer["std"], goal, reached)
    if lesions := found.get("lesions"):
        for contrast, part in lesions["contrasts"].items():
            size = "none" if part["found_mm"] is None else f"{part['found_mm']:.1f} mm"
            truly = f"truly {lesions['true_mm']:.1f} mm"
            what = f"lesions of {contrast} HU: kept from {size} on, {truly}; grid steps"
            row(what, part["steps_off"], "<= 1", part["steps_off"] <= 1)
        for net, goal in (("dropper", "lost"), ("keeper", "visible")):
            said = lesions[net]
            what = f"lesions: the {net} of one of {lesions['lesion']}: {said['says']}; d' in the layer"
            row(what, said["layer"], goal, said["says"] == goal)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=" ".join(__doc__.split("\n\n")[0].split()))
    parser.add_argument("--data", help="folder of CT to fit on; phantoms where none is given")
    parser.add_argument("--image", help="slice to explain; one that ships with ctinv where none is given")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10_000))
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    parts = given.only.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"--only {', '.join(sorted(unknown))}: the parts are {', '.join(PARTS)}")
    found: dict[str, Any] = {"seed": given.seed, "seconds": {}}

    explained = read(given.image)[0] if given.image else default_slice()
    image = explained.hu
    fits = bool({"planted", "layers"} & set(parts)) or ("lesions" in parts and given.data and not given.image)
    pairs = fitting_set(given.data, seed=0) if fits else None
    slices = [s for s in pairs.low if not np.array_equal(s, image)] if pairs else []
    # Lesions want room: of CT that is given, the first slice that has some; else the slice explained.
    with_room = [explained]
    if pairs and given.data and not given.image:
        with_room = [
            CTSlice(hu, np.ones(hu.shape, bool), spacing)
            for hu, spacing in zip(pairs.low, pairs.spacings, strict=True)
        ]
    runs = {
        "gaussian": lambda: gaussian_truth(given.seed),
        "planted": lambda: planted_truth(slices, image, given.seed),
        "layers": lambda: layer_truth(slices, image, given.seed),
        "lesions": lambda: lesion_truth(with_room, given.seed),
    }
    for part in parts:
        started = time.perf_counter()
        found[part] = runs[part]()
        found["seconds"][part] = round(time.perf_counter() - started, 1)
        if given.json:
            given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"seed {given.seed}, seconds {found['seconds']}\n")
    print("| what | value | goal | reached |\n|---|---|---|---|")
    for what, value, goal, reached in judge(found):
        print(f"| {what} | {value} | {goal} | {'yes' if reached else 'NO'} |")


if __name__ == "__main__":
    main()
