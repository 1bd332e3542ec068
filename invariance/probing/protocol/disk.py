"""Phantoms from disk: scanned repeatedly with inserts and without, instead of simulated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ctinv.adapters._types import Image
from ctinv.adapters.errors import ImageError
from ctinv.invariance.data.io.read import read
from ctinv.invariance.probing.observers.maps import judge_maps
from ctinv.invariance.probing.observers.study import Study
from ctinv.invariance.probing.tasks.task import Task
from numpy.typing import NDArray

from .record import Case, Protocol, Results, judged, where_name
from .run import Subject
from .scenes import cut
from .station import WINDOW, Station, bank

__all__ = ["DiskPhantom", "Insert", "find_inserts", "read_phantom", "run_disk"]

_FILE = "phantom.yaml"
_FEWEST = 4
_KEYS = {"present", "absent", "offset", "spacing", "doses", "inserts"}
_MARGINS = (24, 16, 8, 0)
_STANDS_OUT = 6.0  # a blob found by itself, in errors of the mean image


@dataclass(frozen=True)
class Insert:
    """A disc in a phantom.

    Arguments:
        at: Column and row of its middle.
        diameter: In mm.
        contrast: HU above the background.
    """

    at: tuple[int, int]
    diameter: float
    contrast: float


@dataclass(frozen=True, eq=False)
class DiskPhantom:
    """A phantom scanned with inserts and without.

    Arguments:
        name: What to call it.
        spacing: Row and column spacing, mm.
        inserts: The inserts.
        images: Dose to images without and with the inserts, (n, H, W) and (m, H, W), HU.
        found: Whether the inserts were found by a search, not told.
    """

    name: str
    spacing: tuple[float, float]
    inserts: tuple[Insert, ...]
    images: Mapping[float, tuple[Image, Image]]
    found: bool


def read_phantom(folder: str | Path) -> DiskPhantom:
    """Read a folder with a small ``phantom.yaml``.

    Keys of that file: ``absent`` and ``present``, each a file or a folder of slices, relative to the folder;
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
    images: dict[float, tuple[Image, Image]] = {}
    spacing: tuple[float, float] | None = None
    for dose, place in doses.items():
        stacks = []
        for kind in ("absent", "present"):
            target = folder / str(place) / str(told.get(kind, kind))
            slices = read(target, offset=told.get("offset"))
            if len(slices) < _FEWEST:
                raise ImageError(
                    f"{target} holds {len(slices)} slices; observers need {_FEWEST} or more scans"
                )
            if len({one.shape for one in slices}) > 1:
                raise ImageError(f"{target} holds slices of different sizes; give scans of one phantom")
            spacing = spacing or slices[0].spacing
            stacks.append(np.stack([one.hu for one in slices]))
        images[float(dose)] = (stacks[0], stacks[1])
    pixel = told.get("spacing")
    chosen = (float(pixel), float(pixel)) if isinstance(pixel, int | float) else spacing or (0.8, 0.8)
    inserts = tuple(_insert(folder, one) for one in told.get("inserts") or ())
    best = images[max(images)]
    found = inserts or find_inserts(*best, chosen)
    if not found:
        raise ImageError(f"no insert stands out in {folder}; name them under inserts: in {_FILE}")
    return DiskPhantom(folder.name, chosen, found, images, not inserts)


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


def find_inserts(absent: Image, present: Image, spacing: tuple[float, float]) -> tuple[Insert, ...]:
    """Find discs in the difference of two means, strongest first.

    Arguments:
        absent: Images without inserts, (n, H, W), HU.
        present: Images with them, (m, H, W).
        spacing: Row and column spacing, mm.
    """
    from scipy.ndimage import gaussian_filter
    from skimage.feature import blob_log

    change = present.mean(0, dtype=np.float64) - absent.mean(0, dtype=np.float64)
    error = np.sqrt(absent.var(0, ddof=1) / len(absent) + present.var(0, ddof=1) / len(present))
    # In errors of the mean image, smoothed as far as the smallest insert allows.
    smooth = gaussian_filter(change, 1.5)
    unit = float(np.median(error)) / np.sqrt(4 * np.pi * 1.5**2)
    found: list[tuple[float, Insert]] = []
    for sign in (1, -1):
        height = np.clip(sign * smooth / unit, 0, None) / 100
        blobs = blob_log(height, 1.5, 12.0, 12, threshold=_STANDS_OUT / 400, overlap=0.2)
        for row, column, spread in blobs:
            radius = spread * np.sqrt(2)
            rows, columns = np.indices(change.shape)
            distance = np.hypot(rows - row, columns - column)
            inner, around = (
                distance <= max(1.5, 0.6 * radius),
                (distance > 1.5 * radius) & (distance < 2.5 * radius),
            )
            contrast = float(change[inner].mean() - change[around].mean())
            strength = abs(contrast) / (float(np.median(error)) / np.sqrt(inner.sum()))
            if strength >= _STANDS_OUT and np.sign(contrast) == sign:
                diameter = 2 * radius * float(np.mean(spacing))
                found.append((strength, Insert((round(column), round(row)), diameter, contrast)))
    return tuple(insert for _, insert in sorted(found, key=lambda pair: -pair[0]))


def run_disk(subjects: Sequence[Subject], phantom: DiskPhantom, protocol: Protocol) -> Results:
    """Tell every insert from the background, at x, every layer and f(x), at all doses on disk.

    Cases without and with an insert are different scans, and are split and resampled as such.

    Arguments:
        subjects: The denoisers.
        phantom: The phantom.
        protocol: Observers, readers, seed; its tasks and doses are those of the phantom.

    Raises:
        ImageError: No insert has an observer's window around it.
    """
    shape = next(iter(phantom.images.values()))[0].shape[1:]
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
                pair = [cut(stack, [insert.at], side) for stack in stacks]
                station = Station(subject.denoiser, subject.layers, pair[0])
                seen.append((made.parts, [station.respond(squares, made.images) for squares in pair]))
            for observer in protocol.observers:
                studies = [_studies(subject, observer, parts[observer], two, protocol) for parts, two in seen]
                model = subject.denoiser.name
                cases.append(judged(tasks, studies, model=model, dose=dose, observer=observer))
    if not tasks:
        raise ImageError(f"no insert of {phantom.name} has {WINDOW // 2} pixels of slice around it")
    asked = Protocol(
        tasks=tuple(tasks),
        doses=tuple(phantom.images),
        realisations=max(16, min(len(a) for a, _ in phantom.images.values())),
        seed=protocol.seed,
        observers=protocol.observers,
        readers=protocol.readers,
        internal=protocol.internal,
    )
    layers = {s.denoiser.name: tuple(where_name(name) for name in s.layers) for s in subjects}
    outcomes = tuple(o for case in cases for o in case.outcomes)
    means = tuple(k for case in cases for k in case.kept)
    return Results(asked, f"scans of {phantom.name}", layers, outcomes, means)


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
