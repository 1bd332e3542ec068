"""What all answers about changes have in common: pictures, figures, sentences and files."""

from __future__ import annotations

import io
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from ctinv.adapters._types import Image
from ctinv.invariance.audit.record import Figure
from ctinv.invariance.audit.scores import Score, scores
from ctinv.invariance.data.windows import choose_window
from ctinv.invariance.infra.files import write_files
from ctinv.invariance.infra.pages import number, page
from ctinv.invariance.infra.records import plain
from ctinv.invariance.reporting.added import Added
from ctinv.invariance.reporting.packing import Picture as Shown
from ctinv.invariance.reporting.sheet import Sheet, bar_text, scale_bar

from .about import About

__all__ = ["Answer", "Picture", "answers_html", "told"]

_SCHEMA = 1
_COLUMNS = 5


def told(value: float, title: str, meaning: str, unit: str = "") -> Figure:
    """One number of an answer with what it says."""
    return Figure(value, unit, title=title, meaning=meaning)


@dataclass(frozen=True, eq=False)
class Picture:
    """One panel of a figure.

    Arguments:
        title: What it is.
        image: (H, W), HU.
        caption: One short line below it.
        kind: ``grey`` in a grey window, ``change`` from blue over white to red, ``map`` from black.
        top: The end of the colour scale, HU, where others have the same; its own largest value where None.
    """

    title: str
    image: Image
    caption: str = ""
    kind: Literal["grey", "change", "map"] = "grey"
    top: float | None = None


@dataclass(frozen=True, eq=False)
class Answer(ABC):
    """An answer about changes of one slice; see its kinds.

    Arguments:
        about: What was asked of.
        x: The slice (H, W), HU.
    """

    about: About
    x: Image

    kind = "answer"

    @property
    @abstractmethod
    def title(self) -> str:
        """What the page is called."""

    @property
    def part(self) -> str:
        """The part of the slice that it is about, in words; empty for all of it."""
        return ""

    @property
    @abstractmethod
    def verdict(self) -> list[str]:
        """The answer in plain sentences."""

    @property
    @abstractmethod
    def figures(self) -> Mapping[str, Figure]:
        """Its numbers by key."""

    @property
    @abstractmethod
    def pictures(self) -> list[list[Picture]]:
        """Its panels, row by row, at most five in each."""

    @property
    def compared(self) -> Sequence[Shown]:
        """Its images beside those that a report of the same slice has anyway, for the report's viewer."""
        return ()

    def added(self) -> Added:
        """The same for the report of an analysis of the same slice and layer."""
        return Added(self.title, self.verdict, scores(self.figures), self.compared)

    @property
    @abstractmethod
    def images(self) -> Mapping[str, npt.NDArray[Any]]:
        """What ``images.npz`` holds, in HU."""

    @property
    def result(self) -> dict[str, Any]:
        """What ``result.json`` holds; numbers that are not finite are None."""
        return {
            "schema_version": _SCHEMA,
            "kind": self.kind,
            "units": "HU",
            **self.about.result,
            "shape": list(self.x.shape),
            "figures": plain(self.figures),
            "verdict": self.verdict,
        }

    def save(self, out_dir: str | Path) -> dict[str, Path]:
        """Write ``figure.png``, ``images.npz``, ``report.html`` and, last, ``result.json``.

        Arguments:
            out_dir: Folder; made where it does not exist.

        Returns:
            The path of each file by name.

        Raises:
            CtinvError: The folder cannot be written.
        """
        png = self.figure_png()
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **self.images)
        text = json.dumps(self.result, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
        return write_files(
            out_dir,
            {
                "figure.png": png,
                "images.npz": buffer.getvalue(),
                "report.html": answers_html([self], [png]).encode(),
                "result.json": text.encode(),
            },
        )

    def figure_png(self) -> bytes:
        """Draw the panels; all grey ones share one window. A PNG file."""
        rows = self.pictures
        columns = max(len(row) for row in rows)
        sheet = Sheet(self.x.shape, columns=max(columns, 3), rows=len(rows), compact=max(self.x.shape) > 600)
        sheet.head(self.title, f"{self.about.source}   seed {self.about.seed}")
        window = choose_window(self.x)
        for down, row in enumerate(rows):
            for across, picture in enumerate(row):
                axes = _draw(sheet, down, across, picture, window)
                if down == across == 0:
                    scale_bar(axes, self.about.spacing)
        sheet.foot(f"Grey images: {window}. {bar_text(self.about.spacing, self.x.shape[1])}")
        return sheet.png()

    def _repr_html_(self) -> str:
        said = "".join(f"<p>{escape(line)}</p>" for line in self.verdict)
        rows = "".join(
            f"<tr><td>{escape(s.title)}</td><td>{escape(s.text)}</td></tr>" for s in scores(self.figures)
        )
        return f"<p><b>{escape(self.title)}</b></p>{said}<table><tbody>{rows}</tbody></table>"


def _draw(sheet: Sheet, row: int, column: int, picture: Picture, window: Any) -> Any:
    image = picture.image
    if picture.kind == "grey":
        axes, _ = sheet.grey(row, column, image, window, picture.title, picture.caption)
        return axes
    top = picture.top or float(np.abs(image).max()) or 1.0
    scale = (
        f"blue −{number(top)}, red {number(top)} HU"
        if picture.kind == "change"
        else f"white {number(top)} HU"
    )
    caption = f"{picture.caption}; {scale}" if picture.caption else scale
    if picture.kind == "map":
        axes, _ = sheet.spread(row, column, image, top, picture.title, caption)
        return axes
    axes, _ = sheet.panel(row, column, image, picture.title, caption, cmap="RdBu_r", vmin=-top, vmax=top)
    return axes


def answers_html(answers: Sequence[Answer], drawn: Sequence[bytes] | None = None) -> str:
    """One self-contained page about the answers for one or several layers.

    Arguments:
        answers: At least one, all of one kind and of one slice.
        drawn: Their figures as PNG files; drawn anew where None.
    """
    pictures = drawn or [answer.figure_png() for answer in answers]
    sections = [_section(answer, png) for answer, png in zip(answers, pictures, strict=True)]
    title = answers[0].title
    if len({answer.part for answer in answers}) > 1:
        title = title.removesuffix(f" {answers[0].part}")
    return page("answer.html.j2", title=title, sections=sections, facts=answers[0].about.facts)


def _section(answer: Answer, png: bytes) -> dict[str, Any]:
    rows: tuple[Score, ...] = scores(answer.figures)
    return {
        "layer": f"{answer.about.layer} {answer.part}".strip(),
        "op": answer.about.op,
        "verdict": answer.verdict,
        "scores": rows,
        "figure": png,
    }
