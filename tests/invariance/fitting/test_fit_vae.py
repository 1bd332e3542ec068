"""Laws of the autoencoder's training: the critic, its penalty, one step, and going on after a stop."""

import dataclasses

import numpy as np
import pytest
import torch
from ctinv import adapters, invariance
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.fitting.fit_vae import fit_vae
from ctinv.invariance.fitting.vae_loop import VAELoop, VAETraining
from ctinv.invariance.infra.checkpoints import Checkpoint
from ctinv.invariance.infra.training import gradient_penalty
from ctinv.invariance.networks.critic import Adversary, Critic
from ctinv.invariance.networks.vae import VAE
from ctinv.invariance.presets import VAEConfig
from torch import nn
from torch.nn.utils import parametrize

PLAIN = VAEConfig(patch=16, code_channels=3, code_size=4, widths=(8, 6))
CRITIC = dataclasses.replace(PLAIN, critic=4, adversarial=1e-3)
GUIDED = VAEConfig(
    16, 12, 1, (8, 8, 6, 6), decoder="biggan", channels=2, conditional=True, critic=3, adversarial=1e-3
)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return [rng.normal(0, 300, (24, 32)).astype(np.float32) for _ in range(3)]


def denoised(images, config):
    return [image + 100 for image in images] if config.conditional else None


def loop(images, config, **options):
    torch.manual_seed(0)
    perceptual = options.pop("perceptual", None)
    training = VAETraining(**{"batch": 4, **options})
    return VAELoop(images, VAE(config), training, denoised=denoised(images, config), perceptual=perceptual)


# -- the critic -----------------------------------------------------------------------------------


def test_penalty_of_a_linear_critic():
    weight = torch.randn(1, 8, 8, dtype=torch.float64, requires_grad=True)
    real, fake = torch.randn(2, 5, 1, 8, 8, dtype=torch.float64)
    penalty = gradient_penalty(lambda x: (x * weight).sum((1, 2, 3)), real, fake, torch.rand(5))
    norm = weight.norm()
    torch.testing.assert_close(penalty, (norm - 1) ** 2)
    (slope,) = torch.autograd.grad(penalty, weight)
    torch.testing.assert_close(slope, 2 * (norm - 1) * weight.detach() / norm)


def test_penalty_is_taken_between_real_and_fake():
    real, fake = torch.randn(2, 5, 1, 8, 8, dtype=torch.float64)
    mix = torch.tensor([0, 1, 0.5, 0.25, 0.9], dtype=torch.float64)
    penalty = gradient_penalty(lambda x: 0.5 * x.square().sum((1, 2, 3)), real, fake, mix)
    between = mix[:, None, None, None] * real + (1 - mix)[:, None, None, None] * fake
    torch.testing.assert_close(penalty, (between.flatten(1).norm(dim=1) - 1).square().mean())


def test_a_flat_critic_has_a_gradient():
    critic = nn.Linear(4, 1)
    nn.init.zeros_(critic.weight)
    real, fake = torch.randn(2, 3, 1, 2, 2)
    penalty = gradient_penalty(lambda x: critic(x.flatten(1))[:, 0], real, fake, torch.rand(3))
    penalty.backward()
    assert penalty.item() == pytest.approx(1, abs=1e-5)
    assert critic.weight.grad.isfinite().all()


@pytest.mark.parametrize("config", [CRITIC, GUIDED], ids=["alone", "guided"])
@pytest.mark.parametrize("patch", [8, 16, 64])
def test_critic_judges_each_patch_alone(config, patch):
    torch.manual_seed(0)
    critic = Critic(dataclasses.replace(config, patch=patch))
    x, guide = torch.randn(2, 3, 1, patch, patch)
    guide = guide if config.conditional else None
    verdicts = critic(x, guide)
    assert verdicts.shape == (3,)
    alone = torch.cat([critic(x[k : k + 1], None if guide is None else guide[k : k + 1]) for k in range(3)])
    torch.testing.assert_close(verdicts, alone)
    verdicts.sum().backward()
    assert [n for n, p in critic.named_parameters() if not p.grad.abs().sum() > 0] == []


def test_the_reconstructions_loss_teaches_the_critic_nothing():
    adversary = Adversary(CRITIC, 1e-3)
    fake = torch.randn(3, 1, 16, 16, requires_grad=True)
    adversary.loss(fake, None).backward()
    assert fake.grad.abs().sum() > 0
    assert all(p.grad is None and p.requires_grad for p in adversary.critic.parameters())


def test_a_critic_learns_a_distance_and_unit_slope():
    torch.manual_seed(0)
    adversary = Adversary(dataclasses.replace(CRITIC, patch=8), 2e-2)
    fake = torch.randn(8, 1, 8, 8) * 0.1
    real = fake + 1 / 8  # 1 away in norm: what a critic of slope 1 can tell at most
    for _ in range(60):
        distance, penalty = adversary.learn(real, fake, None, torch.rand(8))
    assert 0.7 < distance < 1.2
    assert penalty < 0.1


# -- one step -------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [PLAIN, CRITIC, GUIDED], ids=["plain", "critic", "guided"])
@pytest.mark.parametrize("half", [False, True], ids=["f32", "bf16"])
def test_every_parameter_learns(images, config, half):
    training = loop(images, config, half=half, rate=1e-3)
    runs = []
    training.vae.decoder.register_forward_hook(lambda *_: runs.append(1))
    learners = [training.vae] + ([training.adversary.critic] if config.critic else [])
    before = [{n: p.detach().clone() for n, p in m.named_parameters()} for m in learners]
    for _ in range(4):
        figures = training.advance()
        assert all(np.isfinite(value) for value in figures.values())
    assert set(figures) == {"loss", "rmse"} | ({"distance", "penalty"} if config.critic else set())
    assert len(runs) == 4  # the critic learns from the reconstructions that are at hand
    for module, old in zip(learners, before, strict=True):
        still = [n for n, p in module.named_parameters() if torch.equal(p, old[n])]
        assert [n for n in still if not n.endswith("bias")] == []


def test_the_critic_weighs_in(images):
    """The autoencoder follows the critic as it is after the critic's own step, with the stated weight."""
    training = loop(images, CRITIC)
    seen = {}

    def spy(fake, guide):
        fake.retain_grad()
        seen["fake"] = fake
        return verdict(fake, guide)

    verdict, training.adversary.loss = training.adversary.loss, spy
    training.advance()
    fake = seen["fake"]
    plain = fake.detach().clone().requires_grad_()
    (-training.adversary.critic(plain).mean()).backward()
    torch.testing.assert_close(fake.grad, CRITIC.adversarial * plain.grad)


def test_the_guide_is_cut_and_turned_with_the_patch(images):
    x, guide = loop(images, GUIDED, batch=20)._patches()
    torch.testing.assert_close(guide, x + 100)


def test_features_are_compared(images):
    config = dataclasses.replace(PLAIN, perceptual=0.5)
    asked = []

    def features(x):
        asked.append(x)
        return 3 * x

    with_features = loop(images, config, perceptual=features).advance()
    without = loop(images, PLAIN).advance()
    image, x = asked
    expected = 0.5 * 3 * (image - x).abs().mean().item()
    assert with_features["loss"] - without["loss"] == pytest.approx(expected, rel=1e-4)


def test_arguments_that_do_not_fit_are_refused(images):
    with pytest.raises(CtinvError, match="learns from f"):
        fit_vae(images, GUIDED, VAETraining(steps=1))
    with pytest.raises(CtinvError, match="both a weight"):
        fit_vae(images, PLAIN, VAETraining(steps=1), perceptual=lambda x: x)
    with pytest.raises(CtinvError, match="both a weight"):
        fit_vae(images, dataclasses.replace(PLAIN, perceptual=1.0), VAETraining(steps=1))
    with pytest.raises(CtinvError, match=r"set vae\.encoder"):
        fit_vae(images, PLAIN, VAETraining(steps=1), encoder_weights="nosuch.pth")


def test_divergence_is_told(images):
    bad = [image * np.float32(1e30) for image in images]
    with pytest.raises(CtinvError, match="the VAE diverged at step 0"):
        fit_vae(bad, PLAIN, VAETraining(steps=2, batch=4))


# -- whole trainings ------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [PLAIN, GUIDED], ids=["plain", "guided"])
@pytest.mark.parametrize("stop", [3, 4])
def test_an_interrupted_training_ends_alike(images, config, stop, tmp_path):
    training = VAETraining(steps=6, batch=4, every=2)
    guide = denoised(images, config)
    whole = fit_vae(images, config, training, denoised=guide)

    def interrupt(stage, done, total):
        if done == stop:
            raise KeyboardInterrupt

    checkpoint = Checkpoint(tmp_path, "key")
    with pytest.raises(KeyboardInterrupt):
        fit_vae(images, config, training, denoised=guide, checkpoint=checkpoint, progress=interrupt)
    steps = []

    def note(stage, done, total):
        steps.append(done)

    again = fit_vae(images, config, training, denoised=guide, checkpoint=checkpoint, progress=note)
    assert steps[0] == stop // 2 * 2 + 1
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_a_state_of_another_training_is_left_alone(images, tmp_path):
    checkpoint = Checkpoint(tmp_path, "key")
    fit_vae(images, CRITIC, VAETraining(steps=2, batch=4), checkpoint=checkpoint)
    fitted = fit_vae(images, PLAIN, VAETraining(steps=2, batch=4), checkpoint=checkpoint)
    assert "do not fit" in checkpoint.notices[0]
    for name, value in fit_vae(images, PLAIN, VAETraining(steps=2, batch=4)).state_dict().items():
        assert torch.equal(value, fitted.state_dict()[name]), name


def test_what_is_trained_comes_out_ready(images):
    vae = fit_vae(images, GUIDED, VAETraining(steps=2, batch=4), denoised=denoised(images, GUIDED))
    assert not vae.training
    assert not any(parametrize.is_parametrized(m) for m in vae.modules())
    assert not any(p.requires_grad for p in vae.parameters())
    assert all(block.conv1.folded is not None for block in vae.decoder.blocks)


# -- with a denoiser ------------------------------------------------------------------------------

TINY_PAPER = {
    "vae.patch": 32,
    "vae.code_channels": 12,
    "vae.code_size": 1,
    "vae.widths": "",
    "vae.mapping": "16",
    "vae.encoder": "resnet18",
    "vae.channels": 2,
    "vae.critic": 2,
    "flow.blocks": 2,
    "flow.width": 8,
    "flow.context": 6,
    "flow.embed_width": 4,
    "fit.steps": 6,
    "fit.batch": 8,
    "fit.patches": 32,
    "fit.check": 3,
    "fit.vae_steps": 2,
    "fit.vae_batch": 4,
    "tile.batch": 8,
}


@pytest.mark.parametrize("name", ["paper", "paper2024"])
def test_the_papers_method_end_to_end(name, tmp_path, monkeypatch):
    monkeypatch.setenv("CTINV_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    slices = [rng.normal(0, 200, (32, 40)).astype(np.float32) for _ in range(3)]

    def fit(scale):
        module = nn.Conv2d(1, 1, 3, padding=1, bias=False)
        nn.init.constant_(module.weight, scale)
        denoiser = adapters.wrap(nn.Sequential(module, nn.ReLU()), intensity="hu", output="image")
        return invariance.fit(denoiser, "0", data=slices, preset=name, overrides=TINY_PAPER)

    explainers = [fit(0.1), fit(0.2)]
    kept = list((tmp_path / "cache" / "vaes").iterdir())
    # Where the autoencoder depends on the denoiser each denoiser has its own.
    assert len(kept) == (2 if name == "paper2024" else 1)
    explanation = explainers[0].explain(slices[0], samples=3)
    assert explanation.std.shape == (32, 40)
    assert np.isfinite(explanation.std).all()
    explainers[0].save(tmp_path / "bundle")
    again = invariance.Explainer.load(tmp_path / "bundle", explainers[0].denoiser)
    np.testing.assert_array_equal(again.explain(slices[0], samples=3, cache=False).std, explanation.std)
    assert not list((tmp_path / "cache" / "checkpoints").glob("vae-*"))
