"""Whether something can be absent: which share of a contrast may vanish without the layer noticing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from ctinv.adapters._types import Image, Progress
from ctinv.adapters.base import INPUT
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.audit.record import Figure
from ctinv.invariance.probing.hotelling import Detectability, cross_fit
from ctinv.invariance.probing.observation import Target, observation
from ctinv.invariance.refinement.nearby import nearby
from ctinv.invariance.refinement.refine import RHO, longest, refine
from ctinv.invariance.refinement.sight import Mask, Sight

from .about import About
from .answer import Answer, Picture, told

__all__ = ["Vanishing", "vanish"]

_THERE = 0.05  # of a contrast; where there is less of it, it is not
_SPACING = (0.8, 0.8)  # mm, where it is not known


@dataclass(frozen=True, eq=False)
class Vanishing(Answer):
    """How much of a contrast can vanish from a slice without a layer noticing.

    Arguments:
        contrast: What may vanish, (H, W), HU: the slice less the same slice without it.
        hidden: An image that the layer does not tell from the slice, (H, W), HU, with as much of the
            contrast gone as refinement can take away.
        what: What may vanish, in words.
        share: Which share of the contrast is gone in ``hidden``, 0 to 1.
        ratio: Noise ratio of ``hidden``: the layer's move over that by the noise where the contrast is.
        whole_ratio: The same of the slice without any of the contrast.
        shares: The share that can vanish at further noise ratios, by the linearised layer.
        growth: By which share the change grew when the steps were doubled for the last time.
        image: ``d'`` of the contrast in the slice; None where it was not asked for.
        layer: ``d'`` of it in the layer.
    """

    contrast: Image
    hidden: Image
    what: str
    share: float
    ratio: float
    whole_ratio: float
    shares: Mapping[float, float]
    growth: float
    image: Detectability | None = None
    layer: Detectability | None = None

    kind = "hide"

    @property
    def title(self) -> str:
        return f"Can {self.about.layer} of {self.about.model} miss {self.what}?"

    @property
    def verdict(self) -> list[str]:
        name, rho = self.about.layer, self.about.rho or RHO
        lines = [
            f"{100 * self.share:.0f} % of the contrast of {self.what} can vanish while {name} moves by no "
            f"more than {100 * rho:g} % of what the noise there does."
        ]
        if self.whole_ratio <= rho:
            lines.append(f"All of it can: without it {name} moves by {100 * self.whole_ratio:.2g} % of that.")
        else:
            lines.append(
                f"Without all of it {name} moves by {self.whole_ratio:.2g} times what that noise moves it by."
            )
        if self.image is not None and self.layer is not None:
            lines.append(
                f"The best linear observer tells it with d' {self.image.value:.1f} in the image and "
                f"{self.layer.value:.1f} in the layer (3 is visible)."
            )
        return lines

    @property
    def figures(self) -> Mapping[str, Figure]:
        over = "Change of the layer over that by the noise where the contrast is."
        figures = {
            "share": told(self.share, "Share that can vanish", "Of the contrast, 0 to 1."),
            "ratio": told(self.ratio, "Noise ratio of that image", over),
            "whole_ratio": told(
                self.whole_ratio,
                "Noise ratio without all of it",
                f"{over} Small: the layer misses all of it.",
            ),
            "growth": told(
                self.growth,
                "Growth of the search",
                "By which share twice the steps enlarged what can vanish; below 0.03 it had ended.",
            ),
        }
        for rho, share in self.shares.items():
            words = f"While the layer moves by no more than {100 * rho:g} % of what the noise there does."
            figures[f"share_at_{rho:g}"] = told(share, f"Share at noise ratio {rho:g}", words)
        seen = {"image": self.image, "layer": self.layer}
        for key, value in seen.items():
            if value is not None:
                low, high = (value.value + sign * 1.96 * value.error for sign in (-1, 1))
                meaning = "What the best linear observer makes of it; 3 is visible."
                figures[f"detectability_{key}"] = Figure(
                    value.value, "", None, low, high, "95 %", meaning, f"d' in the {key}"
                )
        return figures

    @property
    def pictures(self) -> list[list[Picture]]:
        near = self._near
        gone = (self.x - self.hidden)[near]
        top = float(np.abs(self.contrast).max())  # one scale: a small share looks small
        return [
            [
                Picture("x, with it", self.x[near]),
                Picture("without it", (self.x - self.contrast)[near]),
                Picture("the layer cannot tell from x", self.hidden[near]),
            ],
            [
                Picture("the contrast", self.contrast[near], kind="change", top=top),
                Picture("what vanished", gone, f"{100 * self.share:.0f} % of it", "change", top),
                Picture("x, whole slice", self.x),
            ],
        ]

    @property
    def _near(self) -> tuple[slice, slice]:
        """The contrast with its surroundings: three times as wide, at least 48 pixels."""
        rows, columns = np.nonzero(_support(self.contrast))
        half = max(24, int(1.5 * max(np.ptp(rows), np.ptp(columns))))
        half = min(half, min(self.x.shape) // 2)
        centre = [round((int(v.min()) + int(v.max())) / 2) for v in (rows, columns)]
        starts = [min(max(0, c - half), n - 2 * half) for c, n in zip(centre, self.x.shape, strict=True)]
        return slice(starts[0], starts[0] + 2 * half), slice(starts[1], starts[1] + 2 * half)

    @property
    def images(self) -> Mapping[str, npt.NDArray[Any]]:
        return {"x": self.x, "contrast": self.contrast, "hidden": self.hidden}


def vanish(
    sight: Sight,
    about: About,
    contrast: Image,
    what: str,
    *,
    rho: float = RHO,
    realisations: int = 64,
    progress: Progress | None = None,
) -> Vanishing:
    """Take a contrast away as far as a layer does not notice.

    The change that takes all of it away is refined onto the layer's fibre: the nearest change that
    the layer does not see beyond the noise ratio. Noise is that where the contrast is, for the noise of
    the whole slice moves a layer more than any small thing does. The share is how much of the contrast
    that change still takes away, by projection on it.

    Arguments:
        sight: The layer at the slice with the contrast, differentiable.
        about: What is asked of.
        contrast: What may vanish, (H, W), HU.
        what: The same in words, for example "the lesion".
        rho: The noise ratio that counts as not noticing.
        realisations: Noise realisations for ``d'``; 0 leaves it out.
        progress: Called with (stage, done, total).

    Raises:
        UnsupportedModelError: The denoiser has no gradients.
        CtinvError: No contrast.
    """
    size = float(np.square(contrast, dtype=np.float64).sum())
    if not size > 0:
        raise CtinvError(f"{what} has no contrast, so that nothing can vanish; name another place")
    there = sight.whole(_support(contrast).astype(np.float32)) > 0
    near = nearby(sight.within(there), _part_of(sight, contrast))
    local, all_of_it = near.sight, near.cut(sight.whole(-contrast))
    refined = refine(
        local.observer,
        local.x,
        all_of_it[None],
        local.moves,
        rho=rho,
        most=longest(local.observer, local.x, 1),
        progress=progress,
    )
    change = near.put(refined.at(rho)[0])

    def share(d: Image) -> float:
        gone = float(-(near.put(d)[sight.own].astype(np.float64) * contrast).sum() / size)
        return min(max(gone, 0.0), 1.0)

    x = np.array(sight.x[sight.own])
    in_image, in_layer = _detect(sight, about, x, contrast, realisations, progress)
    return Vanishing(
        about,
        x,
        contrast,
        x + change[sight.own],
        what,
        share(refined.at(rho)[0]),
        local.ratio(refined.at(rho)[0]),
        local.ratio(all_of_it),
        {ratio: share(refined.at(ratio)[0]) for ratio in refined.rhos if ratio > rho},
        refined.growth,
        in_image,
        in_layer,
    )


def _part_of(sight: Sight, contrast: Image) -> Mask:
    """Every pixel of the extended slice that a contrast changes at all."""
    return np.asarray(sight.whole(np.abs(contrast)) > 0)


def _support(contrast: Image) -> Mask:
    """Where a contrast is."""
    return np.asarray(np.abs(contrast) > _THERE * np.abs(contrast).max())


def _detect(
    sight: Sight, about: About, x: Image, contrast: Image, realisations: int, progress: Progress | None
) -> tuple[Detectability | None, Detectability | None]:
    """``d'`` of the contrast in the image and in the layer; None each where it was not asked for."""
    if realisations == 0:
        return None, None
    rows, columns = np.nonzero(_support(contrast))
    centre = round(float(np.mean(columns))), round(float(np.mean(rows)))
    reach = math.ceil(max(np.ptp(rows), np.ptp(columns)) / 2) + 1
    layer = sight.observer.layer
    view = observation(
        sight.observer.denoiser,
        [INPUT, layer],
        Target(x - contrast, contrast, centre, reach, about.spacing or _SPACING),
        realisations=realisations,
        seed=about.seed,
        standards={},
        progress=progress,
    )
    absent, present = view.observe(), view.observe(contrast)
    image, seen = (cross_fit(absent[name], present[name]) for name in (INPUT, layer))
    return image, seen
