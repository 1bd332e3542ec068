"""The prepared decoder is the autoencoder's own."""

import pytest
import torch
from ctinv.invariance.networks.vae import VAE
from ctinv.invariance.presets import preset
from ctinv.invariance.sampling.decoder import prepared_decoder
from torch import nn

from .toys import SMALL, stir

DECODERS = {
    "plain": ("tiny", {}),
    "vector": ("paper", SMALL),
    "conditional": ("paper2024", SMALL),
    "map": ("paper", {**SMALL, "vae.patch": 64, "vae.code_size": 2, "vae.code_channels": 4}),
}


@pytest.mark.parametrize(
    ("many", "dtype", "tolerance"),
    [(1, torch.float32, 1e-5), (768, torch.float32, 1e-5), (1, torch.bfloat16, 2e-2)],
    ids=["fewer", "plain", "bfloat16"],
)
@pytest.mark.parametrize("name", DECODERS)
def test_prepared_decoder_is_the_autoencoders(name, many, dtype, tolerance, monkeypatch):
    monkeypatch.setattr("ctinv.invariance.sampling.decoder.MANY", many)
    monkeypatch.setattr("ctinv.invariance.sampling.decoder.MANY_UP", many)
    config = preset(*DECODERS[name]).vae
    vae = stir(VAE(config), 0.05)
    for module in vae.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.5, 2)
    vae.ready()
    code = torch.randn(3, config.code_dim)
    guide = torch.randn(1, 1, config.patch, config.patch) * 200 if config.conditional else None
    with torch.no_grad():
        wanted = vae.decode(code, guide)
    before = code.clone()
    with torch.inference_mode():
        found = prepared_decoder(vae, dtype)(code, guide)
    assert torch.equal(code, before)
    assert found.dtype == torch.float32
    assert ((found - wanted).norm() / wanted.norm()).item() < tolerance
