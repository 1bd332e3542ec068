"""``ctinv probe --protocol``: the same tasks at x, at layers and at f(x), for several denoisers and doses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .console import Screen
from .images import Images, read_slices
from .models import ModelSpec, open_model, settle_units

if TYPE_CHECKING:
    from ctinv.adapters.base import Denoiser
    from ctinv.invariance.probing.protocol.disk import DiskPhantom
    from ctinv.invariance.probing.protocol.record import Protocol, Results
    from ctinv.invariance.probing.protocol.run import Subject
    from ctinv.invariance.probing.protocol.scenes import Scene
    from ctinv.invariance.probing.quality.sheet import Sheet
    from ctinv.invariance.probing.tasks.task import Task

__all__ = ["PROTOCOLS", "Wanted", "numbers", "run_protocol"]

PROTOCOLS = ("low-contrast", "bench")

_MASKED = 15.0  # HU that a mask of a lesion is given
_CASES, _BENCH = 256, 32  # realisations, where none are asked for


@dataclass(frozen=True)
class Wanted:
    """What the user asked of protocols.

    Arguments:
        protocols: Of :data:`PROTOCOLS`.
        doses: Fractions of the routine dose.
        realisations: Of each; None for the protocol's own number.
        seed: Draws everything.
        background: ``uniform`` or ``anatomy``; a slice given as input takes their place.
        observers: Names.
        internal: The observers' own noise.
        projected: Whether lesions go into the projections.
        lesion_file: A lesion of the user's, or None.
        phantom: A folder of a scanned phantom, or None.
    """

    protocols: tuple[str, ...]
    doses: tuple[float, ...]
    realisations: int | None
    seed: int
    background: str
    observers: tuple[str, ...]
    internal: float
    projected: bool
    lesion_file: Path | None
    phantom: Path | None


def numbers(text: str, what: str) -> tuple[float, ...]:
    """Numbers separated by commas.

    Raises:
        CtinvError: Something else.
    """
    from ctinv.adapters.errors import CtinvError

    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise CtinvError(f"{text!r} is no list of {what}; write it like 1,0.5,0.25") from None


def run_protocol(
    specs: list[ModelSpec], layers: tuple[str, ...], images: Images, wanted: Wanted, out: Path, screen: Screen
) -> None:
    """Plan, run and write protocols, and say what they found."""
    from ctinv.invariance.infra.files import check_writable
    from ctinv.invariance.probing.protocol.files import save_protocol
    from ctinv.invariance.probing.protocol.record import Protocol
    from ctinv.invariance.probing.protocol.run import Subject
    from ctinv.invariance.probing.quality.files import save_bench

    # Everything that can be refused is refused here, before anything long.
    protocol = Protocol(
        tasks=_tasks(wanted.lesion_file),
        doses=wanted.doses,
        realisations=wanted.realisations or _CASES,
        seed=wanted.seed,
        observers=wanted.observers,
        internal=wanted.internal,
        projected=wanted.projected,
    )
    check_writable(out)
    source = _source(images, wanted, screen)
    subjects = [Subject.of(denoiser.apart(), layers) for denoiser in _denoisers(specs, screen)]
    results = None
    if "low-contrast" in wanted.protocols:
        results = _run(subjects, source, protocol, out, screen)
    sheets: tuple[Sheet, ...] = ()
    if "bench" in wanted.protocols:
        sheets = _bench(subjects, wanted, out, screen)
    files = save_bench(sheets, out) if results is None else save_protocol(results, out, sheets)
    if screen.as_json:
        stored = json.loads(files["result.json"].read_text(encoding="utf-8"))
        screen.result({**stored, "files": {n: str(f) for n, f in files.items()}})
        return
    if results is not None:
        _table(results, screen)
    if sheets:
        _bench_table(sheets, screen)
    for line in results.verdict if results is not None else ():
        screen.line(line)
    screen.line(f"written to {out}: {', '.join(sorted(files, reverse=True))}")


def _denoisers(specs: list[ModelSpec], screen: Screen) -> list[Denoiser]:
    """The denoisers, each under a name of its own.

    Raises:
        CtinvError: Two have one name.
    """
    from ctinv.adapters.errors import CtinvError
    from ctinv.invariance.data import default_slice

    denoisers: list[Denoiser] = []
    for spec in specs:
        denoiser = open_model(spec)
        settle_units(denoiser, spec, [default_slice()], screen)
        if any(one.name == denoiser.name for one in denoisers):
            raise CtinvError(f"two denoisers are called {denoiser.name}; name each --model once")
        for notice in denoiser.notices:
            screen.note(f"note: {notice}")
        denoisers.append(denoiser)
    return denoisers


def _source(images: Images, wanted: Wanted, screen: Screen) -> Scene | DiskPhantom:
    """Where the images come from."""
    from ctinv.invariance.probing.protocol.disk import read_phantom

    if wanted.phantom is None:
        return _scene(images, wanted.background, screen)
    scanned = read_phantom(wanted.phantom)
    told = "found by a search" if scanned.found else "named"
    screen.note(f"note: {len(scanned.inserts)} inserts of {scanned.name}, {told}")
    return scanned


def _run(
    subjects: list[Subject], source: Scene | DiskPhantom, protocol: Protocol, out: Path, screen: Screen
) -> Results:
    from ctinv.invariance.probing.protocol.disk import DiskPhantom, run_disk
    from ctinv.invariance.probing.protocol.run import plan, run

    with screen.progress() as progress:
        if isinstance(source, DiskPhantom):
            return run_disk(subjects, source, protocol, progress)
        screen.note(f"plan: {plan(subjects, source, protocol, out)}")
        return run(subjects, source, protocol, out, progress)


def _bench(subjects: list[Subject], wanted: Wanted, out: Path, screen: Screen) -> tuple[Sheet, ...]:
    from ctinv.invariance.probing.quality.sheet import bench_sheet

    asked: Any = {"doses": wanted.doses, "realisations": wanted.realisations or _BENCH, "seed": wanted.seed}
    with screen.progress() as progress:
        return tuple(bench_sheet(one.denoiser, out, **asked, progress=progress) for one in subjects)


def _tasks(lesion: Path | None) -> tuple[Task, ...]:
    from ctinv.invariance.probing.tasks.files import read_lesion
    from ctinv.invariance.probing.tasks.task import Task, low_contrast

    if lesion is None:
        return low_contrast()
    held = read_lesion(lesion)
    contrast = _MASKED if held.mask else held.strongest
    return (*low_contrast(), Task("detect-file", held.size, contrast, held))


def _scene(images: Images, background: str, screen: Screen) -> Scene:
    from ctinv.adapters.errors import ImageError
    from ctinv.invariance.probing.lesions import nearest_place
    from ctinv.invariance.probing.probe import SPACING
    from ctinv.invariance.probing.protocol.scenes import Anatomy, SliceScene, Uniform
    from ctinv.invariance.probing.protocol.station import WINDOW

    if images.source is None:
        return Anatomy() if background == "anatomy" else Uniform()
    slices = read_slices(images, screen)
    if len(slices) > 1:
        raise ImageError(f"{images.source} holds {len(slices)} slices; a protocol needs one: name its file")
    one = slices[0]
    spacing = one.spacing or SPACING
    at, _, notice = nearest_place(one.hu, 10.0, spacing, margin=WINDOW // 2)
    if notice:
        screen.note(f"note: {notice}")
    return SliceScene(one.hu, at, spacing, one.name)


def _table(results: Results, screen: Screen) -> None:
    """d' and efficiency at the lowest dose, by task and place."""
    dose, observer = results.protocol.doses[-1], results.protocol.observers[0]
    for model, places in results.layers.items():
        rows = []
        for task in results.protocol.tasks:
            shares = {
                o.where: o
                for o in results.at(model=model, dose=dose, observer=observer)
                if o.question == (task.kind, task.size, task.contrast)
            }
            cells = [
                f"{shares[p].detectability:.1f}"
                + ("" if (e := shares[p].efficiency) is None or p == "x" else f" ({e:.2f})")
                for p in places
            ]
            rows.append((task.name, *cells))
        screen.table(f"{model}, dose {dose:g}: d' (efficiency), {observer}", ("Task", *places), rows)


def _bench_table(sheets: Sequence[Sheet], screen: Screen) -> None:
    """The bench figures of f(x), one table for each denoiser."""
    for sheet in sheets:
        rows = []
        for row in sheet.rows:
            image = "" if row.image is None else f"{row.image:.3g}"
            output = f"{row.output:.3g}" + ("" if row.error is None else f" ± {row.error:.1g}")
            rows.append((row.figure, row.unit, image, output))
        screen.table(f"{sheet.model}, n = {sheet.n}", ("Figure", "Unit", "x", "f(x) ± error"), rows)
