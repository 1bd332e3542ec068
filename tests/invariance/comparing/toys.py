"""Networks that are blind where we want it, and analyses of them."""

import dataclasses

import numpy as np
from ctinv import adapters, invariance
from ctinv.invariance.audit.record import Audit
from ctinv.invariance.reporting.explanation import Explanation
from ctinv.invariance.reporting.provenance import Provenance
from torch import nn

SIDE = 96


class Blind(nn.Module):
    """Forgets one half of the image."""

    def __init__(self, side):
        super().__init__()
        self.side = side

    def forward(self, x):
        x = x.clone()
        middle = x.shape[-1] // 2
        if self.side == "left":
            x[..., :middle] = 0
        else:
            x[..., middle:] = 0
        return x


class Net(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.out = nn.Conv2d(1, 1, 1, bias=False)
        nn.init.ones_(self.out.weight)

    def forward(self, x):
        return self.out(self.layer(x))


def denoiser(side, name=None):
    return adapters.wrap(Net(Blind(side)), intensity="unit:-1024:3072", name=name or side)


def phantoms(count):
    """Slices without air, so that the whole of them is body."""
    from ctinv.invariance.data import phantom

    images = [phantom(np.random.default_rng(k), SIDE).hu for k in range(count)]
    noise = np.random.default_rng(9).normal(0, 15, (count, SIDE, SIDE))
    return [
        np.maximum(hu, -800).astype(np.float32) + n.astype(np.float32)
        for hu, n in zip(images, noise, strict=True)
    ]


def fitted(model, slices):
    overrides = {"fit.steps": 40, "fit.patches": 256, "fit.check": 20, "fit.vae_steps": 40}
    return invariance.fit(model, "layer", data=slices, preset="tiny", overrides=overrides, cache=False)


def analysis(
    model="toy",
    layer="conv1",
    lower=5.0,
    *,
    upper=9.0,
    seed=0,
    rho=0.03,
    curve=None,
    x=None,
    dose=None,
    **meta,
):
    """An analysis of invented figures."""
    x = np.zeros((16, 16), np.float32) if x is None else x
    points = {
        f"{ratio:g}": {"value": value, "rho": ratio, "reached": ratio}
        for ratio, value in (curve or {rho: lower}).items()
    }
    bounds = {
        "lower": {"value": lower, "growth": 0.01, "steps": 20, "converged": True},
        "upper": {"value": upper},
        "converged": True,
    }
    provenance = {
        "model": model,
        "model_hash": meta.pop("model_hash", f"hash of {model}"),
        "layer": layer,
        "seed": seed,
        "source": meta.pop("source", "slice-1"),
        "refinement": {"rho": rho, "samples": 3},
        **meta,
    }
    if dose is not None:
        provenance["dose"] = dose
    return Explanation(
        x=x,
        denoised=x,
        reconstruction=x,
        samples=np.stack([x, x + 1, x - 1]),
        mean=x,
        std=np.full_like(x, lower),
        audit=Audit.from_json({"bounds": bounds, "curve": points}),
        meta=Provenance.from_json(provenance),
    )


def unrefined(e):
    """The same without refined samples."""
    meta = dataclasses.replace(
        e.meta, refinement=dataclasses.replace(e.meta.refinement, rho=None, samples=None)
    )
    bounds = dataclasses.replace(e.audit.bounds, lower=None)
    return dataclasses.replace(e, meta=meta, audit=dataclasses.replace(e.audit, bounds=bounds, curve={}))
