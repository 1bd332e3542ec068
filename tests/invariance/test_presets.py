"""Presets: published sizes, and how fields are changed."""

import dataclasses
import json

import pytest
import torch
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.networks.embedder import VectorEmbedder, build_embedder
from ctinv.invariance.networks.flow import ConditionalFlow
from ctinv.invariance.networks.vae import VAE
from ctinv.invariance.presets import PRESETS, FlowConfig, VAEConfig, preset


def millions(*modules):
    return sum(p.numel() for m in modules for p in m.parameters()) / 1e6


@pytest.fixture(scope="module", params=["paper", "paper2024"])
def published(request):
    """Networks of the published sizes, without memory."""
    chosen = PRESETS[request.param]
    with torch.device("meta"):
        embedder = build_embedder(1, (128, 128), 1, chosen.flow.context, chosen.flow.embed_width)
        return chosen, VAE(chosen.vae), embedder


def flow_of(chosen, blocks):
    config = dataclasses.replace(chosen.flow, blocks=blocks)
    return millions(ConditionalFlow(chosen.vae.code_shape, config, torch.Generator().manual_seed(0)))


def test_decoder_has_the_published_size(published):
    _, vae, _ = published
    assert millions(vae.decoder) == pytest.approx(84.4, rel=0.01)


def test_flow_and_embedder_have_the_published_size(published):
    chosen, _, embedder = published
    one, two = (flow_of(chosen, blocks) for blocks in (1, 2))
    flow = one + (two - one) * (chosen.flow.blocks - 1)
    # 137.1 million for twelve blocks; the embedder's part is 11.1 million.
    expected = 11.1 + (137.1 - 11.1) * chosen.flow.blocks / 12
    assert isinstance(embedder, VectorEmbedder)
    assert flow + millions(embedder) == pytest.approx(expected, rel=0.01)


def test_encoders_have_their_well_known_sizes():
    # The networks of He et al. for photographs have 11.69, 21.80, 25.56 and 44.55 million parameters,
    # with a last layer to 1000 classes and a first layer for three colours.
    known = {"resnet18": 11.689512, "resnet34": 21.797672, "resnet50": 25.557032, "resnet101": 44.549160}
    for name, size in known.items():
        with torch.device("meta"):
            encoder = VAE(VAEConfig(128, 256, 1, (), encoder=name, decoder="biggan")).encoder
        features = encoder.head.in_channels
        classifier, colours = 1000 * (features + 1), 2 * 64 * 7 * 7
        body = millions(encoder) - millions(encoder.head)
        assert body == pytest.approx(size - (classifier + colours) / 1e6, abs=1e-9), name


def test_shapes_of_the_published_sizes(published):
    chosen, vae, embedder = published
    x = torch.empty(2, 1, 128, 128, device="meta")
    guide = x if chosen.vae.conditional else None
    mean, log_var = vae.posterior(x, guide)
    assert mean.shape == log_var.shape == (2, 256)
    assert vae.decode(mean, guide).shape == x.shape
    context = embedder(x, torch.empty(2, 18, 1, 1, device="meta"))
    assert context.shape == (2, 256, 1, 1)


@pytest.mark.parametrize("name", list(PRESETS))
def test_presets_survive_json(name):
    chosen = PRESETS[name]
    stored = json.loads(json.dumps(chosen.as_dict()))
    assert VAEConfig(**stored["vae"]) == chosen.vae
    assert FlowConfig(**stored["flow"]) == chosen.flow
    assert hash(VAEConfig(**stored["vae"])) == hash(chosen.vae)


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("flow.blocks", "6", 6),
        ("flow.coupling", "spline", "spline"),
        ("fit.rate", "1e-3", 1e-3),
        ("vae.conditional", "false", False),
        ("vae.conditional", "True", True),
        ("vae.widths", "(64, 32)", (64, 32)),
        ("vae.mapping", "", ()),
        ("vae.encoder", "resnet50", "resnet50"),
    ],
)
def test_fields_are_read_from_text(path, text, value):
    chosen = preset("paper2024", {path: text})
    section, key = path.split(".")
    found = getattr(getattr(chosen, section), key)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("flow.coupling", "cubic", "takes one of affine, spline, not 'cubic'"),
        ("vae.conditional", "maybe", "takes bool, not 'maybe'"),
        ("vae.encoder", "vgg", "takes one of plain, resnet18, resnet34, resnet50, resnet101"),
        ("vae.widths", "a,b", "takes tuple"),
        ("vae.nosuch", "1", "has no field 'vae.nosuch'"),
    ],
)
def test_values_that_make_no_sense_are_refused(path, value, message):
    with pytest.raises(CtinvError, match=message):
        preset("small", {path: value})
