"""Wrong input of every kind, each drawn from a seed: models, weights, images, command lines."""

from __future__ import annotations

import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ctinv.invariance.infra.randomness import Purpose, rng

__all__ = ["SEEDS", "garbled", "mutated_graph", "seed_graph", "seed_weights"]

SEEDS = 30
_NUMBERS = (0, 1, -1, 2, 3, 7, 127, 255, 4096, 2**31 - 1, -(2**31), 2**31, 2**40, 2**62, -(2**63))
_OPERATORS = (
    *("Relu", "Sigmoid", "Tanh", "Abs", "Neg", "Softplus", "Identity", "LeakyRelu", "Elu", "Erf", "Sqrt"),
    *("Conv", "ConvTranspose", "MaxPool", "AveragePool", "GlobalAveragePool", "BatchNormalization"),
    *("InstanceNormalization", "Add", "Mul", "Sub", "Div", "Concat", "Split", "Slice", "Pad", "Resize"),
    *("Reshape", "Transpose", "Shape", "Gather", "Unsqueeze", "Squeeze", "Flatten", "Expand", "Tile", "Cast"),
    *("DepthToSpace", "SpaceToDepth", "ReduceMean", "Softmax", "MatMul", "Gemm", "Clip", "Where", "Range"),
    *("ConstantOfShape", "Loop", "If", "LSTM", "TopK", "NonZero", "Einsum", "GridSample", "Mod", "Nobody"),
)


def garbled(raw: bytes, dice: random.Random) -> bytes:
    """Bytes with some changed, cut out, doubled or put in."""
    data = bytearray(raw)
    for _ in range(dice.choice((1, 1, 2, 4, 16))):
        place = dice.randrange(max(len(data), 1))
        kind = dice.randrange(6)
        if kind == 0 and data:
            data[place] ^= 1 << dice.randrange(8)
        elif kind == 1 and data:
            data[place] = dice.randrange(256)
        elif kind == 2:
            del data[place : place + dice.choice((1, 4, 100, 10_000))]
        elif kind == 3:
            data[place:place] = data[place : place + dice.choice((1, 8, 200))]
        elif kind == 4:
            data[place:place] = bytes(dice.randrange(256) for _ in range(dice.choice((1, 4, 9))))
        else:
            data[place : place + 9] = b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f"
    return bytes(data)


def seed_graph(number: int) -> Any:
    """A sound small network: convolutions and what stands between them, drawn by its number."""
    from onnx import TensorProto, helper, numpy_helper

    node = helper.make_node
    numbers, dice = rng(number, Purpose.WORKLOAD), random.Random(number)
    nodes, stored, last, channels = [], [], "x", 1
    for step in range(dice.randrange(2, 6)):
        width = dice.choice((2, 3, 4))
        weight = numbers.normal(0, 0.3, (width, channels, 3, 3)).astype(np.float32)
        stored.append(numpy_helper.from_array(weight, f"w{step}"))
        nodes.append(node("Conv", [last, f"w{step}"], [f"c{step}"], name=f"/c{step}", pads=[1] * 4))
        last, channels = f"c{step}", width
        between = dice.choice(("Relu", "Tanh", "Norm", "Pool", "Skip", "Shapes", "Pad", "none"))
        if between in ("Relu", "Tanh"):
            nodes.append(node(between, [last], [f"r{step}"]))
        elif between == "Norm":
            scale = [np.ones(width, np.float32), np.zeros(width, np.float32)]
            stored += [numpy_helper.from_array(v, f"n{step}{k}") for k, v in enumerate(scale)]
            nodes.append(node("InstanceNormalization", [last, f"n{step}0", f"n{step}1"], [f"r{step}"]))
        elif between == "Pool":
            stored.append(numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), f"s{step}"))
            nodes.append(node("MaxPool", [last], [f"p{step}"], kernel_shape=[2, 2], strides=[2, 2]))
            nodes.append(node("Resize", [f"p{step}", "", f"s{step}"], [f"r{step}"], mode="nearest"))
        elif between == "Skip":
            nodes.append(node("Concat", [last, "x"], [f"r{step}"], axis=1))
            channels += 1
        elif between == "Shapes":
            nodes.append(node("Shape", [last], [f"h{step}"]))
            nodes.append(node("Reshape", [last, f"h{step}"], [f"r{step}"]))
        elif between == "Pad":
            stored.append(numpy_helper.from_array(np.array([0, 0, 1, 1, 0, 0, -1, -1]), f"q{step}"))
            nodes.append(node("Pad", [last, f"q{step}"], [f"r{step}"], mode="constant"))
        last = last if between == "none" else f"r{step}"
    stored.append(
        numpy_helper.from_array(numbers.normal(0, 0.3, (1, channels, 3, 3)).astype(np.float32), "end")
    )
    nodes.append(node("Conv", [last, "end"], ["y"], name="/end", pads=[1] * 4))
    free = ["n", 1, "h", "w"] if number % 3 else [1, 1, 32, 32]
    graph = helper.make_graph(
        nodes,
        "seed",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, free)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1, "h", "w"])],
        stored,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def mutated_graph(number: int, seed: int) -> bytes:
    """One of the seed networks with a few wrong numbers, names, operators or wires; or garbled bytes."""
    dice = random.Random(f"{seed} {number}")
    model = seed_graph(dice.randrange(SEEDS))
    if dice.random() < 0.4:
        return garbled(model.SerializeToString(), dice)
    for _ in range(dice.choice((1, 1, 2, 3))):
        _CHANGES[dice.randrange(len(_CHANGES))](model, dice)
    return bytes(model.SerializeToString())


def _node(model: Any, dice: random.Random) -> Any:
    return model.graph.node[dice.randrange(len(model.graph.node))]


def _attribute(model: Any, dice: random.Random) -> None:
    node = _node(model, dice)
    if not node.attribute:
        return
    attribute = node.attribute[dice.randrange(len(node.attribute))]
    if attribute.ints:
        attribute.ints[dice.randrange(len(attribute.ints))] = dice.choice(_NUMBERS)
        if dice.random() < 0.2:
            attribute.ints.append(dice.choice(_NUMBERS))
    else:
        attribute.i = dice.choice(_NUMBERS)


def _new_attribute(model: Any, dice: random.Random) -> None:
    from onnx import helper

    name = dice.choice(("group", "strides", "dilations", "axis", "kernel_shape", "to", "mode", "blocksize"))
    value: Any = dice.choice((dice.choice(_NUMBERS), [dice.choice(_NUMBERS)] * 2, "reflect", 1e38))
    _node(model, dice).attribute.append(helper.make_attribute(name, value))


def _operator(model: Any, dice: random.Random) -> None:
    _node(model, dice).op_type = dice.choice(_OPERATORS)


def _wire(model: Any, dice: random.Random) -> None:
    node = _node(model, dice)
    names = [name for other in model.graph.node for name in (*other.input, *other.output)] + ["", "nothing"]
    if node.input:
        node.input[dice.randrange(len(node.input))] = dice.choice(names)
    if dice.random() < 0.3:
        node.input.append(dice.choice(names))


def _dims(model: Any, dice: random.Random) -> None:
    tensor = model.graph.initializer[dice.randrange(len(model.graph.initializer))]
    if tensor.dims:
        tensor.dims[dice.randrange(len(tensor.dims))] = dice.choice(_NUMBERS)


def _values(model: Any, dice: random.Random) -> None:
    tensor = model.graph.initializer[dice.randrange(len(model.graph.initializer))]
    if dice.random() < 0.5:
        tensor.data_type = dice.randrange(0, 24)
    else:
        tensor.raw_data = garbled(tensor.raw_data, dice)


def _input(model: Any, dice: random.Random) -> None:
    shape = model.graph.input[0].type.tensor_type.shape.dim
    if shape and dice.random() < 0.7:
        shape[dice.randrange(len(shape))].dim_value = dice.choice(_NUMBERS)
    else:
        model.graph.input[0].type.tensor_type.elem_type = dice.randrange(0, 24)


def _missing(model: Any, dice: random.Random) -> None:
    del model.graph.node[dice.randrange(len(model.graph.node))]


def _doubled(model: Any, dice: random.Random) -> None:
    model.graph.node.insert(dice.randrange(len(model.graph.node)), _node(model, dice))


def _version(model: Any, dice: random.Random) -> None:
    model.opset_import[0].version = dice.choice((*_NUMBERS, 7, 9, 11, 13, 21, 24))
    model.ir_version = dice.choice((3, 4, 8, 10, 99))


_CHANGES: tuple[Callable[[Any, random.Random], None], ...] = (
    *(_attribute, _new_attribute, _operator, _wire, _dims, _values, _input, _missing, _doubled, _version),
    *(_attribute, _operator, _wire),
)


def seed_weights(path: Path, kind: str) -> None:
    """Sound weights of a network of the zoo, as safetensors or as torch saves them."""
    import torch
    from ctinv import zoo
    from safetensors.torch import save_file

    state = zoo.network("chen").state_dict()
    if kind == "safetensors":
        save_file({key: value.contiguous() for key, value in state.items()}, path)
    elif kind == "pt":
        torch.save({"state_dict": state, "epoch": 3}, path)
    else:  # without the zip archive
        torch.save(state, path, _use_new_zipfile_serialization=False)
    assert kind != "pt" or zipfile.is_zipfile(path)
