"""The names and facts of one place where a denoiser can be read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

__all__ = ["INPUT", "OUTPUT", "Layer", "Output", "Progress"]

INPUT = "@input"
OUTPUT = "@output"


@dataclass(frozen=True)
class Layer:
    """One place of a denoiser where its representation ``z`` can be read.

    Arguments:
        name: The name that :meth:`Denoiser.features` takes.
        op: Operator: a PyTorch class name or an ONNX operator type.
        shape: Shape of ``z`` without its image axis, channels first, seen for one probe image of
            :attr:`Denoiser.probe_size` pixels; empty where it is not known.
        aliases: Other names that lead here.
        tappable: Whether the layer can be read.
        note: Why it cannot, or what a reader must know about it.
    """

    name: str
    op: str
    shape: tuple[int, ...]
    aliases: tuple[str, ...] = ()
    tappable: bool = True
    note: str = ""


Output = Literal["image", "residual"]


Progress = Callable[[str, int, int], None]
