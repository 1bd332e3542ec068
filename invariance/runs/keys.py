"""What decides the outcome of a case, as one key: a case whose key is there is not analysed again."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ctinv.adapters.base import Denoiser
from ctinv.invariance.data.io.stored import StoredSlice
from ctinv.invariance.infra.cache import content_key
from ctinv.invariance.infra.records import plain
from ctinv.invariance.networks.fitted import FORMAT
from ctinv.invariance.presets import Preset
from ctinv.invariance.reporting.result import SCHEMA_VERSION

__all__ = ["FitIdentity", "case_key", "files_key"]


@dataclasses.dataclass(frozen=True)
class FitIdentity:
    """What decides a fit, known before there is one.

    Arguments:
        preset: Sizes and steps.
        seed: Decides everything random in it.
        data: What it is fitted on, see :func:`files_key`; or the key of a fit that is there.
        processes: How many fit together.
    """

    preset: Preset | None
    seed: int | None
    data: str
    processes: int = 1


def case_key(
    denoiser: Denoiser, layer: str, one: StoredSlice, fit: FitIdentity, drawing: Mapping[str, Any]
) -> str:
    """SHA-256 (hex) of the model, the layer, the slice, the fit, the question and our version.

    Arguments:
        denoiser: The model, with its units known.
        layer: Any name of the layer.
        one: The slice.
        fit: What decides the fit.
        drawing: How samples are drawn: what ``Explainer.explain`` is given.
    """
    fields = None
    if fit.preset is not None:
        fields = fit.preset.as_dict()
        fields["fit"].pop("checkpoint")  # does not decide anything
    return content_key(
        version=importlib.metadata.version("ctinv"),
        formats=[FORMAT, SCHEMA_VERSION],
        model=denoiser.fingerprint,
        units=[str(denoiser.intensity), denoiser.output],
        layer=denoiser.resolve(layer).name,
        pixels=one.digest,
        spacing=plain(one.header.spacing),
        preset=fields,
        fit=[fit.seed, fit.data, fit.processes],
        device=denoiser.device.partition(":")[0],
        drawing=plain(dict(drawing)),
    )


def files_key(*places: Path) -> str:
    """SHA-256 (hex) of the names, sizes and times of the files in some places.

    Contents are not read: there may be very many.
    """
    listed = []
    for place in places:
        files = sorted(p for p in place.rglob("*") if p.is_file()) if place.is_dir() else [place]
        for file in files:
            about = file.stat()
            listed.append([str(file.relative_to(place)), about.st_size, about.st_mtime_ns])
    return content_key(files=listed)
