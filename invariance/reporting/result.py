"""The record of an analysis: images, audit and provenance, and the files that hold them."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
from ctinv.adapters._types import Image
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.audit.record import Audit, Bounds
from ctinv.invariance.infra.files import write_files
from ctinv.invariance.infra.records import plain

from .provenance import Provenance

__all__ = ["SCHEMA_VERSION", "AnalysisResult"]

SCHEMA_VERSION = 1

_REQUIRED = ("x", "denoised", "reconstruction", "samples", "mean", "std")
_OPTIONAL = ("std_flow", "quantiles", "reading", "std_noise")
_STACKS = ("samples", "quantiles")


@dataclass(frozen=True, eq=False)
class AnalysisResult:
    """One image seen through one layer: the images that the layer cannot tell apart.

    All arrays are float32 in HU and read-only.

    Arguments:
        x: The analysed image, (H, W).
        denoised: ``f(x)``, (H, W).
        reconstruction: ``D(E(x))``, what the VAE can express of ``x``, (H, W).
        samples: The first few invariances, (K, H, W); ``x''`` where samples are refined, else ``x'``.
        mean: Pixelwise mean of all (refined) samples, (H, W).
        std: Pixelwise standard deviation of all (refined) samples, (H, W); smoothed where the
            refined ones are few, see :func:`ctinv.invariance.explaining.analysis.spread_map`.
        std_flow: The same before refinement onto the layer's fibre, (H, W), where there was one.
        quantiles: Pixelwise quantiles of the flow's samples, before refinement, (Q, H, W), where they
            were asked for; ``meta.quantiles`` holds their shares. Each is exact to a sixteenth of
            the pixel's standard deviation.
        reading: ``x_R``, the image read back from the layer's output, (H, W), where it can be.
        std_noise: Pixelwise spread of refined noise realisations, (H, W), where there was refinement.
        audit: How far the images can be trusted.
        meta: Where they come from.
    """

    x: Image
    denoised: Image
    reconstruction: Image
    samples: Image
    mean: Image
    std: Image
    std_flow: Image | None = None
    quantiles: Image | None = None
    reading: Image | None = None
    std_noise: Image | None = None
    audit: Audit = field(default_factory=Audit)
    meta: Provenance = field(default_factory=Provenance)

    def __post_init__(self) -> None:
        shape = np.shape(self.x)
        if len(shape) != 2:
            raise ValueError(f"x has shape {shape}; an explanation is about one (H, W) image")
        for name in (*_REQUIRED, *_OPTIONAL):
            given = getattr(self, name)
            if given is None:
                continue
            array = np.asarray(given, dtype=np.float32).view()
            expected = (*array.shape[:1], *shape) if name in _STACKS else shape
            if array.shape != expected:
                raise ValueError(f"{name} has shape {array.shape}, x has {shape}")
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    @property
    def found(self) -> bool:
        """Whether there is a map to read: the audit may say that the layer hides nothing."""
        return self.audit.map.std is None or self.audit.map.std.found

    @property
    def bounds(self) -> Bounds:
        """What the layer hides, from below and from above, HU."""
        return self.audit.bounds

    @property
    def result(self) -> dict[str, Any]:
        """What ``result.json`` holds: plain JSON values; numbers that are not finite are None."""
        return {
            "schema_version": SCHEMA_VERSION,
            **self.meta,
            "shape": list(self.x.shape),
            "audit": plain(self.audit),
        }

    def save_answer(self, out_dir: str | Path) -> None:
        """Write what :meth:`load` reads, without pictures.

        Raises:
            CtinvError: The folder cannot be written.
        """
        write_files(out_dir, {"arrays.npz": self.npz_file(), "result.json": self.json_file()})

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            CtinvError: The folder holds no explanation, or one of a later version.
        """
        folder = Path(folder)
        try:
            result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
            version = int(result["schema_version"])
            audit, meta = Audit.from_json(result.get("audit") or {}), Provenance.from_json(result)
            with np.load(folder / "arrays.npz", allow_pickle=False) as stored:
                arrays = {f.name: stored[f.name] for f in fields(cls) if f.name in stored.files}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CtinvError(
                f"{folder} holds no readable explanation ({error}); give a folder that ctinv analyze wrote"
            ) from error
        if version > SCHEMA_VERSION:
            raise CtinvError(
                f"{folder} was written by a later ctinv (schema {version}, this one reads up to "
                f"{SCHEMA_VERSION}); update ctinv"
            )
        missing = [name for name in _REQUIRED if name not in arrays]
        if missing:
            raise CtinvError(f"{folder}/arrays.npz lacks {', '.join(missing)}; run ctinv analyze again")
        return cls(**arrays, audit=audit, meta=meta)

    def json_file(self) -> bytes:
        """``result.json``."""
        return (json.dumps(self.result, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode()

    def npz_file(self) -> bytes:
        """``arrays.npz``."""
        arrays = {name: getattr(self, name) for name in (*_REQUIRED, *_OPTIONAL)}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **{k: v for k, v in arrays.items() if v is not None})
        return buffer.getvalue()
