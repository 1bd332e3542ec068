"""Running a graph: the law for every layer, batches, and what the runtime returns."""

import copy

import numpy as np
import onnx
import pytest
import torch
from ctinv.adapters.errors import (
    ModelError,
    UnsupportedModelError,
)
from onnx import helper

from ..by_hand import check_law, constant, image


@pytest.mark.parametrize("exporter", ["legacy", "dynamo"])
@pytest.mark.parametrize("net", ["plain", "twisted"])
def test_law_of_exported_nets(onnx_toy, open_onnx, capture, net, exporter):
    path = onnx_toy(net, exporter).path
    denoiser = open_onnx(path, verify=True)
    x = image(2, *denoiser.probe_size)
    name = onnx.load(str(path)).graph.input[0].name
    assert check_law(denoiser, capture(path, {name: x}), x, atol=5e-5) >= 5


def test_O01_the_file_and_its_folder_stay_as_they_are(onnx_toy, open_onnx, folder_state):
    path = onnx_toy("plain", "legacy").path
    before = folder_state(path.parent)
    denoiser = open_onnx(path, verify=True)
    for layer in denoiser.layers:
        denoiser.features(image(), layer.name)
    assert folder_state(path.parent) == before


def test_O08_optimised_and_plain_agree_and_a_difference_is_refused(onnx_toy, open_onnx, monkeypatch):
    denoiser = open_onnx(onnx_toy("twisted", "legacy").path, verify=True)
    x = image()
    for layer in denoiser.layers:
        if layer.tappable:
            denoiser.features(x, layer.name)
    read = denoiser._runner.read

    def skewed(x, wanted, *, exact=False):
        return {want: value + exact for want, value in read(x, wanted, exact=exact).items()}

    monkeypatch.setattr(denoiser._runner, "read", skewed)
    with pytest.raises(UnsupportedModelError, match="optimised graph is 1 away"):
        denoiser.features(x, "pool")


@pytest.mark.parametrize(
    ("wrong", "says"), [(None, "no tensor"), (np.zeros(3, np.int64), "int64"), (np.zeros(3), "1 axes")]
)
def test_O08_what_the_runtime_returns_is_checked(onnx_toy, open_onnx, monkeypatch, wrong, says):
    denoiser = open_onnx(onnx_toy("plain", "legacy").path)
    assert denoiser.layers
    if wrong is None:

        class Session:
            def get_inputs(self):
                return []

            get_overridable_initializers = get_inputs

            def run(self, names, feeds):
                return [None for _ in names]

        monkeypatch.setattr(denoiser._sessions, "get", lambda *_a, **_k: Session())
    else:
        monkeypatch.setattr(denoiser._sessions, "run", lambda _s, names, _f: [wrong for _ in names])
    with pytest.raises(ModelError, match=says):
        denoiser._run(image(), ["conv1"], False)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_O13_fixed_batch_equals_single_calls(conv_graph, open_onnx, batch):
    # a reshape that keeps the batch in its target cannot be lifted: pad and loop
    nodes = [helper.make_node("Reshape", ["y", "s"], ["z"])]
    fixed = open_onnx(
        conv_graph(
            (batch, 1, 24, 20),
            extra_nodes=nodes,
            outputs="z",
            extra_stored=[constant("s", [batch, 1, 24, 20], np.int64)],
        )
    )
    free = open_onnx(conv_graph())
    x = image(3)
    for name in ("c1", "r", "c2"):
        np.testing.assert_allclose(fixed.features(x, name), free.features(x, name), atol=1e-6)
    np.testing.assert_allclose(fixed.denoise(x), free.denoise(x), atol=1e-6)
    assert not any("images" in notice for notice in fixed.notices if "constant" not in notice)


def test_O13_fixed_batch_with_mixed_images_is_refused(conv_graph, open_onnx):
    nodes = [
        helper.make_node("Transpose", ["y"], ["t"], perm=[1, 0, 2, 3]),
        helper.make_node("Reshape", ["y", "s"], ["z"]),
    ]
    path = conv_graph(
        (2, 1, 24, 20), extra_nodes=nodes, outputs="z", extra_stored=[constant("s", [2, 1, 24, 20], np.int64)]
    )
    with pytest.raises(UnsupportedModelError, match="told apart"):
        open_onnx(path)._run(image(3), ["t"], False)


def test_O13_what_mixes_the_images_of_a_batch_is_not_lifted(conv_graph, open_onnx):
    nodes = [helper.make_node("ReduceMean", ["y"], ["m"]), helper.make_node("Sub", ["y", "m"], ["z"])]
    fixed = open_onnx(conv_graph((1, 1, "h", "w"), extra_nodes=nodes, outputs="z"))
    x = image(3)
    single = np.concatenate([fixed.denoise(x[i : i + 1]) for i in range(3)])
    np.testing.assert_allclose(fixed.denoise(x), single, atol=1e-5)
    assert np.abs(single.mean(axis=(1, 2, 3))).max() < 1e-5


def test_O13_free_batches_that_mix_images_are_run_one_by_one_and_announced(conv_graph, open_onnx):
    """As exporters write them that took the number of images for a constant."""
    nodes = [helper.make_node("ReduceMean", ["y"], ["m"]), helper.make_node("Sub", ["y", "m"], ["z"])]
    denoiser = open_onnx(conv_graph(("n", 1, "h", "w"), extra_nodes=nodes, outputs="z"))
    x = image(3)
    single = np.concatenate([denoiser.denoise(x[i : i + 1]) for i in range(3)])
    np.testing.assert_allclose(denoiser.denoise(x), single, atol=1e-5)
    np.testing.assert_allclose(denoiser.denoise(torch.from_numpy(x)).numpy(), single, atol=1e-5)
    assert sum("one by one" in notice for notice in denoiser.notices) == 1
    np.testing.assert_allclose(denoiser.features(x, "r"), open_onnx(conv_graph()).features(x, "r"), atol=1e-6)


def test_results_are_snapshots(onnx_toy, open_onnx):
    denoiser = open_onnx(onnx_toy("plain", "legacy").path)
    x = image()
    first = denoiser.features(x, "conv1")
    kept = copy.deepcopy(first)
    denoiser.features(x + 1, "conv1")
    np.testing.assert_array_equal(first, kept)
