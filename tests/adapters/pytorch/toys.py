"""How tests of PyTorch modules wrap them."""

import torch
from ctinv import adapters

UNITS = "unit:-160:240"


def wrap(module, **options):
    return adapters.wrap(module, **{"intensity": UNITS, **options})


def units(denoiser, x):
    return denoiser.intensity.to_model(torch.as_tensor(x))
