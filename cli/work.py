"""From explainers and slices to files: the part that analyze and sample share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from .console import Progress, Screen
from .images import folder_names
from .results import show, with_meta

if TYPE_CHECKING:
    from ctinv.invariance import Explainer
    from ctinv.invariance.data import CTSlice
    from ctinv.invariance.explanation import Explanation

__all__ = ["Task", "explain_all"]


class Maker(Protocol):
    """Fits or loads an explainer."""

    def __call__(self, layer: str, progress: Progress | None) -> Explainer: ...


class Task:
    """What to draw, from what, and where to write it.

    Arguments:
        source: What the user gave as input; a folder has one sub-folder per slice.
        slices: The slices read from it.
        out: Where to write.
        samples: Draws per slice.
        seed: Decides the draws.
        known: What else the report should say of the origin.
    """

    def __init__(
        self,
        source: Path | None,
        slices: Sequence[CTSlice],
        out: Path,
        samples: int,
        seed: int,
        known: Mapping[str, Any],
    ) -> None:
        self.by_slice = source is not None and source.is_dir()
        self.slices, self.out = slices, out
        self.samples, self.seed, self.known = samples, seed, known
        self.names = folder_names([_stem(s.source) for s in slices])

    def place(self, row: int, layer: str | None) -> Path:
        """The folder for one slice and, where there are several, one layer."""
        folder = self.out / self.names[row] if self.by_slice else self.out
        return folder if layer is None else folder / layer


def explain_all(screen: Screen, task: Task, layers: Sequence[str], make: Maker) -> None:
    """Explain every slice at every layer, write each result at once, and show what was found."""
    folders: list[str | None] = [*folder_names(layers)] if len(layers) > 1 else [None]
    done: dict[tuple[int, int], tuple[Explanation, Mapping[str, Path]]] = {}
    with screen.progress() as progress:
        for column, layer in enumerate(layers):
            explainer = make(layer, progress)
            for row, one in enumerate(task.slices):
                found = explainer.explain(one, samples=task.samples, seed=task.seed, progress=progress)
                found = with_meta(found, **task.known)
                done[row, column] = found, found.save(task.place(row, folders[column]))
    ordered = [done[key] for key in sorted(done)]
    report = None
    if task.by_slice or len(ordered) > 1:
        from ctinv.invariance.report import summary

        report = summary([explanation for explanation, _ in ordered], task.out / "report.html")
    show(screen, ordered, report)


def _stem(source: Path | None) -> str:
    return "slice" if source is None else source.name.removesuffix(source.suffix)
