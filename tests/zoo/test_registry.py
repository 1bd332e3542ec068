"""Names, weights, cards and the promises of the registry."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ctinv import zoo
from ctinv.adapters.errors import CtinvError, ModelError
from ctinv.zoo import registry

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "ct" / "tcga"
LAYERS = {
    "chen": ["conv1", "relu2", "conv3", "relu4", "conv5"],
    "yang": [f"{'conv' if i % 2 else 'relu'}{i}" for i in range(1, 16)],
}


def disc(size=128, seed=0):
    """A water disc with a denser insert in air, (H, W), HU."""
    rows, columns = np.mgrid[:size, :size] - (size - 1) / 2
    image = np.where(np.hypot(rows, columns) < 0.42 * size, 0.0, -1000.0)
    image[np.hypot(rows - size / 6, columns) < size / 12] = 60.0
    return image.astype(np.float32)


def coloured_noise(shape, sigma, seed):
    """CT-like noise: a ramp times a Hann window in frequency, standard deviation ``sigma``, HU."""
    rng = np.random.default_rng(seed)
    f = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1])[None])
    window = np.sqrt(f) * np.where(f < 0.5, 0.5 * (1 + np.cos(2 * np.pi * f)), 0)
    noise = np.fft.ifft2(np.fft.fft2(rng.standard_normal(shape)) * window).real
    return (sigma * noise / noise.std()).astype(np.float32)


def test_names_are_the_tables():
    assert zoo.names() == ("chen", "yang")


@pytest.mark.parametrize("name", LAYERS)
def test_loaded_layers_have_the_names_of_the_table(name):
    denoiser = zoo.load(name)
    assert [layer.name for layer in denoiser.layers] == LAYERS[name]
    assert denoiser.name == name
    assert denoiser.intensity.spec == zoo.metadata(name)["ctinv.intensity"]
    assert denoiser.output == "image"


@pytest.mark.parametrize(
    ("alias", "name"),
    [("cnn10", "chen"), ("CNN-10", "chen"), ("wganvgg", "yang"), ("WGAN_VGG", "yang"), (" Yang ", "yang")],
)
def test_aliases(alias, name):
    assert registry.find(alias).name == name


@pytest.mark.parametrize("call", [zoo.load, zoo.network, zoo.card, zoo.metadata])
def test_unknown_name_lists_what_there_is(call):
    with pytest.raises(ModelError, match=r"'yangg'; did you mean 'yang'\? known names: chen, cnn10,"):
        call("yangg")
    with pytest.raises(CtinvError, match=r"'unet'; known names: chen"):
        call("unet")


@pytest.mark.parametrize("name", LAYERS)
def test_weights_are_small_float32_and_described(name):
    path = registry.find(name).weights
    assert 90_000 < path.stat().st_size < 235_000
    net = zoo.network(name)
    assert all(p.dtype == torch.float32 for p in net.parameters())
    assert not net.training
    about = zoo.metadata(name)
    assert {"ctinv.intensity", "ctinv.output", "recipe", "data", "citation", "scores"} <= about.keys()
    assert json.loads(about["recipe"])["name"] == name
    assert json.loads(about["scores"])["patients"] >= 6


def test_untrained_network_differs_from_the_trained():
    torch.manual_seed(0)
    fresh, trained = zoo.network("chen", pretrained=False), zoo.network("chen")
    assert not torch.equal(fresh.conv1.weight, trained.conv1.weight)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("sigma", [25.0, 45.0])
def test_weights_denoise_a_phantom(name, sigma):
    clean = disc()
    noisy = clean + coloured_noise(clean.shape, sigma, seed=1)
    denoised = zoo.load(name).denoise(noisy[None, None])[0, 0]
    inside = np.hypot(*(np.mgrid[:128, :128] - 63.5)) < 48
    before = np.sqrt(np.mean((noisy - clean)[inside] ** 2))
    after = np.sqrt(np.mean((denoised - clean)[inside] ** 2))
    assert after < 0.85 * before
    assert abs(float((denoised - clean)[inside].mean())) < 5.0, "grey values must not drift"


@pytest.mark.parametrize("name", LAYERS)
def test_card_tells_data_recipe_scores_and_limits(name):
    text = zoo.card(name)
    for words in (
        *("10.7937/K9/TCIA.2016.JGNIHEP5", "10.7937/K9/TCIA.2016.TYGKKFMQ", "CC BY 3.0", "Clark"),
        *("## Data", "## Recipe", "## Scores", "## Limits", "TCGA-"),
    ):
        assert words in text
    scores = json.loads(zoo.metadata(name)["scores"])
    assert f"{100 * scores['reduction']:.1f} %" in text, "the card must quote the score of these very weights"


def test_scores_are_what_was_asked():
    """Chen smooths, Yang keeps texture: its noise power is twice as near to full dose at least."""
    chen, yang = (json.loads(zoo.metadata(name)["scores"]) for name in ("chen", "yang"))
    assert chen["reduction"] >= 0.35
    assert yang["reduction"] >= 0.15
    for band in ("mid", "high"):
        assert abs(1 - chen["power"][band]) >= 2 * abs(1 - yang["power"][band])
    assert chen["held_out"] == yang["held_out"]
    assert len(chen["held_out"]) >= 6


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared CT slices are not there")
def test_scores_come_out_again():
    from ctinv.zoo import training

    _, held = training.load_pairs(SHARED, {"abdomen": 0.25, "chest": 0.25}, 1).split()
    for name in LAYERS:
        told = json.loads(zoo.metadata(name)["scores"])
        assert list(held.patients) == told["held_out"]
        found = training.score(zoo.load(name).denoise, held)
        assert found.reduction == pytest.approx(told["reduction"], abs=0.002)
        assert found.bound == pytest.approx(told["bound"], abs=0.002)
        assert found.power == pytest.approx(told["power"], abs=0.01)


def test_damaged_weights_are_refused(tmp_path, monkeypatch):
    bad = registry.Entry("chen", "ctinv.zoo.networks", "Chen")
    monkeypatch.setattr(registry, "_HERE", tmp_path)
    with pytest.raises(ModelError, match="reinstall"):
        registry._read(bad)
    (tmp_path / "weights").mkdir()
    bad.weights.write_bytes(b"not a safetensors file")
    with pytest.raises(ModelError, match="reinstall"):
        registry._read(bad)
    with pytest.raises(ModelError, match="card"):
        zoo.card("chen")


def test_weights_of_another_network_are_refused(tmp_path, monkeypatch):
    (tmp_path / "weights").mkdir()
    data = registry.find("yang").weights.read_bytes()
    monkeypatch.setattr(registry, "_HERE", tmp_path)
    (tmp_path / "weights" / "chen.safetensors").write_bytes(data)
    with pytest.raises(ModelError, match="does not fit Chen"):
        zoo.network("chen")


def _imported(statement):
    code = f"import sys\n{statement}\nprint(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_import_is_light():
    heavy = {"torch", "onnx", "onnxruntime", "scipy", "safetensors", "pydicom", "zuko"}
    assert not heavy & _imported("import ctinv.zoo")
    assert "torch" in _imported("import ctinv.zoo.networks"), "the check itself must be able to fail"
