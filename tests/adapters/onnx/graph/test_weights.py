"""Weights beside the file: found, too large, cut off, or out of bounds."""

import numpy as np
import onnx
import pytest
from ctinv.adapters.base import OUTPUT
from ctinv.adapters.errors import (
    ModelError,
)
from ctinv.adapters.onnx.graph import weights as _onnx_weights
from onnx import helper

from ..by_hand import constant, image

EXTERNAL = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 0}


def test_O15_external_weights_are_found_beside_the_file_only(conv_graph, open_onnx, tmp_path, monkeypatch):
    path = conv_graph(save=EXTERNAL)
    expected = open_onnx(conv_graph()).denoise(image())
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(open_onnx(path).denoise(image()), expected)
    monkeypatch.chdir(path.parent)
    np.testing.assert_array_equal(open_onnx(path.name).denoise(image()), expected)
    (tmp_path / "model.onnx").write_bytes(path.read_bytes())
    # the weights lie in the current folder, but not beside the copied file
    with pytest.raises(ModelError, match=r"weights\.bin, which is not beside it"):
        open_onnx(tmp_path / "model.onnx")


def test_O15_truncated_external_weights(conv_graph, open_onnx):
    path = conv_graph(save=EXTERNAL)
    (path.parent / "weights.bin").write_bytes(b"12")
    with pytest.raises(ModelError, match=r"model\.onnx"):
        open_onnx(path)


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/hostname", "a/../../weights.bin", ""])
def test_O26_external_weights_may_not_escape(conv_graph, open_onnx, location):
    path = conv_graph(save=EXTERNAL)
    model = onnx.load(str(path), load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(model.SerializeToString())
    (path.parent.parent / "weights.bin").write_bytes(b"\0" * 4096)
    with pytest.raises(ModelError, match=r"model\.onnx") as caught:
        open_onnx(path)
    assert "\n" not in str(caught.value)


def test_O26_external_weights_may_not_be_links_out(conv_graph, open_onnx, tmp_path):
    path = conv_graph(save=EXTERNAL)
    (tmp_path / "secret").write_bytes((path.parent / "weights.bin").read_bytes())
    (path.parent / "weights.bin").unlink()
    (path.parent / "weights.bin").symlink_to(tmp_path / "secret")
    with pytest.raises(ModelError):
        open_onnx(path)


def test_O16_weights_too_large_for_a_message_stay_in_their_file(
    conv_graph, open_onnx, folder_state, monkeypatch, tmp_path
):
    big = constant("map", np.random.default_rng(3).normal(size=(1, 1, 64, 64)))
    node = helper.make_node("Add", ["y", "map"], ["z"])
    path = conv_graph((1, 1, 64, 64), extra_nodes=[node], outputs="z", extra_stored=[big], save=EXTERNAL)
    before = folder_state(path.parent)
    x = image(2, 64, 64)
    small = open_onnx(path)
    expected = small.features(x, ["r", OUTPUT])
    monkeypatch.setattr(_onnx_weights, "INLINE_LIMIT", 100)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    denoiser = open_onnx(path)
    (stored,) = (t for t in denoiser._trace.model.graph.initializer if t.name == "map")
    assert _onnx_weights.is_external(stored)
    found = denoiser.features(x, ["r", OUTPUT])
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])
    assert denoiser.layers == small.layers
    assert denoiser.fingerprint == small.fingerprint
    assert folder_state(path.parent) == before
    assert not list(tmp_path.iterdir())
    for spoil in (lambda data: data[:-100], lambda _: b""):
        (path.parent / "weights.bin").write_bytes(spoil((path.parent / "weights.bin").read_bytes()))
        with pytest.raises(ModelError, match="external weights cannot be read"):
            open_onnx(path)
    (path.parent / "weights.bin").rename(tmp_path / "weights.bin")
    with pytest.raises(ModelError, match="not beside it"):
        open_onnx(path)
    (path.parent / "weights.bin").symlink_to(tmp_path / "weights.bin")
    with pytest.raises(ModelError, match="cannot be read"):
        open_onnx(path)
