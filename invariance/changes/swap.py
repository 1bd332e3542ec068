"""Swapping: the representation of one image with the invariances of another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from ctinv.adapters._types import Image, Progress
from ctinv.adapters.errors import ImageError
from ctinv.invariance.audit.record import Figure
from ctinv.invariance.data.tiling import grid, pad_to
from ctinv.invariance.networks.fitted import FittedLayer
from ctinv.invariance.refinement.refine import RHO, longest, refine
from ctinv.invariance.refinement.sight import Sight
from ctinv.invariance.reporting.packing import Picture as Shown
from ctinv.invariance.sampling.mosaic import Mosaic
from ctinv.invariance.sampling.slices import cut_tile, guide_slice, reconstruct, tile_contexts

from .about import About
from .answer import Answer, Picture, told

__all__ = ["Swap", "swap"]


@dataclass(frozen=True, eq=False)
class Swap(Answer):
    """The representation of one image, ``x``, with the invariances of another.

    Arguments:
        other: The other image, (H, W), HU.
        reconstruction: ``D(E(x))``, (H, W), HU.
        other_reconstruction: The same of the other image.
        swapped: ``z`` of the first with the invariance variable of the second, as the flow gives it,
            (H, W), HU.
        refined: ``x`` with what of that change the layer does not see, (H, W), HU; None without
            gradients.
        ratio: Noise ratio of the refined image.
        ratio_flow: Noise ratio of the flow's own change, from ``D(E(x))`` to ``swapped``.
        kept: How much of the flow's change refinement leaves, RMS over RMS.
    """

    other: Image
    reconstruction: Image
    other_reconstruction: Image
    swapped: Image
    refined: Image | None
    ratio: float | None
    ratio_flow: float
    kept: float | None

    kind = "swap"

    @property
    def title(self) -> str:
        return f"What {self.about.layer} of {self.about.model} sees of one image, the rest of another"

    @property
    def verdict(self) -> list[str]:
        moved = float(np.sqrt(np.mean(np.square(self.swapped - self.reconstruction, dtype=np.float64))))
        lines = [f"Taking the invariances of the other slice changes the image by {moved:.1f} HU RMS."]
        if self.kept is not None and self.ratio is not None:
            lines.append(
                f"{100 * self.kept:.0f} % of that size is left once all that {self.about.layer} sees of it "
                f"is taken out (noise ratio {self.ratio:.2g})."
            )
        else:
            lines.append("The model has no gradients: nothing says how much of that the layer sees.")
        return lines

    @property
    def figures(self) -> Mapping[str, Figure]:
        over = "Change of the layer over that by noise."
        figures = {"ratio_flow": told(self.ratio_flow, "Noise ratio before refinement", over)}
        if self.ratio is not None and self.kept is not None:
            figures["ratio"] = told(self.ratio, "Noise ratio, refined", over)
            figures["kept"] = told(self.kept, "Size that is left", "Of the flow's change, RMS over RMS.")
        return figures

    @property
    def pictures(self) -> list[list[Picture]]:
        change = self.swapped - self.reconstruction
        second = [
            Picture("D(E(x))", self.reconstruction),
            Picture("D(E(other))", self.other_reconstruction),
            Picture("what the swap changes", change, kind="change"),
        ]
        first = [
            Picture("x: its z is kept", self.x),
            Picture("the other: its invariances", self.other),
            Picture("z of x, rest of the other", self.swapped),
        ]
        if self.refined is not None:
            first.append(Picture("the same, refined", self.refined))
            second.append(Picture("what is left, refined", self.refined - self.x, kind="change"))
        return [first, second]

    @property
    def compared(self) -> list[Shown]:
        shown = [
            Shown("swap-other", "Swap: the other slice", "ct", self.other),
            Shown("swap-flow", "Swap: z of x, the rest of the other", "ct", self.swapped),
        ]
        if self.refined is not None:
            shown.append(Shown("swap-refined", "Swap, refined: hidden from the layer", "ct", self.refined))
        return shown

    @property
    def images(self) -> Mapping[str, npt.NDArray[Any]]:
        images = {
            "x": self.x,
            "other": self.other,
            "swapped": self.swapped,
            "reconstruction": self.reconstruction,
            "other_reconstruction": self.other_reconstruction,
        }
        return images if self.refined is None else {**images, "refined": self.refined}


@torch.no_grad()
def swap(
    fitted: FittedLayer,
    x: Image,
    other: Image,
    about: About,
    *,
    rho: float = RHO,
    progress: Progress | None = None,
) -> Swap:
    """Keep what the layer sees of one image and take the rest of another.

    The flow maps the other image's code to its invariance variable, given the other's ``z``, and back
    to a code given the ``z`` of the first. The change is then refined onto the layer's fibre at ``x``.

    Source: Rombach, Esser, Ommer, Making sense of CNNs: interpreting deep representations and their
    invariances with INNs, ECCV 2020, https://arxiv.org/abs/2008.01777

    Arguments:
        fitted: The fitted layer.
        x: Whose representation is kept, (H, W), HU.
        other: Whose invariances are taken, of the same shape, HU.
        about: What is asked of.
        rho: The noise ratio of the refined image.
        progress: Called with (stage, done, total).

    Raises:
        ImageError: The images differ in shape.
    """
    if x.shape != other.shape:
        raise ImageError(f"the images are {x.shape} and {other.shape}; swap slices of one shape")
    patch = fitted.preset.vae.patch
    whole, rest = (np.array(pad_to(image, patch)) for image in (x, other))
    tiles = grid((whole.shape[0], whole.shape[1]), patch, fitted.preset.tile.overlap)
    guides = guide_slice(fitted, whole), guide_slice(fitted, rest)
    contexts, from_contexts = (
        tile_contexts(fitted, image, tiles, guide).h
        for image, guide in zip((whole, rest), guides, strict=True)
    )
    mosaic = Mosaic(tiles, 0)
    for number, tile in enumerate(tiles):
        here, there = (None if g is None else cut_tile(g, tile) for g in guides)
        code = fitted.vae.encode(cut_tile(rest, tile), there)
        v, _ = fitted.flow(code, from_contexts[number : number + 1])
        swapped = fitted.flow.inverse(v, contexts[number : number + 1])
        mosaic.add(tile, fitted.vae.decode(swapped, here)[0].numpy())
        if progress:
            progress("swapping", number + 1, len(tiles))
    made = mosaic.mean
    seen = reconstruct(fitted.vae, whole, tiles, guides[0])
    crop = slice(x.shape[0]), slice(x.shape[1])
    sight = Sight.of_fit(fitted, x, seed=about.seed, spacing=about.spacing)
    change = made - seen
    refined = ratio = kept = None
    if sight.observer.differentiable:
        most = longest(sight.observer, sight.x, 1)
        near = refine(sight.observer, sight.x, change[None], sight.moves, rho=rho, rhos=(), most=most)
        shift = near.at(rho)[0]
        refined, ratio = x + shift[crop], sight.ratio(shift)
        kept = float(np.linalg.norm(shift) / max(float(np.linalg.norm(change)), 1e-30))
    return Swap(
        about,
        np.array(x),
        np.array(other),
        seen[crop],
        reconstruct(fitted.vae, rest, tiles, guides[1])[crop],
        made[crop],
        refined,
        ratio,
        _flow_ratio(sight, seen, made),
        kept,
    )


def _flow_ratio(sight: Sight, seen: Image, made: Image) -> float:
    """Noise ratio of the flow's change, counted from ``D(E(x))``."""
    a, b = (sight.observer(torch.from_numpy(image)[None, None]) for image in (seen, made))
    return float((b - a).norm()) / sight.moves if sight.moves > 0 else 0.0
