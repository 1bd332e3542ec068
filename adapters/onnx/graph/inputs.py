"""Which input of a graph takes the image, and what the others are fed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from ctinv.adapters.errors import ModelError, UnsupportedModelError

from .trace import initializers, value_shape, value_type

__all__ = ["Inputs", "numpy_type", "read_inputs", "split_feed"]

_MOST = 2**28  # values that an input of fixed size may have
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)


def numpy_type(kind: int) -> np.dtype[Any]:
    """The numpy type of an ONNX element type."""
    dtype: np.dtype[Any] = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind))
    return dtype


@dataclass(frozen=True)
class Inputs:
    """The inputs of a graph.

    Arguments:
        image: Name of the image input.
        shape: Its declared shape, None for free axes, in the graph's own axis order.
        symbols: Names of its free axes, empty where there is none.
        dtype: Its element type.
        fed: Values for other inputs with their declared shapes; a free axis follows the image's
            axis of the same name, the first one the number of images.
        symbols_fed: Names of the free axes of those.
    """

    image: str
    shape: tuple[int | None, ...]
    symbols: tuple[str, ...]
    dtype: np.dtype[Any]
    fed: dict[str, tuple[np.ndarray, tuple[int | None, ...] | None]]
    symbols_fed: dict[str, tuple[str, ...]]

    def feeds(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """What to give a session along with one batch, in the graph's own axis order."""
        feeds = {self.image: image}
        if not self.fed:
            return feeds
        known = {name: size for name, size in zip(self.symbols, image.shape, strict=True) if name}
        for name, (value, shape) in self.fed.items():
            if shape is None:
                feeds[name] = value
                continue
            target: list[int] = []
            for axis, size in enumerate(shape):
                own = value.shape[axis - len(shape)] if len(shape) - axis <= value.ndim else 1
                free = known.get(self.symbols_fed[name][axis], len(image) if axis == 0 else own)
                target.append(int(size or (own if own != 1 else free or 1)))
            feeds[name] = np.ascontiguousarray(np.broadcast_to(value, target))
        return feeds


def _symbols(value: onnx.ValueInfoProto) -> tuple[str, ...]:
    return tuple(dim.dim_param for dim in value.type.tensor_type.shape.dim)


def _show(value: onnx.ValueInfoProto) -> str:
    shape = value_shape(value)
    if shape is None:
        return str(value.name)
    symbols = _symbols(value)
    sizes = ", ".join(
        str(size) if size is not None else (symbol or "?")
        for size, symbol in zip(shape, symbols, strict=True)
    )
    return f"{value.name} [{sizes}]"


def _may_be_image(value: onnx.ValueInfoProto) -> bool:
    shape = value_shape(value)
    return shape is None or len(shape) == 4


def _image_input(
    values: list[onnx.ValueInfoProto], where: str, asked: str | None, fed: Mapping[str, Any]
) -> onnx.ValueInfoProto:
    listing = "; ".join(_show(value) for value in values) or "none"
    if asked is not None:
        for value in values:
            if value.name == asked:
                return value
        raise ModelError(f"{where}: no input is called {asked!r}; its inputs are: {listing}")
    images = [value for value in values if value_type(value) in (*_FLOATS, 0) and _may_be_image(value)]
    left = [value for value in images if value.name not in fed]
    if len(images) == 1 or len(left) == 1:
        return (left or images)[0]
    if not images:
        raise UnsupportedModelError(
            f"{where}: no input takes float images (N, C, H, W); its inputs are: {listing}"
        )
    raise ModelError(f"{where}: several inputs could take the image; say which with input_name=: {listing}")


def split_feed(
    model: onnx.ModelProto, asked: str | None, feed: Mapping[str, Any] | None
) -> tuple[dict[str, Any], dict[str, float]]:
    """Values for further inputs, and those for further channels of the image.

    A number whose name is no input stands for a channel, where the only image has just so many more.

    Arguments:
        model: The model.
        asked: The image input by name, or None.
        feed: Values by name.
    """
    given = dict(feed or {})
    stored = initializers(model.graph)
    values = [value for value in model.graph.input if value.name not in stored]
    maps = {name: value for name, value in given.items() if name not in {v.name for v in model.graph.input}}
    images = [value for value in values if value.name == asked or (asked is None and len(values) == 1)]
    shape = value_shape(images[0]) if len(images) == 1 else None
    fits = shape is not None and len(shape) == 4 and 1 + len(maps) in (shape[1], shape[3])
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in maps.values())
    if not maps or not fits or not numbers:
        return given, {}
    return {name: value for name, value in given.items() if name not in maps}, maps


def read_inputs(
    model: onnx.ModelProto, where: str, asked: str | None, feed: Mapping[str, Any] | None
) -> Inputs:
    """Sort the inputs of a model.

    Arguments:
        model: The model.
        where: Its path, for messages.
        asked: The image input by name; None for the only one of rank 4 that is not fed.
        feed: Values of further inputs: numbers or arrays, broadcast to the declared shape.

    Raises:
        ModelError: The image input is ambiguous, or another input has no value.
        UnsupportedModelError: No input takes float images of rank 4.
    """
    stored = initializers(model.graph)
    required = [value for value in model.graph.input if value.name not in stored]
    given = dict(feed or {})
    image = _image_input(required, where, asked, given)
    kind, shape = value_type(image) or onnx.TensorProto.FLOAT, value_shape(image) or (None,) * 4
    if kind not in _FLOATS or len(shape) != 4:
        raise UnsupportedModelError(f"{where}: input {_show(image)} does not take float images (N, C, H, W)")
    if math.prod(size or 1 for size in shape) > _MOST:
        raise UnsupportedModelError(f"{where}: input {_show(image)} is larger than any stack of CT slices")
    others = {value.name: value for value in model.graph.input if value.name != image.name}
    unknown = sorted(set(given) - set(others))
    if unknown:
        raise ModelError(
            f"{where}: nothing can be fed to {', '.join(unknown)}; inputs besides the image are: "
            + ("; ".join(_show(value) for value in others.values()) or "none")
        )
    missing = [value for value in required if value.name != image.name and value.name not in given]
    if missing:
        raise ModelError(
            f"{where}: inputs besides the image {image.name!r} need values, for example "
            f"feed {missing[0].name}=0.05: " + "; ".join(_show(value) for value in missing)
        )
    fed = {name: _value(others[name], value, where) for name, value in given.items()}
    return Inputs(
        image.name,
        shape,
        _symbols(image) or ("",) * 4,
        numpy_type(kind),
        fed,
        {name: _symbols(others[name]) for name in fed},
    )


def _value(
    value: onnx.ValueInfoProto, given: Any, where: str
) -> tuple[np.ndarray, tuple[int | None, ...] | None]:
    kind, shape = value_type(value) or onnx.TensorProto.FLOAT, value_shape(value)
    try:
        array = np.asarray(given).astype(numpy_type(kind))
        if array.dtype.kind in "iu" and (array != np.asarray(given)).any():
            raise ValueError("whole numbers are expected")
        if shape is not None:
            np.broadcast_shapes(array.shape, tuple(size or 1 for size in shape))
            if array.ndim > len(shape):
                raise ValueError("too many axes")
            for own, size in zip(array.shape[::-1], shape[::-1], strict=False):
                if size is not None and own not in (1, size):
                    raise ValueError("sizes differ")
    except (TypeError, ValueError) as error:
        raise ModelError(f"{where}: input {_show(value)} cannot be fed {given!r}") from error
    return array, shape
