"""The fitted bundle for one layer of one denoiser, and what it makes of an image."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctinv.adapters._types import Image, Progress
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.changes import ask
from ctinv.invariance.changes.about import About
from ctinv.invariance.changes.attack import Attack
from ctinv.invariance.changes.hide import Vanishing
from ctinv.invariance.changes.spectrum import Spectrum
from ctinv.invariance.changes.swap import Swap, swap
from ctinv.invariance.data.tiling import as_slice
from ctinv.invariance.infra.cache import cache_root, content_key, image_digest
from ctinv.invariance.infra.store import fetch
from ctinv.invariance.infra.store import keep as store
from ctinv.invariance.networks.fitted import FORMAT, FittedLayer
from ctinv.invariance.refinement.refine import RHO
from ctinv.invariance.reporting.explanation import Explanation

from .analysis import Request, analyse

__all__ = ["Explainer"]


@dataclass(eq=False)
class Explainer(FittedLayer):
    """Draws images that one layer of a denoiser cannot tell from a given image.

    The fields are those of :class:`ctinv.invariance.networks.fitted.FittedLayer`.
    """

    @classmethod
    def of(cls, fitted: FittedLayer) -> Explainer:
        """The same layer, able to explain."""
        return cls(**{field.name: getattr(fitted, field.name) for field in dataclasses.fields(fitted)})

    def explain(
        self,
        image: Any,
        *,
        samples: int = 48,
        seed: int = 0,
        keep: int = 5,
        refine: int | None = None,
        rho: float = RHO,
        quantiles: Sequence[float] = (),
        cache: bool = True,
        progress: Progress | None = None,
    ) -> Explanation:
        """Sample the layer's invariances at one image, refine and audit them.

        Arguments:
            image: One slice (H, W) in HU, an array or a :class:`ctinv.invariance.data.CTSlice`.
            samples: Draws of the flow per tile, two or more.
            seed: Decides the draws.
            keep: Whole sample images to keep.
            refine: Samples to move onto the layer's fibre; None for as many as take some 30 s on two
                cores, 0 for none.
            rho: Noise ratio that refined samples keep: the layer's change over the change that noise
                makes.
            quantiles: Shares whose pixelwise quantiles are wanted, such as 0.05 and 0.95; of the flow's
                samples, as refined ones are few.
            cache: Whether the answer may come from the cache, and goes there.
            progress: Called with (stage, done, total).

        Raises:
            ImageError: The image is not two-dimensional or not finite.
            CtinvError: Fewer than two samples, a noise ratio that is not positive, or a quantile that is
                not between 0 and 1.
        """
        if samples < 2:
            raise CtinvError(f"{samples} samples have no spread; ask for two or more")
        if not rho > 0:
            raise CtinvError(f"the noise ratio {rho:g} is not positive; 0.01 to 1 make sense")
        shares = tuple(float(share) for share in quantiles)
        if not all(0 < share < 1 for share in shares):
            raise CtinvError(
                f"the quantiles {', '.join(f'{share:g}' for share in shares)} are not all between 0 and 1; "
                "give shares such as 0.05 and 0.95"
            )
        x = as_slice(image)
        request = Request(samples, seed, min(keep, samples), refine, rho, shares)
        spacing, source = getattr(image, "spacing", None), str(getattr(image, "name", None) or "array")
        dose = getattr(image, "meta", {}).get("simulated_dose")
        stored = self._stored(x, request) if cache else None
        answer = fetch(stored, Explanation.load) if stored is not None else None
        if answer is not None:
            # The same numbers may have been asked for under another name.
            name = self.denoiser.name
            meta = dataclasses.replace(answer.meta, model=name, spacing=spacing, source=source, dose=dose)
            return dataclasses.replace(answer, meta=meta)
        explanation = analyse(self, x, request, spacing, source, progress)
        if dose is not None:
            meta = dataclasses.replace(explanation.meta, dose=dose)
            explanation = dataclasses.replace(explanation, meta=meta)
        if stored is not None:
            store(stored, explanation.save_answer)
        return explanation

    def spectrum(self, image: Any, **options: Any) -> Spectrum:
        """The changes that the layer sees least and most; see :func:`ctinv.invariance.spectrum`.

        The layer's channels are standardised as they are on the fitting data.

        Arguments:
            image: One slice (H, W) in HU, an array or a :class:`ctinv.invariance.data.CTSlice`.
            options: ``region``, ``size``, ``count``, ``steps``, ``rho``, ``seed`` and ``progress``.
        """
        return ask.spectrum(self.denoiser, self.layer, image, statistics=self.embedder, **options)

    def hide(self, image: Any, **options: Any) -> Vanishing:
        """Which share of a contrast can vanish unnoticed; see :func:`ctinv.invariance.hide`.

        Arguments:
            image: One slice (H, W) in HU, an array or a :class:`ctinv.invariance.data.CTSlice`.
            options: ``lesion`` or ``region``, ``what``, ``rho``, ``realisations``, ``seed`` and
                ``progress``.
        """
        return ask.hide(self.denoiser, self.layer, image, statistics=self.embedder, **options)

    def attack(self, image: Any, **options: Any) -> Attack:
        """The small change that moves ``f(x)`` most; see :func:`ctinv.invariance.attack`.

        Arguments:
            image: One slice (H, W) in HU, an array or a :class:`ctinv.invariance.data.CTSlice`.
            options: ``layers``, ``region``, ``size``, ``seed`` and ``progress``.
        """
        return ask.attack(self.denoiser, image, **options)

    def swap(
        self, image: Any, other: Any, *, seed: int = 0, rho: float = RHO, progress: Progress | None = None
    ) -> Swap:
        """What the layer sees of one image with the invariances of another.

        Arguments:
            image: Whose representation is kept, (H, W) in HU.
            other: Whose invariances are taken, of the same shape.
            seed: Draws the noise that refinement is measured by.
            rho: The noise ratio of the refined image.
            progress: Called with (stage, done, total).

        Raises:
            ImageError: The images differ in shape, or are no slices.
            CtinvError: A noise ratio that is not positive.
        """
        about = About.of(self.denoiser, self.layer, image, seed=seed, rho=ask.positive(rho))
        return swap(self, as_slice(image), as_slice(other), about, rho=rho, progress=progress)

    def _stored(self, x: Image, request: Request) -> Path | None:
        """Where the cache keeps this answer; a bundle that was not fitted here has no key."""
        if self.info.key is None or not self.denoiser.cacheable:
            return None
        key = content_key(
            format=FORMAT,
            fit=self.info.key,
            image=image_digest([x]),
            **dataclasses.asdict(request),
        )
        return cache_root() / "explanations" / key
