"""From explainers and slices to files: the part that analyze and sample share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

from .console import Screen
from .images import folder_names
from .results import division, show, with_meta

if TYPE_CHECKING:
    from ctinv.adapters._types import Progress
    from ctinv.invariance import Explainer
    from ctinv.invariance.data import CTSlice
    from ctinv.invariance.reporting.explanation import Explanation

__all__ = ["Task", "explain_all", "notes"]


class Maker(Protocol):
    """Fits or loads an explainer for each layer."""

    def __call__(self, layers: Sequence[str], progress: Progress | None, /) -> Sequence[Explainer]: ...


class Task:
    """What to draw, from what, and where to write it.

    Arguments:
        source: What the user gave as input; a folder has one sub-folder per slice.
        slices: The slices read from it.
        out: Where to write.
        drawing: How to draw: samples, refine, rho, quantiles and seed, see ``Explainer.explain``.
        known: What else the report should say of the origin.
        memory: Bytes that sampling may take; None for a quarter of what is free.
    """

    def __init__(
        self,
        source: Path | None,
        slices: Sequence[CTSlice],
        out: Path,
        drawing: Mapping[str, Any],
        known: Mapping[str, Any],
        memory: int | None = None,
    ) -> None:
        self.by_slice = source is not None and source.is_dir()
        self.slices, self.out = slices, out
        self.drawing, self.known, self.memory = drawing, known, memory
        self.names = folder_names([Path(s.name).stem for s in slices])

    def place(self, row: int, layer: str | None) -> Path:
        """The folder for one slice and, where there are several, one layer."""
        folder = self.out / self.names[row] if self.by_slice else self.out
        return folder if layer is None else folder / layer


def explain_all(screen: Screen, task: Task, layers: Sequence[str], make: Maker) -> None:
    """Explain every slice at every layer, write each result at once, and show what was found.

    Processes that torchrun started divide the slices; the first of them shows and sums up, from
    what the others wrote.
    """
    from ctinv.invariance.infra.distributed import world
    from ctinv.invariance.reporting.explanation import Explanation

    everyone = world()
    folders: list[str | None] = [*folder_names(layers)] if len(layers) > 1 else [None]
    done: dict[tuple[int, int], tuple[Explanation, Mapping[str, Path]]] = {}
    with screen.progress() as progress:
        explainers = make(layers, progress)
        for note in dict.fromkeys(note for e in explainers for note in notes(e)):
            screen.note(note)
        for column, explainer in enumerate(explainers):
            explainer.memory = task.memory
            for row in range(everyone.rank, len(task.slices), everyone.size):
                one = task.slices[row]
                found = explainer.explain(one, **task.drawing, progress=progress)
                found = with_meta(found, **task.known)
                done[row, column] = found, found.save(task.place(row, folders[column]))
    everyone.wait()
    if not everyone.leads:
        return
    for row in range(len(task.slices)):
        for column, folder in enumerate(folders):
            if (row, column) not in done:
                place = task.place(row, folder)
                files = {path.name: path for path in sorted(place.iterdir()) if path.is_file()}
                done[row, column] = Explanation.load(place), files
    ordered = [done[key] for key in sorted(done)]
    report = None
    if task.by_slice or len(ordered) > 1:
        from ctinv.invariance.reporting.report import Case, summary

        cases = [
            Case.of(e, PurePosixPath(files["report.html"].relative_to(task.out).as_posix()))
            for e, files in ordered
        ]
        report = summary(cases, task.out / "report.html")
    show(screen, ordered, report)


def notes(explainer: Explainer) -> Sequence[str]:
    """What a user should know about a fit: checkpoints that were of no use, how patients were divided."""
    info = explainer.info
    divided = [division(info.split)] if info.split else []
    return [*(f"note: {notice}" for notice in info.notices or ()), *divided]
