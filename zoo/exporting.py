"""Writes a denoiser of the zoo as one ONNX file that keeps its layer names and its units."""

from __future__ import annotations

import io
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ctinv.adapters.errors import ModelError
from ctinv.invariance.infra.files import write_files

from . import registry

if TYPE_CHECKING:
    from torch import nn

__all__ = ["export"]

_SIZE = 64
_AXES = {0: "batch", 2: "height", 3: "width"}


def export(
    name: str,
    path: str | os.PathLike[str],
    exporter: Literal["dynamo", "torchscript"] = "dynamo",
    dynamic: bool = True,
) -> Path:
    """Write a trained denoiser as ONNX.

    The graph has one input, ``x``, and one output, ``denoised``, both float32 (N, 1, H, W) in the
    model's units. The file stands alone (no external data) and says in its metadata how to use it:
    ``ctinv.intensity``, ``ctinv.output`` and ``ctinv.name``. Layers keep their names: ``conv7`` of
    the network is the node scoped ``conv7``. The file appears whole or not at all.

    Arguments:
        name: Id or alias of a denoiser of the zoo.
        path: The file to write; an existing one is replaced.
        exporter: PyTorch's own way to trace: ``dynamo`` (torch.export) or the older ``torchscript``.
        dynamic: Whether batch, height and width are free; otherwise they are 1, 64 and 64.

    Returns:
        The path written.

    Raises:
        ModelError: Unknown name or exporter, or the file cannot be written there.
    """
    makers = {"dynamo": _dynamo, "torchscript": _torchscript}
    if exporter not in makers:
        raise ModelError(f"exporter is {exporter!r}; it must be one of: {', '.join(makers)}")
    entry = registry.find(name)
    info = registry.metadata(entry.name)
    model = makers[exporter](registry.network(entry.name), dynamic)
    for node in model.graph.node:
        # Stack traces hold the file names of the machine that exported; nobody else can use them.
        kept = [p for p in node.metadata_props if p.key != "pkg.torch.onnx.stack_trace"]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
    for key, value in (
        ("ctinv.intensity", info["ctinv.intensity"]),
        ("ctinv.output", info["ctinv.output"]),
        ("ctinv.name", entry.name),
    ):
        model.metadata_props.add(key=key, value=value)
    target = Path(path)
    write_files(target.parent, {target.name: model.SerializeToString()})
    return target


def _dynamo(net: nn.Module, dynamic: bool) -> Any:
    import torch

    axes = {index: torch.export.Dim(name) for index, name in _AXES.items()}
    with _quiet():
        program = torch.onnx.export(
            net,
            (torch.zeros(2 if dynamic else 1, 1, _SIZE, _SIZE),),
            dynamo=True,
            verbose=False,
            input_names=["x"],
            output_names=["denoised"],
            dynamic_shapes=(axes,) if dynamic else None,
            external_data=False,
        )
    if program is None:
        raise ModelError("PyTorch's dynamo exporter gave no model; try exporter='torchscript'")
    return program.model_proto


def _torchscript(net: nn.Module, dynamic: bool) -> Any:
    import onnx
    import torch

    buffer = io.BytesIO()
    with _quiet():
        torch.onnx.export(
            net,
            (torch.zeros(1, 1, _SIZE, _SIZE),),
            buffer,  # type: ignore[arg-type]
            dynamo=False,
            input_names=["x"],
            output_names=["denoised"],
            dynamic_axes={"x": _AXES, "denoised": _AXES} if dynamic else None,
        )
    return onnx.load_model_from_string(buffer.getvalue())


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide what PyTorch's exporters say about their own insides, and nothing else."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    before = logger.level
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*legacy TorchScript-based ONNX export")
        warnings.filterwarnings("ignore", message=r"The feature will be removed", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)`")
        logger.setLevel(logging.ERROR)  # it reports that torchvision is absent, which is not needed
        try:
            yield
        finally:
            logger.setLevel(before)
