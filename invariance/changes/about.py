"""What a change was asked of: the model, the layer, the slice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ctinv.adapters.base import Denoiser
from ctinv.invariance.infra.records import plain
from ctinv.invariance.networks.fitted import versions

__all__ = ["About"]


@dataclass(frozen=True)
class About:
    """What a change was asked of.

    Arguments:
        model: The model's name.
        model_hash: SHA-256 of its file.
        model_kind: ``pytorch`` or ``onnx``.
        layer: The layer.
        op: Its operator.
        intensity: The model's units.
        source: What the slice is called.
        spacing: Row and column spacing in mm, where known.
        seed: Decides everything random.
        rho: The noise ratio that counts as hidden, where one is asked for.
        notices: What the user should know.
        versions: Of the libraries.
    """

    model: str
    model_hash: str
    model_kind: str
    layer: str
    op: str
    intensity: str
    source: str
    spacing: tuple[float, float] | None = None
    seed: int = 0
    rho: float | None = None
    notices: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls, denoiser: Denoiser, layer: str, image: Any, *, seed: int = 0, rho: float | None = None
    ) -> About:
        """What is known of a denoiser, one of its layers and a slice (an array or a ``CTSlice``)."""
        resolved = denoiser.resolve(layer)
        return cls(
            denoiser.name,
            denoiser.fingerprint,
            denoiser.kind,
            resolved.name,
            resolved.op,
            str(denoiser.intensity),
            str(getattr(image, "name", None) or "array"),
            getattr(image, "spacing", None),
            seed,
            rho,
            tuple(denoiser.notices),
            versions(),
        )

    @property
    def facts(self) -> list[tuple[str, str]]:
        """The same as names and texts, for a page."""
        size = "" if self.spacing is None else " × ".join(f"{s:.4g}" for s in self.spacing) + " mm"
        facts = [
            ("Image", self.source),
            ("Pixel size", size),
            ("Model", f"{self.model} ({self.model_kind}), SHA-256 {self.model_hash}"),
            ("Layer", f"{self.layer} ({self.op})"),
            ("Units of the model", self.intensity),
            ("Noise ratio", "" if self.rho is None else f"{self.rho:g}"),
            ("Seed", str(self.seed)),
            ("Versions", ", ".join(f"{k} {v}" for k, v in self.versions.items())),
            ("Notices", "; ".join(self.notices)),
        ]
        return [(name, text) for name, text in facts if text]

    @property
    def result(self) -> dict[str, Any]:
        """The same as JSON values."""
        record: dict[str, Any] = plain(self)
        return record
