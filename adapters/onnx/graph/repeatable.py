"""Refuse graphs whose numbers change from run to run."""

from __future__ import annotations

import onnx
from ctinv.adapters.errors import UnsupportedModelError

from .trace import Trace

__all__ = ["check_repeatable"]

_RANDOM = {
    "Bernoulli",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
}


def _in_training(node: onnx.NodeProto, trace: Trace) -> bool:
    if node.op_type == "BatchNormalization":
        return any(a.name == "training_mode" and a.i for a in node.attribute) or len(node.output) > 3
    if node.op_type == "Dropout" and len(node.input) > 2 and node.input[2]:
        mode = trace.constant(node.input[2])
        return mode is None or bool(mode.any())
    return False


def check_repeatable(trace: Trace, where: str) -> None:
    """Look for operators that draw random numbers or learn from what they see.

    Raises:
        UnsupportedModelError: There are some, so that no two runs would agree.
    """
    for node in trace.nodes:
        name = node.name or next(iter(node.output), "")
        if _in_training(node, trace):
            raise UnsupportedModelError(
                f"{where}: {node.op_type} {name!r} is in training mode, so no two runs agree; export the "
                "network again after model.eval()"
            )
        if node.op_type in _RANDOM and node.domain in ("", "ai.onnx"):
            raise UnsupportedModelError(
                f"{where}: {node.op_type} {name!r} draws random numbers, so no two runs agree; export the "
                "network without it"
            )
