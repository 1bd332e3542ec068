"""Read an ONNX file whole, or say in one line why it cannot be one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import onnx.numpy_helper
from ctinv.adapters.errors import ModelError

from .finite import refuse_unfinite
from .weights import is_external, load_weights, stored_tensors

__all__ = ["one_line", "read_model"]

_SIGNS = (
    (b"<", "it is a web page or XML text; download the file itself again"),
    (b"version https://git-lfs", "it is a Git LFS pointer; fetch the real file with `git lfs pull`"),
    (b"PK\x03\x04", "it is a zip archive, perhaps PyTorch weights; export the network to ONNX first"),
    (b"\x89HDF", "it is an HDF5 file, perhaps Keras weights; export the network to ONNX first"),
    (b"{", "it is JSON text"),
)


def _texts(message: Any) -> Iterator[str | bytes]:
    """Every text field of a message; protobuf gives bytes for what is not UTF-8."""
    for field, value in message.ListFields():
        many = value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else [value]
        if field.type == field.TYPE_STRING:
            yield from many
        elif field.type == field.TYPE_MESSAGE:
            for part in many:
                yield from _texts(part)


def one_line(error: BaseException, limit: int = 300) -> str:
    """The text of an error on one line, cut to a readable length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _opening(path: Path) -> bytes:
    if not path.exists():
        raise ModelError(f"{path}: there is no such file; give the path of an .onnx file")
    if path.is_dir():
        raise ModelError(f"{path}: this is a folder; give the .onnx file inside it")
    try:
        with path.open("rb") as file:
            return file.read(64)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({one_line(error)})") from error


def read_model(path: Path) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """Read a model with its external weights, functions inlined; the file is never touched.

    External weights are looked for beside the file, never in the current folder, and may not lie
    outside the file's folder.

    Returns:
        The model, and weights too large to be in it (see :func:`load_weights`).

    Raises:
        ModelError: The file is missing, is not ONNX, is damaged, lacks its external weights, or holds weights
            that are NaN or infinite.
    """
    start = _opening(path)
    if not start:
        raise ModelError(f"{path}: the file is empty; copy or export it again")
    for sign, meaning in _SIGNS:
        if start.lstrip().startswith(sign):
            raise ModelError(f"{path}: not an ONNX model: {meaning}")
    try:
        model = onnx.load_model(str(path), format="protobuf", load_external_data=False)
    except Exception as error:  # protobuf and onnx raise several unrelated kinds
        raise ModelError(
            f"{path}: not an ONNX model, or a damaged or truncated one; copy or export it again "
            f"({one_line(error)})"
        ) from error
    if not model.graph.node or not model.graph.output:
        raise ModelError(f"{path}: holds no network (no operators or no output); copy or export it again")
    if not all(isinstance(text, str) for text in _texts(model)):
        raise ModelError(f"{path}: a damaged file, its names are not text; copy it again")
    weights = load_weights(model, path)
    for tensor in stored_tensors(model.graph):
        if is_external(tensor):
            continue
        try:
            onnx.numpy_helper.to_array(tensor)
        except Exception as error:  # what is raised depends on what is broken
            raise ModelError(
                f"{path}: tensor {tensor.name!r} is damaged; copy or export it again ({one_line(error)})"
            ) from error
    inlined = _inlined(model, path)
    refuse_unfinite(inlined, weights, str(path))
    return inlined, weights


def _inlined(model: onnx.ModelProto, path: Path) -> Any:
    if not model.functions:
        return model
    try:
        return onnx.inliner.inline_local_functions(model)
    except Exception as error:
        raise ModelError(f"{path}: its local functions cannot be expanded ({one_line(error)})") from error
