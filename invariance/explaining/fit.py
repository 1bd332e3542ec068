"""``fit``: from a denoiser, a layer and data to an explainer, from the cache where possible."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt
from ctinv.adapters.base import Denoiser
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.fitting.fit_flow import FitResult, fit_flows
from ctinv.invariance.fitting.fit_vae import fit_vae
from ctinv.invariance.fitting.novelty import Habit, learn_habit
from ctinv.invariance.fitting.patches import denoised_slices
from ctinv.invariance.infra.cache import cache_root, content_key, image_digest, publish
from ctinv.invariance.infra.checkpoints import Checkpoint
from ctinv.invariance.infra.distributed import World, world
from ctinv.invariance.networks.fitted import FORMAT
from ctinv.invariance.networks.pretrained import load_vae, save_vae, shipped_vae
from ctinv.invariance.networks.vae import VAE
from ctinv.invariance.presets import Preset
from ctinv.invariance.presets import preset as find_preset

from .explainer import Explainer

__all__ = ["fit"]

_HABIT = 16  # fitting slices that familiarity is learned from

Image = npt.NDArray[np.float32]
Progress = Callable[[str, int, int], None]


@overload
def fit(  # type: ignore[overload-overlap]  # a name is a sequence too, but comes first
    denoiser: Denoiser,
    layer: str,
    *,
    data: Any = ...,
    preset: str | Preset = ...,
    overrides: Mapping[str, Any] | None = ...,
    seed: int = ...,
    cache: bool = ...,
    device: str | None = ...,
    progress: Progress | None = ...,
) -> Explainer: ...


@overload
def fit(
    denoiser: Denoiser,
    layer: Sequence[str],
    *,
    data: Any = ...,
    preset: str | Preset = ...,
    overrides: Mapping[str, Any] | None = ...,
    seed: int = ...,
    cache: bool = ...,
    device: str | None = ...,
    progress: Progress | None = ...,
) -> list[Explainer]: ...


def fit(
    denoiser: Denoiser,
    layer: str | Sequence[str],
    *,
    data: Any = None,
    preset: str | Preset = "small",
    overrides: Mapping[str, Any] | None = None,
    seed: int = 0,
    cache: bool = True,
    device: str | None = None,
    progress: Progress | None = None,
) -> Explainer | list[Explainer]:
    """Fit what is needed to explain one layer of a denoiser, or several.

    Several layers share the data, the autoencoder and the runs of the denoiser; each comes out as
    if it were fitted alone. With the cache, a fit that was interrupted goes on from its last
    checkpoint and ends with the same weights. Within torchrun all processes call this alike and
    share the work; each takes ``fit.batch`` patches a step, and process 0 alone writes.

    Arguments:
        denoiser: From :func:`ctinv.adapters.load` or :func:`ctinv.adapters.wrap`, with its
            intensity known.
        layer: Any name of the layer, or a sequence of names.
        data: What to fit on: None for phantoms with simulated noise, the path of a folder of CT
            slices, or a sequence of low-dose slices (H, W) in HU.
        preset: Name of a preset, or a preset.
        overrides: Preset fields by dotted path, for example ``{"flow.blocks": 6}``.
        seed: Decides everything random.
        cache: Whether to look in the cache and to store there, checkpoints included.
        device: Where to train, such as ``cuda:0``; None for where the denoiser runs.
        progress: Called with (stage, done, total).

    Returns:
        One explainer; for several layers a list, in their order.

    Raises:
        LayerError: No such layer.
        IntensityError: The denoiser's units are not known.
        CtinvError: The data cannot be used, or the fit diverged.
    """
    names = [denoiser.resolve(name).name for name in ([layer] if isinstance(layer, str) else layer)]
    chosen = find_preset(preset, overrides) if isinstance(preset, str) else preset
    request = _Request(denoiser, chosen, seed, cache, _training_device(device, denoiser), progress)
    found = request.explainers(list(dict.fromkeys(names)), data)
    return found[names[0]] if isinstance(layer, str) else [found[name] for name in names]


@dataclass(frozen=True)
class _Request:
    """One call of :func:`fit`."""

    denoiser: Denoiser
    preset: Preset
    seed: int
    cache: bool
    device: str
    progress: Progress | None

    def explainers(self, layers: Sequence[str], data: Any) -> dict[str, Explainer]:
        """An explainer for each layer, from the cache or fitted."""
        everyone = world()
        started = time.perf_counter()
        with everyone.first():
            images, described, split = _slices(data, self.preset.vae.patch, self.seed, self.progress)
        info: dict[str, Any] = {"seed": self.seed, "data": described}
        digest = image_digest(images)
        vae, info["vae"] = self._autoencoder(images, digest, everyone)
        keys = {name: self._key(name, digest, vae, everyone) for name in layers}
        found = {
            name: stored for name in layers if (stored := self._stored(keys[name], everyone)) is not None
        }
        missing = [name for name in layers if name not in found]
        if split is not None:
            info["split"] = split
        if not everyone.alone:
            info["processes"] = everyone.size
        if missing:
            info["habit"] = self._habit(vae, images).as_dict()
        prepared = time.perf_counter() - started
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
            timings = {"data": round(prepared, 3), "fit": round(now - before, 3)}
            before, prepared = now, 0.0
            own = {**info, "scores": result.scores, "timings": timings}
            if result.notices:
                own["notices"] = list(result.notices)
            found[result.layer] = self._finished(result, vae, own, keys, checkpoints, everyone)
        return found

    def _finished(
        self,
        result: FitResult,
        vae: VAE,
        info: dict[str, Any],
        keys: Mapping[str, str],
        checkpoints: Mapping[str, Checkpoint],
        everyone: World,
    ) -> Explainer:
        parts = vae, result.flow, result.embedder, result.geometry
        explainer = Explainer(self.denoiser, result.layer, self.preset, *parts, info)
        if self.cache:
            info["key"] = keys[result.layer]
            if everyone.leads:
                explainer.save(cache_root() / "explainers" / keys[result.layer])
                checkpoints[result.layer].remove()
        return explainer

    def _habit(self, vae: VAE, images: Sequence[Image]) -> Habit:
        """What the fitting slices look like, so that an image unlike them is told."""

        def denoise(x: Image) -> Image:
            return np.asarray(self.denoiser.denoise(x[None, None]), dtype=np.float32)[0, 0]

        conditional = self.preset.vae.conditional
        return learn_habit(
            vae,
            images,
            overlap=self.preset.tile.overlap,
            denoise=denoise if conditional else None,
            slices=_HABIT,
            seed=self.seed,
        )

    def _stored(self, key: str, everyone: World) -> Explainer | None:
        folder = cache_root() / "explainers" / key
        there = everyone.all_have(self.cache and (folder / "config.json").is_file())
        return Explainer.load(folder, self.denoiser) if there else None

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
        file = cache_root() / "vaes" / key / "vae.safetensors"
        if everyone.all_have(self.cache and file.is_file()):
            return load_vae(file), "fitted on the data"
        checkpoint = Checkpoint(cache_root() / "checkpoints", f"vae-{key}")
        vae = fitted = fit_vae(
            images,
            config,
            denoised=denoised_slices(self.denoiser, images) if config.conditional else None,
            seed=self.seed,
            steps=fit.vae_steps if everyone.leads else 0,
            batch=fit.vae_batch,
            rate=fit.vae_rate,
            device=self.device,
            half=self._kind() == "cuda",
            checkpoint=checkpoint if self.cache and everyone.leads and fit.checkpoint else None,
            every=fit.checkpoint,
            progress=self.progress,
        )
        everyone.shared(vae.state_dict().values())
        vae.ready()
        if self.cache and everyone.leads:
            publish(file.parent, lambda where: save_vae(fitted, where / file.name))
            checkpoint.remove()
        return vae, "fitted on the data"


def _training_device(asked: str | None, denoiser: Denoiser) -> str:
    """Where to train: as asked, else on the GPU that the denoiser runs on, else on the CPU.

    Raises:
        CtinvError: No such device.
    """
    import torch

    wanted = world().device(asked or denoiser.device)
    if not wanted.startswith("cuda"):
        return "cpu"
    if torch.cuda.is_available():
        return wanted
    if asked:
        raise CtinvError(f"device {asked!r} was asked for but PyTorch finds no GPU; use cpu")
    return "cpu"


def _slices(
    data: Any, patch: int, seed: int, progress: Progress | None
) -> tuple[list[Image], str, dict[str, list[str]] | None]:
    """Slices to fit on, large enough for a patch, what they are in words, and how patients were divided."""
    split = None
    if data is None or isinstance(data, str | Path):
        from ctinv.invariance.data import fitting_set

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
