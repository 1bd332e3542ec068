"""One layer of a denoiser with the networks fitted to it, and the folder that holds them."""

from __future__ import annotations

import dataclasses
import importlib.metadata as metadata
import json
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import torch
from ctinv.adapters.base import Denoiser
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.infra.cache import publish
from ctinv.invariance.infra.randomness import Purpose, torch_seed
from ctinv.invariance.infra.records import read
from ctinv.invariance.presets import Preset
from ctinv.invariance.reading.reading import Reading
from ctinv.invariance.representation.geometry import Geometry
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from .embedder import Embedder, build_embedder
from .fit_record import FitRecord
from .flow import ConditionalFlow
from .pretrained import load_vae, save_vae
from .vae import VAE

__all__ = ["FORMAT", "FittedLayer", "build_networks", "versions"]

FORMAT = 8
"""Version of the folder that :meth:`FittedLayer.save` writes."""


@dataclass(eq=False)
class FittedLayer:
    """One layer of a denoiser and the networks fitted to it.

    Arguments:
        denoiser: The denoiser.
        layer: Canonical name of the layer.
        preset: Sizes and steps of the fit.
        vae: The autoencoder.
        flow: The conditional flow.
        embedder: The embedder.
        geometry: How the layer's output lies over the image.
        reading: What the image is read back with; None where the layer's output is no map.
        info: What the fit rests on and how well it went.
        memory: Bytes that sampling may take; a quarter of what is free where None.
    """

    denoiser: Denoiser
    layer: str
    preset: Preset
    vae: VAE
    flow: ConditionalFlow
    embedder: Embedder
    geometry: Geometry
    reading: Reading | None = None
    info: FitRecord = field(default_factory=FitRecord)
    memory: int | None = None

    def save(self, folder: str | Path) -> Path:
        """Write the bundle as a folder of safetensors and JSON; the denoiser itself stays out.

        Raises:
            CtinvError: The folder cannot be written.
        """
        folder = Path(folder)
        publish(folder, self.write_into)
        return folder

    def write_into(self, where: Path) -> None:
        """Write the files of :meth:`save` into an empty folder.

        Raises:
            OSError: They cannot be written.
        """
        config = {
            "format": FORMAT,
            "layer": self.layer,
            "model_hash": self.denoiser.fingerprint,
            "preset": self.preset.as_dict(),
            "geometry": dataclasses.asdict(self.geometry),
            "reading": None if self.reading is None else self.reading.sizes,
            "info": self.info,
            "versions": versions(),
        }
        save_vae(self.vae, where / "vae.safetensors")
        save_file(_plain(self.flow), where / "flow.safetensors")
        save_file(_plain(self.embedder), where / "embedder.safetensors")
        if self.reading is not None:
            save_file(_plain(self.reading), where / "reading.safetensors")
        (where / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path, denoiser: Denoiser) -> Self:
        """Read what :meth:`save` wrote.

        Arguments:
            folder: The bundle.
            denoiser: The denoiser it was fitted on.

        Raises:
            CtinvError: No readable bundle, one of a later version, or of another denoiser.
        """
        folder = Path(folder)
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            if config["format"] != FORMAT:
                raise CtinvError(
                    f"{folder} has format {config['format']}, this ctinv reads {FORMAT}; fit again"
                )
            preset = read(Preset, config["preset"], exact=True)
            geometry = read(Geometry, config["geometry"], exact=True)
            info = read(FitRecord, config["info"])
            vae = load_vae(folder / "vae.safetensors")
            # Masks and permutations come with the weights.
            reading = None
            if config["reading"] is not None:
                reading = Reading(**config["reading"])
                reading.load_state_dict(load_file(folder / "reading.safetensors"))
                reading.eval().requires_grad_(False)
            flow, embedder = build_networks(preset, geometry, 0, torch.Generator(), reads=reading is not None)
            flow.load_state_dict(load_file(folder / "flow.safetensors"))
            embedder.load_state_dict(load_file(folder / "embedder.safetensors"))
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            raise CtinvError(f"{folder} holds no readable fit ({error}); fit again") from error
        if config["model_hash"] != denoiser.fingerprint:
            raise CtinvError(
                f"{folder} was fitted on another denoiser (hash {config['model_hash'][:12]}, this one is "
                f"{denoiser.fingerprint[:12]}); fit again"
            )
        networks = vae, flow.eval(), embedder.eval()
        return cls(denoiser.apart(), config["layer"], preset, *networks, geometry, reading, info)


def build_networks(
    preset: Preset, geometry: Geometry, seed: int, generator: torch.Generator, *, reads: bool = False
) -> tuple[ConditionalFlow, Embedder]:
    """A flow and an embedder of the right sizes.

    Arguments:
        preset: Sizes.
        geometry: How the layer's output lies over the image.
        seed: Draws the weights.
        generator: Draws masks and permutations.
        reads: Whether they are told the code of a reading.
    """
    shape = preset.vae.code_shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(seed, Purpose.FLOW_WEIGHTS))
        flow = ConditionalFlow(shape, preset.flow, generator, reads)
        embedder = build_embedder(
            geometry.channels,
            geometry.size,
            preset.vae.code_size,
            preset.flow.context,
            preset.flow.embed_width,
            shape if reads else None,
        )
    return flow, embedder


def _plain(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.contiguous() for k, v in module.state_dict().items()}


def versions() -> dict[str, str]:

    installed = {"python": platform.python_version()}
    for name in ("ctinv", "torch", "numpy", "zuko", "onnx", "onnxruntime-gpu", "onnxruntime", "pydicom"):
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed
