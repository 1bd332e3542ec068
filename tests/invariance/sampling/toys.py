"""Small flows and explainers that tests of sampling share."""

import dataclasses

import numpy as np
import torch
from ctinv import adapters
from ctinv.invariance.explaining.explainer import Explainer
from ctinv.invariance.networks.fitted import build_networks
from ctinv.invariance.networks.flow import ConditionalFlow
from ctinv.invariance.networks.pretrained import shipped_vae
from ctinv.invariance.networks.vae import VAE
from ctinv.invariance.presets import preset
from ctinv.invariance.representation.geometry import probe_geometry
from ctinv.invariance.representation.reader import represent
from torch import nn

SMALL = {
    "vae.channels": 4,
    "vae.patch": 32,
    "vae.code_channels": 32,
    "vae.mapping": (16,),
    "vae.encoder": "resnet18",
}


NARROW = {"flow.width": 16, "flow.context": 8, "flow.embed_width": 8}


FLOWS = {
    "map": ("tiny", {}),
    "map-spline": ("tiny", {"flow.coupling": "spline"}),
    "vector": ("paper2024", {**SMALL, **NARROW}),
    "vector-spline": ("paper2024", {**SMALL, **NARROW, "flow.blocks": 3, "flow.coupling": "spline"}),
    "vector-odd": ("paper", {**NARROW, "vae.code_channels": 33, "flow.depth": 1}),
}


def stir(module, scale):
    """Random weights where a fresh network would be the identity."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return module.eval()


def make_flow(name, reads=False):
    """A flow with random weights and a context; ``reads``: whether it starts at what a reading gives."""
    chosen = preset(*FLOWS[name])
    shape = chosen.vae.code_shape
    flow = ConditionalFlow(shape, chosen.flow, torch.Generator().manual_seed(0), reads)
    flow.mean.normal_()
    flow.std.uniform_(0.5, 2)
    flow.temperature.fill_(1.3)
    channels = chosen.flow.context + (shape[0] if reads else 0)
    context = torch.randn(1, channels, chosen.vae.code_size, chosen.vae.code_size)
    return stir(flow, 0.1), context


def make_explainer(name="tiny", overrides=None):
    torch.manual_seed(3)
    chosen = preset(name, overrides)
    denoiser = adapters.wrap(nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 1, 1)), intensity="hu")
    layer = denoiser.layers[0].name
    image = np.zeros((64, 64), np.float32)
    geometry = probe_geometry(represent(denoiser, layer, image[None, None]), (64, 64), chosen.vae.patch)
    flow, embedder = build_networks(chosen, geometry, 0, torch.Generator().manual_seed(0))
    vae = shipped_vae(chosen.vae)
    if vae is None:
        vae = stir(VAE(chosen.vae), 0.05).ready()
    return Explainer(denoiser, layer, chosen, vae, stir(flow, 0.05), embedder.eval(), geometry)


def with_batch(explainer, batch):
    tile = dataclasses.replace(explainer.preset.tile, batch=batch)
    return dataclasses.replace(explainer, preset=dataclasses.replace(explainer.preset, tile=tile))
