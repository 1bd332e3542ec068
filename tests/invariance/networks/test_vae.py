"""Laws of the autoencoder: exact rewritings, shapes, storage, learning."""

import numpy as np
import pytest
import torch
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.fitting.fit_vae import fit_vae
from ctinv.invariance.fitting.vae_loop import VAETraining
from ctinv.invariance.networks.blocks import ConditionalNorm, UpConv
from ctinv.invariance.networks.pretrained import load_vae, save_vae, shipped_vae
from ctinv.invariance.networks.vae import VAE
from ctinv.invariance.presets import PRESETS, VAEConfig
from torch.nn import functional as F

SMALL = VAEConfig(patch=16, code_channels=3, code_size=4, widths=(8, 6))
SHIPPED = ("tiny", "small")


@pytest.mark.parametrize("size", [(1, 1), (4, 4), (3, 5)], ids=str)
def test_upconv_is_upsampling_then_convolution(size):
    layer = UpConv(5, 7).double()
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(2, 5, *size, dtype=torch.float64)
    plain = F.conv2d(F.interpolate(x, scale_factor=2), layer.weight, layer.bias, padding=1)
    torch.testing.assert_close(layer(x), plain, rtol=1e-12, atol=1e-12)


def test_folded_normalisation_is_batch_normalisation():
    layer = ConditionalNorm(4, 3).double()
    layer.norm.running_mean.normal_()
    layer.norm.running_var.uniform_(0.5, 2)
    x, c = torch.randn(6, 4, 5, 5, dtype=torch.float64), torch.randn(6, 3, dtype=torch.float64)
    layer.eval()
    gain, bias = layer.affine(c)[..., None, None].chunk(2, 1)
    torch.testing.assert_close(layer(x, c), layer.norm(x) * (1 + gain) + bias)


@pytest.mark.parametrize(
    "config", [SMALL, *(PRESETS[name].vae for name in SHIPPED)], ids=lambda c: f"patch{c.patch}"
)
def test_shapes(config):
    vae = VAE(config).eval()
    x = torch.randn(2, 1, config.patch, config.patch) * 300
    mean, log_var = vae.posterior(x)
    assert mean.shape == log_var.shape == (2, config.code_dim)
    assert vae.decode(vae.encode(x)).shape == x.shape


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(CtinvError, match="2 widths make patches of 16 pixels from a code map of 4, not 20"):
        VAE(VAEConfig(patch=20, code_channels=3, code_size=4, widths=(8, 6)))


def test_divergence_is_that_of_gaussians():
    vae = VAE(SMALL).eval()
    x = torch.randn(3, 1, 16, 16) * 300
    mean, log_var = vae.posterior(x)
    normal = torch.distributions.Normal
    closed = (
        torch.distributions.kl_divergence(normal(mean, (0.5 * log_var).exp()), normal(0.0, 1.0)).sum(1).mean()
    )
    loss, image = vae.loss(x, torch.zeros(3, SMALL.code_dim))
    expected = ((image - x).square().mean() + 2 * SMALL.sigma**2 * closed / 256) / 500**2
    torch.testing.assert_close(loss, expected)


def test_fit_learns_and_repeats():
    rng = np.random.default_rng(0)
    images = [rng.normal(0, 1, (4, 4)).repeat(8, 0).repeat(8, 1).astype(np.float32) * 400 for _ in range(4)]
    images = [image[:16, :16] for image in images]  # nothing but four patches to learn
    first, second = (fit_vae(images, SMALL, VAETraining(steps=80, batch=16)) for _ in range(2))
    start = fit_vae(images, SMALL, VAETraining(steps=1, batch=16))
    patches = torch.from_numpy(np.stack(images)[:, None])
    errors = [(v.decode(v.encode(patches)) - patches).square().mean().sqrt() for v in (start, first)]
    assert errors[1] < 0.5 * errors[0]
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_weights_round_trip(tmp_path):
    vae = VAE(SMALL).ready()
    save_vae(vae, tmp_path / "vae.safetensors", {"steps": 3})
    again = load_vae(tmp_path / "vae.safetensors")
    x = torch.randn(2, 1, 16, 16) * 300
    assert again.config == SMALL
    assert torch.equal(again.encode(x), vae.encode(x))


@pytest.mark.parametrize("content", [b"", b"<html></html>", b"\x08" * 64])
def test_damaged_weights_are_refused(tmp_path, content):
    (tmp_path / "vae.safetensors").write_bytes(content)
    with pytest.raises(CtinvError, match="holds no readable VAE"):
        load_vae(tmp_path / "vae.safetensors")


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_weights_reconstruct_anatomy(name):
    from ctinv.invariance.data import phantom

    vae = shipped_vae(PRESETS[name].vae)
    assert vae is not None
    truth = phantom(np.random.default_rng(5), 256).hu
    p = vae.config.patch
    tiles = [truth[i : i + p, j : j + p] for i in range(0, 256, p) for j in range(0, 256, p)]
    x = torch.from_numpy(np.stack(tiles)[:, None])
    error = (vae.decode(vae.encode(x)) - x).square().mean().sqrt()
    assert error < 0.25 * x.std()


def test_no_shipped_weights_for_other_sizes():
    assert shipped_vae(SMALL) is None
