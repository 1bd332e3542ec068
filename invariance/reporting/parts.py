"""What the shared parts of a page are filled with: a sortable table, strips, a matrix of small maps.

The macros ``sortable_table``, ``strip`` and ``matrix`` of ``templates/parts.html.j2`` take these records;
a page that uses them names :data:`SCRIPTS`::

    page("mine.html.j2", scripts=SCRIPTS, table=Table(...), matrix=Matrix(...), ...)
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from ctinv.adapters._types import Image

__all__ = ["SCRIPTS", "Cell", "Column", "Matrix", "Table", "map_png", "thumbnail"]

SCRIPTS = ("dom.js", "save.js", "table.js", "strip.js")
"""What tables and strips run on; a matrix runs on none."""

_FIRST = 25


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Arguments:
        key: Its name in files and for strips.
        title: Its head.
        unit: For example HU; empty for words and ratios.
        number: Whether it holds numbers; what is not known or not finite is None.
        meaning: One sentence for the reader, shown with the strip.
    """

    key: str
    title: str
    unit: str = ""
    number: bool = True
    meaning: str = ""

    @property
    def head(self) -> str:
        """Title and unit."""
        return f"{self.title} [{self.unit}]" if self.unit else self.title


@dataclass(frozen=True)
class Table:
    """Rows of words and numbers, of which each may open a page.

    Arguments:
        id: What its parts are called on the page: letters only, once a page.
        name: What its CSV file is called, without the ending.
        caption: What the rows are.
        columns: The first holds the link.
        rows: Their cells, in the order of the columns.
        links: For each row the page that it opens, made by :func:`ctinv.invariance.infra.pages.link`.
    """

    id: str
    name: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[str | float | None]]
    links: Sequence[str | None]

    def __post_init__(self) -> None:
        if len(self.links) != len(self.rows) or any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"the rows of table {self.id!r} do not fit its columns or links")

    @property
    def first(self) -> list[tuple[Sequence[Any], str | None]]:
        """The rows that stand in the page without scripts, and their links."""
        return list(zip((self._plain(row) for row in self.rows[:_FIRST]), self.links[:_FIRST], strict=True))

    @property
    def stored(self) -> dict[str, Any]:
        """All that the scripts read."""
        columns = [{"key": c.key, "title": c.title, "unit": c.unit, "number": c.number} for c in self.columns]
        rows = [self._plain(row) for row in self.rows]
        return {"name": self.name, "columns": columns, "rows": rows, "links": list(self.links)}

    def column(self, key: str) -> Column:
        """The column of that key."""
        return next(column for column in self.columns if column.key == key)

    def values(self, key: str) -> list[int | float]:
        """The numbers in a column, without those that are not known."""
        at = [column.key for column in self.columns].index(key)
        return [v for v in (self._plain(row)[at] for row in self.rows) if isinstance(v, int | float)]

    def _plain(self, row: Sequence[str | float | None]) -> list[str | float | None]:
        return [_rounded(v) if isinstance(v, int | float | np.number) else v for v in row]


def _rounded(value: float) -> float | None:
    """Six digits are more than any figure here has."""
    if not math.isfinite(value):
        return None
    return int(value) if isinstance(value, int | np.integer) else float(f"{value:.6g}")


@dataclass(frozen=True)
class Cell:
    """One cell of a matrix.

    Arguments:
        text: What it says, for example a bracket in HU.
        value: Decides its shade, where it has no map.
        link: The page that it opens.
        picture: A small map as a PNG file.
        told: What the picture shows, for those who do not see it.
    """

    text: str
    value: float | None = None
    link: str | None = None
    picture: bytes | None = None
    told: str = ""


@dataclass(frozen=True)
class Matrix:
    """Cells by row and column, such as slices by layers; None where there is no case.

    Arguments:
        caption: What the cells show, and on which common scale.
        corner: What the rows and columns are, for example "slice / layer".
        columns: Their heads.
        rows: Their heads.
        cells: For each row as many as there are columns.
        missing: What stands where there is no cell.
    """

    caption: str
    corner: str
    columns: Sequence[str]
    rows: Sequence[str]
    cells: Sequence[Sequence[Cell | None]]
    missing: str = "none"

    @property
    def lines(self) -> Iterator[tuple[str, list[tuple[Cell | None, int]]]]:
        """Each row's head and its cells, with the shade of each, 0 to 100."""
        values = [c.value for row in self.cells for c in row if c is not None and c.value is not None]
        top = max(values, default=0.0) or 1.0
        for head, row in zip(self.rows, self.cells, strict=True):
            yield head, [(c, round(100 * c.value / top) if c and c.value and c.value > 0 else 0) for c in row]


def thumbnail(image: Image, side: int = 96) -> npt.NDArray[np.float32]:
    """A map made small enough to stand beside many: the root of its mean square in each block of pixels.

    Arguments:
        image: Map (H, W), HU.
        side: Most pixels along the longer side.

    Returns:
        (h, w), HU.

    Example:
        >>> thumbnail(np.full((192, 96), 3.0, np.float32)).shape
        (96, 48)
    """
    step = max(1, -(-max(image.shape) // side))
    square = np.square(np.asarray(image, dtype=np.float64))
    height, width = (-(-size // step) * step for size in image.shape)
    padded = np.pad(square, [(0, height - image.shape[0]), (0, width - image.shape[1])], mode="edge")
    blocks = padded.reshape(height // step, step, width // step, step)
    return np.sqrt(blocks.mean((1, 3))).astype(np.float32)


def map_png(image: npt.NDArray[np.float32], top: float) -> bytes:
    """A small map in the colours of all maps, black for 0, as a PNG file of 256 colours.

    Arguments:
        image: (h, w), HU.
        top: What is drawn in the brightest colour, HU.
    """
    from matplotlib import colormaps
    from PIL import Image as Picture

    levels = np.clip(np.nan_to_num(image) / (top or 1.0) * 255, 0, 255).round().astype(np.uint8)
    picture = Picture.fromarray(levels)
    palette = np.asarray(colormaps["inferno"](np.arange(256), bytes=True))[:, :3]
    picture.putpalette(palette.tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
