"""From a denoiser, its layers and data to fitted layers, from the cache where possible."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ctinv.adapters._types import Image, Progress
from ctinv.adapters.base import Denoiser
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.infra.cache import cache_root, content_key, image_digest
from ctinv.invariance.infra.checkpoints import Checkpoint
from ctinv.invariance.infra.distributed import World, world
from ctinv.invariance.infra.memory import freed_blocks_kept
from ctinv.invariance.infra.records import plain
from ctinv.invariance.infra.store import fetch, keep, made_once
from ctinv.invariance.networks.fit_record import FitRecord, Timings
from ctinv.invariance.networks.fitted import FORMAT, FittedLayer
from ctinv.invariance.networks.pretrained import load_vae, save_vae, shipped_vae
from ctinv.invariance.networks.vae import VAE
from ctinv.invariance.presets import Preset

from .fit_flow import FitResult, fit_flows
from .fit_vae import fit_vae
from .novelty import NoveltyTest, fit_novelty_test
from .patches import denoised_slices
from .vae_loop import VAETraining

__all__ = ["FitRequest", "fit_layers"]

_VAE = "vae.safetensors"
_NOVELTY_SLICES = 16  # fitting slices that the novelty test is learned from


@dataclass(frozen=True)
class FitRequest:
    """What is fitted, and how.

    Arguments:
        denoiser: The denoiser, with its intensity known.
        preset: Sizes and steps.
        seed: Decides everything random.
        cache: Whether to look in the cache and to store there, checkpoints included.
        device: Where to train, such as ``cuda:0``; None for where the denoiser runs.
        progress: Called with (stage, done, total).
    """

    denoiser: Denoiser
    preset: Preset
    seed: int = 0
    cache: bool = True
    device: str | None = None
    progress: Progress | None = None


def fit_layers(request: FitRequest, layers: Sequence[str], data: Any = None) -> list[FittedLayer]:
    """Fit the layers of a denoiser, or take them from the cache.

    Arguments:
        request: What is fitted, and how.
        layers: Canonical names of layers; a name may come twice.
        data: None for phantoms, the path of a folder, or low-dose slices (H, W) in HU.

    Raises:
        CtinvError: The data or the device cannot be used, or the fit diverged.
    """
    device = _training_device(request.device, request.denoiser)
    fit = _Fit(request.denoiser, request.preset, request.seed, request.cache, device, request.progress)
    ready = fit.layers(list(dict.fromkeys(layers)), data)
    return [ready[name] for name in layers]


@dataclass(frozen=True)
class _Fit:
    """One call of :func:`fit_layers`, its device known."""

    denoiser: Denoiser
    preset: Preset
    seed: int
    cache: bool
    device: str
    progress: Progress | None

    def layers(self, names: Sequence[str], data: Any) -> dict[str, FittedLayer]:
        """Each layer by name, from the cache or fitted."""
        everyone = world()
        started = time.perf_counter()
        with everyone.first():
            images, info = _slices(data, self.preset.vae.patch, self.cache, self.progress)
        digest = image_digest(images)
        vae, origin = self._autoencoder(images, digest, everyone)
        keys = {name: self._key(name, digest, vae, everyone) for name in names}
        ready = self._all_stored(keys, everyone)
        if len(ready) == len(names):
            return ready
        with self._alone((keys[name] for name in names if name not in ready), everyone):
            # Another process may have fitted some of them while we waited for our turn.
            ready |= self._all_stored({n: k for n, k in keys.items() if n not in ready}, everyone)
            preparing = info, vae, origin, images, started
            missing = {name: key for name, key in keys.items() if name not in ready}
            with freed_blocks_kept():
                return ready | self._fitted(missing, preparing, everyone)

    def _fitted(
        self,
        keys: Mapping[str, str],
        preparing: tuple[FitRecord, VAE, str, Sequence[Image], float],
        everyone: World,
    ) -> dict[str, FittedLayer]:
        """Layers that are not in the cache, by name."""
        info, vae, origin, images, started = preparing
        missing = list(keys)
        ready: dict[str, FittedLayer] = {}
        info = dataclasses.replace(
            info,
            seed=self.seed,
            vae=origin,
            processes=None if everyone.alone else everyone.size,
            habit=plain(self._novelty(vae, images)) if missing else None,
        )
        took = time.perf_counter() - started
        checkpoints = {name: Checkpoint(cache_root() / "checkpoints", keys[name]) for name in missing}
        before = time.perf_counter()
        for result in fit_flows(
            self.denoiser,
            missing,
            images,
            vae,
            self.preset,
            self.seed,
            checkpoints=checkpoints if self.cache else None,
            device=self.device,
            progress=self.progress,
        ):
            now = time.perf_counter()
            about = dataclasses.replace(
                info,
                scores=result.scores,
                timings=Timings(data=round(took, 3), fit=round(now - before, 3)),
                notices=(*(info.notices or ()), *result.notices) or None,
                key=keys[result.layer] if self.cache else None,
            )
            before, took = now, 0.0
            ready[result.layer] = self._finished(result, vae, about, checkpoints[result.layer], everyone)
        return ready

    def _finished(
        self, result: FitResult, vae: VAE, info: FitRecord, checkpoint: Checkpoint, everyone: World
    ) -> FittedLayer:
        networks = vae, result.flow, result.embedder, result.geometry, result.reading
        fitted = FittedLayer(self.denoiser, result.layer, self.preset, *networks, info)
        if info.key is not None and everyone.leads:
            keep(cache_root() / "explainers" / info.key, fitted.write_into)
            checkpoint.remove()
        return fitted

    def _novelty(self, vae: VAE, images: Sequence[Image]) -> NoveltyTest:
        """What the fitting slices look like, so that an image unlike them is told."""

        def denoise(x: Image) -> Image:
            return np.asarray(self.denoiser.denoise(x[None, None]), dtype=np.float32)[0, 0]

        return fit_novelty_test(
            vae,
            images,
            overlap=self.preset.tile.overlap,
            denoise=denoise if self.preset.vae.conditional else None,
            slices=_NOVELTY_SLICES,
            seed=self.seed,
        )

    def _alone(self, keys: Iterable[str], everyone: World) -> AbstractContextManager[None]:
        """While no other run that shares the cache makes the same."""
        return made_once(list(keys)) if self.cache and everyone.leads else nullcontext()

    def _all_stored(self, keys: Mapping[str, str], everyone: World) -> dict[str, FittedLayer]:
        """Those layers that the cache has."""
        stored = {name: self._stored(key, everyone) for name, key in keys.items()}
        return {name: layer for name, layer in stored.items() if layer is not None}

    def _stored(self, key: str, everyone: World) -> FittedLayer | None:
        def load(folder: Path) -> FittedLayer:
            return FittedLayer.load(folder, self.denoiser)

        fitted = fetch(cache_root() / "explainers" / key, load) if self.cache else None
        return fitted if everyone.all_have(fitted is not None) else None

    def _key(self, layer: str, digest: str, vae: VAE, everyone: World) -> str:
        fields = self.preset.as_dict()
        fields["fit"].pop("checkpoint")  # does not decide anything
        several = {} if everyone.alone else {"processes": everyone.size}
        return content_key(
            format=FORMAT,
            **self._model(),
            layer=layer,
            preset=fields,
            data=digest,
            vae=_weights_digest(vae),
            seed=self.seed,
            device=self._kind(),
            **several,
        )

    def _model(self) -> dict[str, str | None]:
        """What decides the denoiser's outputs."""
        denoiser = self.denoiser
        return {
            "model": denoiser.fingerprint,
            "intensity": str(denoiser.intensity),
            "output": denoiser.output,
        }

    def _kind(self) -> str:
        return self.device.partition(":")[0]

    def _autoencoder(self, images: Sequence[Image], digest: str, everyone: World) -> tuple[VAE, str]:
        """The shipped VAE of these sizes, else one fitted on the data, once per data set."""
        config = self.preset.vae
        vae = shipped_vae(config)
        if vae is not None:
            return vae, "shipped"
        fit = self.preset.fit
        training = {"steps": fit.vae_steps, "batch": fit.vae_batch, "rate": fit.vae_rate}
        model = self._model() if config.conditional else {}
        fields = dataclasses.asdict(config)
        key = content_key(
            format=FORMAT, vae=fields, data=digest, seed=self.seed, **training, **model, on=self._kind()
        )
        with self._alone([key], everyone):
            stored = (
                fetch(cache_root() / "vaes" / key, lambda place: load_vae(place / _VAE))
                if self.cache
                else None
            )
            if everyone.all_have(stored is not None):
                assert stored is not None
                return stored, "fitted on the data"
            return self._fitted_autoencoder(images, key, everyone), "fitted on the data"

    def _fitted_autoencoder(self, images: Sequence[Image], key: str, everyone: World) -> VAE:
        fit, config = self.preset.fit, self.preset.vae
        checkpoint = Checkpoint(cache_root() / "checkpoints", f"vae-{key}")
        vae = fit_vae(
            images,
            config,
            VAETraining(
                steps=fit.vae_steps if everyone.leads else 0,
                batch=fit.vae_batch,
                rate=fit.vae_rate,
                seed=self.seed,
                device=self.device,
                half=self._kind() == "cuda",
                every=fit.checkpoint,
            ),
            denoised=denoised_slices(self.denoiser, images) if config.conditional else None,
            checkpoint=checkpoint if self.cache and everyone.leads and fit.checkpoint else None,
            progress=self.progress,
        )
        everyone.shared(vae.state_dict().values())
        vae.ready()
        if self.cache and everyone.leads:
            keep(cache_root() / "vaes" / key, lambda place: save_vae(vae, place / _VAE))
            checkpoint.remove()
        return vae


def _training_device(asked: str | None, denoiser: Denoiser) -> str:
    """Where to train: as asked, else on the GPU that the denoiser runs on, else on the CPU.

    Raises:
        CtinvError: No such device.
    """
    import torch

    where = world().device(asked or denoiser.device)
    if not where.startswith("cuda"):
        return "cpu"
    if torch.cuda.is_available():
        return where
    if asked:
        raise CtinvError(f"device {asked!r} was asked for but PyTorch finds no GPU; use cpu")
    return "cpu"


def _slices(data: Any, patch: int, cache: bool, progress: Progress | None) -> tuple[list[Image], FitRecord]:
    """Slices to fit on, large enough for a patch, and what they are: in words, and who trains."""
    info = FitRecord()
    if data is None or isinstance(data, str | Path):
        from ctinv.invariance.data import fitting_set

        pairs = fitting_set(None if data is None else str(data), seed=0, progress=progress, cache=cache)
        images = list(pairs.low)
        split = pairs.split and {part: tuple(patients) for part, patients in pairs.split.items()}
        info = FitRecord(data=pairs.description, split=split, notices=pairs.notes or None)
    else:
        images = [np.asarray(getattr(s, "hu", s), dtype=np.float32) for s in data]
        info = FitRecord(data=f"{len(images)} slices given by the caller")
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
    return usable, info


def _weights_digest(vae: VAE) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(vae.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()
