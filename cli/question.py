"""What ``ctinv analyze`` is asked, as plain values that another process can answer as well."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .console import Screen
from .extras import Extras
from .images import Images, find_slices
from .models import ModelSpec, distinct_in_each, open_model, settle_units, some_slices
from .work import Maker, Subject, Task, Written

if TYPE_CHECKING:
    from ctinv.adapters import Denoiser
    from ctinv.adapters._types import Progress
    from ctinv.invariance import Explainer
    from ctinv.invariance.runs.cases import Shard

__all__ = ["Question", "prepare"]


@dataclass(frozen=True)
class Question:
    """Everything that decides the cases of a run and their outcomes.

    Arguments:
        models: As the user named them.
        layers: Names and patterns.
        images: Where the slices are.
        fitting: What ``invariance.fit`` is given: data, preset, overrides, seed and cache.
        drawing: What ``Explainer.explain`` is given: samples, refine, rho, quantiles and seed.
        options: How to understand the models, see :class:`ModelSpec`.
        memory: Bytes that sampling may take.
        formats: What is written besides the usual files.
        deidentify: Leave the patient out of that.
        swap: The slice whose invariances are taken in a swap, where one is asked for.
        attack: Largest pixel of the most telling change, HU, where one is asked for.
        hashes: Fingerprints that the models must have; none where they are not known yet.
        report: Whether each case gets a figure and a page.
    """

    models: tuple[str, ...]
    layers: tuple[str, ...]
    images: Images
    fitting: Mapping[str, Any]
    drawing: Mapping[str, Any]
    options: Mapping[str, Any]
    memory: int | None = None
    formats: tuple[str, ...] = ()
    deidentify: bool = False
    swap: Path | None = None
    attack: float | None = None
    hashes: tuple[str, ...] = ()
    report: bool = True

    def text(self) -> str:
        """As JSON, with paths that hold on every machine that shares the file system."""
        values = dataclasses.asdict(self)
        values["models"] = [str(Path(m).absolute()) if Path(m).is_file() else m for m in self.models]
        source = self.images.source
        values["images"]["source"] = None if source is None else str(source.absolute())
        values["swap"] = None if self.swap is None else str(self.swap.absolute())
        values["fitting"]["data"] = _absolute(self.fitting["data"])
        return json.dumps(values)

    @classmethod
    def of(cls, text: str) -> Question:
        """From the text of another process."""
        values = json.loads(text)
        images = values.pop("images")
        source = images.pop("source")
        values["options"]["feed"] = tuple(tuple(pair) for pair in values["options"]["feed"])
        values["drawing"]["quantiles"] = tuple(values["drawing"]["quantiles"])
        values["swap"] = None if values["swap"] is None else Path(values["swap"])
        for name in ("models", "layers", "formats", "hashes"):
            values[name] = tuple(values[name])
        return cls(images=Images(None if source is None else Path(source), **images), **values)


def _absolute(data: str | None) -> str | None:
    if data is None or data == "phantom":
        return data
    parts = [part.partition("=") for part in data.split(",")] if "=" in data else [("", "", data)]
    return ",".join(f"{key}{sign}{Path(place).absolute()}" for key, sign, place in parts)


def prepare(
    question: Question,
    out: Path,
    shard: Shard,
    screen: Screen,
    *,
    processes: int = 1,
    fail_fast: bool = False,
    restart: bool = False,
) -> Task:
    """Open the models, find the slices, settle layers and units: all that can be refused before long work.

    Raises:
        CtinvError: Something cannot be used.
    """
    from ctinv.adapters.errors import ModelError
    from ctinv.invariance.presets import preset as find_preset
    from ctinv.invariance.runs.keys import FitIdentity

    chosen = find_preset(question.fitting["preset"], question.fitting["overrides"])
    specs = [ModelSpec(model, **question.options) for model in question.models]
    denoisers = [open_model(spec) for spec in specs]
    for denoiser, wanted in zip(denoisers, question.hashes, strict=False):
        if denoiser.fingerprint != wanted:
            raise ModelError(
                f"{denoiser.name} is another model here (hash {denoiser.fingerprint[:12]}, where the run was "
                f"started {wanted[:12]}); give all machines the same file"
            )
    layers = distinct_in_each(denoisers, question.layers, screen)
    slices = find_slices(question.images, screen)
    extras = Extras.read(question.swap, question.attack, question.images, slices, screen)
    written = Written(question.formats, question.deidentify, question.report, extras).checked(slices, screen)
    some = some_slices(slices)
    units = [settle_units(d, s, some, screen) for d, s in zip(denoisers, specs, strict=True)]
    for notice in dict.fromkeys(notice for denoiser in denoisers for notice in denoiser.notices):
        screen.note(f"note: {notice}")
    identity = FitIdentity(chosen, question.fitting["seed"], _data_key(question.fitting["data"]), processes)
    subjects = [
        Subject(denoiser, names, {"intensity_found": unit}, _maker(denoiser, question.fitting), identity)
        for denoiser, names, unit in zip(denoisers, layers, units, strict=True)
    ]
    return Task(
        question.images.source,
        slices,
        out,
        subjects,
        question.drawing,
        shard,
        question.memory,
        fail_fast,
        restart,
        written,
    )


def _maker(denoiser: Denoiser, fitting: Mapping[str, Any]) -> Maker:
    """Fits layers of one model."""

    def fit(names: Sequence[str], progress: Progress | None) -> Sequence[Explainer]:
        from ctinv import invariance

        return invariance.fit(denoiser, names, **fitting, progress=progress)

    return fit


def _data_key(data: str | None) -> str:
    """What the fit rests on, before it is read."""
    if data is None or data == "phantom":
        return "phantom"
    from ctinv.invariance.data.spec import sources_of
    from ctinv.invariance.infra.cache import content_key
    from ctinv.invariance.runs.keys import files_key

    sources = sources_of(data)
    named = {"folder": sources.folder, "low": sources.low, "high": sources.high}
    files = {name: files_key(place) for name, place in named.items() if place is not None}
    return content_key(files=files, offset=sources.offset, scale=sources.scale)
