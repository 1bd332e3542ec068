"""Blindness that was put in on purpose: a region, a band of frequencies, nothing, everything."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from ctinv import adapters, invariance
from ctinv.invariance.fitting.patches import draw_places, rolled
from ctinv.invariance.infra.randomness import Purpose, rng
from ctinv.invariance.presets import preset as find_preset
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

__all__ = ["PLANTED", "Planted", "area_under_curve", "planted_truth"]

Image = npt.NDArray[np.float32]
PLANTED = ("region", "band", "identity", "constant")
LOW, HIGH = 0.08, 0.2
"""The band, in cycles per pixel, that the layer ``band`` takes out."""


def blob(seed: int, side: int = 512) -> npt.NDArray[np.bool_]:
    """A region of random shape that covers 40 % of a square."""
    rough = gaussian_filter(
        rng(seed, Purpose.TRUTH_REGION).standard_normal((side, side)), side / 12, mode="wrap"
    )
    return np.asarray(rough > np.quantile(rough, 0.6))


class _Region(nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        self.mask = torch.from_numpy(blob(seed).astype(np.float32))

    def seen(self, shape: tuple[int, int]) -> Tensor:
        rows, columns = (torch.arange(n) * self.mask.shape[0] // n for n in shape)
        return 1 - self.mask[rows][:, columns]

    def forward(self, x: Tensor) -> Tensor:
        return x * self.seen((x.shape[-2], x.shape[-1]))


class _Band(nn.Module):
    def keep(self, shape: tuple[int, int]) -> Tensor:
        radius = torch.hypot(torch.fft.fftfreq(shape[0])[:, None], torch.fft.rfftfreq(shape[1]))
        return ((radius < LOW) | (radius > HIGH)).float()

    def forward(self, x: Tensor) -> Tensor:
        shape = (x.shape[-2], x.shape[-1])
        return torch.fft.irfft2(torch.fft.rfft2(x) * self.keep(shape), s=shape)


class _Constant(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.ones_like(x)


class Planted(nn.Module):
    """A network that returns its input, with one layer per planted blindness.

    Arguments:
        seed: Draws the blind region.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.region = _Region(seed)
        self.band = _Band()
        self.identity = nn.Identity()
        self.constant = _Constant()

    def forward(self, x: Tensor) -> Tensor:
        for name in PLANTED:
            getattr(self, name)(x)
        return x + 0.0


def area_under_curve(positive: npt.ArrayLike, negative: npt.ArrayLike) -> float:
    """Chance that a value of the first kind exceeds one of the second; ties count half."""
    from scipy.stats import rankdata

    a, b = np.ravel(positive), np.ravel(negative)
    ranks = rankdata(np.concatenate([a, b]))
    return float((ranks[: a.size].sum() - a.size * (a.size + 1) / 2) / (a.size * b.size))


def planted_truth(
    slices: list[Image], image: Image, seed: int, preset: str = "small", refine: int = 64, **overrides: Any
) -> dict[str, dict[str, float]]:
    """Fit and explain the four layers on one image.

    Arguments:
        slices: What to fit on, (H, W) each, HU.
        image: What to explain, (H, W), HU.
        seed: Draws region, fit and samples.
        preset: Name of the preset.
        refine: Samples to refine.
        **overrides: Preset fields, with ``__`` for the dot.
    """
    denoiser = adapters.wrap(Planted(seed), intensity="hu", name="planted")
    changed = {key.replace("__", "."): value for key, value in overrides.items()}
    fits = dict(
        zip(
            PLANTED,
            invariance.fit(
                denoiser, list(PLANTED), data=slices, preset=preset, overrides=changed, seed=seed, cache=False
            ),
            strict=True,
        )
    )
    explained = {
        name: fits[name].explain(
            image, samples=max(50, refine), refine=refine, keep=refine, cache=False, seed=seed
        )
        for name in PLANTED
    }
    blind = denoiser_mask(seed, image.shape)
    region, band = explained["region"], explained["band"]
    assert region.std_flow is not None
    patch = find_preset(preset, changed).vae.patch
    found = {
        "region": {
            "auc": area_under_curve(region.std[blind], region.std[~blind]),
            "auc_before": area_under_curve(region.std_flow[blind], region.std_flow[~blind]),
            "seen_std": _rms(region.std[~blind]),
            "seen_std_before": _rms(region.std_flow[~blind]),
            "blind_std": _rms(region.std[blind]),
        },
        "band": {
            "energy_inside": _inside(band.samples - image),
            "std": _rms(band.std),
        },
        "identity": {"std": _rms(explained["identity"].std)},
        "constant": {
            "std": _rms(explained["constant"].std),
            "data_spread": data_spread(slices, patch, seed),
        },
    }
    for name in PLANTED:
        audit = explained[name].audit
        found[name]["leakage"] = audit["leakage"]["refined"]["value"]
        found[name]["leakage_before"] = audit["leakage"]["flow_from_reconstruction"]["value"]
    return found


def denoiser_mask(seed: int, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Where the layer ``region`` is blind, for images of one shape."""
    return np.asarray(_Region(seed).seen((shape[0], shape[1])).numpy() == 0)


def data_spread(slices: list[Image], patch: int, seed: int) -> float:
    """RMS over pixels of the spread of patches, drawn as a fit draws them, HU."""
    numbers = rng(seed, Purpose.TRUTH_PLACES)
    slices = [rolled(image, numbers) for image in slices]
    places = draw_places(slices, 2048, patch, numbers)
    stack = np.stack([slices[k][i : i + patch, j : j + patch] for k, i, j in places])
    return _rms(stack.std(0, dtype=np.float64))


def _inside(changes: Image) -> float:
    """Share of the energy of changes (K, H, W) inside the blind band."""
    power = torch.from_numpy(np.ascontiguousarray(changes)).double()
    spectrum = torch.fft.rfft2(power).abs().square()
    spectrum[..., 1:-1] *= 2
    kept = _Band().keep((changes.shape[-2], changes.shape[-1]))
    return float((spectrum * (1 - kept)).sum() / spectrum.sum())


def _rms(values: npt.ArrayLike) -> float:
    return float(np.sqrt(np.mean(np.square(np.asarray(values, dtype=np.float64)))))
