"""Model and weight files that announce more than they hold: refused in one line and in little memory."""

import json
import resource
import zipfile

import numpy as np
import onnx
import pytest
import torch
from ctinv import adapters
from ctinv.adapters.errors import ModelError
from onnx import TensorProto, helper, numpy_helper
from torch import nn

ZEROS = bytes(1 << 20)
TERA = 10**12


@pytest.fixture(autouse=True)
def little_memory():
    """No more than 100 MB are taken at any moment."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


def refusal(call):
    with pytest.raises(ModelError) as found:
        call()
    assert "\n" not in str(found.value)
    return str(found.value)


def fill(path):
    from ctinv.adapters.pytorch.weights import fill as into

    return into(nn.Conv2d(1, 1, 3), path)


def with_header(path, header, length=None):
    text = json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text)


@pytest.mark.parametrize(
    ("header", "length"),
    [
        ({}, 2**62),
        ({}, 90_000_000),
        ({"weight": {"dtype": "F32", "shape": [TERA], "data_offsets": [0, 4 * TERA]}}, None),
        ({"weight": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 8]}}, None),
    ],
)
def test_safetensors_that_announce_terabytes(tmp_path, header, length):
    path = tmp_path / "w.safetensors"
    with_header(path, header, length)
    assert str(path) in refusal(lambda: fill(path))


def test_checkpoints_that_unfold_into_far_more(tmp_path):
    plain = tmp_path / "plain.pt"
    torch.save({"weight": torch.zeros(4), "bias": torch.zeros(4)}, plain)
    path = tmp_path / "w.pt"
    with zipfile.ZipFile(plain) as whole, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in whole.namelist():
            with archive.open(name, "w", force_zip64=True) as file:
                file.write(whole.read(name))
                if "/data/" in name:
                    for _ in range(160):
                        file.write(ZEROS)
    assert "would unfold into" in refusal(lambda: fill(path))


def test_checkpoints_of_views_that_are_huge(tmp_path):
    path = tmp_path / "w.pt"
    torch.save({"weight": torch.zeros(1).expand(TERA), "bias": torch.zeros(1)}, path)
    assert path.stat().st_size < 10_000
    refusal(lambda: fill(path))


def graph(path, stored, shape=("n", 1, "h", "w")):
    nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
    made = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1, "h", "w"])],
        [stored],
    )
    path.write_bytes(
        helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )
    return path


def external(dims, **entries):
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": "w.bin", **entries}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(value)
    return tensor


@pytest.mark.parametrize("dims", [[TERA], [2**31, 2**31], [2**62, 4]])
def test_a_weight_without_the_values_that_it_announces(tmp_path, dims):
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims)
    path = graph(tmp_path / "m.onnx", tensor)
    assert str(path) in refusal(lambda: adapters.load(path))


@pytest.mark.parametrize(
    ("dims", "entries"),
    [
        ([1], {"length": TERA}),
        ([1], {}),
        ([TERA], {}),
        ([TERA], {"length": 4 * TERA}),
        ([2**62, 4], {"length": 0}),
        ([1], {"length": 4, "offset": TERA}),
    ],
)
def test_weights_in_a_file_of_terabytes(tmp_path, dims, entries):
    path = graph(tmp_path / "m.onnx", external(dims, **entries))
    with (tmp_path / "w.bin").open("wb") as file:
        file.truncate(3 << 30)  # a file with holes takes no room on the disk
    assert str(path) in refusal(lambda: adapters.load(path))


@pytest.mark.parametrize(
    "shape",
    [[2**31, 1, 64, 64], [1, 1, 64, 2**31 - 1], [127, 1, 2**31, 32], [2**40, 1, "h", "w"], [2**62] * 4],
)
def test_an_input_of_terabytes(tmp_path, shape):
    path = graph(tmp_path / "m.onnx", numpy_helper.from_array(np.ones(1, np.float32), "w"), shape)
    assert "is larger than any stack of CT slices" in refusal(lambda: adapters.load(path))


def test_weights_beside_the_model_are_read_as_ever(tmp_path):
    path = graph(tmp_path / "m.onnx", external([2, 2], length=16, offset=4))
    np.arange(5, dtype=np.float32).tofile(tmp_path / "w.bin")
    model = onnx.load(path)
    assert numpy_helper.to_array(model.graph.initializer[0], str(tmp_path)).tolist() == [[1, 2], [3, 4]]
    x = np.zeros((1, 1, 2, 2), np.float32)
    found = adapters.load(path, intensity="hu", output="image").denoise(x)
    assert found[0, 0].tolist() == [[1, 2], [3, 4]]
