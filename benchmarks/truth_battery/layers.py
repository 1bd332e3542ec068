"""The six layers of the 2022 paper, in PyTorch and as ONNX files: what refinement makes of them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ctinv import adapters, invariance, zoo

__all__ = ["LAYERS", "layer_truth"]

Image = npt.NDArray[np.float32]
LAYERS = {"chen": ("conv1", "conv3", "conv5"), "yang": ("conv1", "conv7", "conv13")}


def layer_truth(
    slices: list[Image],
    image: Image,
    seed: int,
    models: Sequence[str] = tuple(LAYERS),
    *,
    preset: str = "small",
    rho: float = 0.01,
    samples: int = 50,
    refine: int = 4,
    **overrides: Any,
) -> dict[str, dict[str, Any]]:
    """Fit every layer once, and explain the image through the PyTorch model and its ONNX export.

    The fit of a graph that ctinv can rebuild equals that of the module bit by bit (a test holds
    this), so that it is not fitted twice.

    Returns:
        By ``model/layer/kind``: the map's RMS and the median leakage before and after refinement, the
        noise ratio reached, and whether anything was found.
    """
    changed = {key.replace("__", "."): value for key, value in overrides.items()}
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for model in models:
            kinds = {
                "torch": zoo.load(model),
                "onnx": adapters.load(zoo.export(model, Path(folder) / f"{model}.onnx")),
            }
            names = LAYERS[model]
            fits = invariance.fit(
                kinds["torch"],
                list(names),
                data=slices,
                preset=preset,
                overrides=changed,
                seed=seed,
                cache=False,
            )
            for name, fitted in zip(names, fits, strict=True):
                for kind, denoiser in kinds.items():
                    explainer = invariance.Explainer(
                        denoiser,
                        denoiser.resolve(name).name,
                        fitted.preset,
                        fitted.vae,
                        fitted.flow,
                        fitted.embedder,
                        fitted.geometry,
                        fitted.info,
                    )
                    explained = explainer.explain(
                        image, samples=samples, refine=refine, rho=rho, seed=seed, cache=False
                    )
                    audit = explained.audit
                    found[f"{model}/{name}/{kind}"] = {
                        "std": audit["map"]["std"]["value"],
                        "std_before": audit["map"]["std_flow"]["value"],
                        "leakage": audit["leakage"]["refined"]["value"],
                        "leakage_before": audit["leakage"]["flow_from_reconstruction"]["value"],
                        "noise_ratio": audit["noise_ratio"]["refined"]["value"],
                        "noise_ratio_before": audit["noise_ratio"]["flow"]["value"],
                        "found": audit["map"]["std"]["found"],
                        "curve": {key: point["value"] for key, point in audit["curve"].items()},
                        "nll": audit["flow"]["nll"]["value"],
                        "nll_shuffled": audit["flow"]["nll_shuffled"]["value"],
                        "verdict": audit["verdict"],
                    }
    return found
