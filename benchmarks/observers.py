"""The observers beside those of DIDSR/LCD_CT, on the same regions of the same images.

    python benchmarks/observers.py FOLDER [--peer SRC]

FOLDER holds ``ground_truth.mhd`` and ``dose_NNN/signal_present|signal_absent`` as that project publishes
them; SRC is the folder ``src`` of a checkout of it. Without SRC only ctinv's figures are printed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ctinv.invariance import data
from ctinv.invariance.probing.observers.channels import channel_bank, eye_template, responses
from ctinv.invariance.probing.observers.study import Learned, Study, halves, judge, read_study

OFFSET = 1000.0
INSERTS = (14, 7, 5, 3)  # HU
READERS = 10
NAMES = {"lg": "LG_CHO_2D", "dog": "DOG_CHO_2D", "gabor": "GABOR_CHO_2D", "npw": "NPWE_2D"}


@dataclass(frozen=True, eq=False)
class Regions:
    """One insert at one dose."""

    dose: str
    insert: int
    diameter: int
    absent: np.ndarray
    present: np.ndarray


def regions(folder: Path) -> Iterator[Regions]:
    """Squares of four radii around each insert, as the peer cuts them."""
    from scipy.ndimage import center_of_mass, median_filter

    truth = data.read(folder / "ground_truth.mhd", offset=OFFSET)[0].hu
    masks = {hu: median_filter(np.abs(truth - hu) < 1, size=3) for hu in INSERTS}
    sides = {hu: int(np.ptp(np.nonzero(mask)[0])) + 1 for hu, mask in masks.items()}
    reach = max(sides.values())
    for dose in sorted(folder.glob("dose_*")):
        stacks = [
            np.stack([s.hu for s in data.read(dose / kind / f"{kind}.mhd", offset=OFFSET)])
            for kind in ("signal_absent", "signal_present")
        ]
        for hu, mask in masks.items():
            row, column = (round(c) for c in center_of_mass(mask))
            here = np.s_[:, row - reach : row + reach + 1, column - reach : column + reach + 1]
            yield Regions(dose.name, hu, sides[hu], stacks[0][here], stacks[1][here])


def ours(name: str, region: Regions) -> Study:
    """One observer of ctinv on one insert."""
    if name == "npw":
        flat = [r.reshape(len(r), -1).astype(np.float64) for r in (region.absent, region.present)]
        shape = region.absent.shape[1:]

        def template(i: Any, j: Any) -> Learned:
            change = (flat[1][j].mean(0) - flat[0][i].mean(0)).reshape(shape)
            return Learned(eye_template(change, None).ravel())

        return read_study(*flat, template, readers=READERS, paired=False)
    bank = channel_bank(name, region.absent.shape[1:], 2 / 3 * region.diameter)
    seen = [responses(r, bank) for r in (region.absent, region.present)]
    return judge(*seen, readers=READERS, paired=False)


def theirs(name: str, region: Regions) -> float:
    """Mean AUC of the peer's observer over the same readers: taught and judged on the same halves."""
    from lcdct import Observers

    given = region.present, region.absent
    made = {
        "lg": lambda: Observers.LG_CHO(*given, channel_width=2 / 3 * region.diameter),
        "dog": lambda: Observers.DOG_CHO(*given),
        "gabor": lambda: Observers.Gabor_CHO(*given),
        "npw": lambda: Observers.NPWE(*given),
    }[name]()
    absent, present = made.signal_absent, made.signal_present
    areas = []
    for reader in range(READERS):
        i, j = halves(0, reader, (len(absent), len(present)), paired=False)
        areas.append(made.perform_study(absent[i], present[j], absent[~i], present[~j])["auc"])
    return float(np.mean(areas))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--peer", type=Path)
    given = parser.parse_args()
    if given.peer:
        sys.path.insert(0, str(given.peer))
    print("| dose | insert | observer | AUC | its error | AUC of the peer | apart, in errors |")
    print("|---|---|---|---|---|---|---|")
    for region in regions(given.folder):
        for name, title in NAMES.items():
            study = ours(name, region)
            area, error = study.auc.value, study.auc.error
            line = f"| {region.dose} | {region.insert} HU | {title} | {area:.3f} | {error:.3f} |"
            if given.peer:
                mean = theirs(name, region)
                apart = (area - mean) / error if error else 0.0
                line += f" {mean:.3f} | {apart:+.2f} |"
            print(line)


if __name__ == "__main__":
    main()
