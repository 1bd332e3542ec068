"""Train and score the autoencoders that ship with ctinv.

    python benchmarks/train_vae.py FOLDER small --steps 4000 --out invariance/weights

FOLDER holds CT slices. Patients whose id is in HELD_OUT are kept for the scores.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from ctinv.invariance.data import fitting_set
from ctinv.invariance.fit_vae import fit_vae, save_vae
from ctinv.invariance.presets import preset
from ctinv.invariance.sampling import reconstruct
from ctinv.invariance.tiles import grid, pad_to
from ctinv.invariance.vae import VAE

HELD_OUT = (
    "TCGA-17-Z034",
    "TCGA-17-Z052",
    "TCGA-34-5236",
    "TCGA-50-6591",
    "TCGA-51-6867",
    "TCGA-60-2723",
    "TCGA-92-8065",
)
RANGE = 3024.0  # HU, from -1024 to 2000
Image = npt.NDArray[np.float32]


def score(vae: VAE, low: Image, high: Image, overlap: int) -> dict[str, float]:
    """RMSE (HU) and PSNR (dB over 3024 HU) of D(E(low)) against the low and the high dose."""
    padded = pad_to(low, vae.config.patch)
    tiles = grid((padded.shape[0], padded.shape[1]), vae.config.patch, overlap)
    out = reconstruct(vae, padded, tiles)[: low.shape[0], : low.shape[1]]
    figures = {}
    for name, target in (("low_dose", low), ("full_dose", high)):
        rmse = float(np.sqrt(np.mean((out - target.clip(-1024, 2000)) ** 2)))
        figures[f"rmse_{name}"] = rmse
        figures[f"psnr_{name}"] = 20 * math.log10(RANGE / rmse)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("preset")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=Path("."))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    chosen = preset(given.preset)
    pairs = fitting_set(given.folder, seed=given.seed)
    train = [k for k, p in enumerate(pairs.patients) if p not in HELD_OUT]
    test = [k for k, p in enumerate(pairs.patients) if p in HELD_OUT]
    # Both doses and one between: the encoder must cope with any noise.
    images = [pairs.low[k] for k in train] + [pairs.high[k] for k in train]
    images += [(pairs.low[k] + pairs.high[k]) / 2 for k in train]
    started = time.perf_counter()

    def progress(stage: str, done: int, total: int) -> None:
        if done % 100 == 0:
            print(
                f"{stage} {done}/{total} {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True
            )

    vae = fit_vae(images, chosen.vae, seed=given.seed, steps=given.steps, progress=progress)
    scores: dict[str, dict[str, float]] = {}
    for region in sorted({pairs.regions[k] for k in test}):
        rows = [
            score(vae, pairs.low[k], pairs.high[k], chosen.tile.overlap)
            for k in test
            if pairs.regions[k] == region
        ]
        scores[region] = {name: round(float(np.mean([r[name] for r in rows])), 2) for name in rows[0]}
        scores[region]["slices"] = len(rows)
    about = {
        "data": "TCIA TCGA-LUAD and TCGA-LUSC, low dose simulated",
        "held_out_patients": HELD_OUT,
        "training_slices": len(train),
        "steps": given.steps,
        "seed": given.seed,
        "scores": scores,
    }
    given.out.mkdir(parents=True, exist_ok=True)
    save_vae(vae, given.out / f"{given.preset}.safetensors", about)
    print(json.dumps(about, indent=2))


if __name__ == "__main__":
    main()
