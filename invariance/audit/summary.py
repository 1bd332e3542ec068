"""The figures of an audit, with units, numbers and meanings, and the verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from ctinv.invariance.representation import represent
from torch import Tensor

from .leakage import leakage

if TYPE_CHECKING:
    from ctinv.invariance.explainer import Explainer

__all__ = ["audit"]

Image = npt.NDArray[np.float32]
_SEEN, _HIDDEN, _NOTHING = 0.5, 0.05, 1.0


def _figure(values: Any, unit: str, meaning: str) -> dict[str, Any]:
    values = np.atleast_1d(np.asarray(values, dtype=float))
    figure: dict[str, Any] = {"value": float(np.median(values)), "unit": unit, "n": len(values)}
    if len(values) > 1:
        low, high = np.quantile(values, (0.05, 0.95))
        figure.update(low=float(low), high=float(high), interval="90 %")
    return {**figure, "meaning": meaning}


def audit(
    explainer: Explainer, x: Image, reconstruction: Image, samples: Image, std: Image, seed: int
) -> dict[str, Any]:
    """Audit one explanation.

    Arguments:
        explainer: The fitted bundle.
        x: The image (H, W), HU.
        reconstruction: ``D(E(x))`` (H, W), HU.
        samples: Whole sample images (K, H, W), HU.
        std: Pixelwise standard deviation of all samples (H, W), HU.
        seed: Draws the controls.

    Returns:
        Figures in groups ``embedding``, ``leakage``, ``output``, ``flow``, ``map``, and ``verdict``.
    """
    denoiser, layer = explainer.denoiser, explainer.layer

    @torch.no_grad()
    def seen(image: Image) -> Tensor:
        return explainer.embedder.standardise(represent(denoiser, layer, image[None, None]))

    body = x > -900
    inside = body if body.any() else np.ones_like(body)
    error = (reconstruction - x)[inside]
    against_embedding = leakage(seen, reconstruction, samples, np.random.default_rng([seed, 4]))
    against_image = leakage(seen, x, samples, np.random.default_rng([seed, 5]))
    clean = np.asarray(denoiser.denoise(reconstruction[None, None]))[0, 0]
    moved = [
        float(np.sqrt(np.mean((np.asarray(denoiser.denoise(s[None, None]))[0, 0] - clean)[inside] ** 2)))
        for s in samples
    ]
    scores = explainer.info.get("scores", {})
    figures: dict[str, Any] = {
        "embedding": {
            "rmse": _figure(
                np.sqrt(np.mean(error**2)),
                "HU",
                "Difference of D(E(x)) from x inside the body; noise included.",
            ),
        },
        "leakage": {
            "against_reconstruction": _figure(
                against_embedding,
                "",
                "Share of a sample's change that the layer sees, counted from D(E(x)): "
                "0 is invisible, 1 is as visible as a random change of the same size and texture.",
            ),
            "against_image": _figure(
                against_image, "", "The same counted from x; it includes what the autoencoder loses."
            ),
        },
        "output": {
            "change": _figure(moved, "HU", "RMS difference of f(x') from f(D(E(x))) inside the body."),
        },
        "flow": {
            "nll": _figure(scores["nll"], "bits/dim", "Held-out negative log-likelihood of codes given z.")
            | {"n": scores["held_out_patches"]},
            "nll_shuffled": _figure(
                scores["nll_shuffled"], "bits/dim", "The same with z of other patches; it must be worse."
            )
            | {"n": scores["held_out_patches"]},
        }
        if scores
        else {},
        "map": {
            "std": _figure(np.sqrt(np.mean(std[inside] ** 2)), "HU", "RMS of the std map inside the body.")
        },
    }
    figures["verdict"] = _verdict(
        layer, float(np.median(against_embedding)), figures["map"]["std"]["value"], scores
    )
    return figures


def _verdict(layer: str, leaks: float, std: float, scores: dict[str, Any]) -> str:
    if scores and scores["nll"] >= scores["nll_shuffled"] - 1e-3:
        told = (
            f"The fit found nothing in {layer} that tells about the image: the map is the data's own spread."
        )
        return (
            told
            if leaks <= _HIDDEN
            else f"Do not read this map: the flow ignores {layer}, which is not blind."
        )
    if std <= _NOTHING:
        return f"{layer} hides nothing that was found: no map."
    if leaks <= _HIDDEN:
        return f"What the map shows is hidden from {layer} to {100 * (1 - leaks):.0f} %."
    if leaks <= _SEEN:
        return (
            f"Read this map with care: {layer} still sees {100 * leaks:.0f} % of what a random change of the "
            "same size and texture would show it."
        )
    return (
        f"Do not read this map as invariances of {layer}: the layer sees {100 * leaks:.0f} % of what "
        "a random change of the same size and texture would. The map bounds what the flow could not tell."
    )
