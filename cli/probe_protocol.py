"""``ctinv probe --protocol``: the same tasks at x, at layers and at f(x), for several denoisers and doses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .console import Screen
from .images import Images, read_slices
from .models import ModelSpec, open_model, settle_units

if TYPE_CHECKING:
    from ctinv.invariance.probing.protocol.record import Outcome, Results
    from ctinv.invariance.probing.protocol.scenes import Scene
    from ctinv.invariance.probing.tasks.task import Task

__all__ = ["PROTOCOLS", "Wanted", "numbers", "run_protocol"]

PROTOCOLS = ("low-contrast",)

_MASKED = 15.0  # HU that a mask of a lesion is given


class Wanted:
    """What the user asked of a protocol.

    Arguments:
        background: ``uniform`` or ``anatomy``; a slice given as input takes their place.
        lesion_file: A lesion of the user's, or None.
        phantom: A folder of a scanned phantom, or None.
        options: Doses, realisations, observers and so on, as the record of a protocol has them.
    """

    def __init__(
        self, background: str, lesion_file: Path | None, phantom: Path | None = None, **options: Any
    ) -> None:
        self.background, self.lesion_file, self.phantom = background, lesion_file, phantom
        self.options = options


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
    """Plan, run and write a protocol, and say what it found."""
    from ctinv.adapters.errors import CtinvError
    from ctinv.invariance.data import default_slice
    from ctinv.invariance.infra.files import check_writable
    from ctinv.invariance.probing.protocol.disk import read_phantom, run_disk
    from ctinv.invariance.probing.protocol.files import save_protocol
    from ctinv.invariance.probing.protocol.record import Protocol
    from ctinv.invariance.probing.protocol.run import Subject, plan, run

    protocol = Protocol(tasks=_tasks(wanted.lesion_file), **wanted.options)
    check_writable(out)
    scanned = None if wanted.phantom is None else read_phantom(wanted.phantom)
    scene = _scene(images, wanted.background, screen)
    subjects: list[Subject] = []
    for spec in specs:
        denoiser = open_model(spec)
        settle_units(denoiser, spec, [default_slice()], screen)
        if any(s.denoiser.name == denoiser.name for s in subjects):
            raise CtinvError(f"two denoisers are called {denoiser.name}; name each --model once")
        for notice in denoiser.notices:
            screen.note(f"note: {notice}")
        subjects.append(Subject.of(denoiser.apart(), layers))
    if scanned is not None:
        told = "found by a search" if scanned.found else "named"
        screen.note(f"note: {len(scanned.inserts)} inserts of {scanned.name}, {told}")
        results = run_disk(subjects, scanned, protocol)
    else:
        screen.note(f"plan: {plan(subjects, scene, protocol, out)}")
        with screen.progress() as progress:
            results = run(subjects, scene, protocol, out, progress)
    files = save_protocol(results, out)
    if screen.as_json:
        screen.result({**results.as_dict(), "files": {n: str(f) for n, f in files.items()}})
        return
    _table(results, screen)
    for line in results.verdict:
        screen.line(line)
    screen.line(f"written to {out}: {', '.join(sorted(files, reverse=True))}")


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

    if images.source is None:
        return Anatomy() if background == "anatomy" else Uniform()
    slices = read_slices(images, screen)
    if len(slices) > 1:
        raise ImageError(f"{images.source} holds {len(slices)} slices; a protocol needs one: name its file")
    one = slices[0]
    spacing = one.spacing or SPACING
    at, _, notice = nearest_place(one.hu, 10.0, spacing)
    if notice:
        screen.note(f"note: {notice}")
    return SliceScene(one.hu, at, spacing, one.name)


def _table(results: Results, screen: Screen) -> None:
    """d' and efficiency at the lowest dose, by task and place."""
    dose, observer = results.protocol.doses[-1], results.protocol.observers[0]
    for model, places in results.layers.items():
        rows = []
        for task in results.protocol.tasks:
            found = {
                o.where: o
                for o in results.at(model=model, dose=dose, observer=observer)
                if o.question == (task.kind, task.size, task.contrast)
            }
            cells = [
                f"{found[p].detectability:.1f}"
                + ("" if (e := found[p].efficiency) is None or p == "x" else f" ({e:.2f})")
                for p in places
            ]
            rows.append((task.name, *cells))
        screen.table(f"{model}, dose {dose:g}: d' (efficiency), {observer}", ("Task", *places), rows)


def _cell(outcome: Outcome) -> str:
    share = "" if outcome.efficiency is None or outcome.where == "x" else f" ({outcome.efficiency:.2f})"
    return f"{outcome.detectability:.1f}{share}"
