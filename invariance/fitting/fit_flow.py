"""Maximum-likelihood fit of the conditional flow and its embedder for one layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ctinv.adapters._types import Image, Progress
from ctinv.adapters.base import Denoiser
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.infra.checkpoints import Checkpoint
from ctinv.invariance.infra.distributed import World, world
from ctinv.invariance.infra.memory import hand_back
from ctinv.invariance.infra.randomness import Purpose, generator, rng
from ctinv.invariance.networks.embedder import Embedder
from ctinv.invariance.networks.fit_record import Calibration, FitScores
from ctinv.invariance.networks.fitted import build_networks
from ctinv.invariance.networks.flow import ConditionalFlow
from ctinv.invariance.networks.vae import VAE
from ctinv.invariance.presets import Preset
from ctinv.invariance.reading.reading import Reading
from ctinv.invariance.representation.geometry import Geometry
from torch import Tensor

from .calibration import calibrate_flow
from .flow_loop import Material, Objective, held_out_bits, optimise
from .patches import Place, denoised_slices, draw_places, encode_places, rolled
from .readings import fit_readings
from .stores import Blocks, RepresentationStore, open_stores, passes
from .temperature import rescale_temperature

__all__ = [
    "FitResult",
    "fit_flows",
]

_CODES = 4096  # that a flow is initialised on
_MOST_NUMBERS = 2e7  # of representations held in memory at once


@dataclass(frozen=True)
class FitResult:
    """A fitted flow and embedder.

    Arguments:
        layer: Canonical name of the layer.
        flow: The conditional flow.
        embedder: The embedder.
        geometry: How the layer's output lies over the image.
        reading: What the image is read back with, where the output is a map.
        scores: Figures on held-out patches.
        notices: What the user should know about the fit.
    """

    layer: str
    flow: ConditionalFlow
    embedder: Embedder
    geometry: Geometry
    reading: Reading | None
    scores: FitScores
    notices: tuple[str, ...] = ()


def fit_flows(
    denoiser: Denoiser,
    layers: Sequence[str],
    images: Sequence[Image],
    vae: VAE,
    preset: Preset,
    seed: int,
    *,
    checkpoints: Mapping[str, Checkpoint] | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Iterator[FitResult]:
    """Fit ``t`` and ``H`` of several layers on patches of CT slices, layer by layer.

    The denoiser runs once per slice for as many layers as find room on disk, 1.5 GB in all. What
    comes out for a layer does not depend on the others. Processes started by torchrun share the
    work: each takes ``fit.batch`` patches a step.

    Arguments:
        denoiser: The denoiser.
        layers: Canonical names of its layers.
        images: Low-dose slices (H, W) in HU, at least two; some are held out whole.
        vae: The fitted autoencoder.
        preset: Sizes and steps.
        seed: Decides everything random.
        checkpoints: Where the fits of layers are kept while they last.
        device: Where flow and embedder are trained; what comes back lies on the CPU.
        progress: Called with (stage, done, total).

    Yields:
        One result per layer, in their order.

    Raises:
        CtinvError: Too few slices, or a loss that is not finite.
    """
    numbers = rng(seed, Purpose.PLACES)
    if len(images) < 2:
        raise CtinvError(f"{len(images)} slice is too few to fit on; give two or more")
    images = [rolled(image, numbers) for image in images]
    denoised = denoised_slices(denoiser, images) if vae.config.conditional else None
    drawn = _draw(images, vae, preset, numbers, denoised)
    # Held-out patches come first: of wide layers only as many are kept as find room.
    blocks = Blocks(images, [*drawn.test, *drawn.train], preset.vae.patch)
    everyone = world()
    for group in passes(denoiser, layers, blocks):
        hand_back()
        read = fit_readings(denoiser, group, images, drawn.held, preset, seed, progress)
        hand_back()
        readings = {name: one.reading for name, one in read.items()}
        with open_stores(
            denoiser, group, blocks, readings=readings, world=everyone, progress=progress
        ) as stores:
            for layer, store in stores.items():
                told = _staged(progress, f"flow {layer}" if len(layers) > 1 else "flow")
                checkpoint = (checkpoints or {}).get(layer)
                material = drawn.first(store.count - len(drawn.test))
                hand_back()
                if layer in read:
                    places = [*material.test, *material.train]
                    store.tell(places, encode_places(vae, store.read_slices(), places, denoised)[0])
                    hand_back()
                result = _fit_one(layer, store, material, preset, seed, everyone, device, checkpoint, told)
                if layer in read:
                    decoded = _decoded(vae, store, material)
                    about = dataclasses.replace(read[layer].scores, decoded=decoded)
                    scores = dataclasses.replace(result.scores, reading=about)
                    result = dataclasses.replace(result, scores=scores)
                yield result
                store.close()


@dataclass(frozen=True)
class _Drawn:
    """Places to learn from and to be held against, and the codes of the patches there."""

    train: list[Place]
    test: list[Place]
    mean: Tensor
    spread: Tensor
    test_mean: Tensor
    test_spread: Tensor
    slices: int
    held: int

    def first(self, count: int) -> _Drawn:
        """With only so many patches to learn from.

        Raises:
            CtinvError: There would be none.
        """
        if count >= len(self.train):
            return self
        if count < 1:
            raise CtinvError("the layer is too large to be fitted; choose another, or a smaller vae.patch")
        return dataclasses.replace(
            self, train=self.train[:count], mean=self.mean[:count], spread=self.spread[:count]
        )


def _draw(
    images: Sequence[Image],
    vae: VAE,
    preset: Preset,
    rng: np.random.Generator,
    denoised: Sequence[Image] | None,
) -> _Drawn:
    config, patch = preset.fit, preset.vae.patch
    held = max(1, round(config.holdout * len(images)))
    train = [(k + held, i, j) for k, i, j in draw_places(images[held:], config.patches, patch, rng)]
    test = draw_places(images[:held], min(256, config.patches), patch, rng)
    learnt, held_out = (encode_places(vae, images, places, denoised) for places in (train, test))
    spread = preset.flow.jitter * learnt[0].std(0)
    learnt, held_out = ((mean, spread.expand_as(mean)) for mean, _ in (learnt, held_out))
    return _Drawn(train, test, *learnt, *held_out, slices=len(images) - held, held=held)


def _fit_one(
    layer: str,
    store: RepresentationStore,
    drawn: _Drawn,
    preset: Preset,
    seed: int,
    everyone: World,
    device: str,
    checkpoint: Checkpoint | None,
    progress: Callable[[int, int], None],
) -> FitResult:
    random = generator(seed, Purpose.FLOW_TRAINING)
    noise = torch.randn(drawn.test_mean.shape, generator=random)
    test_codes = drawn.test_mean + drawn.test_spread * noise
    reads = store.reading is not None
    flow, embedder = build_networks(preset, store.geometry, seed, random, reads=reads)
    numbers = store.geometry.channels * store.geometry.size[0] * store.geometry.size[1]
    first = min(len(drawn.train), max(64, min(512, int(_MOST_NUMBERS / numbers))))
    start = drawn.train[:first]
    with torch.no_grad():
        z = store.cut(start)
        embedder.initialise(z)
        many = min(len(drawn.train), _CODES)
        noise = torch.randn(drawn.mean[:many].shape, generator=random)
        codes = drawn.mean[:many] + drawn.spread[:many] * noise
        embedder.take_codes(codes)
        context = embedder(*store.inputs(start, embedder.code_size))
        # A fresh flow heeds only the reading; covariances take more codes than contexts are at hand.
        context = context[torch.arange(many) % len(context)]
        if reads:
            size = drawn.mean.shape[1] // embedder.code_size**2
            known = embedder.in_spreads(store.read_codes(drawn.train[:many]))
            context = torch.cat([context[:, :-size], known], 1)
        flow.initialise(codes, context)
        del z, context
        hand_back()
    objective = Objective(flow, embedder)
    everyone.shared(objective.state_dict().values())
    material = Material(store, drawn.train, drawn.mean, drawn.spread, drawn.test, test_codes)
    scores = optimise(objective.to(device), material, preset.fit, random, everyone, checkpoint, progress)
    objective.to("cpu").eval()
    if rescaling := rescale_temperature(objective, material, preset.fit.calibrated):
        nll, shuffled = held_out_bits(objective, material)
        scores = dataclasses.replace(scores, nll=nll, nll_shuffled=shuffled, **dataclasses.asdict(rescaling))
    scores = dataclasses.replace(
        scores,
        calibration=_calibration(objective, store, drawn, test_codes, preset.fit.calibrated, seed),
        patches=len(drawn.train),
        held_out_patches=len(drawn.test),
        slices=drawn.slices,
        held_out_slices=drawn.held,
    )
    notices = tuple(checkpoint.notices) if checkpoint else ()
    return FitResult(layer, flow, embedder, store.geometry, store.reading, scores, notices)


def _calibration(
    objective: Objective,
    store: RepresentationStore,
    drawn: _Drawn,
    test_codes: Tensor,
    pairs: int,
    seed: int,
) -> Calibration | None:
    """Tests of the flow's spread on some held-out patches; None where these are too few to tell."""
    count = min(pairs, len(drawn.test))
    if count < 8:
        return None
    known = drawn.mean + drawn.spread * torch.randn(
        drawn.mean.shape, generator=generator(seed, Purpose.CALIBRATION_LAW)
    )
    return calibrate_flow(
        objective.flow,
        objective.embedder,
        store,
        drawn.test[:count],
        test_codes[:count],
        known=known,
        seed=seed,
    )


@torch.no_grad()
def _decoded(vae: VAE, store: RepresentationStore, drawn: _Drawn) -> float | None:
    """RMS difference of ``D(E(x_R))`` and ``D(E(x))`` on held-out patches, HU.

    None for a decoder that depends on the denoiser's output, which is not kept for patches.
    """
    if vae.config.conditional:
        return None
    away = []
    for start in range(0, len(drawn.test), 64):
        some = slice(start, start + 64)
        images = vae.decode(drawn.test_mean[some])
        away.append((vae.decode(store.read_codes(drawn.test[some])) - images)[images > -900].double())
    return float(torch.cat(away).square().mean().sqrt())


def _staged(progress: Progress | None, stage: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(stage, done, total) if progress else None
