"""``fit``: from a denoiser, a layer and data to an explainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, overload

from ctinv.adapters._types import Progress
from ctinv.adapters.base import Denoiser
from ctinv.invariance.fitting.fit_layers import FitRequest, fit_layers
from ctinv.invariance.presets import Preset
from ctinv.invariance.presets import preset as find_preset

from .explainer import Explainer

__all__ = ["fit"]


@overload
def fit(  # type: ignore[overload-overlap]  # a name is a sequence too, but comes first
    denoiser: Denoiser,
    layer: str,
    *,
    data: Any = ...,
    preset: str | Preset = ...,
    overrides: Mapping[str, Any] | None = ...,
    seed: int = ...,
    cache: bool = ...,
    device: str | None = ...,
    progress: Progress | None = ...,
) -> Explainer: ...


@overload
def fit(
    denoiser: Denoiser,
    layer: Sequence[str],
    *,
    data: Any = ...,
    preset: str | Preset = ...,
    overrides: Mapping[str, Any] | None = ...,
    seed: int = ...,
    cache: bool = ...,
    device: str | None = ...,
    progress: Progress | None = ...,
) -> list[Explainer]: ...


def fit(
    denoiser: Denoiser,
    layer: str | Sequence[str],
    *,
    data: Any = None,
    preset: str | Preset = "small",
    overrides: Mapping[str, Any] | None = None,
    seed: int = 0,
    cache: bool = True,
    device: str | None = None,
    progress: Progress | None = None,
) -> Explainer | list[Explainer]:
    """Fit what is needed to explain one layer of a denoiser, or several.

    Several layers share the data, the autoencoder and the runs of the denoiser; each comes out as
    if it were fitted alone. With the cache, a fit that was interrupted goes on from its last
    checkpoint and ends with the same weights. Within torchrun all processes call this alike and
    share the work; each takes ``fit.batch`` patches a step, and process 0 alone writes.

    Arguments:
        denoiser: From :func:`ctinv.adapters.load` or :func:`ctinv.adapters.wrap`, with its
            intensity known.
        layer: Any name of the layer, or a sequence of names.
        data: What to fit on: None for phantoms with simulated noise, the path of a folder of CT
            slices, or a sequence of low-dose slices (H, W) in HU.
        preset: Name of a preset, or a preset.
        overrides: Preset fields by dotted path, for example ``{"flow.blocks": 6}``.
        seed: Decides everything random.
        cache: Whether to look in the cache and to store there, checkpoints included.
        device: Where to train, such as ``cuda:0``; None for where the denoiser runs.
        progress: Called with (stage, done, total).

    Returns:
        One explainer; for several layers a list, in their order.

    Raises:
        LayerError: No such layer.
        IntensityError: The denoiser's units are not known.
        CtinvError: The data cannot be used, or the fit diverged.
    """
    denoiser = denoiser.apart()
    names = [denoiser.resolve(name).name for name in ([layer] if isinstance(layer, str) else layer)]
    chosen = find_preset(preset, overrides) if isinstance(preset, str) else preset
    request = FitRequest(denoiser, chosen, seed, cache and denoiser.cacheable, device, progress)
    explainers = {fitted.layer: Explainer.of(fitted) for fitted in fit_layers(request, names, data)}
    return explainers[names[0]] if isinstance(layer, str) else [explainers[name] for name in names]
