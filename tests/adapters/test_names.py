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
