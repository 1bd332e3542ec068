"""Maximum-likelihood fit of the conditional flow and its embedder for one layer."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from ctinv.adapters.base import Denoiser
from ctinv.adapters.errors import CtinvError
from torch import Tensor, nn

from .embed import Embedder, build_embedder
from .flow import ConditionalFlow
from .presets import FitConfig, Preset
from .representation import Geometry, RepresentationStore
from .tiles import STEP
from .vae import VAE

__all__ = ["FitResult", "draw_places", "encode_places", "fit_flow", "networks"]

Image = npt.NDArray[np.float32]
Progress = Callable[[str, int, int], None]
Place = tuple[int, int, int]


@dataclass(frozen=True)
class FitResult:
    """A fitted flow and embedder.

    Arguments:
        flow: The conditional flow.
        embedder: The embedder.
        geometry: How the layer's output lies over the image.
        scores: Held-out negative log-likelihood in bits per dimension, with the right contexts
            (``nll``), with contexts of other patches (``nll_shuffled``), steps and patches.
    """

    flow: ConditionalFlow
    embedder: Embedder
    geometry: Geometry
    scores: dict[str, Any]


def draw_places(images: Sequence[Image], count: int, patch: int, rng: np.random.Generator) -> list[Place]:
    """Places (slice, row, column) of patches, on the tile step, mostly inside the body.

    A patch without tissue (no pixel above -900 HU) is drawn one time in four.
    """
    places: list[Place] = []
    while len(places) < count:
        k = int(rng.integers(len(images)))
        limits = [(side - patch) // STEP for side in images[k].shape]
        row, column = (int(rng.integers(limit + 1)) * STEP for limit in limits)
        tissue = images[k][row : row + patch : 4, column : column + patch : 4] > -900
        if tissue.any() or rng.random() < 0.25:
            places.append((k, row, column))
    return places


def _rolled(image: Image, rng: np.random.Generator) -> Image:
    """The slice moved round by a random amount.

    A layer may be blind at some places of the image, and the embedder is told the place; what
    anatomy is to be expected must not depend on it, as it does not in a prior of patches.
    """
    shift = tuple(int(rng.integers(side)) for side in image.shape)
    return np.ascontiguousarray(np.roll(image, shift, (0, 1)))


def encode_places(vae: VAE, images: Sequence[Image], places: Sequence[Place]) -> tuple[Tensor, Tensor]:
    """Posterior mean and standard deviation of the codes of patches, each (N, code_dim)."""
    p = vae.config.patch
    parts = []
    for start in range(0, len(places), 256):
        tiles = np.stack([images[k][i : i + p, j : j + p] for k, i, j in places[start : start + 256]])
        with torch.no_grad():
            parts.append(vae.posterior(torch.from_numpy(tiles[:, None])))
    mean, log_var = (torch.cat(part) for part in zip(*parts, strict=True))
    return mean, (0.5 * log_var).exp()


def _rate(step: int, config: FitConfig) -> float:
    """Linear warm-up, then a cosine down to 2 %."""
    done = step / config.steps
    return min(1, (step + 1) / config.warmup) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))


@torch.no_grad()
def _held_out(
    flow: ConditionalFlow,
    embedder: Embedder,
    codes: Tensor,
    store: RepresentationStore,
    places: Sequence[Place],
) -> tuple[float, float]:
    """Mean NLL (bits/dim) with the right contexts and with contexts rolled by half the set."""
    parts = (places[k : k + 128] for k in range(0, len(places), 128))
    context = torch.cat([_embed(embedder, store, part) for part in parts])
    unit = flow.features * math.log(2)
    right = -flow.log_prob(codes, context).mean().item() / unit
    wrong = -flow.log_prob(codes, context.roll(len(codes) // 2, 0)).mean().item() / unit
    return right, wrong


def _embed(embedder: Embedder, store: RepresentationStore, places: Sequence[Place]) -> Tensor:
    context: Tensor = embedder(store.cut(places), store.where(places, embedder.code_size))
    return context


def networks(
    preset: Preset, geometry: Geometry, seed: int, generator: torch.Generator
) -> tuple[ConditionalFlow, Embedder]:
    """A flow and an embedder of the right sizes; ``seed`` draws weights, ``generator`` masks."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        flow = ConditionalFlow(preset.vae.code_shape, preset.flow, generator)
        embedder = build_embedder(
            geometry.channels,
            geometry.size,
            preset.vae.code_size,
            preset.flow.context,
            preset.flow.embed_width,
        )
    return flow, embedder


def fit_flow(
    denoiser: Denoiser,
    layer: str,
    images: Sequence[Image],
    vae: VAE,
    preset: Preset,
    seed: int,
    progress: Progress | None = None,
) -> FitResult:
    """Fit ``t`` and ``H`` on patches of CT slices.

    Arguments:
        denoiser: The denoiser.
        layer: Its layer.
        images: Low-dose slices (H, W) in HU, at least two; some are held out whole.
        vae: The fitted autoencoder.
        preset: Sizes and steps.
        seed: Decides everything random.
        progress: Called with (stage, done, total).

    Raises:
        CtinvError: Too few slices, or a loss that is not finite.
    """
    config, patch = preset.fit, preset.vae.patch
    rng = np.random.default_rng([seed, 1])
    generator = torch.Generator().manual_seed(seed)
    if len(images) < 2:
        raise CtinvError(f"{len(images)} slice is too few to fit on; give two or more")
    images = [_rolled(image, rng) for image in images]
    store = RepresentationStore(denoiser, layer, images, patch, progress)
    try:
        images = images[: store.count]
        held = max(1, round(config.holdout * len(images)))
        train = draw_places(images[held:], config.patches, patch, rng)
        train = [(k + held, i, j) for k, i, j in train]
        test = draw_places(images[:held], min(256, config.patches), patch, rng)
        mean, spread = encode_places(vae, images, train)
        test_mean, test_spread = encode_places(vae, images, test)
        test_codes = test_mean + test_spread * torch.randn(test_mean.shape, generator=generator)

        flow, embedder = networks(preset, store.geometry, seed, generator)
        first = min(512, len(train))
        embedder.initialise(store.cut(train[:first]))
        with torch.no_grad():
            start = mean[:first] + spread[:first] * torch.randn(mean[:first].shape, generator=generator)
            flow.initialise(start, _embed(embedder, store, train[:first]))
        best = _optimise(
            flow, embedder, store, train, (mean, spread), test, test_codes, config, generator, progress
        )
        scores = {
            **best,
            "patches": len(train),
            "held_out_patches": len(test),
            "slices": len(images) - held,
            "held_out_slices": held,
        }
        return FitResult(flow.eval(), embedder.eval(), store.geometry, scores)
    finally:
        store.close()


def _optimise(
    flow: ConditionalFlow,
    embedder: Embedder,
    store: RepresentationStore,
    train: Sequence[Place],
    codes: tuple[Tensor, Tensor],
    test: Sequence[Place],
    test_codes: Tensor,
    config: FitConfig,
    generator: torch.Generator,
    progress: Progress | None,
) -> dict[str, Any]:
    """Adam on the negative log-likelihood; keeps the weights that did best on held-out slices."""
    both = nn.ModuleList([flow, embedder])
    optimiser = torch.optim.Adam(both.parameters(), lr=config.rate)
    mean, spread = codes
    best: dict[str, Any] = {"nll": math.inf}
    weights = copy.deepcopy(both.state_dict())
    stale, order = 0, torch.empty(0, dtype=torch.long)
    for step in range(config.steps):
        if len(order) < config.batch:
            order = torch.cat([order, torch.randperm(len(train), generator=generator)])
        batch, order = order[: config.batch], order[config.batch :]
        noise = torch.randn((len(batch), flow.features), generator=generator)
        context = _embed(embedder, store, [train[k] for k in batch.tolist()])
        loss = -flow.log_prob(mean[batch] + spread[batch] * noise, context).mean()
        if not math.isfinite(loss.item()):
            raise CtinvError(
                f"the fit diverged at step {step} (loss {loss.item()}); lower fit.rate or check the data"
            )
        for group in optimiser.param_groups:
            group["lr"] = config.rate * _rate(step, config)
        optimiser.zero_grad()
        (loss / flow.features).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(both.parameters(), config.clip)
        optimiser.step()
        if progress:
            progress("flow", step + 1, config.steps)
        if (step + 1) % config.check == 0 or step + 1 == config.steps:
            right, wrong = _held_out(flow, embedder, test_codes, store, test)
            if right < best["nll"]:
                best = {"nll": right, "nll_shuffled": wrong, "steps": step + 1}
                weights, stale = copy.deepcopy(both.state_dict()), 0
            elif (stale := stale + 1) >= config.patience:
                break
    both.load_state_dict(weights)
    if progress:
        progress("flow", config.steps, config.steps)
    return best
