"""Where an explanation comes from: the model, the layer, the fit, the image, and what was asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ctinv.invariance.infra.records import NULL, JsonRecord, read
from ctinv.invariance.networks.fit_record import FitRecord, Timings

__all__ = ["Provenance", "Refinement"]


@dataclass(frozen=True)
class Refinement:
    """How samples were moved onto the layer's fibre; empty where they were not.

    Arguments:
        samples: How many.
        rho: The noise ratio that they keep.
        steps: Lanczos steps.
        smoothing: Standard deviation of the Gaussian that smooths the map's variance, pixels.
    """

    samples: int | None = None
    rho: float | None = None
    steps: int | None = None
    smoothing: float | None = None


@dataclass(frozen=True, eq=False)
class Provenance(JsonRecord):
    """Where an explanation comes from; what is not known is None or empty.

    As a mapping it is what ``result.json`` holds beside the audit.

    Arguments:
        intensity_found: Where the model's units are known from.
        model: The model's name.
        model_hash: SHA-256 of its file.
        model_kind: ``pytorch`` or ``onnx``.
        provider: What it ran on.
        layer: The layer's name.
        op: Its operator.
        preset: Name of the preset.
        preset_fields: All of its fields.
        units: Of every image: HU.
        intensity: The model's units.
        output: Whether the model returns the image or the noise.
        notices: What the user should know.
        data: What the flow was fitted on.
        fit: About the fit.
        versions: Of the libraries.
        seed: Decides everything random.
        samples: Draws of the flow per tile.
        refinement: How samples were refined.
        quantiles: Shares of the quantile maps, where they were asked for.
        spacing: Row and column spacing in mm.
        source: What the image is called: see ``CTSlice.name``; never a path.
        dose: Fraction of the slice's own dose, where a lower one was simulated.
        timings: Seconds by stage.
        case: SHA-256 of all that was asked, where it was one case of a run.
    """

    intensity_found: str | None = None
    model: str | None = None
    model_hash: str | None = None
    model_kind: str | None = None
    provider: str | None = None
    layer: str | None = None
    op: str | None = None
    preset: str | None = None
    preset_fields: Mapping[str, Any] | None = None
    units: str = "HU"
    intensity: str | None = None
    output: str | None = field(default=None, metadata=NULL)
    notices: tuple[str, ...] = ()
    data: str | None = field(default=None, metadata=NULL)
    fit: FitRecord | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    seed: int | None = None
    samples: int | None = None
    refinement: Refinement = field(default_factory=Refinement)
    quantiles: tuple[float, ...] | None = None
    spacing: tuple[float, float] | None = field(default=None, metadata=NULL)
    source: str | None = None
    dose: float | None = None
    timings: Timings = field(default_factory=Timings)
    case: str | None = None

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Provenance:
        """Read what ``result.json`` holds.

        Raises:
            TypeError: A part is of another kind.
        """
        return read(cls, stored)
