"""The method end to end on data whose answer is known, and its promises: same seed, same numbers."""

import json

import numpy as np
import pytest
import torch
from ctinv import adapters, invariance, zoo
from ctinv.adapters.errors import CtinvError, ImageError, LayerError
from ctinv.invariance.audit.leakage import matched_control, seen_changes
from ctinv.invariance.infra.cache import cache_root
from ctinv.invariance.refinement.refine import RHO
from torch import nn

QUICK = {"fit.steps": 40, "fit.patches": 256, "fit.check": 20}


class Blind(nn.Module):
    """Forgets the left half of the image."""

    def forward(self, x):
        x = x.clone()
        x[..., : x.shape[-1] // 2] = 0
        return x


class Denoiser(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.out = nn.Conv2d(1, 1, 1, bias=False)
        nn.init.ones_(self.out.weight)

    def forward(self, x):
        return self.out(self.layer(x))


@pytest.fixture(scope="module")
def slices():
    from ctinv.invariance.data import phantom

    return [phantom(np.random.default_rng(k), 128).hu for k in range(12)]


@pytest.fixture(scope="module")
def blind(slices, session_cache):
    denoiser = adapters.wrap(Denoiser(Blind()), intensity="unit:-1024:3072", name="blind")
    overrides = {"fit.steps": 300, "fit.patches": 2048}
    return invariance.fit(denoiser, "layer", data=slices[2:], preset="tiny", overrides=overrides, cache=False)


def area_under_curve(positive, negative):
    """Probability that a positive exceeds a negative (ties count half)."""
    values = np.concatenate([positive, negative])
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    n, m = len(positive), len(negative)
    return (ranks[:n].sum() - n * (n + 1) / 2) / (n * m)


def test_planted_blindness_is_found(blind, slices):
    explanation = blind.explain(slices[0], samples=40)
    body = slices[0] > -900
    left = np.zeros_like(body)
    left[:, :64] = True
    auc = area_under_curve(explanation.std[body & left], explanation.std[body & ~left])
    assert auc > 0.98
    assert explanation.meta["fit"]["scores"]["nll"] < explanation.meta["fit"]["scores"]["nll_shuffled"]


def test_the_seed_decides(blind, slices):
    first, again, other = (blind.explain(slices[1], samples=6, seed=s) for s in (0, 0, 1))
    np.testing.assert_array_equal(first.std, again.std)
    np.testing.assert_array_equal(first.samples, again.samples)
    assert first.audit == again.audit
    assert not np.array_equal(first.std, other.std)


def test_the_first_samples_do_not_depend_on_their_number(blind, slices):
    few, many = (blind.explain(slices[1], samples=n, keep=3) for n in (6, 20))
    deviation_few, deviation_many = few.samples - few.mean, many.samples - many.mean
    # Means over 6 and over 20 differ, single draws in one tile do not.
    assert np.corrcoef(deviation_few.ravel(), deviation_many.ravel())[0, 1] > 0.8


def test_saved_and_loaded_bundles_agree(blind, slices, tmp_path):
    blind.save(tmp_path / "bundle")
    again = invariance.Explainer.load(tmp_path / "bundle", blind.denoiser)
    np.testing.assert_array_equal(
        again.explain(slices[2], samples=4).samples, blind.explain(slices[2], samples=4).samples
    )
    assert {p.suffix for p in (tmp_path / "bundle").iterdir()} == {".json", ".safetensors"}


def test_a_bundle_of_another_denoiser_is_refused(blind, tmp_path):
    blind.save(tmp_path / "bundle")
    other = adapters.wrap(Denoiser(nn.Conv2d(1, 1, 3, padding=1)), intensity="hu")
    with pytest.raises(CtinvError, match="fitted on another denoiser"):
        invariance.Explainer.load(tmp_path / "bundle", other)


@pytest.mark.parametrize("damage", ["config.json", "flow.safetensors", "vae.safetensors"])
def test_damaged_bundles_are_refused(blind, tmp_path, damage):
    blind.save(tmp_path / "bundle")
    (tmp_path / "bundle" / damage).write_bytes(b"{")
    with pytest.raises(CtinvError, match=r"no readable|fit again"):
        invariance.Explainer.load(tmp_path / "bundle", blind.denoiser)


def test_fits_are_cached_by_what_decides_them(slices, tmp_path, monkeypatch):
    monkeypatch.setenv("CTINV_CACHE", str(tmp_path))
    denoiser = adapters.wrap(Denoiser(nn.Identity()), intensity="hu")
    stages = []

    def run(**changes):
        stages.clear()
        given = {"data": slices[:3], "preset": "tiny", "overrides": QUICK, **changes}
        explainer = invariance.fit(
            denoiser, "layer", progress=lambda stage, *_: stages.append(stage), **given
        )
        return explainer, "flow" in stages

    first, fitted = run()
    assert fitted
    second, fitted = run()
    assert not fitted
    for name, value in first.flow.state_dict().items():
        assert torch.equal(value, second.flow.state_dict()[name]), name
    assert len(list((cache_root() / "explainers").iterdir())) == 1
    assert run(seed=1)[1]
    assert run(data=slices[1:4])[1]
    assert run(overrides={**QUICK, "flow.blocks": 1})[1]


def test_a_fit_repeats(slices):
    denoiser = adapters.wrap(Denoiser(nn.Conv2d(1, 1, 3, padding=1)), intensity="unit:-1024:3072")
    one, two = (
        invariance.fit(denoiser, "layer", data=slices[:3], preset="tiny", overrides=QUICK, cache=False)
        for _ in range(2)
    )
    for name, value in one.flow.state_dict().items():
        assert torch.equal(value, two.flow.state_dict()[name]), name
    assert one.info["scores"] == two.info["scores"]


def test_layers_fitted_together_come_out_as_alone(slices):
    denoiser, given = zoo.load("chen"), {"data": slices[:4], "preset": "tiny", "cache": False}
    given["overrides"] = {**QUICK, "fit.steps": 20, "fit.check": 10}
    together = invariance.fit(denoiser, ["conv5", "conv1", "conv5", "relu2"], **given)
    assert [e.layer for e in together] == ["conv5", "conv1", "conv5", "relu2"]
    assert together[0] is together[2]
    for one in together[1:]:
        alone = invariance.fit(denoiser, one.layer, **given)
        assert one.info["scores"] == alone.info["scores"]
        assert one.geometry == alone.geometry
        for part in ("flow", "embedder"):
            expected = getattr(alone, part).state_dict()
            for name, value in getattr(one, part).state_dict().items():
                assert torch.equal(value, expected[name]), name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["chen", "yang"])
def test_flows_use_what_every_layer_of_the_zoo_tells(slices, name):
    denoiser = zoo.load(name)
    layers = [layer.name for layer in denoiser.layers]
    fitted = invariance.fit(denoiser, layers, data=slices[2:], preset="tiny", cache=False)
    gaps = {e.layer: e.info["scores"]["nll_shuffled"] - e.info["scores"]["nll"] for e in fitted}
    assert len(gaps) == {"chen": 5, "yang": 15}[name]
    assert min(gaps.values()) > 0.05, gaps


def test_only_layers_that_are_not_known_are_fitted(slices, tmp_path, monkeypatch):
    monkeypatch.setenv("CTINV_CACHE", str(tmp_path))
    denoiser, stages = zoo.load("chen"), []
    given = {"data": slices[:3], "preset": "tiny", "overrides": {**QUICK, "fit.steps": 2}}
    first = invariance.fit(denoiser, "conv3", **given)
    both = invariance.fit(
        denoiser, ["conv1", "conv3"], progress=lambda stage, *_: stages.append(stage), **given
    )
    assert {stage for stage in stages if stage.startswith("flow")} == {"flow"}
    assert both[1].info == first.info
    assert not list((tmp_path / "checkpoints").glob("**/*"))


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_a_network_and_its_onnx_file_give_the_same_fit_and_map(slices, tmp_path, exporter):
    module = zoo.load("chen")
    file = adapters.load(zoo.export("chen", tmp_path / "chen.onnx", exporter=exporter))
    one, two = (
        invariance.fit(d, "conv3", data=slices[:3], preset="tiny", overrides=QUICK, cache=False)
        for d in (module, file)
    )
    for name, value in one.flow.state_dict().items():
        assert torch.equal(value, two.flow.state_dict()[name]), name
    maps = [e.explain(slices[3], samples=8).std for e in (one, two)]
    assert np.abs(maps[0] - maps[1]).max() < 1e-3 * maps[0].max()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((3, 64, 64), np.float32), "one slice"),
        (np.zeros((4, 64), np.float32), "8 pixels or more"),
        (np.full((64, 64), np.nan, np.float32), "not finite"),
    ],
)
def test_images_that_cannot_be_explained_are_refused(blind, image, message):
    with pytest.raises(ImageError, match=message):
        blind.explain(image)


def test_requests_that_make_no_sense_are_refused(blind, slices):
    with pytest.raises(CtinvError, match="two or more"):
        blind.explain(slices[0], samples=1)
    with pytest.raises(LayerError, match="nosuch"):
        invariance.fit(blind.denoiser, "nosuch", data=slices, preset="tiny")
    with pytest.raises(CtinvError, match="usable slices"):
        invariance.fit(blind.denoiser, "layer", data=slices[:1], preset="tiny")
    with pytest.raises(CtinvError, match="no preset is called 'huge'"):
        invariance.fit(blind.denoiser, "layer", data=slices, preset="huge")
    with pytest.raises(CtinvError, match=r"no field 'flow\.nosuch'"):
        invariance.fit(blind.denoiser, "layer", data=slices, preset="tiny", overrides={"flow.nosuch": 1})


@pytest.mark.parametrize("value", ["nan", float("inf"), "many"])
def test_rates_that_are_no_numbers_are_refused(blind, slices, value):
    with pytest.raises(CtinvError, match=r"preset field fit\.rate takes"):
        invariance.fit(blind.denoiser, "layer", data=slices, preset="tiny", overrides={"fit.rate": value})


def test_small_images_are_extended_and_cut_back(blind):
    image = np.full((20, 30), 40, np.float32)
    explanation = blind.explain(image, samples=4)
    assert explanation.std.shape == (20, 30)
    assert explanation.samples.shape == (4, 20, 30)


def test_a_fit_that_diverges_says_so(blind, slices):
    overrides = {**QUICK, "fit.rate": 1e38}
    with pytest.raises(CtinvError, match="diverged at step"):
        invariance.fit(
            blind.denoiser, "layer", data=slices[:3], preset="tiny", overrides=overrides, cache=False
        )


def test_a_layer_that_overflows_says_so(slices):
    class Exploding(nn.Module):
        def forward(self, x):
            return x * 1e38

    denoiser = adapters.wrap(Denoiser(Exploding()), intensity="hu", output="image")
    with pytest.raises(CtinvError, match=r"layer.*not finite"):
        invariance.fit(denoiser, "layer", data=slices[:3], preset="tiny", overrides=QUICK, cache=False)


# -- leakage against known answers -------------------------------------------------------------------


def test_control_has_the_spectrum_of_the_change():
    rng = np.random.default_rng(0)
    change = rng.normal(size=(32, 48)).astype(np.float32)
    control = matched_control(change, rng)
    np.testing.assert_allclose(np.abs(np.fft.fft2(control)), np.abs(np.fft.fft2(change)), atol=1e-3)
    assert abs(np.corrcoef(control.ravel(), change.ravel())[0, 1]) < 0.2


def test_leakage_of_known_layers():
    rng = np.random.default_rng(0)
    base = rng.normal(size=(64, 64)).astype(np.float32)
    change = rng.normal(size=(20, 64, 64)).astype(np.float32)
    seen = seen_changes(torch.from_numpy, base, base + change, rng).leakage()
    np.testing.assert_allclose(seen, 1, atol=1e-3)
    assert seen_changes(lambda x: torch.zeros(3), base, base + change, rng).leakage().max() == 0
    # A layer blind on the left: changes confined there do not leak, changes on the right leak
    # more than their control, half of which falls on the blind side.
    right = lambda x: torch.from_numpy(x[:, 32:].copy())  # noqa: E731
    hidden, shown = change.copy(), change.copy()
    hidden[:, :, 32:] = 0
    shown[:, :, :32] = 0
    assert seen_changes(right, base, base + hidden, rng).leakage().max() < 1e-6
    np.testing.assert_allclose(seen_changes(right, base, base + shown, rng).leakage(), np.sqrt(2), rtol=0.1)


def test_audit_is_plain_and_complete(blind, slices):
    explanation = blind.explain(slices[3], samples=6)
    audit = json.loads(json.dumps(explanation.result["audit"]))
    groups = {
        "bounds",
        "embedding",
        "leakage",
        "leakage_in",
        "noise_ratio",
        "output",
        "flow",
        "map",
        "where",
        "curve",
        "image",
    }
    assert set(audit) == {*groups, "controls", "verdict"}
    assert (audit["controls"]["value"], audit["controls"]["n"]) == (4, 4)
    shares = [f["value"] for name, f in audit["where"].items() if name not in ("flat", "frequency")]
    assert sum(shares) == pytest.approx(100, abs=3)
    assert set(audit["leakage_in"]) == {*audit["where"]} - {"flat", "frequency"}
    assert audit["leakage"]["flow"]["n"] == 4
    assert 0 <= audit["leakage"]["flow_from_reconstruction"]["value"] < 1
    assert audit["noise_ratio"]["refined"]["high"] <= 1.011 * RHO < audit["noise_ratio"]["flow"]["low"]
    assert set(audit["curve"]) == {"1", "0.3", "0.1", "0.03", "0.01"}
    assert "layer" in audit["verdict"][0]


def test_refinement_clears_what_the_layer_sees_and_keeps_what_it_does_not(blind, slices):
    assert blind.explain(slices[3], samples=20).meta.refinement.samples == 8
    explanation = blind.explain(slices[3], samples=20, refine=20)
    half = explanation.x.shape[1] // 2
    assert explanation.meta["refinement"]["samples"] == 20
    away = half + 4  # the map is smoothed by a pixel
    seen, hidden = explanation.std[:, away:], explanation.std[:, :half]
    flow = explanation.std_flow
    assert np.sqrt(np.mean(seen**2)) < 2 < np.sqrt(np.mean(flow[:, away:] ** 2))
    np.testing.assert_allclose(np.sqrt(np.mean(hidden**2)), np.sqrt(np.mean(flow[:, :half] ** 2)), rtol=0.05)
    assert explanation.audit["leakage"]["refined"]["value"] < 0.05
    assert "it has lost just these structures" in explanation.audit["verdict"][0]
    bounds = explanation.bounds
    assert bounds.converged
    assert bounds.lower.value < bounds.upper.value * 1.3
    assert explanation.reading.shape == explanation.std_noise.shape == explanation.x.shape


def test_refinement_can_be_left_out(blind, slices):
    plain = blind.explain(slices[3], samples=6, refine=0)
    assert plain.std_flow is None
    assert plain.audit["curve"] == {}
    assert plain.audit["verdict"][0].startswith("The samples are not refined (it was not asked for).")
    refined = blind.explain(slices[3], samples=6)
    np.testing.assert_array_equal(refined.std_flow, plain.std)
    with pytest.raises(CtinvError, match="noise ratio"):
        blind.explain(slices[3], rho=0)
