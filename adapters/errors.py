"""Every error that ctinv raises on purpose; the command line turns each into exit code 2."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "AmbiguousLayerError",
    "CtinvError",
    "DeviceError",
    "ImageError",
    "IntensityError",
    "LayerError",
    "ModelError",
    "RowsError",
    "UnsupportedModelError",
]


class CtinvError(Exception):
    """Something the user gave cannot be used; the message says what it was and how to mend it."""


class ModelError(CtinvError):
    """A model cannot be loaded or run: missing file, not a model, wrong runtime version."""


class UnsupportedModelError(ModelError):
    """A model that can be loaded but whose layers cannot be observed truthfully."""


class RowsError(UnsupportedModelError):
    """A layer gives several rows for each image, and batches of images cannot be told apart in them."""


class LayerError(CtinvError):
    """A layer name that does not exist, is ambiguous, or cannot be observed.

    Arguments:
        message: What is wrong with the name.
        name: The name asked for.
        matches: Names that would have worked, closest first.
    """

    def __init__(self, message: str, name: str = "", matches: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.name = name
        self.matches = tuple(matches)


class AmbiguousLayerError(LayerError):
    """A layer name that several layers answer to; ``matches`` are theirs."""


class ImageError(CtinvError):
    """An image that cannot be read or analysed: wrong shape, non-finite, not CT."""


class IntensityError(CtinvError):
    """An intensity convention that is malformed, contradicts the image, or cannot be told."""


class DeviceError(CtinvError):
    """A device that was asked for and is not there."""
