"""Train and score the autoencoders that ship with ctinv.

    python benchmarks/train_vae.py FOLDER small --steps 4000 --out invariance/weights
    python benchmarks/train_vae.py FOLDER paper2024 --model chen --device cuda --imagenet resnet50.pth

FOLDER holds CT slices. Patients whose id is in HELD_OUT are kept for the scores. A training that was
interrupted goes on where it stood when the same command is given again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from ctinv import zoo
from ctinv.adapters.base import Denoiser
from ctinv.invariance.data import fitting_set
from ctinv.invariance.data.metrics import quality
from ctinv.invariance.data.tiling import grid, pad_to
from ctinv.invariance.fitting.fit_vae import fit_vae
from ctinv.invariance.fitting.patches import denoised_slices
from ctinv.invariance.fitting.vae_loop import VAETraining
from ctinv.invariance.infra.cache import content_key, image_digest
from ctinv.invariance.infra.checkpoints import Checkpoint
from ctinv.invariance.networks.pretrained import save_vae
from ctinv.invariance.networks.vae import VAE
from ctinv.invariance.presets import preset
from ctinv.invariance.sampling.slices import reconstruct
from ctinv.zoo.training.perceptual import Vgg19Features

HELD_OUT = (
    "TCGA-17-Z034",
    "TCGA-17-Z052",
    "TCGA-34-5236",
    "TCGA-50-6591",
    "TCGA-51-6867",
    "TCGA-60-2723",
    "TCGA-92-8065",
)
WINDOW = (488.0, 3024.0)  # centre and width in HU: from -1024 to 2000
Image = npt.NDArray[np.float32]


def score(vae: VAE, low: Image, high: Image, overlap: int, denoiser: Denoiser | None) -> dict[str, float]:
    """RMSE (HU), PSNR (dB over 3024 HU) and SSIM of D(E(low)) against the low and the high dose."""
    padded = pad_to(low, vae.config.patch)
    tiles = grid((padded.shape[0], padded.shape[1]), vae.config.patch, overlap)
    guide = denoised_slices(denoiser, [padded])[0] if denoiser else None
    out = reconstruct(vae, padded, tiles, guide)[: low.shape[0], : low.shape[1]]
    figures = {}
    for name, target in (("low_dose", low), ("full_dose", high)):
        found = quality(out, target, WINDOW)
        figures |= {f"rmse_{name}": found.rmse, f"psnr_{name}": found.psnr, f"ssim_{name}": found.ssim}
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("preset")
    parser.add_argument("--steps", type=int, help="else the preset's fit.vae_steps")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--half", action="store_true", help="compute in bfloat16 where that is safe")
    parser.add_argument("--model", help="zoo name of the denoiser that a conditional VAE depends on")
    parser.add_argument("--imagenet", help="ImageNet weights of the residual encoder, to start from")
    parser.add_argument("--vgg", help="VGG-19 weights for a perceptual loss (needs vae.perceptual)")
    parser.add_argument("--out", type=Path, default=Path("."))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    chosen = preset(given.preset, dict(item.split("=", 1) for item in given.set))
    steps = given.steps or chosen.fit.vae_steps
    denoiser = zoo.load(given.model) if given.model else None
    perceptual = Vgg19Features(given.vgg, -1024.0, 2000.0).to(given.device) if given.vgg else None
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

    key = content_key(
        preset=chosen.as_dict(), model=given.model, steps=steps, seed=given.seed, data=image_digest(images)
    )
    checkpoint = Checkpoint(given.out / "checkpoints", key)
    vae = fit_vae(
        images,
        chosen.vae,
        VAETraining(
            steps=steps,
            batch=chosen.fit.vae_batch,
            rate=chosen.fit.vae_rate,
            seed=given.seed,
            device=given.device,
            half=given.half,
        ),
        denoised=denoised_slices(denoiser, images) if denoiser else None,
        encoder_weights=given.imagenet,
        perceptual=perceptual,
        checkpoint=checkpoint,
        progress=progress,
    )
    scores: dict[str, dict[str, float]] = {}
    for region in sorted({pairs.regions[k] for k in test}):
        rows = [
            score(vae, pairs.low[k], pairs.high[k], chosen.tile.overlap, denoiser)
            for k in test
            if pairs.regions[k] == region
        ]
        scores[region] = {name: round(float(np.mean([r[name] for r in rows])), 3) for name in rows[0]}
        scores[region]["slices"] = len(rows)
    about = {
        "data": "TCIA TCGA-LUAD and TCGA-LUSC, low dose simulated",
        "held_out_patients": HELD_OUT,
        "training_slices": len(train),
        "steps": steps,
        "seed": given.seed,
        "scores": scores,
    }
    given.out.mkdir(parents=True, exist_ok=True)
    save_vae(vae, given.out / f"{given.preset}.safetensors", about)
    checkpoint.remove()
    print(json.dumps(about, indent=2))


if __name__ == "__main__":
    main()
