"""The fitted bundle for one layer of one denoiser, and what it makes of an image."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from ctinv.adapters.base import Denoiser
from ctinv.adapters.errors import CtinvError, ImageError

from .analysis import Request, analyse
from .cache import cache_root, content_key, image_digest, keep_newest, publish
from .embed import Embedder
from .explanation import Explanation
from .fit_flow import networks
from .fit_vae import load_vae, save_vae
from .flow import ConditionalFlow
from .presets import FitConfig, FlowConfig, Preset, TileConfig, VAEConfig
from .refine import RHO
from .representation import Geometry
from .vae import VAE

__all__ = ["FORMAT", "Explainer"]

FORMAT = 4
"""Version of the folder that :meth:`Explainer.save` writes."""

_KEPT = 100  # answers that the cache holds at most, some 10 MB each for slices of 512 x 512

Image = npt.NDArray[np.float32]
Progress = Callable[[str, int, int], None]


@dataclass(eq=False)
class Explainer:
    """Draws images that one layer of a denoiser cannot tell from a given image.

    Arguments:
        denoiser: The denoiser.
        layer: Canonical name of the layer.
        preset: Sizes and steps of the fit.
        vae: The autoencoder.
        flow: The conditional flow.
        embedder: The embedder.
        geometry: How the layer's output lies over the image.
        info: Where the fit comes from: seed, data, scores, timings.
        memory: Bytes that sampling may take; a quarter of what is free where None.
    """

    denoiser: Denoiser
    layer: str
    preset: Preset
    vae: VAE
    flow: ConditionalFlow
    embedder: Embedder
    geometry: Geometry
    info: dict[str, Any] = field(default_factory=dict)
    memory: int | None = None

    def explain(
        self,
        image: Any,
        *,
        samples: int = 250,
        seed: int = 0,
        keep: int = 5,
        refine: int | None = None,
        rho: float = RHO,
        quantiles: Sequence[float] = (),
        cache: bool = True,
        progress: Progress | None = None,
    ) -> Explanation:
        """Sample the layer's invariances at one image, refine and audit them.

        Arguments:
            image: One slice (H, W) in HU, an array or a :class:`ctinv.invariance.data.CTSlice`.
            samples: Draws of the flow per tile, two or more.
            seed: Decides the draws.
            keep: Whole sample images to keep.
            refine: Samples to move onto the layer's fibre; None for as many as take some 30 s on two
                cores, 0 for none.
            rho: Noise ratio that refined samples keep: the layer's change over the change that noise
                makes.
            quantiles: Shares whose pixelwise quantiles are wanted, such as 0.05 and 0.95; of the flow's
                samples, as refined ones are few.
            cache: Whether the answer may come from the cache, and goes there.
            progress: Called with (stage, done, total).

        Raises:
            ImageError: The image is not two-dimensional or not finite.
            CtinvError: Fewer than two samples, a noise ratio that is not positive, or a quantile that is
                not between 0 and 1.
        """
        if samples < 2:
            raise CtinvError(f"{samples} samples have no spread; ask for two or more")
        if not rho > 0:
            raise CtinvError(f"the noise ratio {rho:g} is not positive; 0.01 to 1 make sense")
        shares = tuple(float(share) for share in quantiles)
        if not all(0 < share < 1 for share in shares):
            raise CtinvError(
                f"the quantiles {', '.join(f'{share:g}' for share in shares)} are not all between 0 and 1; "
                "give shares such as 0.05 and 0.95"
            )
        x = _as_image(image)
        request = Request(samples, seed, min(keep, samples), refine, rho, shares)
        stored = self._stored(x, request) if cache else None
        if stored is not None and (stored / "result.json").is_file():
            found = Explanation.load(stored)
            stored.touch()
            return dataclasses.replace(found, meta={**found.meta, **_origin(image)})
        explanation = self._explain(image, x, request, progress)
        if stored is not None:
            publish(stored, explanation.save_answer)
            keep_newest(stored.parent, _KEPT)
        return explanation

    def _stored(self, x: Image, request: Request) -> Path | None:
        """Where the cache keeps this answer; a bundle that was not fitted here has no key."""
        if "key" not in self.info:
            return None
        key = content_key(
            format=FORMAT,
            fit=self.info["key"],
            image=image_digest([x]),
            **dataclasses.asdict(request),
        )
        return cache_root() / "explanations" / key

    def _explain(self, image: Any, x: Image, request: Request, progress: Progress | None) -> Explanation:
        found = analyse(self, x, request, getattr(image, "spacing", None), progress)
        meta = {
            **self._meta(),
            "seed": request.seed,
            "samples": request.samples,
            "refinement": found.refinement,
            **({"quantiles": list(request.quantiles)} if request.quantiles else {}),
            **_origin(image),
            "timings": {**self.info.get("timings", {}), **found.timings},
        }
        return Explanation(
            x=x,
            denoised=np.asarray(self.denoiser.denoise(x[None, None]))[0, 0],
            reconstruction=found.reconstruction,
            samples=found.samples,
            mean=found.mean,
            std=found.std,
            std_flow=found.std_flow,
            quantiles=found.quantiles,
            audit=found.audit,
            meta=meta,
        )

    def _meta(self) -> dict[str, Any]:
        layer = self.denoiser.resolve(self.layer)
        return {
            "model": self.denoiser.name,
            "model_hash": self.denoiser.fingerprint,
            "model_kind": self.denoiser.kind,
            "provider": self.denoiser.device,
            "layer": layer.name,
            "op": layer.op,
            "preset": self.preset.name,
            "preset_fields": self.preset.as_dict(),
            "units": "HU",
            "intensity": str(self.denoiser.intensity),
            "output": self.denoiser.output,
            "notices": list(self.denoiser.notices),
            "data": self.info.get("data"),
            "fit": {k: v for k, v in self.info.items() if k not in ("timings", "data")},
            "versions": _versions(),
        }

    # -- on disk --------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> Path:
        """Write the bundle as a folder of safetensors and JSON; the denoiser itself stays out.

        Raises:
            CtinvError: The folder cannot be written.
        """
        from safetensors.torch import save_file

        folder = Path(folder)
        config = {
            "format": FORMAT,
            "layer": self.layer,
            "model_hash": self.denoiser.fingerprint,
            "preset": self.preset.as_dict(),
            "geometry": dataclasses.asdict(self.geometry),
            "info": self.info,
            "versions": _versions(),
        }

        def write(where: Path) -> None:
            save_vae(self.vae, where / "vae.safetensors")
            save_file(_plain(self.flow), where / "flow.safetensors")
            save_file(_plain(self.embedder), where / "embedder.safetensors")
            (where / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

        publish(folder, write)
        return folder

    @classmethod
    def load(cls, folder: str | Path, denoiser: Denoiser) -> Explainer:
        """Read what :meth:`save` wrote.

        Arguments:
            folder: The bundle.
            denoiser: The denoiser it was fitted on.

        Raises:
            CtinvError: No readable bundle, one of a later version, or of another denoiser.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        folder = Path(folder)
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            if config["format"] != FORMAT:
                raise CtinvError(
                    f"{folder} has format {config['format']}, this ctinv reads {FORMAT}; fit again"
                )
            preset = _preset(config["preset"])
            geometry = _geometry(config["geometry"])
            vae = load_vae(folder / "vae.safetensors")
            # Masks and permutations come with the weights.
            flow, embedder = networks(preset, geometry, 0, torch.Generator().manual_seed(0))
            flow.load_state_dict(load_file(folder / "flow.safetensors"))
            embedder.load_state_dict(load_file(folder / "embedder.safetensors"))
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            raise CtinvError(f"{folder} holds no readable explainer ({error}); fit again") from error
        if config["model_hash"] != denoiser.fingerprint:
            raise CtinvError(
                f"{folder} was fitted on another denoiser (hash {config['model_hash'][:12]}, this one is "
                f"{denoiser.fingerprint[:12]}); fit again"
            )
        return cls(
            denoiser, config["layer"], preset, vae, flow.eval(), embedder.eval(), geometry, config["info"]
        )


def _origin(image: Any) -> dict[str, Any]:
    return {
        "spacing": getattr(image, "spacing", None),
        "source": str(getattr(image, "source", None) or "array"),
    }


def _as_image(image: Any) -> Image:
    array = np.asarray(getattr(image, "hu", image), dtype=np.float32)
    if array.ndim != 2 or min(array.shape) < 8:
        raise ImageError(f"the image has shape {array.shape}; one slice (H, W) of 8 pixels or more is needed")
    if not np.isfinite(array).all():
        raise ImageError("the image holds values that are not finite; replace them, for example by -1024 HU")
    return np.ascontiguousarray(array)


def _plain(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.contiguous() for k, v in module.state_dict().items()}


def _preset(stored: Mapping[str, Any]) -> Preset:
    vae = dict(stored["vae"])
    vae["widths"] = tuple(vae["widths"])
    return Preset(
        stored["name"],
        VAEConfig(**vae),
        FlowConfig(**stored["flow"]),
        FitConfig(**stored["fit"]),
        TileConfig(**stored["tile"]),
    )


def _geometry(stored: dict[str, Any]) -> Geometry:
    stored["offset"], stored["size"] = tuple(stored["offset"]), tuple(stored["size"])
    return Geometry(**stored)


def _versions() -> dict[str, str]:
    import importlib.metadata as metadata
    import platform

    found = {"python": platform.python_version()}
    for name in ("ctinv", "torch", "numpy", "zuko", "onnx", "onnxruntime-gpu", "onnxruntime", "pydicom"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
