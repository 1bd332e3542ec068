"""Reading any tensor of an ONNX graph: the law, prefixes, types, batches, sizes, layouts, inputs."""

import copy

import numpy as np
import onnx
import pytest
import torch
from ctinv.adapters.base import OUTPUT
from ctinv.adapters.errors import (
    CtinvError,
    ImageError,
    IntensityError,
    LayerError,
    ModelError,
    UnsupportedModelError,
)
from ctinv.adapters.onnx.graph import prune as _onnx_prune
from ctinv.adapters.onnx.graph import weights as _onnx_weights
from ctinv.adapters.onnx.running import runner as _onnx_runner
from onnx import TensorProto, helper, numpy_helper


def image(n=2, h=24, w=20, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 1, h, w)).astype(np.float32)


def constant(name, value, dtype=np.float32):
    return numpy_helper.from_array(np.asarray(value, dtype=dtype), name)


def check_law(denoiser, reference, x, atol=1e-5):
    """Every listed layer equals the reference under one of its names, or says why it is not there."""
    compared = 0
    for layer in denoiser.layers:
        if not layer.tappable:
            assert layer.note
            with pytest.raises(LayerError) as caught:
                denoiser.features(x, layer.name)
            assert layer.name in str(caught.value)
            assert caught.value.matches
            continue
        tensor = denoiser._places[layer.name].tensor
        z = denoiser.features(x, layer.name)
        assert z.dtype == np.float32
        assert z.shape[1:] == layer.shape or x.shape[-2:] != denoiser.probe_size
        np.testing.assert_allclose(z, reference[tensor], rtol=0, atol=atol, err_msg=layer.name)
        compared += 1
    return compared


# -- O1, O8 to O12: what is cut out of the graph ----------------------------------------------------


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


def test_O09_an_early_layer_needs_only_the_nodes_before_it(onnx_toy, open_onnx, monkeypatch):
    denoiser = open_onnx(onnx_toy("plain", "dynamo").path)
    models = []

    def spy(trace, wanted):
        models.append(_onnx_prune.prefix(trace, wanted))
        return models[-1]

    monkeypatch.setattr(_onnx_runner, "prefix", spy)
    expected = {"conv1": (1, 2), "relu2": (2, 2), "conv3": (3, 4), "relu4": (4, 4), "conv5": (5, 6)}
    for name in expected:
        denoiser._run(image(), [name], False)
    sizes = [(len(model.graph.node), len(model.graph.initializer)) for model in models]
    assert sizes[: len(expected)] == list(expected.values())[: len(sizes)]
    assert any("name_scopes" in entry.key for entry in models[0].graph.node[0].metadata_props)
    made = len(models)
    denoiser._run(image(), ["conv1"], False)
    assert len(models) == made, "sessions are kept"


def test_O09_a_tail_that_cannot_run_does_not_matter_to_early_layers(conv_graph, open_onnx):
    tail = helper.make_node("Reshape", ["y", "bad"], ["z"])
    path = conv_graph(extra_nodes=[tail], outputs="z", extra_stored=[constant("bad", [1, 1, 7, 7], np.int64)])
    denoiser = open_onnx(path)
    assert denoiser._run(image(), ["c1"], False)["c1"].shape == (2, 3, 24, 20)
    with pytest.raises(ModelError, match=r"model.onnx"):
        denoiser.denoise(image())


def test_O10_taps_are_declared_with_their_own_type(conv_graph, open_onnx):
    denoiser = open_onnx(conv_graph(kind=TensorProto.FLOAT16))
    model = _onnx_prune.prefix(denoiser._trace, [denoiser._places["r"]])
    assert model.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT16
    assert denoiser.features(image(), "r").dtype == np.float32


def test_O11_a_layer_that_is_an_output_already(conv_graph, open_onnx, capture):
    value = helper.make_tensor_value_info("b", TensorProto.FLOAT, ["n", 3, None, None])
    path = conv_graph(extra_outputs=[value])
    denoiser = open_onnx(path)
    x = image()
    found = denoiser.features(x, ["b", "y", "r", "c2", OUTPUT])
    reference = capture(path, {"x": x})
    np.testing.assert_allclose(found["b"], reference["b"], atol=1e-5)
    np.testing.assert_array_equal(found["b"], found["r"])
    np.testing.assert_array_equal(found["y"], found[OUTPUT])
    twice = [denoiser._places[name] for name in ("r", "c2", OUTPUT, "r")]
    assert [value.name for value in _onnx_prune.prefix(denoiser._trace, twice).graph.output] == ["b", "y"]


def _branches():
    def branch(name, op):
        node = helper.make_node(op, ["y"], [f"{name}_out"], name=f"{name}_node")
        return helper.make_graph([node], name, [], [helper.make_tensor_value_info(f"{name}_out", 1, None)])

    return [
        helper.make_node("ReduceMean", ["x"], ["m"], keepdims=0),
        helper.make_node("Greater", ["m", "zero"], ["c"]),
        helper.make_node(
            "If",
            ["c"],
            ["z"],
            name="choice",
            then_branch=branch("yes", "Neg"),
            else_branch=branch("no", "Abs"),
        ),
    ]


def test_O12_inside_if_is_listed_and_refused_naming_the_node(conv_graph, open_onnx, capture):
    path = conv_graph(extra_nodes=_branches(), extra_stored=[constant("zero", 0.0)], outputs="z")
    denoiser = open_onnx(path)
    x = image(2, *denoiser.probe_size)
    inner = {layer.name: layer for layer in denoiser.layers if not layer.tappable}
    assert set(inner) == {"yes_node", "no_node"}
    for name in ("yes_node", "yes_out", "no_node"):
        with pytest.raises(LayerError, match="inside the If node 'choice'") as caught:
            denoiser.features(x, name)
        assert "choice" in caught.value.matches
    reference = capture(path, {"x": x})
    np.testing.assert_allclose(denoiser.features(x, "choice"), reference["z"], atol=1e-5)
    np.testing.assert_allclose(denoiser.features(x, "r"), reference["b"], atol=1e-5)


def test_O12_functions_are_inlined(conv_graph, open_onnx, capture):
    inner = [helper.make_node("Abs", ["i"], ["t"], name="inner_abs"), helper.make_node("Neg", ["t"], ["o"])]
    function = helper.make_function("mine", "AbsNeg", ["i"], ["o"], inner, [helper.make_opsetid("", 17)])
    call = helper.make_node("AbsNeg", ["y"], ["z"], name="call", domain="mine")
    path = conv_graph(extra_nodes=[call], outputs="z", functions=[function], domains=["mine"])
    denoiser = open_onnx(path)
    assert [layer.op for layer in denoiser.layers] == ["Conv", "Relu", "Conv", "Abs", "Neg"]
    x = image()
    y = denoiser.features(x, "c2")
    np.testing.assert_array_equal(denoiser.features(x, denoiser.layers[3].name), np.abs(y))
    np.testing.assert_array_equal(denoiser.denoise(x), -np.abs(y))


def test_several_tensors_of_one_node_are_told_apart(conv_graph, open_onnx):
    nodes = [
        helper.make_node("Concat", ["y", "x"], ["both"], axis=1),
        helper.make_node("Split", ["both"], ["left", "right"], name="halves", axis=1),
        helper.make_node("Add", ["left", "right"], ["z"]),
    ]
    denoiser = open_onnx(conv_graph(extra_nodes=nodes, outputs="z"))
    x = image()
    np.testing.assert_array_equal(denoiser.features(x, "halves[1]"), x)
    np.testing.assert_array_equal(denoiser.features(x, "right"), x)
    with pytest.raises(LayerError, match=r"halves\[0\].*halves\[1\]"):
        denoiser.features(x, "halves")


# -- O13, O14: batches and sizes --------------------------------------------------------------------


@pytest.mark.parametrize("free", ["n", None, "", "Suby_dim_0"])
def test_O14_named_and_unnamed_axes_are_free(conv_graph, open_onnx, free):
    denoiser = open_onnx(conv_graph(shape=(free, 1, free and f"{free}_h", free and f"{free}_w")))
    for shape in ((1, 24, 20), (3, 17, 31)):
        assert denoiser.features(image(*shape), "r").shape == (shape[0], 3, *shape[1:])
    assert not denoiser.notices


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


@pytest.mark.parametrize("shape", [(1, 1, 32, 32), ("n", 1, 32, 32), (4, 1, "h", "w"), (1, 1, 48, "w")])
def test_O13_fixed_sizes_are_lifted_where_operators_allow_and_announced(conv_graph, open_onnx, shape):
    fixed, free = open_onnx(conv_graph(shape)), open_onnx(conv_graph())
    for size in ((3, 40, 28), (1, 32, 32), (5, 16, 64)):
        x = image(*size)
        for name in ("r", OUTPUT):
            np.testing.assert_allclose(fixed.features(x, name), free.features(x, name), atol=1e-6)
    assert sum("outputs at the fixed size proved equal" in notice for notice in fixed.notices) == 1


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


@pytest.mark.parametrize(
    ("node", "says"),
    [
        (
            helper.make_node("BatchNormalization", ["y", *["one"] * 4], ["z", "m", "v"], training_mode=1),
            "eval",
        ),
        (helper.make_node("Dropout", ["y", "half", "yes"], ["z"], name="drop"), r"'drop'.*eval"),
        (helper.make_node("RandomNormalLike", ["y"], ["z"]), "random numbers"),
    ],
)
def test_graphs_that_change_from_run_to_run_are_refused(conv_graph, open_onnx, node, says):
    stored = [constant("one", np.ones(1)), constant("half", 0.5), constant("yes", True, np.bool_)]
    with pytest.raises(UnsupportedModelError, match=says):
        open_onnx(conv_graph(extra_nodes=[node], outputs="z", extra_stored=stored))


def test_O13_constant_maps_are_not_lifted(conv_graph, open_onnx):
    """An additive map of the fixed size would broadcast at no other, or worse, be cut."""
    ramp = np.linspace(0, 1, 32 * 32).reshape(1, 1, 32, 32)
    nodes = [helper.make_node("Add", ["y", "map"], ["z"], name="bias_map")]
    denoiser = open_onnx(
        conv_graph((1, 1, 32, 32), extra_nodes=nodes, outputs="z", extra_stored=[constant("map", ramp)])
    )
    assert denoiser.denoise(image(2, 32, 32)).shape == (2, 1, 32, 32)
    with pytest.raises(ImageError, match="32x32 pixels only, not 8x8"):
        denoiser.denoise(image(1, 8, 8))
    with pytest.raises(UnsupportedModelError, match="tiles disagree"):
        denoiser.denoise(image(1, 64, 64))


def test_O13_images_larger_than_a_fixed_size_are_tiled_exactly(conv_graph, open_onnx):
    nodes = [helper.make_node("Reshape", ["y", "s"], ["z"], name="fix")]
    path = conv_graph(
        (1, 1, 32, 32), extra_nodes=nodes, outputs="z", extra_stored=[constant("s", [1, 1, 32, 32], np.int64)]
    )
    tiled, free = open_onnx(path), open_onnx(conv_graph())
    for size in ((2, 32, 32), (1, 75, 50), (3, 33, 90)):
        x = image(*size)
        for name in ("c1", "r", "c2", OUTPUT):
            np.testing.assert_allclose(tiled.features(x, name), free.features(x, name), atol=1e-6)
    assert sum("'fix' may depend" in notice and "tiles" in notice for notice in tiled.notices) == 1
    with pytest.raises(ImageError, match="32x32 pixels only, not 16x16"):
        tiled.denoise(image(1, 16, 16))
    with pytest.raises(ModelError, match="32x32 pixels, not 16x16"):
        tiled._run(image(1, 16, 16), ["c1"], False)


def test_O13_tiles_follow_strides(export_onnx, open_onnx, tmp_path):
    import torch
    from torch import nn

    class Strided(nn.Module):
        def __init__(self, size):
            super().__init__()
            self.size = size
            self.down = nn.Conv2d(1, 4, 4, stride=4)
            self.mid = nn.Conv2d(4, 4, 3, padding=1)
            self.up = nn.ConvTranspose2d(4, 1, 4, stride=4)

        def forward(self, x):
            y = self.up(torch.relu(self.mid(self.down(x))))
            return y.reshape(1, 1, self.size, self.size) if self.size else y

    net = Strided(48).eval()
    fixed = open_onnx(export_onnx(net, tmp_path / "fixed.onnx", "legacy", (1, 1, 48, 48), free=False))
    net.size = 0
    free = open_onnx(export_onnx(net, tmp_path / "free.onnx", "legacy", (1, 1, 48, 48)))
    x = image(2, 100, 64)
    for name in ("down", "mid", "up", OUTPUT):
        np.testing.assert_allclose(fixed.features(x, name), free.features(x, name), atol=1e-5)
    assert fixed.denoise(image(1, 50, 49)).shape == (1, 1, 50, 49), "mirrored up to the next stride"


def test_O13_global_networks_are_not_tiled(conv_graph, open_onnx):
    nodes = [
        helper.make_node("GlobalAveragePool", ["y"], ["g"]),
        helper.make_node("Sub", ["y", "g"], ["d"]),
        helper.make_node("Reshape", ["d", "s"], ["z"]),
    ]
    path = conv_graph(
        (1, 1, 32, 32), extra_nodes=nodes, outputs="z", extra_stored=[constant("s", [1, 1, 32, 32], np.int64)]
    )
    with pytest.raises(UnsupportedModelError, match="whole image"):
        open_onnx(path).denoise(image(1, 64, 64))


@pytest.mark.parametrize(
    ("node", "stored", "liftable"),
    [
        (
            helper.make_node("Slice", ["y", "s", "e", "axes"], ["z"]),
            {"s": [0], "e": [32], "axes": [2]},
            False,
        ),
        (
            helper.make_node("Slice", ["y", "s", "e", "axes"], ["z"]),
            {"s": [0], "e": [2**31 - 1], "axes": [2]},
            True,
        ),
        (helper.make_node("Slice", ["y", "s", "e", "axes"], ["z"]), {"s": [0], "e": [1], "axes": [1]}, True),
        (helper.make_node("Resize", ["y", "", "", "s"], ["z"]), {"s": [1, 1, 32, 32]}, False),
        (helper.make_node("Expand", ["y", "s"], ["z"]), {"s": [1, 1, 32, 32]}, False),
        (helper.make_node("ReduceMean", ["y"], ["z"], axes=[2, 3]), {}, True),
        (helper.make_node("ReduceMean", ["y"], ["z"], axes=[-4]), {}, False),
        (helper.make_node("ReduceMean", ["y"], ["z"]), {}, False),
        (helper.make_node("Softmax", ["y"], ["z"], axis=1), {}, True),
        (helper.make_node("Softmax", ["y"], ["z"], axis=3), {}, False),
        (helper.make_node("Concat", ["y"], ["z"], axis=1), {}, True),
    ],
)
def test_O13_which_operators_can_be_lifted(conv_graph, open_onnx, node, stored, liftable):
    values = [constant(name, value, np.int64) for name, value in stored.items()]
    denoiser = open_onnx(conv_graph((1, 1, 32, 32), extra_nodes=[node], outputs="z", extra_stored=values))
    assert (denoiser._runner.lifted() is not None) == liftable


# -- O17, O18: element types ------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "atol"), [(TensorProto.FLOAT, 1e-6), (TensorProto.FLOAT16, 2e-2)])
def test_O17_any_float_type_takes_and_gives_float32(conv_graph, open_onnx, kind, atol):
    denoiser, reference = open_onnx(conv_graph(kind=kind), verify=True), open_onnx(conv_graph())
    x = image()
    for name in ("c1", "r", "c2", OUTPUT):
        z = denoiser.features(x, name)
        assert z.dtype == np.float32
        np.testing.assert_allclose(z, reference.features(x, name), atol=atol)


def test_O17_double(conv_graph, open_onnx):
    def change(model):
        """The runtime has no double convolution."""
        del model.graph.node[:], model.graph.initializer[:]
        model.graph.initializer.append(constant("gain", 1 / 3, np.float64))
        model.graph.node.append(helper.make_node("Mul", ["x", "gain"], ["a"], name="gained"))
        model.graph.node.append(helper.make_node("Sin", ["a"], ["y"]))

    denoiser = open_onnx(conv_graph(kind=TensorProto.DOUBLE, change=change))
    z = denoiser.features(image(), "gained")
    assert z.dtype == np.float32
    np.testing.assert_allclose(z, image() / 3, rtol=1e-6)
    np.testing.assert_allclose(denoiser.denoise(image()), np.sin(image() / 3), rtol=1e-5)
    with pytest.raises(ModelError, match="Conv"):
        open_onnx(conv_graph(kind=TensorProto.DOUBLE))


def _quantised(toy, path, form):
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.left = [{"x": image(1, 32, 32, seed)} for seed in range(4)]

        def get_next(self):
            return self.left.pop() if self.left else None

    import logging

    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        quantize_static(
            str(toy.path),
            str(path),
            Reader(),
            quant_format=QuantFormat.QDQ if form == "qdq" else QuantFormat.QOperator,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    finally:
        logging.disable(level)
    return path


@pytest.fixture(scope="module")
def quantised(onnx_toy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("quantised")
    made = {}

    def get(exporter, form):
        if (exporter, form) not in made:
            path = folder / f"{exporter}_{form}.onnx"
            made[exporter, form] = _quantised(onnx_toy("plain", exporter), path, form)
        return made[exporter, form]

    return get


@pytest.mark.parametrize("form", ["qdq", "qoperator"])
@pytest.mark.parametrize("exporter", ["legacy", "dynamo"])
def test_O18_quantised_layers_are_what_their_names_say(onnx_toy, open_onnx, quantised, exporter, form):
    toy = onnx_toy("plain", exporter)
    denoiser = open_onnx(quantised(exporter, form))
    x = image(2, 32, 32)
    reference = toy.reference(x)
    compared = set()
    for layer in denoiser.layers:
        if not layer.tappable:
            with pytest.raises(LayerError, match="quantisation"):
                denoiser.features(x, layer.name)
            continue
        z = denoiser.features(x, layer.name)
        assert z.dtype == np.float32
        assert len(np.unique(z)) <= 256, "dequantised: one of 256 values"
        if layer.name in reference:
            expected = reference[layer.name][0]
            assert np.abs(z - expected).max() < 0.08 * np.abs(expected).max(), layer.name
            compared.add(layer.name)
    if exporter == "legacy":
        assert compared == ({"relu2", "relu4", "conv5"} if form == "qdq" else {"conv5"})
        assert {layer.name for layer in denoiser.layers if not layer.tappable} == {"conv1", "conv3"}


@pytest.mark.parametrize("form", ["qdq", "qoperator"])
def test_O18_an_absorbed_activation_is_read_after_it(onnx_toy, open_onnx, quantised, form):
    denoiser = open_onnx(quantised("legacy", form))
    x = image(2, 32, 32)
    name = "relu2" if form == "qdq" else "conv1+relu"
    expected = onnx_toy("plain", "legacy").reference(x)["relu2"][0]
    forms = [name, "/relu2/Relu_output_0"] if form == "qdq" else [name, "/conv1/Conv_quant"]
    for alias in forms:
        z = denoiser.features(x, alias)
        assert z.min() == 0
        assert np.abs(z - expected).max() < 0.05 * expected.max()
    assert "absorbed" in denoiser.resolve(name).note
    with pytest.raises(LayerError, match=r"'conv1'.*absorbed") as caught:
        denoiser.features(x, "conv1")
    assert caught.value.matches == (name,)


def test_O18_integers_of_no_known_scale_are_refused(conv_graph, open_onnx):
    nodes = [helper.make_node("Cast", ["y"], ["i"], name="ints", to=TensorProto.INT8)]
    denoiser = open_onnx(conv_graph(extra_nodes=nodes))
    assert "ints" not in {layer.name for layer in denoiser.layers}
    with pytest.raises(LayerError, match="int8 values"):
        denoiser.features(image(), "ints")


# -- O19: several inputs ----------------------------------------------------------------------------


def _sigma_net(conv_graph, **changes):
    sigma = helper.make_tensor_value_info("sigma", TensorProto.FLOAT, changes.pop("sigma", ["n", 1, 1, 1]))
    nodes = [helper.make_node("Mul", ["y", "sigma"], ["z"])]
    return conv_graph(extra_inputs=[sigma], extra_nodes=nodes, outputs="z", **changes)


@pytest.mark.parametrize("shape", [["n", 1, 1, 1], [1], [], [1, 1, 1, 1], ["n", 1, "h", "w"]])
def test_O19_other_inputs_are_fed(conv_graph, open_onnx, shape):
    path = _sigma_net(conv_graph, sigma=shape)
    x = image(3)
    half = open_onnx(path, feed={"sigma": 0.5})
    full = open_onnx(path, feed={"sigma": np.ones([1] * len(shape))})
    np.testing.assert_allclose(half.denoise(x) * 2, full.denoise(x), atol=1e-6)
    np.testing.assert_array_equal(half.features(x, "c2"), full.features(x, "c2"))
    assert half.fingerprint != full.fingerprint


def test_O19_whole_numbers_are_fed_to_inputs_that_take_them(conv_graph, open_onnx):
    """A timestep comes from the command line as 10.0; what is not whole is not cut off."""
    step = helper.make_tensor_value_info("t", TensorProto.INT64, ["n"])
    nodes = [
        helper.make_node("Cast", ["t"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["f", "column"], ["g"]),
        helper.make_node("Mul", ["y", "g"], ["z"]),
    ]
    column = numpy_helper.from_array(np.array([-1, 1, 1, 1]), "column")
    options = {"extra_inputs": [step], "extra_nodes": nodes, "extra_stored": [column], "outputs": "z"}
    path = conv_graph(**options)
    ten, one = open_onnx(path, feed={"t": 10.0}), open_onnx(path, feed={"t": 1})
    np.testing.assert_allclose(ten.denoise(image(2)), 10 * one.denoise(image(2)), rtol=1e-5)
    with pytest.raises(ModelError, match=r"input t \[n\] cannot be fed 10.5"):
        open_onnx(path, feed={"t": 10.5})


def test_O19_missing_and_wrong_feeds_are_listed(conv_graph, open_onnx):
    path = _sigma_net(conv_graph, sigma=[1])
    with pytest.raises(ModelError, match=r"feed sigma=0.05.*sigma \[1\]"):
        open_onnx(path)
    with pytest.raises(ModelError, match=r"'depth'|depth.*sigma \[1\]"):
        open_onnx(path, feed={"sigma": 1.0, "depth": 2.0})
    for bad in ("much", [1.0, 2.0], np.ones((1, 2))):
        with pytest.raises(ModelError, match="cannot be fed"):
            open_onnx(path, feed={"sigma": bad})
    with pytest.raises(ModelError, match=r"several inputs.*x.*sigma"):
        open_onnx(_sigma_net(conv_graph))
    with pytest.raises(ModelError, match=r"no input is called 'z'.*x"):
        open_onnx(path, input_name="z")


def test_O19_inputs_with_defaults_and_old_graphs_that_list_weights(conv_graph, open_onnx):
    def list_weights(model):
        for tensor in model.graph.initializer:
            value = helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            model.graph.input.append(value)

    old = open_onnx(conv_graph(ir=3, opset=8, change=list_weights))
    np.testing.assert_allclose(old.denoise(image()), open_onnx(conv_graph()).denoise(image()), atol=1e-6)
    path = _sigma_net(conv_graph, sigma=[1], extra_stored=[constant("sigma", [0.25])])
    quarter, half = open_onnx(path), open_onnx(path, feed={"sigma": 0.5})
    np.testing.assert_allclose(2 * quarter.denoise(image()), half.denoise(image()), atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "kind"), [((1, 24, 20), 1), (("n", 9, 24, 20), 1), (("n", 1, 24, 20), TensorProto.UINT8)]
)
def test_O19_inputs_that_are_no_grey_images(conv_graph, open_onnx, shape, kind):
    def change(model):
        del model.graph.input[:]
        model.graph.input.append(helper.make_tensor_value_info("x", kind, shape))

    with pytest.raises(UnsupportedModelError, match="x"):
        open_onnx(conv_graph(change=change))


# -- O20: channels last -----------------------------------------------------------------------------


def _nhwc(conv_graph, shape=("n", "h", "w", 1), transpose=True, **changes):
    def change(model):
        nodes = list(model.graph.node)
        nodes[0].input[0] = "x_nchw"
        nodes[2].output[0] = "y_nchw"
        enter = helper.make_node("Transpose", ["x"], ["x_nchw"], perm=[0, 3, 1, 2], name="in")
        leave = helper.make_node("Transpose", ["y_nchw"], ["y"], perm=[0, 2, 3, 1], name="out")
        scale = helper.make_node("Mul", ["y", "half"], ["z"], name="scale")
        model.graph.initializer.append(constant("half", [0.5]))
        if not transpose:
            n, h, w, _ = shape
            for node, target in ((enter, [n, 1, h, w]), (leave, [n, h, w, 1])):
                model.graph.initializer.append(constant(f"{node.name}_shape", target, np.int64))
                node.CopyFrom(
                    helper.make_node("Reshape", [node.input[0], f"{node.name}_shape"], node.output, node.name)
                )
        del model.graph.node[:], model.graph.input[:], model.graph.output[:]
        model.graph.node.extend([enter, *nodes, leave, scale])
        model.graph.input.append(helper.make_tensor_value_info("x", 1, shape))
        model.graph.output.append(helper.make_tensor_value_info("z", 1, [shape[0], None, None, 1]))

    return conv_graph(change=change, **changes)


@pytest.mark.parametrize(
    ("shape", "transpose"),
    [
        (("n", "h", "w", 1), True),
        ((1, 32, 32, 1), True),
        ((None, None, None, None), True),
        ((1, 32, 32, 1), False),
    ],
)
def test_O20_channels_last_comes_out_channels_first(conv_graph, open_onnx, shape, transpose):
    last, first = open_onnx(_nhwc(conv_graph, shape, transpose)), open_onnx(conv_graph())
    for size in ((1, 32, 32), (3, 24, 20)):
        x = image(*size)
        for name in ("c1", "r", "c2"):
            np.testing.assert_allclose(last.features(x, name), first.features(x, name), atol=1e-6)
        np.testing.assert_array_equal(last.features(x, "in"), x)
        np.testing.assert_allclose(last.features(x, "out"), first.denoise(x), atol=1e-6)
        np.testing.assert_allclose(last.denoise(x), first.denoise(x) / 2, atol=1e-6)
    assert {layer.shape[0] for layer in last.layers} == {1, 3}
    assert any("channels come last" in notice for notice in last.notices)


def test_O20_the_layout_can_be_given(conv_graph, open_onnx):
    path = _nhwc(conv_graph, ("n", "h", "w", "c"))
    assert open_onnx(path, layout="NHWC").fingerprint == open_onnx(path).fingerprint
    with pytest.raises(ModelError):
        open_onnx(path, layout="NCHW").denoise(image())
    with pytest.raises(ModelError, match="NCHW, NHWC or None"):
        open_onnx(path, layout="CHWN")
    with pytest.raises(UnsupportedModelError, match="layout="):
        open_onnx(_nhwc(conv_graph, (1, 32, 32, 1)), layout="NCHW")


def test_O20_keras_tensor_names_work_without_their_port(conv_graph, open_onnx):
    names = ("m/conv2d/BiasAdd", "m/relu/Relu", "m/out/BiasAdd")
    denoiser = open_onnx(
        conv_graph(names=("Conv__1", "", "Conv__9"), tensors=[f"{name}:0" for name in names])
    )
    for name in names:
        assert denoiser.resolve(name) == denoiser.resolve(f"{name}:0")


# -- O21, O25, metadata and fingerprints ------------------------------------------------------------


def test_O21_a_corrupted_bias_shows_from_its_layer_on(onnx_toy, open_onnx, tmp_path):
    toy = onnx_toy("plain", "legacy")
    model = onnx.load(str(toy.path))
    for tensor in model.graph.initializer:
        if tensor.name == "conv3.bias":
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + 1, tensor.name))
    onnx.save_model(model, str(tmp_path / "bad.onnx"))
    good, bad = open_onnx(toy.path), open_onnx(tmp_path / "bad.onnx")
    apart = {
        layer.name: np.abs(good.features(image(), layer.name) - bad.features(image(), layer.name)).max()
        for layer in good.layers
    }
    assert [name for name, value in apart.items() if value > 1e-4] == ["conv3", "relu4", "conv5"]
    assert apart["conv3"] == pytest.approx(1, abs=1e-5)


def test_O25_gradients_are_refused_early(onnx_toy, open_onnx):
    import torch

    denoiser = open_onnx(onnx_toy("plain", "legacy").path)
    assert not denoiser.differentiable
    with pytest.raises(UnsupportedModelError, match="cannot be differentiated"):
        denoiser.features(torch.zeros(1, 1, 32, 32), "conv1", grad=True)


@pytest.mark.parametrize("key", ["image", "residual"])
def test_metadata_gives_units_and_output(conv_graph, open_onnx, key):
    path = conv_graph(metadata={"ctinv.intensity": "unit:-1000:1000", "ctinv.output": key})
    denoiser = open_onnx(path, intensity=None, output=None)
    assert (denoiser.intensity.spec, denoiser.output) == ("unit:-1000:1000", key)
    assert open_onnx(path).intensity.spec == "hu"
    given = "residual" if key == "image" else "image"
    assert open_onnx(path, output=given).output == given


def test_metadata_that_is_wrong_is_refused(conv_graph, open_onnx):
    with pytest.raises(IntensityError, match="furlongs"):
        open_onnx(conv_graph(metadata={"ctinv.intensity": "furlongs"}), intensity=None)
    with pytest.raises(ModelError, match=r"ctinv\.output.*'noise'"):
        open_onnx(conv_graph(metadata={"ctinv.output": "noise"}), output=None)


def test_fingerprint_sees_numbers_and_wiring_only(conv_graph, open_onnx):
    def edit(model):
        model.producer_name, model.producer_version, model.doc_string = "other", "9", "text"
        model.graph.doc_string = "text"
        for node in model.graph.node:
            node.doc_string = "text"
        for tensor in model.graph.initializer:
            values = numpy_helper.to_array(tensor).ravel().tolist()
            kept = helper.make_tensor(
                tensor.name, tensor.data_type, tensor.dims, values
            )  # no longer raw bytes
            tensor.CopyFrom(kept)

    def weight(model):
        tensor = next(t for t in model.graph.initializer if t.name == "w2")
        values = numpy_helper.to_array(tensor).copy()
        values[0, 0, 0, 0] = np.nextafter(values[0, 0, 0, 0], np.float32(np.inf))
        tensor.CopyFrom(numpy_helper.from_array(values, "w2"))

    def wiring(model):
        model.graph.node[2].attribute[0].ints[:] = [1, 1, 1, 2]

    same = [conv_graph(), conv_graph(change=edit), conv_graph(metadata={"a": "b"})]
    same.append(conv_graph(save={"save_as_external_data": True, "location": "w.bin", "size_threshold": 0}))
    prints = {open_onnx(path).fingerprint for path in same}
    assert len(prints) == 1
    others = {open_onnx(conv_graph(change=change)).fingerprint for change in (weight, wiring)}
    assert len(others | prints) == 3


def test_fingerprint_sees_what_the_names_of_layers_mean(conv_graph, open_onnx):
    """Else a stored result for ``c1`` of one file would answer for ``c1`` of the other."""
    one, other = open_onnx(conv_graph()), open_onnx(conv_graph(names=("c2", "r", "c1")))
    assert one.features(image(), "c1").shape != other.features(image(), "c1").shape
    assert one.fingerprint != other.fingerprint


def _two_outputs(conv_graph, first="level", channels=1):
    """A file that returns what precedes the image as well, and first."""

    def change(model):
        model.graph.node.append(helper.make_node("Sigmoid", ["a" if channels == 3 else "x"], [first]))
        value = helper.make_tensor_value_info(first, TensorProto.FLOAT, ["n", channels, None, None])
        model.graph.output.insert(0, value)

    return conv_graph(change=change)


def test_several_image_outputs_are_announced(conv_graph, open_onnx):
    denoiser = open_onnx(_two_outputs(conv_graph))
    assert any("'level' is taken (others: y; output_tensor" in notice for notice in denoiser.notices)
    denoiser = open_onnx(_two_outputs(conv_graph, channels=3))
    assert any("'y' is taken (others: level" in notice for notice in denoiser.notices)


@pytest.mark.parametrize("asked", ["y", "[1]", "[-1]", '["y"]', "['y']"])
def test_the_output_can_be_chosen(conv_graph, open_onnx, asked):
    plain = open_onnx(conv_graph())
    chosen = open_onnx(_two_outputs(conv_graph), output_tensor=asked)
    np.testing.assert_allclose(chosen.denoise(image()), plain.denoise(image()), atol=1e-6)
    assert not any("several" in notice for notice in chosen.notices)
    assert chosen.fingerprint != open_onnx(_two_outputs(conv_graph)).fingerprint


def test_outputs_that_cannot_be_chosen_are_refused_with_those_that_can(conv_graph, open_onnx):
    for asked in ("z", "[2]", "a"):
        with pytest.raises(ModelError, match=r"\[0\] level, \[1\] y"):
            open_onnx(_two_outputs(conv_graph), output_tensor=asked)
    size = helper.make_tensor_value_info("s", TensorProto.INT64, [4])
    nodes = [helper.make_node("Shape", ["x"], ["s"])]
    with pytest.raises(UnsupportedModelError, match=r"'s' is no float image.*outputs that are: y"):
        open_onnx(conv_graph(extra_nodes=nodes, extra_outputs=[size]), output_tensor="s")


def test_torch_and_numpy_give_the_same(onnx_toy, open_onnx):
    import torch

    denoiser = open_onnx(onnx_toy("plain", "legacy").path)
    x = image()
    z = denoiser.features(torch.from_numpy(x).permute(0, 1, 3, 2), "conv3")
    assert isinstance(z, torch.Tensor)
    np.testing.assert_array_equal(
        z.numpy(), denoiser.features(np.ascontiguousarray(x.swapaxes(2, 3)), "conv3")
    )


def test_results_are_snapshots(onnx_toy, open_onnx):
    denoiser = open_onnx(onnx_toy("plain", "legacy").path)
    x = image()
    first = denoiser.features(x, "conv1")
    kept = copy.deepcopy(first)
    denoiser.features(x + 1, "conv1")
    np.testing.assert_array_equal(first, kept)


# -- O15, O16, O22, O23, O26: files -----------------------------------------------------------------

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


@pytest.mark.parametrize("versions", [{"ir": 99}, {"opset": 99}])
def test_O22_newer_versions_are_told(conv_graph, open_onnx, versions):
    with pytest.raises(
        ModelError, match=r"ONNX Runtime \d.*IR version \d+ and opset ai.onnx \d+.*older opset"
    ) as caught:
        open_onnx(conv_graph(**versions))
    assert "99" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_O23_operators_that_cannot_run_are_listed(conv_graph, open_onnx):
    nodes = [
        helper.make_node("Bar", ["y"], ["z1"], domain="com.foo"),
        helper.make_node("Baz", ["z1"], ["z"], domain="com.foo"),
    ]
    with pytest.raises(ModelError, match=r"com\.foo::Bar, com\.foo::Baz"):
        open_onnx(conv_graph(extra_nodes=nodes, outputs="z", domains=["com.foo"]))
    with pytest.raises(ModelError, match="Nonsense"):
        open_onnx(conv_graph(extra_nodes=[helper.make_node("Nonsense", ["y"], ["z"])], outputs="z"))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"\n  <!DOCTYPE html><html></html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "LFS"),
        (b"PK\x03\x04....", "zip archive"),
        (b'{"message": "Not found"}', "JSON"),
        (b"\x80\x02}q\x00.", "damaged"),
        (b"\x08\x07", "no network"),
    ],
)
def test_files_that_are_no_models(tmp_path, open_onnx, content, says):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=says) as caught:
        open_onnx(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_files_and_folders(tmp_path, open_onnx):
    with pytest.raises(ModelError, match="no such file"):
        open_onnx(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="a folder"):
        open_onnx(tmp_path)


@pytest.mark.parametrize("cut", [1, 10, 100, 300, 500])
def test_truncated_files(conv_graph, open_onnx, cut):
    path = conv_graph()
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(ModelError):
        open_onnx(path)


def test_images_are_checked(onnx_toy, open_onnx):
    denoiser = open_onnx(onnx_toy("plain", "legacy").path)
    for bad in (np.zeros((1, 2, 8, 8), np.float32), np.zeros((8, 8)), [[1.0]]):
        with pytest.raises(ImageError):
            denoiser.features(bad, "conv1")
    assert issubclass(ImageError, CtinvError)
