"""What everything else speaks of: images, layers, and how far work has come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

__all__ = ["CHANNELS_LAST", "INPUT", "OUTPUT", "Image", "Layer", "Layers", "Output", "Progress"]

INPUT = "@input"
OUTPUT = "@output"
CHANNELS_LAST = "its channels come last, as the network has them there"


@dataclass(frozen=True)
class Layer:
    """One place of a denoiser where its representation ``z`` can be read.

    Arguments:
        name: The name that :meth:`Denoiser.features` takes.
        op: Operator: a PyTorch class name or an ONNX operator type.
        shape: Shape of ``z`` without its image axis, seen for one probe image of
            :attr:`Denoiser.probe_size` pixels; empty where it is not known.
        aliases: Other names that lead here.
        tappable: Whether the layer can be read.
        note: Why it cannot, or what a reader must know about it.
        channels_last: Whether ``z`` is a map (N, H, W, C), as the network itself has it there; other
            maps are (N, C, H, W).
    """

    name: str
    op: str
    shape: tuple[int, ...]
    aliases: tuple[str, ...] = ()
    tappable: bool = True
    note: str = ""
    channels_last: bool = False


class Layers(tuple[Layer, ...]):
    """The layers of a denoiser; in a notebook they show themselves as a table."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        from html import escape

        rows = "".join(
            f"<tr><td>{escape(one.name)}</td><td>{escape(one.op)}</td>"
            f"<td>{' × '.join(map(str, one.shape)) or 'not known'}</td>"
            f"<td>{escape(one.note) if one.note or one.tappable else 'cannot be read'}</td></tr>"
            for one in self
        )
        heads = "".join(f"<th>{head}</th>" for head in ("Layer", "Operator", "Shape of z", "Note"))
        return f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"


Output = Literal["image", "residual"]
"""What a network returns: the denoised image, or the noise to take away."""

Image = npt.NDArray[np.float32]
"""Pixels in HU, one slice (H, W) where nothing else is said."""

Progress = Callable[[str, int, int], None]
"""Told the stage, and how much is done of how much."""
