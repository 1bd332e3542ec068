"""Gaussian images seen through a linear layer: mean and covariance given ``z`` in closed form."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from ctinv import adapters
from ctinv.invariance.fitting.calibration import calibrate
from ctinv.invariance.fitting.fit_flow import fit_flows
from ctinv.invariance.infra.randomness import Purpose, generator, rng
from ctinv.invariance.presets import Preset, preset
from ctinv.invariance.representation.maps import coordinates
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Field", "PixelCode", "gaussian_truth"]

SCALE = 100.0  # HU
PATCH = 16
NOISE = 0.15  # jitter of a code about its image, in units of SCALE


class Field:
    """A periodic Gaussian random field: smooth texture plus a little white noise."""

    def __init__(self, side: int) -> None:
        f = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side))
        power = np.exp(-((f / 0.12) ** 2))
        self.power = power / power.mean() + 0.05
        self.side = side

    def draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Fields (count, side, side), HU."""
        white = np.fft.fft2(rng.standard_normal((count, self.side, self.side)))
        return (SCALE * np.fft.ifft2(white * np.sqrt(self.power)).real).astype(np.float32)

    def covariance(self) -> np.ndarray:
        """Covariance of the pixels of one patch, in units of SCALE squared."""
        correlation = np.fft.ifft2(self.power).real
        index = np.arange(PATCH)
        apart = (index[:, None] - index) % self.side
        return correlation[apart[:, None, :, None], apart[None, :, None, :]].reshape(PATCH**2, PATCH**2)


class PixelCode(nn.Module):
    """An autoencoder without error: the code is the patch itself, four channels of half the side."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    def posterior(self, x: Tensor, denoised: Tensor | None = None) -> tuple[Tensor, Tensor]:
        code = F.pixel_unshuffle(x / SCALE, 2).flatten(1)
        return code, torch.full_like(code, 2 * float(np.log(NOISE)))

    def decode(self, code: Tensor) -> Tensor:
        side = PATCH // 2
        return F.pixel_shuffle(code.reshape(-1, 4, side, side), 2) * SCALE


class Pooled(nn.Module):
    """A network whose layer ``pool`` keeps the mean of every 2x2 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        self.pool(x)
        return x


def sizes(steps: int, patches: int) -> Preset:
    """The sizes of this fit."""
    return preset(
        "small",
        {
            "vae.patch": PATCH,
            "vae.code_channels": 4,
            "vae.code_size": PATCH // 2,
            "vae.widths": (8,),
            "fit.steps": steps,
            "fit.patches": patches,
            "fit.patience": 1000,
            "fit.settled": 0.0,
            "fit.batch": 64,
            "flow.jitter": NOISE,  # the field has unit variance in units of SCALE
        },
    )


def gaussian_truth(
    seed: int, steps: int = 2000, fields: int = 300, contexts: int = 16, pairs: int = 2048, draws: int = 1000
) -> dict[str, Any]:
    """Fit a flow on Gaussian fields and hold it against the closed form.

    Returns:
        ``std_error`` (relative RMS of the std map, median over contexts), ``mean_error`` (RMS error of
        the mean over the conditional spread), and the calibration figures.
    """
    chosen = sizes(steps, 64 * fields)
    field, numbers = Field(128), rng(seed, Purpose.TRUTH_FIELD)
    vae: Any = PixelCode(chosen.vae)
    denoiser = adapters.wrap(Pooled(), intensity="hu")
    (fitted,) = fit_flows(denoiser, ["pool"], list(field.draw(fields, numbers)), vae, chosen, seed)
    flow, embedder = fitted.flow, fitted.embedder

    # Closed form: x given its pooled values, plus the posterior's spread.
    sigma = field.covariance()
    pool = np.kron(
        np.kron(np.eye(PATCH // 2), np.full((1, 2), 0.5)), np.kron(np.eye(PATCH // 2), np.full((1, 2), 0.5))
    )
    gain = sigma @ pool.T @ np.linalg.inv(pool @ sigma @ pool.T)
    conditional = sigma - gain @ pool @ sigma
    wanted = SCALE * np.sqrt(np.diag(conditional) + NOISE**2).reshape(PATCH, PATCH)

    fresh = torch.from_numpy(field.draw(max(pairs, contexts), numbers))[:, None]
    corner = 64  # far from the border, where the reading is another one
    part = (..., slice(corner, corner + PATCH), slice(corner, corner + PATCH))
    x = fresh[part].contiguous()
    with torch.no_grad():
        z = F.avg_pool2d(x, 2)
        where = coordinates([(corner, corner)] * len(x), [(128, 128)] * len(x), PATCH, PATCH // 2)
        read = None
        if fitted.reading is not None:
            image = fitted.reading(F.avg_pool2d(fresh, 2), fitted.geometry, (128, 128))
            read = vae.posterior(image[part])[0]
        context = embedder(z, where, read)

    normal = generator(seed, Purpose.TRUTH_DRAWS)

    @torch.no_grad()
    def draw(k: int, count: int) -> np.ndarray:
        v = torch.randn((count, flow.features), generator=normal)
        return flow.inverse(v, context[k : k + 1].expand(count, *context.shape[1:])).double().numpy()

    errors, means = [], []
    for k in range(contexts):
        images = vae.decode(torch.from_numpy(draw(k, draws)).float())[:, 0].numpy()
        mean = (gain @ z[k].flatten().double().numpy()).reshape(PATCH, PATCH)
        errors.append(np.sqrt(np.mean((images.std(0, ddof=1) / wanted - 1) ** 2)))
        means.append(np.sqrt(np.mean(((images.mean(0) - mean) / wanted) ** 2)))

    @torch.no_grad()
    def log_prob(codes: np.ndarray, k: int) -> np.ndarray:
        given = context[k : k + 1].expand(len(codes), *context.shape[1:])
        return flow.log_prob(torch.from_numpy(codes).float(), given).double().numpy()

    mean, log_var = vae.posterior(x[:pairs])
    codes = mean + (0.5 * log_var).exp() * torch.randn(mean.shape, generator=normal)
    found = calibrate(codes.double().numpy(), draw, log_prob, draws=128, seed=seed)
    # Entropy of the conditional law: no flow can have a lower likelihood.
    entropy = 0.5 * np.linalg.slogdet(2 * np.pi * np.e * (conditional + NOISE**2 * np.eye(PATCH**2)))[1]
    return {
        "std_error": float(np.median(errors)),
        "mean_error": float(np.median(means)),
        "nll": found.nll,
        "nll_bound": float(entropy / (PATCH**2 * np.log(2))),
        "coverage": dict(zip(map(str, found.levels), found.coverage, strict=True)),
        "coverage_deviation_points": found.deviation,
        "sbc_p": found.sbc_p,
        "sbc_failing": found.sbc_failing,
        "tarp_atc": found.tarp_atc,
        "tarp_p": found.tarp_p,
        "error_ratio": found.error_ratio,
        "passes": found.passes,
    }
