"""The cases of a run: every slice at every layer of every model, in one order that never changes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

from ctinv.adapters.errors import CtinvError

__all__ = ["Case", "Plan", "Shard", "folder_names"]

_T = TypeVar("_T")


@dataclass(frozen=True)
class Shard:
    """One part of a run: of every ``count`` cases the ``number``-th, counted from 1.

    Example:
        >>> list(Shard(2, 3).of("abcdefgh"))
        ['b', 'e', 'h']
        >>> str(Shard.parse("2/3"))
        '2/3'
    """

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """From a text such as ``3/8``.

        Raises:
            CtinvError: It is no such text.
        """
        match = re.fullmatch(r"\s*(\d{1,9})\s*/\s*(\d{1,9})\s*", text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise CtinvError(f"{text!r} is no shard; write i/N with i from 1 to N, such as 3/8")
        return cls(int(match[1]), int(match[2]))

    @property
    def alone(self) -> bool:
        """Whether this is the whole run."""
        return self.count == 1

    def of(self, cases: Sequence[_T] | Iterator[_T]) -> Iterator[_T]:
        """The cases that belong to this shard."""
        return islice(iter(cases), self.number - 1, None, self.count)

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


@dataclass(frozen=True)
class Case:
    """One slice at one layer of one model, by their numbers in the run.

    Arguments:
        model: Number of the model.
        layer: Number of the layer among those of the model.
        slice: Number of the slice.
        folder: Where its files go, below the run's own folder.
    """

    model: int
    layer: int
    slice: int
    folder: Path


@dataclass(frozen=True)
class Plan:
    """Everything that a run consists of.

    Arguments:
        models: What each model is called.
        layers: What the layers of each model are called.
        slices: What each slice is called.
        by_slice: Whether each slice has a folder of its own, as those of a folder do.
    """

    models: tuple[str, ...]
    layers: tuple[tuple[str, ...], ...]
    slices: tuple[str, ...]
    by_slice: bool = False

    def __len__(self) -> int:
        return len(self.slices) * sum(map(len, self.layers))

    @property
    def single(self) -> bool:
        """Whether the run is one analysis, whose files lie in the run's own folder."""
        return len(self) == 1 and not self.by_slice

    def __iter__(self) -> Iterator[Case]:
        """Every case: model by model, of each slice by slice, of each layer by layer.

        Folders are nested likewise; a level that has one member only is left out.
        """
        models = folder_names(self.models) if len(self.models) > 1 else [""]
        slices = folder_names([Path(name).stem for name in self.slices])
        for model, layers in enumerate(self.layers):
            inner = folder_names(layers) if len(layers) > 1 else [""]
            for row, place in enumerate(slices):
                above = Path(models[model], place if self.by_slice else "")
                for layer, last in enumerate(inner):
                    yield Case(model, layer, row, above / last)


def folder_names(names: Sequence[str]) -> list[str]:
    """Names that can be folders: safe characters only, all different.

    Example:
        >>> folder_names(["/conv7/Conv", "conv7", "conv7"])
        ['conv7_Conv', 'conv7', 'conv7-2']
    """
    chosen: list[str] = []
    taken: set[str] = set()
    tried: dict[str, int] = {}  # where to go on counting, as thousands may be called alike
    for name in names:
        plain = re.sub(r"[^\w.@+-]+", "_", name).strip("_.")[:_LONGEST] or "unnamed"
        count = tried.get(plain.lower(), 1)
        candidate = plain if count == 1 else f"{plain}-{count}"
        while candidate.lower() in taken:
            count += 1
            candidate = f"{plain}-{count}"
        tried[plain.lower()] = count
        taken.add(candidate.lower())
        chosen.append(candidate)
    return chosen


_LONGEST = 120  # characters; file systems take 255 bytes
