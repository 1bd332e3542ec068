"""Compare two models that claim to be the same network, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .arrays import restore
from .base import OUTPUT, Denoiser
from .errors import LayerError

__all__ = ["Difference", "compare"]


@dataclass(frozen=True)
class Difference:
    """How far apart two models are at one layer.

    Arguments:
        layer: The layer's name in the first model, or ``@output``.
        other: Its name in the second; empty where it has none.
        largest: Largest absolute difference; in HU at ``@output``, else in the networks' own units.
        mean: Mean absolute difference.
        scale: Root mean square of the first model's values, to judge differences by.
        note: Why the layer could not be compared; empty where it was.
    """

    layer: str
    other: str
    largest: float = float("nan")
    mean: float = float("nan")
    scale: float = float("nan")
    note: str = ""


def compare(a: Denoiser, b: Denoiser, image: Any) -> tuple[Difference, ...]:
    """Run two models on one image and compare every layer that both have.

    Arguments:
        a: The first model; its layers are listed.
        b: The second, for example an ONNX export of the first.
        image: Images (N, 1, H, W), HU.

    Returns:
        One entry for each readable layer of ``a``, in execution order, then one for ``@output``.
        Layers that ``b`` lacks, or has with another shape, carry a note.

    Raises:
        ImageError: ``image`` is not a finite float array (N, 1, H, W).
        IntensityError: The units of one model are unknown.
    """
    pairs: list[tuple[str, str]] = []
    rows: dict[str, Difference] = {}
    for layer in (one for one in a.layers if one.tappable):
        try:
            pairs.append((layer.name, _counterpart(b, layer.name, layer.aliases)))
        except LayerError as error:
            rows[layer.name] = Difference(layer.name, "", note=str(error))
    pairs.append((OUTPUT, OUTPUT))
    for name, other in pairs:
        # One layer at a time: a whole network's activations need not fit in memory together.
        za = restore(a.features(image, name), np.empty(0))
        zb = restore(b.features(image, other), np.empty(0))
        if za.shape != zb.shape:
            note = f"shapes differ: {za.shape} and {zb.shape}"
            rows[name] = Difference(name, other, note=note)
            continue
        gap = np.abs(za.astype(np.float64) - zb)
        scale = float(np.sqrt(np.mean(np.square(za, dtype=np.float64))))
        rows[name] = Difference(name, other, float(gap.max()), float(gap.mean()), scale)
    order = [layer.name for layer in a.layers if layer.tappable] + [OUTPUT]
    return tuple(rows[name] for name in order)


def _counterpart(b: Denoiser, name: str, aliases: tuple[str, ...]) -> str:
    failure: LayerError | None = None
    known = {text for layer in b.layers for text in (layer.name, *layer.aliases)}
    for text in (name, *aliases):
        if text in known:  # by name only: counting layers could pair strangers
            try:
                return b.resolve(text).name
            except LayerError as error:
                failure = error
    raise failure or LayerError(f"the second model has no layer {name!r}", name)
