"""Samples a second of a preset, beside the published loop on the same weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from ctinv.adapters._types import Progress
from ctinv.invariance.data.tiling import grid
from ctinv.invariance.infra.randomness import Purpose, generator, torch_seed
from ctinv.invariance.networks.fitted import build_networks
from ctinv.invariance.networks.pretrained import shipped_vae
from ctinv.invariance.networks.vae import VAE
from ctinv.invariance.presets import Precision, Preset
from ctinv.invariance.presets import preset as find_preset
from ctinv.invariance.representation.geometry import Geometry
from ctinv.invariance.representation.maps import coordinates
from ctinv.invariance.sampling.decoder import prepared_decoder
from ctinv.invariance.sampling.inverse import FlowInverse
from ctinv.invariance.sampling.moments import Moments
from ctinv.invariance.sampling.sampler import Sampler, invariance_noise
from ctinv.invariance.sampling.slices import drawing_threads, one_each
from torch import Tensor

from .machine import machine, operations
from .published import PublishedLoop
from .timing import in_turns, middle, wait

__all__ = ["TOLERANCE", "bench_sampling"]

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2}
"""Relative error up to which the engine's images count as the published loop's."""
_CHANNELS = 32  # of the made-up representation
_SLICE = (512, 512)


def bench_sampling(
    preset: str | Preset = "small",
    *,
    device: str = "cpu",
    samples: int = 50,
    loop: int = 3,
    rounds: int = 3,
    precision: Precision = "float32",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Time the sampling of patches, end to end, in turns with the published loop.

    Networks have the preset's sizes and, where no weights ship, random weights: the speed does not
    depend on them. Both sides draw from the same noise; their images are compared.

    Arguments:
        preset: Name of a preset, or a preset.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        samples: Draws of a patch in a round of the engine; on a processor each thread has a patch.
        loop: Draws of the published loop in a round.
        rounds: Rounds that count, after one that does not.
        precision: Of the engine's decoder; the published loop runs in float32.
        progress: Called with (stage, done, total).

    Returns:
        Among others ``samples_per_s``, ``ratio_to_published_loop``, ``relative_error`` and ``equal``,
        ``gflop_per_sample`` after and ``gflop_published`` before the exact rewritings,
        ``share_of_matmul_rate`` (for the decoder's type), and
        ``seconds_per_slice`` for 250 draws of 512 x 512 pixels.
    """
    chosen = find_preset(preset) if isinstance(preset, str) else preset
    where = torch.device(device)
    sides = _Sides(chosen, where, samples, loop, precision)
    error = _relative_error(sides.first_of_engine(), sides.published())
    if progress:
        progress("timing", 0, 1)
    seconds = in_turns({"engine": sides.engine, "published": sides.published}, rounds, where)
    drawn = samples * sides.workers
    rate, rate_loop = drawn / middle(seconds["engine"]), loop / middle(seconds["published"])
    ratios = [(drawn / a) / (loop / b) for a, b in zip(seconds["engine"], seconds["published"], strict=True)]
    dtype = sides.sampler.dtype
    about = machine(where, dtype)
    work, work_loop = sides.operations()
    wait(where)
    if progress:
        progress("timing", 1, 1)
    tiles = len(grid(_SLICE, chosen.vae.patch, chosen.tile.overlap))
    return {
        "preset": chosen.name,
        "machine": about,
        "dtype": about["dtype"],
        "samples": samples,
        "workers": sides.workers,
        "rounds": rounds,
        "batch": sides.sampler.budget.batch,
        "samples_per_s": rate,
        "published_samples_per_s": rate_loop,
        "ratio_to_published_loop": middle(ratios),
        "seconds": seconds,
        "relative_error": error,
        "tolerance": TOLERANCE[dtype],
        "equal": error <= TOLERANCE[dtype],
        "gflop_per_sample": work / 1e9,
        "gflop_published": work_loop / 1e9,
        "gflops": rate * work / 1e9,
        "share_of_matmul_rate": rate * work / 1e9 / about["matmul_gflops"],
        "tiles_per_slice": tiles,
        "seconds_per_slice": 250 * tiles / rate,
    }


class _Sides:
    """The engine and the published loop, set up alike to draw samples of one patch.

    Arguments:
        chosen: The preset.
        where: Where both run.
        samples: Draws of a patch in a round of the engine.
        loop: Draws of the published loop in a round.
        precision: Of the engine's decoder.
    """

    def __init__(
        self, chosen: Preset, where: torch.device, samples: int, loop: int, precision: Precision
    ) -> None:
        self._where, self._samples, self._loop = where, samples, loop
        self._vae, self._flow, self._embedder, z = _networks(chosen)
        for module in (self._vae, self._flow, self._embedder):
            module.to(where)
        p, size = chosen.vae.patch, chosen.vae.code_size
        self._input = z.to(where), coordinates([(0, 0)], [(p, p)], p, size).to(where)
        self._denoised = torch.full((1, 1, p, p), 40.0, device=where) if chosen.vae.conditional else None
        self._published = PublishedLoop(self._vae, self._flow, self._embedder)
        self._vae.ready()
        # As for a slice: every thread draws a tile.
        self.workers = drawing_threads(where)
        self.sampler = Sampler(self._vae, self._flow, precision=precision, workers=self.workers)

    def engine(self) -> None:
        """One round: a patch for every thread."""
        list(one_each(self._tile, self.workers, self.workers))

    def _tile(self, number: int) -> None:
        with torch.inference_mode():
            context = self._embedder(*self._input)
        moments = Moments()
        for images in self.sampler.draw(0, number, self._samples, context, self._denoised):
            moments.add(images)

    def first_of_engine(self) -> Tensor:
        """The engine's samples from the noise of a round of the published loop, (loop, p, p), HU."""
        with torch.inference_mode():
            context = self._embedder(*self._input)
            images = self.sampler.draw(0, 0, self._loop, context, self._denoised)
            return torch.cat([i.cpu() for i in images])

    def published(self, count: int | None = None) -> Tensor:
        """One round of the published loop, or so many draws of it, (count, p, p), HU."""
        drawn = []
        for k in range(self._loop if count is None else count):
            v = invariance_noise(0, 0, k, k + 1, self._flow.features).to(self._where)
            drawn.append(self._published.draw(v, *self._input, self._denoised).cpu())
        return torch.cat(drawn)[:, 0]

    def operations(self) -> tuple[float, float]:
        """Floating-point operations of one sample: by the engine, by the published loop."""
        context = self._embedder(*self._input).detach()
        return (
            _operations(self._vae, self._flow, context, self._denoised),
            operations(lambda: self.published(1)),
        )


def _networks(chosen: Preset) -> tuple[VAE, Any, Any, Tensor]:
    """Autoencoder, flow and embedder of a preset, and a representation to embed."""
    p = chosen.vae.patch
    geometry = Geometry(True, 1.0, (0, 0), _CHANNELS, (p, p))
    numbers = generator(0, Purpose.WORKLOAD)
    flow, embedder = build_networks(chosen, geometry, 0, numbers)
    vae = shipped_vae(chosen.vae)
    if vae is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch_seed(0, Purpose.WORKLOAD))
            vae = VAE(chosen.vae)
    with torch.no_grad():
        # Fresh couplings are the identity and fresh attention adds nothing; neither may be skipped.
        for name, parameter in [*flow.named_parameters(), *vae.decoder.named_parameters()]:
            if name.endswith(("out.weight", "attention.gain")) and not parameter.any():
                parameter.copy_(0.02 * torch.randn(parameter.shape, generator=numbers))
    z = torch.randn(1, _CHANNELS, p, p, generator=numbers)
    return vae.eval(), flow.eval(), embedder.eval(), z


def _relative_error(samples: Tensor, wanted: Tensor) -> float:
    """Root mean square of the difference over the standard deviation of what is wanted."""
    return ((samples - wanted).double().square().mean().sqrt() / wanted.double().std()).item()


def _operations(vae: VAE, flow: Any, context: Tensor, denoised: Tensor | None) -> float:
    """Floating-point operations of one sample, once the context is there."""
    count = 2
    with torch.no_grad():
        inverse, decode = FlowInverse(flow).bind(context), prepared_decoder(vae)
    v = context.new_zeros((count, flow.features))
    codes = inverse(v)
    guide = None if denoised is None else denoised
    total = operations(lambda: inverse(v)) + operations(lambda: decode(codes, guide))
    return total / count if math.isfinite(total) else math.nan
