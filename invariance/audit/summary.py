"""The figures of an audit, with units, numbers and meanings."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from ctinv.adapters._types import Image
from ctinv.adapters.base import OUTPUT
from ctinv.invariance.data.metrics import fine_share, quality, transfer_cut_off
from ctinv.invariance.fitting.novelty import FEATURES
from ctinv.invariance.infra.randomness import Purpose, rng
from ctinv.invariance.networks.fit_record import FitScores
from ctinv.invariance.representation.reader import represent
from torch import Tensor

from .bounds import bounds, two_images
from .controls import Control, bound_control, controls, controls_figure, shuffled_control
from .evidence import Evidence, Mask, rms
from .leakage import Seen, seen_changes
from .record import (
    Audit,
    BeforeAndAfter,
    Bounds,
    CurvePoint,
    Embedding,
    Figure,
    FlowFit,
    ImageNovelty,
    Leakage,
    Maps,
    Spread,
    Strangeness,
    figure,
)
from .regions import leakage_by_tissue, places, quiet
from .verdict import HIDDEN, Facts, hides, verdict

if TYPE_CHECKING:
    from ctinv.invariance.refinement.refine import Refined

__all__ = ["audit"]

_MOST = 4  # samples that the slower figures rest on


def audit(e: Evidence) -> Audit:
    """Audit one explanation."""
    body = np.asarray(e.x > -900)
    inside = body if body.any() else np.ones_like(body)
    denoised = _denoised(e, e.x)
    clean = quiet(e.x, denoised)
    leaks, ratios, shown_seen = _seen(e)
    changes = e.refined.at(e.rho) if e.refined else e.flow - e.reconstruction
    tried = _controls(e, leaks)
    bracket = bounds(e, inside)
    facts = _facts(e, inside, leaks, tried, bracket)
    image, warnings = _novelty(e)
    return Audit(
        map=_maps(e, inside, facts),
        leakage=leaks,
        noise_ratio=ratios,
        controls=controls_figure(tried),
        output=_output(e, inside, denoised),
        embedding=_embedding(e, inside),
        image=image,
        flow=_flow(e.scores),
        where=places(e.std, changes, clean, e.noise, e.spacing),
        leakage_in=leakage_by_tissue(shown_seen, clean),
        curve=_curve(e.refined, inside) if e.refined else {},
        bounds=bracket,
        verdict=(verdict(facts), *two_images(e, inside), *warnings),
    )


def _controls(e: Evidence, leaks: Leakage) -> list[Control]:
    """Every control that applies.

    From a layer that sees nothing of the samples' changes there is nothing to be learned: its flow
    need not do worse with ``z`` of other patches.
    """
    tried = controls(e.x, e.flow[0] - e.reconstruction, e.noise, e.rho, e.seed)
    tried += bound_control(e)
    told = leaks.flow_from_reconstruction
    return tried + shuffled_control(e.scores) if told and told.value > HIDDEN else tried


def _facts(e: Evidence, inside: Mask, leaks: Leakage, tried: list[Control], bracket: Bounds) -> Facts:
    shown = leaks.refined or leaks.flow_from_reconstruction
    return Facts(
        e.observer.layer,
        rms(e.std, inside),
        shown.value if shown else math.nan,
        e.rho if e.refined else None,
        rms(e.noise, inside),
        e.why,
        not all(control.passed for control in shuffled_control(e.scores)),
        tuple(control.trouble for control in tried if not control.passed),
        None if bracket.noise is None else bracket.noise.value,
        max((b.value for b in (bracket.upper, bracket.upper_here) if b is not None), default=None),
        bracket.converged is not False,
    )


def _maps(e: Evidence, inside: Mask, facts: Facts) -> Maps:
    return Maps(
        std=Spread(
            value=facts.std,
            unit="HU",
            n=e.refined.changes.shape[1] if e.refined else 1,
            meaning="RMS inside the body of the map of standard deviations.",
            found=hides(dataclasses.replace(facts, noise_hidden=None)),
            rho=facts.rho,
        ),
        noise=figure(facts.noise, "HU", "Spread of the image's own noise inside the body, as simulated."),
        std_flow=figure(rms(e.std_flow, inside), "HU", "RMS of the flow's map inside the body.")
        if e.refined
        else None,
    )


def _novelty(e: Evidence) -> tuple[ImageNovelty, list[str]]:
    """Whether the image is like the fitting data; a warning where it is not."""
    if e.novelty is None:
        return ImageNovelty(), []
    novelty = e.novelty.score(e.x, e.reconstruction)
    strangeness = Strangeness(
        value=novelty.value,
        unit="",
        n=e.novelty.slices,
        meaning=f"Distance of the image from the fitting data; up to {novelty.limit:.2g} is usual "
        f"({novelty.level:.0%}).",
        title="Strangeness of the image",
        limit=novelty.limit,
        familiar=novelty.familiar,
    )
    if novelty.familiar:
        return ImageNovelty(strangeness), []
    side = "low" if novelty.away < 0 else "high"
    return ImageNovelty(strangeness), [
        f"The image is unlike the data that the flow was fitted on ({FEATURES[novelty.odd]}: too {side}); "
        "fit on CT like it with --data."
    ]


def _embedding(e: Evidence, inside: Mask) -> Embedding:
    error = e.reconstruction - e.x
    alike = quality(e.reconstruction, e.x, None, data_range=3024.0)
    return Embedding(
        rmse=figure(
            rms(error, inside), "HU", "Difference of D(E(x)) from x inside the body; noise included."
        ),
        ssim=figure(alike.ssim, "", "Structural similarity of D(E(x)) and x over 3024 HU."),
        cut_off=figure(
            transfer_cut_off(e.reconstruction, e.x),
            "cycles/pixel",
            "Up to this frequency D(E(x)) carries half of what x holds; 0.5 is the finest there is.",
        ),
    )


def _seen(e: Evidence) -> tuple[Leakage, BeforeAndAfter, Seen]:
    """Leakage and noise ratio of the flow's samples and of the refined ones; how the shown ones are seen."""

    @torch.no_grad()
    def see(image: Image) -> Tensor:
        z = e.observer(torch.from_numpy(image)[None, None])
        return z[0] if len(z) == 1 else z.flatten(0, 1)

    def ratio(size: npt.NDArray[np.float64], samples: str) -> Figure:
        ratios = size / e.noise_moves if e.noise_moves > 0 else np.zeros_like(size)
        return figure(ratios, "", f"Change of the layer by {samples} samples, over the change by noise.")

    few = e.flow[:_MOST]
    embedded = seen_changes(see, e.reconstruction, few, rng(e.seed, Purpose.LEAKAGE_EMBEDDED))
    direct = seen_changes(see, e.x, few, rng(e.seed, Purpose.LEAKAGE_DIRECT))
    leaks = Leakage(
        flow_from_reconstruction=figure(
            embedded.leakage(),
            "",
            "Share of the change by the flow's samples that the layer sees, counted from D(E(x)): 0 is "
            "invisible, 1 is as visible as a random change of the same size and texture.",
        ),
        flow=figure(direct.leakage(), "", "Leakage counted from x: it includes what the autoencoder loses."),
    )
    ratios = BeforeAndAfter(flow=ratio(direct.size, "the flow's"))
    if not e.refined:
        return leaks, ratios, embedded
    refined = seen_changes(
        see, e.x, e.x + e.refined.at(e.rho)[: 2 * _MOST], rng(e.seed, Purpose.LEAKAGE_REFINED)
    )
    told = figure(refined.leakage(), "", "Leakage of the refined samples, from x.")
    return (
        dataclasses.replace(leaks, refined=told),
        dataclasses.replace(ratios, refined=ratio(refined.size, "refined")),
        refined,
    )


def _denoised(e: Evidence, image: Image) -> Image:
    return represent(e.denoiser, OUTPUT, image[None, None])[0, 0].numpy()


def _output(e: Evidence, inside: Mask, denoised: Image) -> BeforeAndAfter:
    """How far the samples move what the denoiser returns."""

    def moved(clean: Image, samples: Image) -> list[float]:
        edge = (e.x.shape[0] - clean.shape[0]) // 2
        part = inside[edge : edge + clean.shape[0], edge : edge + clean.shape[1]]
        return [rms(_denoised(e, s) - clean, part) for s in samples]

    base = _denoised(e, e.reconstruction)
    before = figure(moved(base, e.flow[:_MOST]), "HU", "RMS difference of f(x') from f(D(E(x))) in the body.")
    if not e.refined:
        return BeforeAndAfter(flow=before)
    few = e.x + e.refined.at(e.rho)[:_MOST]
    after = figure(moved(denoised, few), "HU", "RMS difference of f(x'') from f(x) in the body.")
    return BeforeAndAfter(after, before)


def _flow(scores: FitScores | None) -> FlowFit:
    if scores is None:
        return FlowFit()
    n = scores.held_out_patches
    fit = FlowFit(
        nll=figure(scores.nll, "bits/dim", "Held-out negative log-likelihood of codes given z.", n),
        nll_shuffled=figure(
            scores.nll_shuffled,
            "bits/dim",
            "NLL with z of other patches in place of the right one; it must be worse.",
            n,
        ),
    )
    tests = scores.calibration
    if tests is None:
        return fit
    return dataclasses.replace(
        fit,
        nll_unconditional=figure(
            tests.nll_unconditional,
            "bits/dim",
            "That of a Gaussian that knows no z; it must be worse.",
            tests.pairs,
        ),
        coverage=figure(
            tests.deviation,
            "points",
            "Largest error of the flow's error bars: its 90 % region should hold 90 % of held-out codes. "
            f"On so many patches chance alone makes it {tests.chance:.0f} or less.",
            tests.pairs,
        ),
        error_ratio=figure(
            tests.error_ratio,
            "",
            "True codes' distance from the mean sample over the samples' spread; above 1: too sure.",
            tests.pairs,
        ),
    )


def _curve(refined: Refined, inside: Mask) -> dict[str, CurvePoint]:
    """Spread and fineness of the refined samples at each noise ratio."""
    curve = {}
    for row, rho in enumerate(refined.rhos):
        changes = refined.changes[row]
        curve[f"{rho:g}"] = CurvePoint(
            value=rms(changes.std(0, ddof=1), inside) if len(changes) > 1 else 0.0,
            unit="HU",
            n=len(changes) or 1,
            meaning=f"Spread of samples that move the layer by {100 * rho:g} % of what noise does.",
            title=f"Spread at noise ratio {rho:g}",
            rho=rho,
            reached=float(np.nanmedian(refined.reached[row])),
            fine=fine_share(changes - changes.mean(0)),
        )
    return curve
