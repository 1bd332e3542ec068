"""Where a probe comes from: the model, the layer, the slice and what was asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ctinv.invariance.infra.records import NULL, JsonRecord

__all__ = ["ProbeProvenance", "Timings"]


@dataclass(frozen=True)
class Timings:
    """Seconds that the observation took."""

    observation: float | None = None


@dataclass(frozen=True, eq=False)
class ProbeProvenance(JsonRecord):
    """Where a probe comes from; as a mapping it is what ``result.json`` holds of it.

    Arguments:
        model: The model's name.
        model_hash: SHA-256 of its file.
        model_kind: ``pytorch`` or ``onnx``.
        provider: What it ran on.
        layer: The layer's name.
        op: Its operator.
        intensity: The model's units.
        output: Whether the model returns the image or the noise.
        notices: What the user should know.
        shown: What part of the slice the model was shown.
        window: Height and width of the observed part, pixels.
        versions: Of the libraries.
        source: What the image is called: see ``CTSlice.name``; never a path.
        spacing: Row and column spacing, mm.
        spacing_known: Whether that is the image's own, not assumed.
        noise: Of the slice in calm soft tissue, HU.
        tissue: Mean of the place without the lesion, HU.
        realisations: Noise realisations.
        level: ``d'`` from which on a lesion counts as visible.
        seed: Draws noise and samples.
        timings: Seconds by stage.
        intensity_found: Where the model's units are known from.
    """

    model: str
    model_hash: str
    model_kind: str
    provider: str
    layer: str
    op: str
    intensity: str
    shown: str
    window: tuple[int, int]
    spacing: tuple[float, float]
    spacing_known: bool
    noise: float
    tissue: float
    source: str = "array"
    output: str | None = field(default=None, metadata=NULL)
    notices: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    realisations: int | None = None
    level: float | None = None
    seed: int | None = None
    timings: Timings = field(default_factory=Timings)
    intensity_found: str | None = field(default=None, metadata=NULL)
