"""``fit``: from a denoiser, a layer and data to an explainer, from the cache where possible."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ctinv.adapters.base import Denoiser
from ctinv.adapters.errors import CtinvError

from .cache import cache_root, content_key, image_digest, publish
from .explainer import FORMAT, Explainer
from .fit_flow import fit_flow
from .fit_vae import fit_vae, load_vae, save_vae, shipped_vae
from .presets import Preset
from .presets import preset as find_preset
from .vae import VAE

__all__ = ["fit"]

Image = npt.NDArray[np.float32]
Progress = Callable[[str, int, int], None]


def fit(
    denoiser: Denoiser,
    layer: str,
    *,
    data: Any = None,
    preset: str | Preset = "small",
    overrides: Mapping[str, Any] | None = None,
    seed: int = 0,
    cache: bool = True,
    progress: Progress | None = None,
) -> Explainer:
    """Fit what is needed to explain one layer of a denoiser.

    Arguments:
        denoiser: From :func:`ctinv.adapters.load` or :func:`ctinv.adapters.wrap`, with its
            intensity known.
        layer: Any name of the layer.
        data: What to fit on: None for phantoms with simulated noise, the path of a folder of CT
            slices, or a sequence of low-dose slices (H, W) in HU.
        preset: Name of a preset, or a preset.
        overrides: Preset fields by dotted path, for example ``{"flow.blocks": 6}``.
        seed: Decides everything random.
        cache: Whether to look in the cache and to store there.
        progress: Called with (stage, done, total).

    Raises:
        LayerError: No such layer.
        IntensityError: The denoiser's units are not known.
        CtinvError: The data cannot be used, or the fit diverged.
    """
    found = denoiser.resolve(layer)
    chosen = find_preset(preset, overrides) if isinstance(preset, str) else preset
    started = time.perf_counter()
    images, described, split = _slices(data, chosen.vae.patch, seed, progress)
    loaded = time.perf_counter()
    digest = image_digest(images)
    vae, origin = _autoencoder(chosen, images, digest, seed, cache, progress)
    key = content_key(
        format=FORMAT,
        model=denoiser.fingerprint,
        intensity=str(denoiser.intensity),
        output=denoiser.output,
        layer=found.name,
        preset=chosen.as_dict(),
        data=digest,
        vae=_weights_digest(vae),
        seed=seed,
    )
    folder = cache_root() / "explainers" / key
    if cache and (folder / "config.json").is_file():
        return Explainer.load(folder, denoiser)
    result = fit_flow(denoiser, found.name, images, vae, chosen, seed, progress)
    info: dict[str, Any] = {
        "seed": seed,
        "data": described,
        "vae": origin,
        "scores": result.scores,
        "timings": {
            "data": round(loaded - started, 3),
            "fit": round(time.perf_counter() - loaded, 3),
        },
    }
    if split is not None:
        info["split"] = split
    explainer = Explainer(
        denoiser, found.name, chosen, vae, result.flow, result.embedder, result.geometry, info
    )
    if cache:
        info["key"] = key
        explainer.save(folder)
    return explainer


def _slices(
    data: Any, patch: int, seed: int, progress: Progress | None
) -> tuple[list[Image], str, dict[str, list[str]] | None]:
    """Slices to fit on, large enough for a patch, what they are in words, and how patients were divided."""
    split = None
    if data is None or isinstance(data, str | Path):
        from .data import fitting_set

        pairs = fitting_set(None if data is None else str(data), seed=0, progress=progress)
        images, described = list(pairs.low), str(pairs.description)
        if pairs.split is not None:
            split = {part: list(patients) for part, patients in pairs.split.items()}
    else:
        images = [np.asarray(getattr(s, "hu", s), dtype=np.float32) for s in data]
        described = f"{len(images)} slices given by the caller"
    usable = [
        np.ascontiguousarray(im)
        for im in images
        if im.ndim == 2 and min(im.shape) >= patch and bool(np.isfinite(im).all())
    ]
    if len(usable) < 2:
        raise CtinvError(
            f"the fitting data holds {len(usable)} usable slices of at least {patch}x{patch} pixels; "
            "give two or more"
        )
    return usable, described, split


def _weights_digest(vae: VAE) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(vae.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _autoencoder(
    chosen: Preset,
    images: Sequence[Image],
    digest: str,
    seed: int,
    cache: bool,
    progress: Progress | None,
) -> tuple[VAE, str]:
    """The shipped VAE of these sizes, else one fitted on the data, once per data set."""
    vae = shipped_vae(chosen.vae)
    if vae is not None:
        return vae, "shipped"
    key = content_key(format=FORMAT, vae=dataclasses.asdict(chosen.vae), data=digest, seed=seed)
    folder = cache_root() / "vaes" / key
    if cache and (folder / "vae.safetensors").is_file():
        return load_vae(folder / "vae.safetensors"), "fitted on the data"
    vae = fit_vae(images, chosen.vae, seed=seed, steps=chosen.fit.vae_steps, progress=progress)
    fitted = vae
    if cache:
        publish(folder, lambda where: save_vae(fitted, where / "vae.safetensors"))
    return vae, "fitted on the data"
