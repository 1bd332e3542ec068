"""The tables, figures and findings of the method's paper, from the networks of the zoo.

    python benchmarks/paper.py --out DIR [--images PATH ...] [--data FOLDER] [--slices 6] [--preset small]

Chen's and Yang's networks are fitted once each at the three layers of the paper and at the output, and
explained on up to six slices. DIR receives ``fig1.png`` (both networks at their outputs on all slices),
``fig2.png`` (two slices, each network's three layers), ``findings.json`` and ``paper.md``, which holds
Table I and the four findings, each with the figure that decides it, its interval over slices and n.
What is explained already is taken from DIR, so that a run that was broken off goes on.

Each PATH is a CT slice or a folder of one series, such as a low-dose one of LDCT-and-Projection-data;
without any, phantoms are explained, whose noise is simulated. Fits are on phantoms unless ``--data``
says otherwise.

Source: Eulig, Ommer, Kachelriess, Reconstructing invariances of CT image denoising networks using
invertible neural networks, Proc. SPIE 12304, 2022
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ctinv import zoo
from ctinv.invariance import Explainer, fit
from ctinv.invariance.data import CTSlice, dose_pair, load, phantom
from ctinv.invariance.infra.files import write_files
from ctinv.invariance.infra.randomness import Purpose, rng
from ctinv.invariance.reporting.explanation import Explanation
from paper_figures import outputs_png, stages_png
from paper_findings import Case, findings, page

LAYERS = {"chen": ("conv1", "conv3", "conv5"), "yang": ("conv1", "conv7", "conv13")}
OUTPUTS = {"chen": "conv5", "yang": "conv15"}
_STAGED = 2  # slices of the second figure
_SIDE, _DOSE = 256, 0.25  # pixels and dose of a phantom


def slices(paths: Sequence[Path], count: int, seed: int) -> list[CTSlice]:
    """The slices to explain: spread evenly over what is given, or noisy phantoms.

    Arguments:
        paths: Files or folders of CT; none for phantoms.
        count: How many.
        seed: Draws the phantoms.
    """
    if not paths:
        numbers = rng(seed, Purpose.WORKLOAD)
        made = [phantom(numbers, _SIDE) for _ in range(count)]
        return [
            CTSlice(
                dose_pair(one.hu, one.spacing, _DOSE, numbers)[0], np.ones(one.hu.shape, bool), one.spacing
            )
            for one in made
        ]
    found = [one for path in paths for one in load(path).slices]
    some = np.linspace(0, len(found) - 1, min(count, len(found))).round().astype(int)
    return [found[k] for k in some]


def explain(
    network: str, images: Sequence[CTSlice], out: Path, data: str | None, preset: str, seed: int
) -> list[Case]:
    """Every analysis of one network that the figures need: the output of all slices, the rest of two."""
    wanted = list(dict.fromkeys((*LAYERS[network], OUTPUTS[network])))
    explainers: dict[str, Explainer] = {}
    cases = []
    for row, image in enumerate(images):
        for layer in wanted if row < _STAGED else [OUTPUTS[network]]:
            place = out / "analyses" / network / layer / str(row)
            if not (place / "result.json").is_file():
                if not explainers:
                    fits = fit(zoo.load(network), wanted, data=data, preset=preset, seed=seed)
                    explainers = dict(zip(wanted, fits, strict=True))
                explainers[layer].explain(image, seed=seed).save(place)
                print(f"{network} {layer}: slice {row + 1} of {len(images)}", flush=True)
            cases.append(Case(network, layer, row, Explanation.load(place)))
    return cases


def main() -> None:
    """Run what is missing, and write figures and page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=Path, nargs="+", default=[])
    parser.add_argument("--data")
    parser.add_argument("--slices", type=int, default=6)
    parser.add_argument("--preset", default="small")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    images = slices(given.images, given.slices, given.seed)
    cases = [
        case
        for network in LAYERS
        for case in explain(network, images, given.out, given.data, given.preset, given.seed)
    ]
    decided = findings(cases, OUTPUTS)
    origin = "CT slices" if given.images else "phantoms with simulated noise"
    write_files(
        given.out,
        {
            "fig1.png": outputs_png(cases, OUTPUTS),
            "fig2.png": stages_png(cases, LAYERS, _STAGED),
            "findings.json": json.dumps([dataclasses.asdict(one) for one in decided], indent=1).encode(),
            "paper.md": page(cases, decided, len(images), origin, given.preset).encode(),
        },
    )
    for one in decided:
        print(one.sentence)


if __name__ == "__main__":
    main()
