"""ONNX graphs rebuilt as PyTorch modules, for gradients and for bit-equal arithmetic."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch
from ctinv.adapters.onnx.graph.inputs import Inputs
from ctinv.adapters.onnx.graph.prune import Wanted, prefix
from ctinv.adapters.onnx.graph.trace import Trace
from torch import Tensor, nn

from . import (
    ops_attention,
    ops_control,
    ops_index,
    ops_norms,
    ops_quantised,
    ops_recurrent,
    ops_resize,
    ops_spectral,
    ops_windows,
)
from .ops import NotPlainError
from .program import read_steps, run_steps

__all__ = ["GraphModule", "NotPlainError", "Observed", "rebuilt"]

# Importing them fills the registry.
_REGISTERED = (
    ops_attention,
    ops_control,
    ops_index,
    ops_norms,
    ops_quantised,
    ops_recurrent,
    ops_resize,
    ops_spectral,
    ops_windows,
)


class GraphModule(nn.Module):
    """A graph as a module that runs its operators one after another.

    Sizes are computed as the graph says, at every run, so any image size that the graph takes will do.

    Arguments:
        model: The graph; its first output is what the module returns.
        inputs: Its inputs: where the image goes, and what the others are fed.

    Raises:
        NotPlainError: The graph needs more than is rebuilt here.
    """

    def __init__(self, model: onnx.ModelProto, inputs: Inputs) -> None:
        super().__init__()
        graph = model.graph
        self._inputs, self._output = inputs, graph.output[0].name
        self._weights: dict[str, str] = {}
        self._fixed: dict[str, Tensor] = {}
        opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)
        known = {inputs.image, *inputs.fed}
        self._steps, graph_digest = read_steps(graph, opset, known, [self._output], self._keep)
        digest = hashlib.sha256(graph_digest.encode())
        fed = {name: torch.from_numpy(np.array(value)) for name, (value, _) in inputs.fed.items()}
        for name, value in {**self._fixed, **fed}.items():
            digest.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
            digest.update(np.ascontiguousarray(value.numpy()).tobytes())
        self._graph = digest.hexdigest()

    def _keep(self, name: str, value: Tensor) -> None:
        if value.dtype != torch.float32:
            self._fixed[name] = value  # sizes and indices stay on the CPU
            return
        self._weights[name] = f"weight{len(self._weights)}"
        self.register_buffer(self._weights[name], value)

    def extra_repr(self) -> str:
        """What tells this graph from others."""
        return f"graph={self._graph}"

    def forward(self, x: Tensor) -> Tensor:
        """The image in model units, in the graph's own axis order, to the graph's first output."""
        values: dict[str, Any] = {name: getattr(self, kept) for name, kept in self._weights.items()}
        values.update(self._fixed)
        if self._inputs.fed:
            # Only the shape of the image counts here.
            feeds = self._inputs.feeds(np.broadcast_to(np.float32(0), tuple(x.shape)))
            values.update({name: torch.tensor(feeds[name], device=x.device) for name in self._inputs.fed})
        values[self._inputs.image] = x
        run_steps(self._steps, values)
        result: Tensor = values[self._output]
        return result


class Observed(nn.Module):
    """A part of a network as the layer ``phi`` of a network that returns its input.

    Arguments:
        graph: The part.
        last: Whether the graph takes images with their channels last.
        turned: Whether it returns its output so.
        maps: Values of further channels that the graph takes behind the image's.
    """

    def __init__(self, graph: nn.Module, last: bool, turned: bool, maps: Sequence[float] = ()) -> None:
        super().__init__()
        turning = Turned(graph, last, turned) if last or turned else graph
        self.phi = Mapped(turning, maps) if maps else turning

    def forward(self, x: Tensor) -> Tensor:
        """The image (N, C, H, W) in model units, unchanged."""
        self.phi(x)
        return x


class Mapped(nn.Module):
    """A graph that takes further channels of one value each, such as a noise level, behind the image's."""

    def __init__(self, graph: nn.Module, values: Sequence[float]) -> None:
        super().__init__()
        self.graph = graph
        self.register_buffer("values", torch.tensor(values, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        """The image (N, 1, H, W) in model units to the graph's output."""
        maps = self.get_buffer("values").view(1, -1, 1, 1).expand(len(x), -1, *x.shape[-2:])
        z: Tensor = self.graph(torch.cat([x, maps], dim=1))
        return z


class Turned(nn.Module):
    """A graph with channels last behind axes with channels first."""

    def __init__(self, graph: nn.Module, last: bool, turned: bool) -> None:
        super().__init__()
        self.graph, self.last, self.turned = graph, last, turned

    def forward(self, x: Tensor) -> Tensor:
        """The image (N, C, H, W) in model units to the graph's output, channels second."""
        z: Tensor = self.graph(x.permute(0, 2, 3, 1) if self.last else x)
        return z.permute(0, 3, 1, 2) if self.turned and z.ndim == 4 else z


def rebuilt(
    trace: Trace, want: Wanted, inputs: Inputs, last: bool, turned: bool, maps: Sequence[float] = ()
) -> tuple[nn.Module, nn.Module]:
    """What one tensor of a graph needs, as a module, and as the layer ``phi`` of another.

    Arguments:
        trace: The graph.
        want: The tensor.
        inputs: The inputs of the graph.
        last: Whether the graph takes images with their channels last.
        turned: Whether the tensor has its channels last.
        maps: Values of further channels of the image.

    Raises:
        NotPlainError: The graph needs more than is rebuilt here, or the tensor is quantised.
    """
    if want.scale:
        raise NotPlainError("a quantised tensor")
    observed = Observed(GraphModule(prefix(trace, [want]), inputs), last, turned, maps).eval()
    return observed.phi, observed
