"""Which layer a name means (T19), on tables without any model."""

import pytest
from ctinv.adapters.base import Layer
from ctinv.adapters.errors import LayerError
from ctinv.adapters.names import resolve
from hypothesis import given
from hypothesis import strategies as st

TABLE = (
    Layer("net.0", "Conv2d", (8, 64, 64), ("/net/net.0/Conv",)),
    Layer("relu@0", "ReLU", (8, 64, 64), ("act@0",)),
    Layer("net.1", "ConvTranspose2d", (8, 64, 64)),
    Layer("relu@1", "ReLU", (8, 64, 64), ("act@1",)),
    Layer("block[0]", "Block", (1, 64, 64)),
    Layer('block["h"]', "Block", (2, 64, 64)),
    Layer("enc.mid.conv", "Conv2d", (8, 32, 32)),
    Layer("dec.mid.conv", "Conv2d", (8, 32, 32)),
    Layer("enc.step@0[0]", "Step", (4,)),
    Layer("enc.step@0[1]", "Step", (4,)),
    Layer("enc.step@1[0]", "Step", (4,)),
    Layer("head", "Linear", (10,)),
    Layer("dead", "Conv2d", (), (), False, "it never ran"),
)


@pytest.mark.parametrize(
    ("name", "found", "how"),
    [
        ("net.0", "net.0", "name"),
        ("module.net.0", "net.0", "name"),
        ("_orig_mod.module.net.0", "net.0", "name"),
        (" net.0 ", "net.0", "name"),
        ("/net/net.0/Conv", "net.0", "alias"),
        ("relu@1", "relu@1", "name"),
        ("relu@-1", "relu@1", "alias"),
        ("act@-2", "relu@0", "alias"),
        ("act@1", "relu@1", "alias"),
        ("head@0", "head", "alias"),
        ("head@-1", "head", "alias"),
        ("block[0]", "block[0]", "name"),
        ("block['h']", 'block["h"]', "name"),
        ("block[h]", 'block["h"]', "name"),
        ("enc.mid.conv", "enc.mid.conv", "name"),
        ("0", "net.0", "suffix"),
        ("step@1", "enc.step@1[0]", "suffix"),
        ("step@0[1]", "enc.step@0[1]", "suffix"),
        ("step@-1[0]", "enc.step@1[0]", "suffix"),
        ("conv1", "net.0", "ordinal"),
        ("conv3", "dec.mid.conv", "ordinal"),
        ("conv_2", "enc.mid.conv", "ordinal"),
        ("tconv1", "net.1", "ordinal"),
        ("relu2", "relu@1", "ordinal"),
        ("linear1", "head", "ordinal"),
        ("@input", "@input", "reserved"),
        ("@output", "@output", "reserved"),
    ],
)
def test_T19_each_form_finds_its_layer(name, found, how):
    layer, matched = resolve(name, TABLE)
    assert (layer.name, matched) == (found, how)


@pytest.mark.parametrize(
    ("name", "message", "matches"),
    [
        ("relu", r"'relu' runs 2 times; say which: relu@0 \(8x64x64\), relu@1", ("relu@0", "relu@1")),
        ("block", r"returns 2 tensors; say which: block\[0\]", ("block[0]", 'block["h"]')),
        ("mid.conv", "2 layers answer to 'mid.conv'", ("enc.mid.conv", "dec.mid.conv")),
        ("enc.step", "runs 2 times", ("enc.step@0[0]", "enc.step@0[1]", "enc.step@1[0]")),
        ("enc.step@0", "returns 2 tensors", ("enc.step@0[0]", "enc.step@0[1]")),
        ("relu@2", "no layer is called 'relu@2'; close: relu@", None),
        ("relu@-3", "no layer is called", None),
        ("conv4", "no layer is called 'conv4'", None),
        ("conv0", "no layer is called 'conv0'", None),
        ("hed", "close: head; ctinv layers --model", ("head",)),
        ("", "no layer is called ''", None),
        ("x - n", "operations outside modules have no name", ("net.0", "head", "@output")),
        (
            "dead",
            r"'dead' \(Conv2d\) cannot be read: it never ran; nearest that can: enc\.step@1\[0\], head",
            None,
        ),
    ],
)
def test_T19_what_cannot_be_told_is_an_error_with_a_way_out(name, message, matches):
    with pytest.raises(LayerError, match=message) as caught:
        resolve(name, TABLE)
    assert caught.value.name == name
    if matches is not None:
        assert caught.value.matches == matches


def test_T19_a_name_beats_counting():
    table = (Layer("conv2", "Conv2d", (1,)), Layer("conv1", "Conv2d", (1,)))
    assert resolve("conv1", table)[0].name == "conv1"
    nested = (Layer("a", "Conv2d", (1,)), Layer("b.conv1", "Conv2d", (1,)))
    assert resolve("conv1", nested)[0].name == "b.conv1"


@given(st.sampled_from(TABLE))
def test_own_names_always_lead_home(layer):
    for name in (layer.name, *layer.aliases):
        if layer.tappable:
            assert resolve(name, TABLE)[0] == layer


@given(st.text(max_size=12))
def test_any_text_is_a_layer_or_a_layer_error(text):
    try:
        found, offers = resolve(text, TABLE)[0], ()
    except LayerError as error:
        found, offers = None, error.matches
    assert found is None or found.tappable
    assert all(resolve(offer, TABLE)[0].tappable for offer in offers)


def test_empty_table_offers_the_output():
    with pytest.raises(LayerError) as caught:
        resolve("conv1", ())
    assert caught.value.matches == ("@output",)


def _row(*alive):
    """Layers a, b, c, ...; those whose letter is not given cannot be read."""
    return [Layer(name, "Conv2d", (1,), (), name in alive, "") for name in "abcdefgh"]


@pytest.mark.parametrize(
    ("alive", "near"),
    [
        ("abefgh", ("b", "e")),
        ("agh", ("a", "g")),
        ("fgh", ("f", "g")),
        ("ab", ("a", "b")),
        ("b", ("b",)),
        ("", ("@output",)),
    ],
)
def test_the_nearest_layers_are_offered_in_their_order(alive, near):
    with pytest.raises(
        LayerError, match="it cannot be observed; nearest that can: " + ", ".join(near)
    ) as caught:
        resolve("d", [layer for layer in _row(*alive) if layer.name != "c" or "c" in alive])
    assert tuple(caught.value.matches) == near


def test_twelve_of_many_layers_are_shown():
    for count, more in ((12, False), (13, True)):
        layers = [Layer(f"{k}.conv", "Conv2d", (k + 1, 4)) for k in range(count)]
        with pytest.raises(LayerError, match=rf"{count} layers answer to 'conv'") as caught:
            resolve("conv", layers)
        assert ("11.conv (12x4)" in str(caught.value), "12.conv" in str(caught.value)) == (True, False)
        assert str(caught.value).endswith(", ...") == more
        assert len(caught.value.matches) == count


def test_four_close_names_are_offered_each_once_by_alias_and_last_part_too():
    layers = [Layer(f"body.{k}.convolve", "Conv2d", (1,), (f"convolve_{k}",)) for k in range(6)]
    with pytest.raises(LayerError, match="close: body") as caught:
        resolve("convolve_9", layers)
    assert len(caught.value.matches) == len(set(caught.value.matches)) == 4
    with pytest.raises(LayerError, match=r"close: net\.stem;") as caught:
        resolve("stam", [Layer("net.stem", "Conv2d", (1,)), Layer("net.last", "ReLU", (1,), (), False)])


def test_both_ends_are_offered_where_nothing_is_close():
    layers = [Layer(name, "Conv2d", (1,), (), name != "dead") for name in ("dead", "one", "two", "six")]
    for count, ends in ((4, ("one", "six", "@output")), (2, ("one", "@output")), (1, ("@output",))):
        with pytest.raises(LayerError, match="operations outside modules have no name") as caught:
            resolve("zzzzzzzzzz", layers[:count])
        assert tuple(caught.value.matches) == ends


@pytest.mark.parametrize(
    ("op", "names"),
    [
        ("Conv2d", ("conv", "convolution")),
        ("ConvTranspose3d", ("convtranspose", "tconv", "deconv")),
        ("BatchNorm1d", ("batchnorm", "bn", "norm")),
        ("BatchNormalization", ("batchnormalization", "bn", "norm")),
        ("Linear", ("linear", "fc", "dense")),
        ("Gemm", ("gemm", "linear", "fc")),
        ("MatMul", ("matmul", "linear", "fc")),
        ("ParametrizedConv2d", ("conv", "convolution")),
        ("ReLU", ("relu",)),
    ],
)
def test_words_that_count_layers(op, names):
    layers = [Layer("x.a", op, (1,)), Layer("x.gap", "Other", (1,)), Layer("x.b", op, (1,))]
    for word in names:
        assert resolve(f"{word}2", layers) == (layers[2], "ordinal")
        assert resolve(f"{word}_1", layers) == (layers[0], "ordinal")
        for none in (0, 3):
            with pytest.raises(LayerError, match="no layer is called"):
                resolve(f"{word}{none}", layers)


def test_layers_that_never_ran_are_not_counted():
    layers = [
        Layer("x.a", "Conv2d", (), (), False),
        Layer("x.b", "Conv2d", (1,), (), False),
        Layer("x.c", "Conv2d", (1,)),
    ]
    assert resolve("conv2", layers) == (layers[2], "ordinal")
    with pytest.raises(LayerError, match="cannot be read"):
        resolve("conv1", layers)
