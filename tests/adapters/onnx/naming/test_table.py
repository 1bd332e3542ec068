"""Names of ONNX layers: module scopes of both exporters, and what exporters take away."""

import re

import numpy as np
import onnx
import pytest
from ctinv.adapters.errors import LayerError
from ctinv.adapters.onnx.naming.scopes import read_scopes

EXPORTERS = ("legacy", "dynamo")


def image(seed=0, shape=(2, 1, 32, 32)):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_O04_plain_net_lists_exactly_its_modules(onnx_toy, open_onnx, exporter):
    layers = open_onnx(onnx_toy("plain", exporter).path).layers
    assert [layer.name for layer in layers] == ["conv1", "relu2", "conv3", "relu4", "conv5"]
    assert [layer.op for layer in layers] == ["Conv", "Relu", "Conv", "Relu", "Conv"]
    assert [layer.shape[0] for layer in layers] == [4, 4, 3, 3, 1]
    assert all(layer.tappable for layer in layers)


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("net", ["plain", "twisted"])
def test_O04_law_modules_equal_hooks(onnx_toy, open_onnx, net, exporter):
    toy = onnx_toy(net, exporter)
    denoiser = open_onnx(toy.path)
    x = image()
    reference = toy.reference(x)
    compared = 0
    for layer in denoiser.layers:
        for name in (layer.name, *layer.aliases):
            module, _, call = name.partition("@")
            if module not in reference or not layer.tappable:
                continue
            # a module that an optimiser merged away in some calls may look as if called once
            expected = reference[module][int(call or 0)]
            np.testing.assert_allclose(denoiser.features(x, name), expected, rtol=0, atol=2e-5, err_msg=name)
            compared += 1
    assert compared >= (5 if net == "plain" else 20)
    np.testing.assert_allclose(denoiser.denoise(x), reference[""][0], rtol=0, atol=2e-5)


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_O04_every_conv_of_a_twisted_net_is_found(onnx_toy, open_onnx, exporter):
    toy = onnx_toy("twisted", exporter)
    names = {layer.name for layer in open_onnx(toy.path).layers}
    convs = {name for name, module in toy.module.named_modules() if type(module).__name__ == "Conv2d"}
    assert convs - {re.sub(r"@\d+$", "", name) for name in names} == set()


def test_O02_tensor_node_and_scope_are_one_layer(onnx_toy, open_onnx):
    x = image()
    for exporter, forms in (
        ("legacy", ("conv3", "/conv3/Conv", "/conv3/Conv_output_0")),
        ("dynamo", ("conv3", "node_conv2d_1", "conv2d_1")),
    ):
        denoiser = open_onnx(onnx_toy("plain", exporter).path)
        first, *others = (denoiser.features(x, form) for form in forms)
        assert {denoiser.resolve(form).name for form in forms} == {"conv3"}
        for other in others:
            np.testing.assert_array_equal(first, other)


@pytest.mark.parametrize(
    ("raw", "module"),
    [
        ("/conv7/Conv", "conv7"),
        ("/enc/enc.0/Conv", "enc.0"),
        ("/mid.0/mid.0.0/Conv", "mid.0.0"),
        ("/block/body/body.2/Relu", "block.body.2"),
        ("/layers.0/conv/Conv", "layers.0.conv"),
        ("/a/b/c/Add_3", "a.b.c"),
        ("/Sub", ""),
        ("Conv_6", None),
        ("model/conv2d/BiasAdd", None),
        ("//Conv", None),
        ("/", None),
    ],
)
def test_O03_scopes_are_normalised(raw, module):
    (scope,) = read_scopes([onnx.NodeProto(name=raw, op_type="Conv")], set())
    assert (scope.module if scope else None) == module


def test_O03_second_calls_are_numbered_only_where_they_are_second_calls():
    def scopes(names, weights=()):
        nodes = [onnx.NodeProto(name=name, op_type="Relu") for name in names]
        return [(scope.module, scope.call, scope.calls) for scope in read_scopes(nodes, set(weights))]

    assert scopes(["/relu/Relu", "/relu_1/Relu"]) == [("relu", 0, 2), ("relu", 1, 2)]
    assert scopes(["/relu_1/Relu", "/relu/Relu"]) == [("relu_1", 0, 1), ("relu", 0, 1)]
    assert scopes(["/relu_1/Relu"]) == [("relu_1", 0, 1)]
    assert scopes(["/c/Conv", "/c_1/Conv"], ["c_1.weight"]) == [("c", 0, 1), ("c_1", 0, 1)]
    assert scopes(["/r/Relu", "/r_999999999999/Relu"])[1] == ("r_999999999999", 0, 1)
    assert scopes(["/r/Relu", "/r_2/Relu"]) == [("r", 0, 1), ("r_2", 0, 1)]


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_O03_repeated_module_asks_which_call(onnx_toy, open_onnx, exporter):
    denoiser = open_onnx(onnx_toy("twisted", exporter).path)
    with pytest.raises(LayerError, match=r"relu@0.*relu@1") as caught:
        denoiser.features(image(), "relu")
    assert caught.value.matches == ("relu@0", "relu@1")
    last = denoiser.features(image(), "relu@-1")
    np.testing.assert_array_equal(last, denoiser.features(image(), "relu@1"))


@pytest.mark.parametrize(
    "text", ["__import__('os').abort()", "['', 'a'", "[[1]]", "{}", "['x' * 9]", "[" * 5000, ""]
)
def test_O04_scope_texts_are_never_evaluated(text):
    node = onnx.NodeProto(name="n", op_type="Conv")
    entry = node.metadata_props.add()
    entry.key, entry.value = "pkg.torch.onnx.name_scopes", text
    assert read_scopes([node], set()) == [None]


def test_O05_without_metadata_node_names_serve(onnx_toy, open_onnx, tmp_path):
    toy = onnx_toy("plain", "dynamo")
    model = onnx.load(str(toy.path))
    for node in model.graph.node:
        del node.metadata_props[:]
    onnx.save_model(model, str(tmp_path / "bare.onnx"))
    denoiser = open_onnx(tmp_path / "bare.onnx")
    assert [layer.name for layer in denoiser.layers][:2] == ["node_conv2d", "node_relu"]
    assert not any("conv1" in (layer.name, *layer.aliases) for layer in denoiser.layers)
    expected = toy.reference(image())["conv3"][0]
    np.testing.assert_allclose(denoiser.features(image(), "conv2d_1"), expected, atol=2e-5)
    with pytest.raises(LayerError):
        denoiser.resolve("encoder.block.7")


@pytest.mark.parametrize(("exporter", "name"), [("legacy", "enc.0+bn"), ("dynamo", "enc.1")])
def test_O06_bn_folded_conv_is_flagged_and_is_the_batch_norm(onnx_toy, open_onnx, exporter, name):
    toy = onnx_toy("twisted", exporter)
    denoiser = open_onnx(toy.path)
    reference = toy.reference(image())
    z = denoiser.features(image(), name)
    np.testing.assert_allclose(z, reference["enc.1"][0], atol=2e-5)
    assert np.abs(z - reference["enc.0"][0]).max() > 0.1
    assert "post-BN" in denoiser.resolve(name).note
    with pytest.raises(LayerError, match="batch norm") as caught:
        denoiser.features(image(), "enc.0")
    assert name in caught.value.matches or name in str(caught.value)


def test_O06_a_bias_named_after_a_batch_norm_tells_of_folding(conv_graph, open_onnx):
    """As Keras models come out of tf2onnx."""

    def rename(model):
        model.graph.node[0].input[2] = model.graph.initializer[1].name = "m/batch_normalization_3/Const:0"

    denoiser = open_onnx(conv_graph(change=rename))
    assert "post-BN" in denoiser.resolve("c1").note
    assert not denoiser.resolve("c2").note


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_O07_vanished_dropout_and_identity_are_explained(onnx_toy, open_onnx, exporter):
    denoiser = open_onnx(onnx_toy("twisted", exporter).path)
    with pytest.raises(LayerError, match=r"no node.*Dropout.*'net.0'") as caught:
        denoiser.features(image(), "net.1")
    assert caught.value.name == "net.1"
    assert caught.value.matches[0] == "net.0"
    with pytest.raises(LayerError, match=r"no layer is called 'drop'|'drop'"):
        denoiser.features(image(), "drop")


def test_O07_containers_lead_to_the_tensor_they_return(onnx_toy, open_onnx):
    for exporter in EXPORTERS:
        denoiser = open_onnx(onnx_toy("twisted", exporter).path)
        assert denoiser.resolve("enc").name == "enc.2"
        assert denoiser.resolve("net").name == "net.3"
        assert denoiser.resolve("mid.0").name == "mid.0.1"


def test_O24_duplicate_and_empty_node_names(conv_graph, open_onnx, capture):
    for names in (
        ("n", "n", "n"),
        ("", "", ""),
        ("b", "y", "a"),
        ("x", "w1", "@output"),
        ("a\n", " ", "\x1b[31m"),
        ("c2", "c2", "a"),
    ):
        path = conv_graph(names=names)
        denoiser = open_onnx(path)
        reference = capture(path, {"x": image()})
        assert len({layer.name for layer in denoiser.layers}) == 3
        for layer, tensor in zip(denoiser.layers, ("a", "b", "y"), strict=True):
            np.testing.assert_allclose(denoiser.features(image(), layer.name), reference[tensor], atol=1e-5)


def test_O24_a_node_name_that_several_bear_leads_to_their_tensors(conv_graph, open_onnx):
    denoiser = open_onnx(conv_graph(names=("n", "n", "r")))
    assert not any("n" in (layer.name, *layer.aliases) for layer in denoiser.layers)
    with pytest.raises(LayerError, match="2 nodes bear that name; ask for one of their tensors, 'a', 'b'"):
        denoiser.features(image(), "n")
    assert denoiser.features(image(), "b").shape == (2, 3, 32, 32)


def test_O02_a_name_that_means_two_layers_is_not_an_alias(conv_graph, open_onnx):
    denoiser = open_onnx(conv_graph(names=("b", "y", "a")))
    for layer in denoiser.layers:
        assert denoiser.resolve(layer.name).name == layer.name
        assert not layer.aliases


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("w1", "weight"),
        ("x", "@input"),
        ("conf7", "no layer is called"),
        ("s", "not depend"),
        ("i", "int64"),
        ("k", "not depend"),
    ],
)
def test_O02_a_name_that_is_no_layer_is_explained(conv_graph, open_onnx, name, reason):
    nodes = [
        onnx.helper.make_node("Shape", ["x"], ["s"]),
        onnx.helper.make_node("Neg", ["w1"], ["k"]),
        onnx.helper.make_node("ArgMax", ["y"], ["i"]),
        onnx.helper.make_node("Shape", ["k"], ["k2"]),
    ]
    outputs = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.INT64, None) for n in ("s", "k2")]
    denoiser = open_onnx(conv_graph(extra_nodes=nodes, extra_outputs=outputs))
    with pytest.raises(LayerError, match=reason) as caught:
        denoiser.features(image(), name)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)
    assert set(caught.value.matches) <= {"c1", "r", "c2", "@output"}
    assert caught.value.matches


def test_wrapper_prefixes_are_left_out(export_onnx, open_onnx, tmp_path):
    from torch import nn

    class Wrapper(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 1, 1))

        def forward(self, x):
            return self.module(x)

    path = export_onnx(Wrapper().eval(), tmp_path / "w.onnx", "legacy")
    assert [layer.name for layer in open_onnx(path).layers] == ["0", "1", "2"]
    assert open_onnx(path).resolve("module.1").name == "1"
