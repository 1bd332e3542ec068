"""The answer to a further question, as a report shows it beside its own images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ctinv.invariance.audit.scores import Score

from .packing import Picture

__all__ = ["Added"]


@dataclass(frozen=True, eq=False)
class Added:
    """The answer to a further question about the same slice and layer.

    Arguments:
        title: What was asked.
        says: The answer in sentences.
        rows: Its figures.
        pictures: Its images, for the report's viewer; of the slice's size, HU.
    """

    title: str
    says: Sequence[str]
    rows: Sequence[Score]
    pictures: Sequence[Picture]
