"""What is asked of a layer about one slice, against closed forms of linear layers."""

import json
import math

import numpy as np
import pytest
import torch
from ctinv import adapters, invariance, zoo
from ctinv.adapters.errors import CtinvError, ImageError, UnsupportedModelError
from ctinv.invariance import Lesion
from ctinv.invariance.changes.about import About
from ctinv.invariance.changes.answer import answers_html
from ctinv.invariance.changes.hide import vanish
from ctinv.invariance.changes.masks import read_mask
from ctinv.invariance.changes.regions import contrast_in, ellipse
from ctinv.invariance.data.io.slices import CTSlice
from ctinv.invariance.refinement.refine import RHO
from torch import nn

from ..refinement.toys import SIZE, draw, half, layer, sight

SIDE = 64


class Gain(nn.Module):
    """Twice the left half, the right half as it is: a layer and an output whose gains are known."""

    def forward(self, x):
        weight = torch.ones(x.shape[-1])
        weight[: x.shape[-1] // 2] = 2
        return x * weight


class Net(nn.Module):
    def __init__(self, last=None):
        super().__init__()
        self.same = nn.Identity()
        self.gain = Gain() if last is None else last

    def forward(self, x):
        return self.gain(self.same(x))


def denoiser(last=None):
    return adapters.wrap(Net(last), intensity="hu", output="image", name="toy")


def noisy(seed=0, level=40.0):
    """A slice of soft tissue with 10 HU of noise."""
    hu = np.random.default_rng(seed).normal(level, 10, (SIDE, SIDE)).astype(np.float32)
    return CTSlice(hu, np.ones_like(hu, bool), (1.0, 1.0))


def rms(image):
    return float(np.sqrt(np.mean(np.square(image, dtype=np.float64))))


def about(look):
    return About.of(look.observer.denoiser, "phi", "x", rho=RHO)


# --- hide


@pytest.mark.parametrize(("column", "share"), [(6, 1.0), (18, 0.0)])
def test_what_lies_in_the_blind_half_can_vanish(column, share):
    look = sight(half)
    contrast = np.zeros((SIZE, SIZE), np.float32)
    contrast[8:13, column - 2 : column + 3] = 40
    found = vanish(look, about(look), contrast, "it", realisations=0)
    assert found.share == pytest.approx(share, abs=0.1)
    assert found.ratio <= 1.02 * RHO
    assert found.image is None
    if share == 1:
        assert found.whole_ratio == 0
        np.testing.assert_allclose(found.hidden, look.x - contrast, atol=0.1)
        assert "All of it can" in found.verdict[1]
    else:
        assert found.whole_ratio > RHO
        assert "Without all of it" in found.verdict[1]


@pytest.mark.parametrize("contrast", [0.2, 2.0, 40.0])
def test_an_identity_lets_vanish_what_the_noise_ratio_allows(contrast):
    look = sight(lambda x: x)
    lesion = np.zeros((SIZE, SIZE), np.float32)
    lesion[8:12, 8:12] = contrast
    found = vanish(look, about(look), lesion, "it", realisations=0)
    moves = np.mean([np.linalg.norm(n[8:12, 8:12]) for n in look.noise])  # of the noise there
    assert found.share == pytest.approx(min(1, RHO * moves / (4 * contrast)), rel=0.02)
    assert found.whole_ratio == pytest.approx(4 * contrast / moves, rel=1e-4)
    assert found.shares[0.1] == pytest.approx(min(1, 0.1 * moves / (4 * contrast)), rel=0.02)
    assert list(found.shares) == [1.0, 0.3, 0.1]


def test_a_lesion_is_put_in_and_told_by_the_observer():
    found = invariance.hide(
        denoiser(), "same", noisy(), lesion=Lesion(10.0, -40.0, (32, 32)), realisations=32
    )
    assert found.contrast.min() == pytest.approx(-40, abs=0.5)
    np.testing.assert_allclose(found.x, noisy().hu + found.contrast, atol=1e-3)
    assert found.image.value > 3
    assert found.layer.value == pytest.approx(found.image.value, rel=0.05)
    assert found.share < 0.5
    assert "a lesion of 10 mm, -40 HU at column 32, row 32" in found.title
    assert found.result["figures"]["detectability_layer"]["value"] == found.layer.value
    blind = invariance.hide(denoiser(), "same", noisy(), lesion=Lesion(10.0, -40.0), realisations=0)
    assert "detectability_image" not in blind.figures


def test_a_region_loses_what_stands_out_from_its_rim():
    """A plateau on a slope: the slope is expected, the plateau is the contrast."""
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    region = np.hypot(rows - 30, columns - 28) <= 8
    x = 2 * columns + 50 * (np.hypot(rows - 30, columns - 28) <= 6)
    found = contrast_in(x.astype(np.float32), region)
    assert not found[~region].any()
    assert found[30, 28] == pytest.approx(50, abs=2)
    flat = contrast_in((2 * columns).astype(np.float32), region)
    assert np.abs(flat).max() < 5  # a smoothed slope ends 2 pixels short of its rim on either side
    noise = np.random.default_rng(0).normal(0, 10, x.shape).astype(np.float32)
    assert rms(contrast_in((x + noise).astype(np.float32), region) - found) < 4
    with pytest.raises(CtinvError, match="nothing around it"):
        contrast_in(x.astype(np.float32), np.ones_like(region))


def test_a_region_at_the_edge_of_the_slice_has_a_rim_too():
    x = np.full((20, 20), 7.0, np.float32)
    region = np.zeros((20, 20), bool)
    region[:6, :5] = True
    assert np.abs(contrast_in(x, region)).max() < 0.2


def test_a_region_is_asked_about():
    one = noisy()
    region = ellipse("32:32:16:12", one.shape)
    hu = one.hu + 60 * region
    found = invariance.hide(denoiser(), "same", hu, region=region, what="the spot", realisations=0)
    assert found.contrast.max() == pytest.approx(60, abs=12)
    assert "the spot" in found.verdict[0]
    assert rms((hu - found.contrast)[region] - 40) < 20


def test_ellipses_and_masks(tmp_path):
    inside = ellipse("10:20:8:4", (40, 30))
    assert inside[20, 10]
    assert inside[20, 14]
    assert not inside[20, 15]
    assert inside[22, 10]
    assert not inside[23, 10]
    np.save(tmp_path / "m.npy", inside)
    from PIL import Image

    Image.fromarray((inside * 255).astype(np.uint8)).save(tmp_path / "m.png")
    for name in ("m.npy", "m.png"):
        np.testing.assert_array_equal(read_mask(tmp_path / name, (40, 30)), inside)
    for text, message in (
        ("10:20", "no ellipse"),
        ("a:b:c", "no ellipse"),
        ("10:20:0", "no area"),
        ("500:20:4", "no pixel"),
    ):
        with pytest.raises(CtinvError, match=message):
            ellipse(text, (40, 30))
    np.save(tmp_path / "empty.npy", np.zeros((40, 30)))
    (tmp_path / "bad.png").write_text("no picture")
    for name, message in (("empty.npy", "empty"), ("bad.png", "no mask"), ("none.npy", "no mask")):
        with pytest.raises(ImageError, match=message):
            read_mask(tmp_path / name, (40, 30))
    with pytest.raises(ImageError, match="slice's size"):
        read_mask(tmp_path / "m.npy", (30, 40))


# --- spectrum


def test_both_ends_of_a_layer_of_known_gains():
    """Twice on the left: gains of 2 and 1 over the noise's root mean of 4 and 1."""
    found = invariance.spectrum(denoiser(), "gain", noisy(), count=2, size=8.0, steps=24)
    scale = math.sqrt(2.5)
    assert [d.gain for d in found.amplified] == pytest.approx([2 / scale] * 2, rel=0.02)
    assert [d.gain for d in found.hidden] == pytest.approx([1 / scale] * 2, rel=0.02)
    for d in found.hidden + found.amplified:
        assert rms(d.change) == pytest.approx(8, rel=1e-3)
        assert d.curvature < 1e-3
        assert d.radius == pytest.approx(8 * RHO / d.ratio, rel=0.02)
    left = found.amplified[0].change[:, : SIDE // 2]
    assert rms(left) > 20 * rms(found.amplified[0].change[:, SIDE // 2 :])
    assert "holds" in found.verdict[-1]


def test_changes_of_a_region_stay_in_it():
    region = np.zeros((SIDE, SIDE), bool)
    region[10:20, 40:50] = True
    found = invariance.spectrum(denoiser(), "gain", noisy(), region=region, count=1, size=5.0, steps=8)
    for d in (*found.hidden, *found.amplified):
        assert not d.change[~region].any()
        assert rms(d.change[region]) == pytest.approx(5, rel=1e-3)


def test_each_tissue_is_asked_by_itself():
    """Soft tissue on the left, where the gain is 2, and bone on the right, where it is 1."""
    one = noisy()
    one.hu[:, SIDE // 2 :] += 600
    found = invariance.spectra(denoiser(), "gain", one, count=1, size=5.0, steps=8)
    # Along the edge between them the smoothed slice is as bright as contrast medium.
    assert [a.part for a in found] == ["in soft tissue", "in contrast medium", "in bone"]
    for answer, half_of_it in zip(
        found[::2], (np.s_[:, : SIDE // 2 - 4], np.s_[:, SIDE // 2 + 4 :]), strict=True
    ):
        assert answer.region[half_of_it].all()
        assert not answer.region[:, :: SIDE - 1].all()
        assert [d.gain for d in answer.hidden + answer.amplified] == pytest.approx([1, 1], rel=0.05)
        assert answer.where in answer.verdict[0]
    page = answers_html(found)
    assert "<title>What gain of toy sees least and most</title>" in page
    assert "gain in bone" in page
    with pytest.raises(CtinvError, match="name a region"):
        invariance.spectra(denoiser(), "gain", np.full((SIDE, SIDE), -1000, np.float32))


def test_a_bent_layer_says_where_the_linear_reading_ends():
    class Bent(nn.Module):
        def forward(self, x):
            return torch.relu(x - 40) + 0.5 * x

    found = invariance.spectrum(denoiser(Bent()), "gain", noisy(), count=1, size=20.0, steps=12)
    assert max(d.curvature for d in found.hidden + found.amplified) > 0.1
    assert "does not hold" in found.verdict[-1]


# --- attack


def test_the_most_telling_change_lies_where_the_gain_is_largest():
    found = invariance.attack(denoiser(), noisy(), size=4.0)
    assert found.gain == pytest.approx(2, rel=1e-2)
    assert found.noise_gain == pytest.approx(math.sqrt(2.5), rel=0.1)
    assert np.abs(found.change).max() == pytest.approx(4, rel=1e-5)
    np.testing.assert_allclose(found.moved[:, : SIDE // 2], 2 * found.change[:, : SIDE // 2], atol=0.05)
    assert set(found.ratios) == {"same", "gain", "@output"}
    assert found.ratios["gain"] > found.ratios["same"]
    assert found.ratios["gain"] == pytest.approx(found.ratios["@output"], rel=1e-3)
    few = invariance.attack(denoiser(), noisy(), layers=["same"])
    assert set(few.ratios) == {"same", "@output"}


def test_the_sign_is_the_one_that_moves_further():
    class OneSided(nn.Module):
        def forward(self, x):
            return x + torch.relu(x - 40) * 3

    found = invariance.attack(denoiser(OneSided()), noisy(), size=30.0)
    f = OneSided()
    other = f(torch.from_numpy(found.x - found.change)) - f(torch.from_numpy(found.x))
    assert np.linalg.norm(found.moved) >= float(other.norm())


# --- files and refusals


@pytest.mark.parametrize("kind", ["spectrum", "hide", "attack"])
def test_answers_write_whole_files_that_say_what_they_are(kind, tmp_path):
    if kind == "attack":
        found = invariance.attack(zoo.load("chen"), noisy(), layers=["conv1"])
    elif kind == "hide":
        found = invariance.hide(
            zoo.load("chen"), "conv3", noisy(), lesion=Lesion(8.0, -20.0, (32, 32)), realisations=16
        )
    else:
        found = invariance.spectrum(zoo.load("chen"), "conv3", noisy(), count=2, steps=6)
    files = found.save(tmp_path / "out")
    assert {p.name for p in (tmp_path / "out").iterdir()} == set(files)
    stored = json.loads(files["result.json"].read_text())
    assert stored["kind"] == kind
    assert stored["units"] == "HU"
    assert stored["verdict"] == found.verdict
    assert stored["model"] == "chen"
    with np.load(files["images.npz"]) as images:
        np.testing.assert_array_equal(images["x"], found.x)
    page = files["report.html"].read_text()
    assert found.verdict[0].split()[0] in page
    assert 'src="data:image/png' in page
    assert "<b>" in found._repr_html_()
    assert "<script" not in found._repr_html_()


def test_bad_requests_are_refused():
    model, one = denoiser(), noisy()
    region = np.ones((4, 4), bool)
    for call, message in (
        (lambda: invariance.spectrum(model, "gain", one, size=0), "positive size"),
        (lambda: invariance.spectrum(model, "gain", one, rho=-1), "not positive"),
        (lambda: invariance.spectrum(model, "gain", one, region=region), "must agree"),
        (lambda: invariance.attack(model, one, region=region), "must agree"),
        (lambda: invariance.attack(model, one, size=math.nan), "positive size"),
        (lambda: invariance.hide(model, "gain", one), "either about a lesion"),
        (
            lambda: invariance.hide(model, "gain", one, lesion=Lesion(), region=region),
            "either about a lesion",
        ),
        (lambda: invariance.hide(model, "gain", one, region=region), "must agree"),
        (lambda: invariance.hide(model, "gain", one, lesion=Lesion(), realisations=3), "16 or more"),
        (lambda: vanish(sight(half), about(sight(half)), np.zeros((SIZE, SIZE)), "it"), "no contrast"),
    ):
        with pytest.raises(CtinvError, match=message):
            call()


def test_a_model_without_gradients_is_refused():
    model = denoiser()
    model.apart().differentiable = False
    look = layer(lambda x: x)
    look._look.denoiser.differentiable = False
    from ctinv.invariance.changes.spectrum import spectrum
    from ctinv.invariance.refinement.sight import Sight

    blind = Sight(look, draw(0, 1)[0], draw(1), (SIZE, SIZE), 1.0)
    with pytest.raises(UnsupportedModelError, match="differentiated"):
        spectrum(blind, About.of(look.denoiser, "phi", "x", rho=RHO))
