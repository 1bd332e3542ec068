"""The training loop: same bits after an interruption, honest checkpoints, and it learns."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from ctinv.adapters.errors import CtinvError, ImageError, ModelError
from ctinv.zoo import registry
from ctinv.zoo.training import RECIPES, Pair, TrainingSet, natural, score, train
from ctinv.zoo.training import loop as loop_module
from ctinv.zoo.training.checkpoints import read_checkpoint
from ctinv.zoo.training.loop import initialise
from safetensors import safe_open
from safetensors.torch import load_file

TINY = {
    "chen": replace(RECIPES["chen"], batch=2, patch=11),
    "chen by natural gradient": replace(
        RECIPES["chen"], batch=2, patch=11, optimiser="natural", rate=4e-3, clip=0.3, balance=0.5
    ),
    "yang": replace(
        RECIPES["yang"], batch=1, patch=32, critic_width=2, critic_hidden=4, critic_steps=2, warm_up=0.25
    ),
}


def pair(patient, seed, size=64, sigma=40.0):
    """A disc of water with noise at two doses."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size] - size / 2
    full = np.where(np.hypot(rows, columns) < 0.45 * size, 0.0, -1000.0) + rng.normal(0, 5, (size, size))
    low = full + rng.normal(0, sigma, (2, size, size))
    return Pair(low.astype(np.float32), full.astype(np.float32), patient, f"slice {seed}")


@pytest.fixture(scope="module")
def data():
    return TrainingSet([pair(f"P{i}", i) for i in range(4)])


class PlugPulledError(Exception):
    """Pulls the plug."""


def pulls_the_plug(after):
    def progress(stage, done, total):
        if done == after:
            raise PlugPulledError

    return progress


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("after", [1, 3, 5])
def test_resumed_training_ends_with_the_same_bits(name, after, data, tmp_path, monkeypatch):
    monkeypatch.setattr(loop_module, "_SAVE_EVERY", 2)
    monkeypatch.setattr(loop_module, "_MEASURED", 1)
    monkeypatch.setattr(natural, "_ROWS", 200)
    whole = train(TINY[name].network, data, 6, tmp_path / "whole", recipe=TINY[name])
    with pytest.raises(PlugPulledError):
        train(
            TINY[name].network, data, 6, tmp_path / "cut", recipe=TINY[name], progress=pulls_the_plug(after)
        )
    assert not (tmp_path / "cut" / "weights.safetensors").exists()
    stages = []
    resumed = train(
        TINY[name].network, data, 6, tmp_path / "cut", recipe=TINY[name], progress=lambda *a: stages.append(a)
    )
    assert stages[0] == ("training", 2 * (after // 2) + 1, 6), "work already done must not be done again"
    assert resumed.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("name", TINY)
def test_seed_decides(name, data, tmp_path):
    one, same, other = (
        load_file(train(TINY[name].network, data, 2, tmp_path / str(i), seed=seed, recipe=TINY[name]))
        for i, seed in enumerate((0, 0, 1))
    )
    assert all(torch.equal(one[k], same[k]) for k in one)
    assert any(not torch.equal(one[k], other[k]) for k in one)


def test_every_step_sees_other_patches(data, tmp_path, monkeypatch):
    seen = []
    draw = TrainingSet.batch

    def spy(self, count, size, margin, rng):
        low, full = draw(self, count, size, margin, rng)
        seen.append(full.numpy().tobytes())
        return low, full

    monkeypatch.setattr(TrainingSet, "batch", spy)
    train("yang", data, 4, tmp_path, recipe=TINY["yang"])
    assert len(seen) == 1 + 3 * 3, "one warm step, then two critic steps and one of the denoiser each"
    assert len(set(seen)) == len(seen)


def test_without_resume_the_checkpoint_is_replaced(data, tmp_path):
    train("chen", data, 2, tmp_path, seed=1, recipe=TINY["chen"])
    train("chen", data, 2, tmp_path, seed=2, recipe=TINY["chen"], resume=False)
    _, _, about = read_checkpoint(tmp_path)
    assert about["seed"] == 2
    assert sorted(f.name for f in tmp_path.iterdir()) == ["checkpoint.safetensors", "weights.safetensors"]


@pytest.mark.parametrize(
    ("change", "word"),
    [({"seed": 7}, "seed"), ({"steps": 3}, "steps"), ({"name": "yang"}, "name"), ({"other": True}, "data")],
)
def test_checkpoint_of_another_training_is_refused(change, word, data, tmp_path):
    train("chen", data, 2, tmp_path, recipe=TINY["chen"])
    name = change.get("name", "chen")
    given = TrainingSet([pair("Q", 9)]) if "other" in change else data
    with pytest.raises(ModelError, match=rf"another training.*{word}"):
        train(name, given, change.get("steps", 2), tmp_path, seed=change.get("seed", 0), recipe=TINY[name])


def test_damaged_checkpoint_is_refused(data, tmp_path):
    train("chen", data, 2, tmp_path, recipe=TINY["chen"])
    file = tmp_path / "checkpoint.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ModelError, match=r"damaged.*resume=False"):
        train("chen", data, 2, tmp_path, recipe=TINY["chen"])


def test_result_can_be_loaded_and_tells_its_recipe(data, tmp_path):
    path = train("cnn10", data, 2, tmp_path, recipe=TINY["chen"])
    registry.network("chen", pretrained=False).load_state_dict(load_file(path))
    with safe_open(path, "pt") as file:
        about = file.metadata()
    assert about["ctinv.intensity"] == TINY["chen"].intensity
    assert about["ctinv.output"] == "image"
    recipe = json.loads(about["recipe"])
    assert (recipe["name"], recipe["steps"], recipe["recipe"]["patch"]) == ("chen", 2, 11)


def test_fine_tuning_starts_from_the_given_weights(data, tmp_path):
    shipped = registry.find("chen").weights
    still = replace(TINY["chen"], rate=0.0)
    path = train("chen", data, 1, tmp_path / "a", recipe=still, start=shipped)
    tuned, given = load_file(path), load_file(shipped)
    assert all(torch.equal(tuned[k], given[k]) for k in given)
    with pytest.raises(ModelError, match=r"another training.*start"):
        train("chen", data, 1, tmp_path / "a", recipe=still)
    with pytest.raises(ModelError, match="does not fit yang"):
        train("yang", data, 1, tmp_path / "b", recipe=TINY["yang"], start=shipped)


def test_global_generator_is_left_alone(data, tmp_path):
    before = torch.get_rng_state()
    train("yang", data, 1, tmp_path, recipe=TINY["yang"])
    registry.network("yang")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("steps", "name", "error"), [(0, "chen", "steps is 0"), (1, "nobody", "known names")]
)
def test_bad_requests(steps, name, error, data, tmp_path):
    with pytest.raises(CtinvError, match=error):
        train(name, data, steps, tmp_path)


def test_out_is_a_file(data, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(CtinvError, match="cannot make the folder"):
        train("chen", data, 1, tmp_path / "taken")


def test_training_lowers_the_error(data, tmp_path):
    def denoiser(path):
        net = registry.network("chen", pretrained=False)
        net.load_state_dict(load_file(path))

        def denoise(x):
            with torch.no_grad():
                return net(torch.from_numpy((x + 1024) / 4096)).numpy() * 4096 - 1024

        return denoise

    recipe = replace(RECIPES["chen"], batch=8, identity=False)
    early = score(denoiser(train("chen", data, 1, tmp_path / "1", recipe=recipe)), data)
    late = score(denoiser(train("chen", data, 60, tmp_path / "60", recipe=recipe)), data)
    assert late.rmse < 0.5 * early.rmse


@pytest.mark.parametrize("name", TINY)
def test_identity_start(name):
    net = registry.network(TINY[name].network, pretrained=False)
    initialise(net, torch.Generator().manual_seed(0), True)
    convs = [m for m in net.children() if isinstance(m, torch.nn.Conv2d)]
    with torch.no_grad():
        flat = torch.full((1, 1, 20, 20), 0.6)
        assert torch.equal(net(flat)[..., 9:-9, 9:-9], flat[..., 9:-9, 9:-9]), "flat images pass unchanged"
        seen = convs[0](flat)[0, :, 10, 10]
        assert seen[0].item() == pytest.approx(0.6)
        assert seen[1:].abs().max() < 1e-5, "the other channels see detail only"
        x = 0.3 + 0.01 * torch.rand(1, 1, 20, 20)
        assert 0 < (net(x) - x)[..., 9:-9, 9:-9].abs().max() < 0.02, (
            "the rest is faint but there to be learned from"
        )
        convs[-1].weight[:, 1:] = 0.0
        torch.testing.assert_close(net(x), x)


def test_he_start():
    net = registry.network("yang", pretrained=False)
    initialise(net, torch.Generator().manual_seed(0), False)
    assert net.conv7.weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 32)), rel=0.03)
    assert not net.conv7.bias.any()


class TestTrainingSet:
    def test_patches_are_twins(self, data):
        # Low = full + noise: with the noise taken out, each low patch holds its full patch in the middle.
        clean = TrainingSet([Pair(p.full[None], p.full, p.patient) for p in data.pairs])
        low, full = clean.batch(6, 11, 4, np.random.default_rng(0))
        assert low.shape == (6, 1, 19, 19)
        assert full.shape == (6, 1, 11, 11)
        assert torch.equal(low[:, :, 4:-4, 4:-4], full)

    def test_all_turns_and_realisations_occur(self):
        ramp = np.arange(64.0)[:, None] + np.arange(64.0)[None] * 100
        one = Pair(np.stack([ramp, ramp + 0.5]).astype(np.float32), ramp.astype(np.float32), "P")
        low, full = TrainingSet([one]).batch(200, 8, 0, np.random.default_rng(0))
        assert set(torch.unique(low - full).tolist()) == {0.0, 0.5}
        steps = {(round(float(p[0, 1, 0] - p[0, 0, 0])), round(float(p[0, 0, 1] - p[0, 0, 0]))) for p in full}
        assert steps == {(a * u, b * v) for u, v in ((1, 100), (100, 1)) for a in (1, -1) for b in (1, -1)}

    def test_patches_lie_in_the_body(self):
        full = np.full((128, 128), -1000.0, dtype=np.float32)
        full[50:80, 50:80] = 30.0
        _, patches = TrainingSet([Pair(full[None], full, "P")]).batch(50, 9, 0, np.random.default_rng(0))
        assert (patches[:, 0, 4, 4] > -900).all()

    def test_split_keeps_patients_whole(self):
        pairs = [pair(f"P{i % 8}", i, size=32) for i in range(16)]
        training, held = TrainingSet(pairs).split(4)
        assert held.patients == ("P3", "P7")
        assert not set(held.patients) & set(training.patients)
        assert len(training) + len(held) == 16

    def test_refusals(self):
        with pytest.raises(ImageError, match="no pair"):
            TrainingSet([])
        with pytest.raises(ImageError, match="must agree"):
            TrainingSet([Pair(np.zeros((1, 8, 8), np.float32), np.zeros((8, 9), np.float32), "P")])
        small = TrainingSet([pair("P", 0, size=16)])
        with pytest.raises(ImageError, match="a patch needs 20"):
            small.batch(1, 20, 0, np.random.default_rng(0))
        with pytest.raises(ImageError, match="too few to hold out"):
            small.split()

    def test_fingerprint_sees_every_pixel(self, data):
        other = [replace(p, full=p.full.copy()) for p in data.pairs]
        assert TrainingSet(other).fingerprint == data.fingerprint
        other[-1].full[0, 0] += 1
        assert TrainingSet(other).fingerprint != data.fingerprint
