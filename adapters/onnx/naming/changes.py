"""What optimisers and quantisers did to a graph after its export, as far as it shows.

They keep names where they change what these stand for: a node may go by the name of a convolution and
return what an activation after it made of that. What does not lie is checked here instead: operator
domain and attributes, the names of weights, and, in graphs of PyTorch's exporters, that a tensor is
named after the node that made it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import onnx
from ctinv.adapters.onnx.graph.quantisation import plain
from ctinv.adapters.onnx.graph.sizes import words
from ctinv.adapters.onnx.graph.trace import Trace

__all__ = ["Changes"]

_RUNTIME = {"com.microsoft.nchwc", "com.microsoft.experimental", "org.pytorch.aten", "com.ms.internal.nhwc"}
_BLOCKED = "com.microsoft.nchwc"
_TENSOR = re.compile(r"(/.*[A-Z]\w*)_output_\d+")
_OPERATOR = re.compile(r"([A-Z][A-Za-z0-9]*?)(_\d+)?")
_INNER = re.compile(r"node_[A-Z]\w*_\d+")
# Operators whose stored operands decide what they return, so that something may be folded into these.
_WEIGHTED = words(
    """Add BatchNormalization Conv ConvTranspose Div FusedConv FusedGemm FusedMatMul Gemm
    InstanceNormalization LayerNormalization MatMul Mul PRelu QGemm QLinearAdd QLinearConv QLinearMatMul
    QLinearMul Sub"""
)
_TOOLS = re.compile(r"_v_\d+|\w*Fusion_\w*|.*Fusion_(W|B|Mul_B|Add_B|BN_B)_.*")
_FOLDED = {"ConvBnFusion": "bn", "ConvMulFusion": "mul", "ConvAddFusion": "add", "MatMulBnFusion": "bn"}
_SHORT = {"BatchNormalization": "bn", "Erf": "gelu", "Gelu": "gelu"}
# What contrib operators do after the operator that they are named after.
_AFTER = {"BiasGelu": "gelu", "BiasSoftmax": "softmax", "FastGelu": "gelu", "BiasSplitGelu": "gelu"}


def _attribute(node: onnx.NodeProto, name: str) -> str:
    return next((a.s.decode() for a in node.attribute if a.name == name), "")


def _unquantised(name: str) -> str:
    return name.removesuffix("_quant")


def _plain_type(node: onnx.NodeProto) -> str:
    """Operator type without what quantisers put before it."""
    return re.sub(r"^Q(Linear)?(?=[A-Z])", "", node.op_type)


class Changes:
    """What was done to a graph since its exporter wrote it.

    Arguments:
        trace: The graph.
    """

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._finals = {plain(value.name) for value in trace.model.graph.output}
        self.by = ""
        self._scoped = any(_TENSOR.fullmatch(name) for node in trace.nodes for name in node.output)
        self.by = self._changed_by()
        self.blocked = self._in_blocks()

    def _changed_by(self) -> str:
        """Who changed the file after its export, in words; empty if nothing shows that anybody did."""
        model = self._trace.model
        if any(entry.key.startswith("onnxsim.") for entry in model.metadata_props):
            return "onnxsim"
        if any(opset.domain in _RUNTIME for opset in model.opset_import):
            return "ONNX Runtime"
        if model.producer_name == "onnx.quantize":
            return "a quantiser"
        odd = (index for index, node in enumerate(self._trace.nodes) if self._odd(index, node))
        if model.producer_name == "pytorch" and (next(odd, None) is not None):
            return "an optimiser"
        # PyTorch's older exporter writes no shapes between input and output; whoever rewrites does.
        return "a tool" if self._scoped and model.graph.value_info else ""

    def _odd(self, index: int, node: onnx.NodeProto) -> bool:
        """Whether a node is none that an exporter of PyTorch writes."""
        if node.domain not in ("", "ai.onnx", "com.microsoft") or self.doubt(index):
            return True
        inner = [name for name in node.output if name in self._trace.from_image and name not in self._finals]
        return self._scoped and any(not name.startswith(f"{node.name}_output_") for name in inner)

    def _in_blocks(self) -> set[str]:
        """Tensors whose channels are kept in blocks of eight or sixteen, as no other operator reads them."""
        blocked: set[str] = set()
        for node in self._trace.nodes:
            if node.op_type == "ReorderOutput":
                continue
            if node.domain == _BLOCKED or any(name in blocked for name in node.input):
                blocked.update(name for name in node.output if name)
        return blocked

    def beyond(self, tensors: list[str]) -> Iterator[str]:
        """Plain tensors that are next after those kept in blocks."""
        waiting = list(tensors)
        for tensor in waiting:
            for user in self._trace.users.get(tensor, ()):
                for name in self._trace.nodes[user].output:
                    if name and name not in self.blocked:
                        yield name
                    elif name and name not in waiting:
                        waiting.append(name)

    def exported_as(self, index: int) -> str:
        """Name of the node that made this node's first output when the graph was exported; else empty.

        Whoever puts one operator in place of several leaves the last tensor its name, or else the
        first node its own; a node that has a name of its own and a tensor that was another's has
        been given the other's work.
        """
        node = self._trace.nodes[index]
        tensor = _TENSOR.fullmatch(plain(next(iter(node.output), "")))
        if tensor is not None:
            return tensor[1]
        if self.by and node.name.startswith("/"):
            written = _OPERATOR.fullmatch(_unquantised(node.name).rpartition("/")[2])
            if (
                written is None
                or written[1] != _plain_type(node)
                or plain(node.output[0]) not in self._finals
            ):
                return ""
        return str(node.name)

    def operator(self, index: int) -> str:
        """Operator type of the node as exported."""
        written = _OPERATOR.fullmatch(_unquantised(self.exported_as(index)).rpartition("/")[2])
        return written[1] if written else str(self._trace.nodes[index].op_type)

    def replaced(self, index: int) -> bool:
        """Whether a node returns the tensor of another node than the one that it is named after."""
        node = self._trace.nodes[index]
        first, own = plain(next(iter(node.output), "")), _unquantised(node.name)
        if _TENSOR.fullmatch(first):
            return self.exported_as(index) != own
        if not self.by or own.startswith("/"):
            return False
        if own.startswith("node_"):
            inner = bool(_INNER.fullmatch(own)) and node.domain in ("", "ai.onnx")
            return not inner and own != f"node_{first}"
        return self._trace.model.producer_name == "pytorch" and not self._scoped and own != first

    def doubt(self, index: int) -> str:
        """Why a node's numbers need not be those of the module that it is named after; empty if none."""
        node = self._trace.nodes[index]
        written = node.name.startswith("/") and self.exported_as(index) == node.name
        if written and self.operator(index) != _plain_type(node):
            return f"its operator is {node.op_type} where the export wrote {self.operator(index)}"
        if node.op_type not in _WEIGHTED:
            return ""
        for name in node.input:
            if not name or name in self._trace.from_image:
                continue
            given = plain(name)
            made = _TOOLS.fullmatch(given) or any(
                given in (f"{out}_weight", f"{out}_bias") for out in node.output
            )
            if made or (self._scoped and given.isdigit()):
                return f"its operand {name!r} was computed after the export, so that more is folded into it"
        return ""

    def takes_in(self, tensor: str) -> str:
        """An operator that reads a tensor, and in which something before it may have been merged."""
        for index in self._trace.users.get(tensor, ()):
            node = self._trace.nodes[index]
            alike = re.match(r"FusedConv$|QLinear|QGemm$", node.op_type)
            if self.by and ((node.domain == "com.microsoft" and not alike) or self.doubt(index)):
                return f"{node.op_type} {node.name or node.output[0]!r}"
        return ""

    def suffix(self, index: int) -> str:
        """What a node does after its first operator, as ``+bn+relu``; empty if nothing."""
        node = self._trace.nodes[index]
        parts = [_FOLDED[word] for word in _FOLDED if any(n.startswith(word) for n in node.input)]
        if len(node.input) > 3 and node.input[3] and node.op_type in ("FusedConv", "Conv"):
            parts.append("add")
        fused = _attribute(node, "activation") or _AFTER.get(node.op_type, "")
        if fused:
            parts.append(fused.lower())
        elif self.replaced(index) and not parts and self.operator(index) != node.op_type:
            last = self.operator(index)
            parts.append(_SHORT.get(last, last.lower()))
        return "".join(f"+{part}" for part in parts)
