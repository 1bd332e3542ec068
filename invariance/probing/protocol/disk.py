"""Phantoms from disk: scanned repeatedly with inserts and without, instead of simulated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ctinv.adapters._types import Image, Progress
from ctinv.adapters.errors import ImageError
from ctinv.invariance.data.io.read import read
from ctinv.invariance.probing.observers.maps import judge_maps
from ctinv.invariance.probing.observers.study import Study
from ctinv.invariance.probing.tasks.task import Task
from numpy.typing import NDArray

from .record import Case, Protocol, Results, judged, where_name
from .run import Subject
from .scenes import cut
from .search import Insert, empty_places, find_inserts, find_inserts_alone, phantom_body
from .station import WINDOW, Station, bank

__all__ = ["DiskPhantom", "read_phantom", "run_disk"]

_FILE = "phantom.yaml"
_FEWEST = 4
_KEYS = {"present", "absent", "offset", "spacing", "doses", "inserts"}
_MARGINS = (24, 16, 8, 0)
_PLACES = 4  # beside an insert, where no scans without inserts are there


@dataclass(frozen=True, eq=False)
class DiskPhantom:
    """A phantom scanned with inserts, and without where that was done.

    Arguments:
        name: What to call it.
        spacing: Row and column spacing, mm.
        inserts: The inserts.
        images: Dose to images without and with the inserts, (n, H, W) and (m, H, W), HU; without scans of
            the first kind None in their place: places beside the inserts are looked at instead.
        found: Whether the inserts were found by a search, not told.
    """

    name: str
    spacing: tuple[float, float]
    inserts: tuple[Insert, ...]
    images: Mapping[float, tuple[Image | None, Image]]
    found: bool


def read_phantom(folder: str | Path) -> DiskPhantom:
    """Read a folder with a small ``phantom.yaml``.

    Keys of that file: ``present`` and, where there are scans without inserts, ``absent``, each a file or a
    folder of slices, relative to the folder;
    ``doses``, a mapping of doses to folders in which those lie, where there are several; ``offset``, what
    must be taken off the values to come to HU; ``spacing`` in mm, where the files do not state it;
    ``inserts``, a list of ``{at: [column, row], diameter: mm, contrast: HU}``, found in the mean images where
    it is left out.

    Raises:
        ImageError: The folder lacks the file, the file cannot be understood, or slices cannot be read.
    """
    folder = Path(folder)
    told = _told(folder)
    doses = told.get("doses") or {1.0: "."}
    images: dict[float, tuple[Image | None, Image]] = {}
    spacing: tuple[float, float] | None = None
    for dose, place in doses.items():
        here = folder / str(place)
        alone = "absent" not in told and not (here / "absent").exists()
        present, stated = _stack(here / str(told.get("present", "present")), told.get("offset"))
        absent = None if alone else _stack(here / str(told.get("absent", "absent")), told.get("offset"))[0]
        if absent is not None and absent.shape[1:] != present.shape[1:]:
            raise ImageError(f"{here} holds scans of different sizes; give scans of one phantom")
        spacing = spacing or stated
        images[float(dose)] = (absent, present)
    pixel = told.get("spacing")
    chosen = (float(pixel), float(pixel)) if isinstance(pixel, int | float) else spacing or (0.8, 0.8)
    inserts = tuple(_insert(folder, one) for one in told.get("inserts") or ())
    if inserts:
        return DiskPhantom(folder.name, chosen, inserts, images, False)
    absent, present = images[max(images)]
    places = find_inserts_alone(present, chosen) if absent is None else find_inserts(absent, present, chosen)
    if not places:
        raise ImageError(f"no insert stands out in {folder}; name them under inserts: in {_FILE}")
    return DiskPhantom(folder.name, chosen, places, images, True)


def _stack(target: Path, offset: Any) -> tuple[Image, tuple[float, float] | None]:
    """Slices of one kind, (n, H, W), HU, and their spacing where they state it."""
    slices = read(target, offset=offset)
    if len(slices) < _FEWEST:
        raise ImageError(f"{target} holds {len(slices)} slices; observers need {_FEWEST} or more scans")
    if len({one.shape for one in slices}) > 1:
        raise ImageError(f"{target} holds slices of different sizes; give scans of one phantom")
    return np.stack([one.hu for one in slices]), slices[0].spacing


def _told(folder: Path) -> dict[str, Any]:
    import yaml

    path = folder / _FILE
    try:
        told = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ImageError(f"{folder} has no {_FILE}, which says where its slices are") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ImageError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(told, dict) or not told.keys() <= _KEYS:
        raise ImageError(f"{path} is not understood; its keys are {', '.join(sorted(_KEYS))}")
    if not isinstance(told.get("doses") or {}, dict):
        raise ImageError(f"{path}: doses must map numbers to folders, such as 0.5: half")
    return told


def _insert(folder: Path, told: Any) -> Insert:
    try:
        column, row = told["at"]
        return Insert((round(column), round(row)), float(told["diameter"]), float(told["contrast"]))
    except (TypeError, KeyError, ValueError):
        raise ImageError(
            f"{folder / _FILE}: {told!r} is no insert; write it as "
            "{at: [column, row], diameter: mm, contrast: HU}"
        ) from None


def run_disk(
    subjects: Sequence[Subject],
    phantom: DiskPhantom,
    protocol: Protocol,
    progress: Progress | None = None,
) -> Results:
    """Tell every insert from the background, at x, every layer and f(x), at all doses on disk.

    Cases without and with an insert are different scans, or different places where all scans have inserts;
    they are split and resampled as such.

    Arguments:
        subjects: The denoisers.
        phantom: The phantom.
        protocol: Observers, readers, seed; its tasks and doses are those of the phantom.
        progress: Called with (stage, done, total).

    Raises:
        ImageError: No insert has an observer's window around it.
    """
    shape = next(iter(phantom.images.values()))[1].shape[1:]
    placed = [
        (one, side) for one in phantom.inserts if (side := _room(one, (shape[0], shape[1]))) is not None
    ]
    tasks = [Task("detect", one.diameter, one.contrast) for one, _ in placed]
    cases: list[Case] = []
    for subject in subjects:
        for dose, stacks in phantom.images.items():
            seen = []
            for task, (insert, side) in zip(tasks, placed, strict=True):
                made = bank(task, phantom.spacing, protocol.observers)
                pair = _squares(phantom, insert, stacks, side)
                station = Station(subject.denoiser, subject.layers, pair[0])
                seen.append((made.parts, [station.respond(squares, made.images) for squares in pair]))
            for observer in protocol.observers:
                studies = [_studies(subject, observer, parts[observer], two, protocol) for parts, two in seen]
                model = subject.denoiser.name
                cases.append(judged(tasks, studies, model=model, dose=dose, observer=observer))
            if progress:
                progress("cases", len(cases), len(subjects) * len(phantom.images) * len(protocol.observers))
    if not tasks:
        raise ImageError(f"no insert of {phantom.name} has {WINDOW // 2} pixels of slice around it")
    asked = Protocol(
        tasks=tuple(tasks),
        doses=tuple(phantom.images),
        realisations=max(16, min(len(b) for _, b in phantom.images.values())),
        seed=protocol.seed,
        observers=protocol.observers,
        readers=protocol.readers,
        internal=protocol.internal,
    )
    layers = {s.denoiser.name: tuple(where_name(name) for name in s.layers) for s in subjects}
    outcomes = tuple(o for case in cases for o in case.outcomes)
    means = tuple(k for case in cases for k in case.kept)
    return Results(asked, f"scans of {phantom.name}", layers, outcomes, means)


def _squares(
    phantom: DiskPhantom, insert: Insert, stacks: tuple[Image | None, Image], side: int
) -> list[Image]:
    """Squares without and with the insert in their middle, (n, side, side) and (m, side, side), HU.

    Raises:
        ImageError: There are no scans without inserts, and no place beside them.
    """
    absent, present = stacks
    places = [insert.at]
    if absent is None:
        body = phantom_body(present.mean(0, dtype=np.float64), phantom.spacing)
        places = empty_places(insert, phantom.inserts, body, phantom.spacing, side, _PLACES)
        if not places:
            raise ImageError(
                f"{phantom.name} has no place without inserts for one of {insert.diameter:.3g} mm; give "
                f"scans without inserts under absent: in {_FILE}"
            )
    return [cut(present if absent is None else absent, places, side), cut(present, [insert.at], side)]


def _room(insert: Insert, shape: tuple[int, int]) -> int | None:
    """Side of the largest square with the insert in its middle; None where no window fits."""
    column, row = insert.at
    for margin in _MARGINS:
        side = WINDOW + 2 * margin
        half = side // 2
        if min(column, row) >= half and row - half + side <= shape[0] and column - half + side <= shape[1]:
            return side
    return None


def _studies(
    subject: Subject,
    observer: str,
    part: slice,
    seen: Sequence[Mapping[str, NDArray[np.float32]]],
    protocol: Protocol,
) -> dict[str, Study]:
    """What one observer makes of one insert, at every place."""
    studies = {}
    for name in subject.layers:
        pair = [answers[name] for answers in seen]
        first, second = (a[:, :, part] if a.shape[2] > 1 else a for a in pair)
        studies[name] = judge_maps(
            first,
            second,
            prewhitens=observer != "npwe",
            seed=protocol.seed,
            readers=protocol.readers,
            paired=False,
            internal=protocol.internal,
        )
    return studies
