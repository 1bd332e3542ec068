"""ONNX files of the zoo: the same numbers, the same names, one file, whole or not at all."""

import ast
import os

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from ctinv import adapters, zoo
from ctinv.adapters.errors import CtinvError, ModelError

EXPORTERS = ["dynamo", "torchscript"]


@pytest.fixture(scope="module", params=[(n, e) for n in ("chen", "yang") for e in EXPORTERS], ids="-".join)
def exported(request, tmp_path_factory):
    name, exporter = request.param
    folder = tmp_path_factory.mktemp("onnx")
    path = zoo.export(name, folder / "model.onnx", exporter=exporter)
    return name, exporter, path


def scopes(node):
    """The module a node comes from, for either exporter."""
    for prop in node.metadata_props:
        if prop.key == "pkg.torch.onnx.name_scopes":
            return ast.literal_eval(prop.value)[1]
    return node.name.split("/")[1]


def test_same_numbers_at_any_size(exported):
    name, _, path = exported
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    for shape in ((1, 1, 64, 64), (3, 1, 50, 71)):
        x = rng.uniform(0, 0.6, shape).astype(np.float32)
        (y,) = session.run(None, {"x": x})
        expected = zoo.network(name)(torch.from_numpy(x)).detach().numpy()
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5)


def test_nodes_keep_the_layer_names(exported):
    name, _, path = exported
    nodes = onnx.load(path).graph.node
    assert [scopes(node) for node in nodes] == [n for n, _ in zoo.network(name).named_children()]
    assert [node.op_type for node in nodes] == ["Conv", "Relu"] * (len(nodes) // 2) + ["Conv"]


def test_metadata_tells_how_to_use_it(exported):
    name, _, path = exported
    props = {p.key: p.value for p in onnx.load(path).metadata_props}
    about = zoo.metadata(name)
    assert props["ctinv.name"] == name
    assert props["ctinv.intensity"] == about["ctinv.intensity"]
    assert props["ctinv.output"] == about["ctinv.output"]


def test_file_stands_alone(exported):
    _, _, path = exported
    assert os.listdir(path.parent) == ["model.onnx"]
    model = onnx.load(path, load_external_data=False)
    assert all(t.data_location == onnx.TensorProto.DEFAULT for t in model.graph.initializer)
    onnx.checker.check_model(model, full_check=True)


def test_no_path_of_this_machine_is_in_it(exported):
    _, _, path = exported
    content = path.read_bytes()
    assert os.path.dirname(torch.__file__).encode() not in content
    assert b"stack_trace" not in content


def test_adapter_reads_it_like_the_module(exported):
    name, _, path = exported
    module, graph = zoo.load(name), adapters.load(path)
    assert graph.intensity.spec == module.intensity.spec
    x = np.random.default_rng(0).normal(0, 40, (2, 1, 64, 64)).astype(np.float32)
    layer = {"chen": "conv3", "yang": "conv7"}[name]
    np.testing.assert_allclose(graph.features(x, layer), module.features(x, layer), rtol=0, atol=1e-5)
    np.testing.assert_allclose(graph.denoise(x), module.denoise(x), rtol=0, atol=0.05)


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_fixed_size(exporter, tmp_path):
    path = zoo.export("chen", tmp_path / "fixed.onnx", exporter=exporter, dynamic=False)
    (given,) = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).get_inputs()
    assert given.shape == [1, 1, 64, 64]


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_quiet_and_leaves_no_traces(exporter, tmp_path, capfd, recwarn):
    import logging
    import warnings

    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    before = (logger.level, list(warnings.filters), torch.is_grad_enabled())
    zoo.export("chen", tmp_path / "m.onnx", exporter=exporter)
    assert capfd.readouterr().out == ""
    assert not recwarn.list
    assert (logger.level, list(warnings.filters), torch.is_grad_enabled()) == before


def test_unknown_exporter(tmp_path):
    with pytest.raises(ModelError, match="'tf'; it must be one of: dynamo, torchscript"):
        zoo.export("chen", tmp_path / "m.onnx", exporter="tf")


def test_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "nowhere").write_bytes(b"")
    with pytest.raises(CtinvError, match=r"cannot write into .*nowhere.*another folder"):
        zoo.export("chen", tmp_path / "nowhere" / "m.onnx", exporter="torchscript")


def test_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    target = tmp_path / "m.onnx"
    target.write_bytes(b"old")

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(CtinvError, match="no space left"):
        zoo.export("chen", target, exporter="torchscript")
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["m.onnx"]
