"""Controls: what must come out where the answer is known, tried anew with every analysis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from ctinv.adapters import wrap
from ctinv.adapters._types import Image
from ctinv.invariance.infra.randomness import Purpose, rng
from ctinv.invariance.networks.embedder import Embedder
from ctinv.invariance.networks.fit_record import FitScores
from ctinv.invariance.refinement.observer import Observer
from ctinv.invariance.refinement.refine import noise_change, refine
from torch import Tensor, nn

from .evidence import Evidence, rms
from .leakage import seen_changes
from .record import ControlsFigure

__all__ = ["Control", "bound_control", "controls", "controls_figure", "shuffled_control"]


_SLACK = 0.02
_COST = 1e-3  # bits per dimension
_NOISES = 2
_WIDER = 1.3  # times the error of the reading: a flow whose samples spread more is refuted
_LITTLE = 1.0  # HU; no flow is held to less
_BODY = -900.0  # HU


@dataclass(frozen=True)
class Control:
    """One control and its outcome.

    Arguments:
        name: ``identity``, ``constant`` or ``shuffled``.
        passed: Whether what must come out did.
        told: What came out, as a clause.
        trouble: What it means where the control failed, as a clause.
        figures: The numbers behind it.
    """

    name: str
    passed: bool
    told: str
    trouble: str
    figures: Mapping[str, float]


class _Constant(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.ones_like(x)


class _Known(nn.Module):
    """A network with a layer that forgets nothing and one that forgets everything."""

    def __init__(self) -> None:
        super().__init__()
        self.identity, self.constant = nn.Identity(), _Constant()

    def forward(self, x: Tensor) -> Tensor:
        self.constant(x)
        return self.identity(x) + 0.0


def controls(x: Image, change: Image, noise: Image, rho: float, seed: int = 0) -> list[Control]:
    """Refine and judge one sample of this very image as if the layer were another one.

    Against a layer that forgets nothing, refinement must leave no more of the change than the noise
    ratio grants, and leakage must be 1. Against one that forgets everything, all of the change must
    be left, and leakage be 0. Both layers stand in a network that is read, linearised and refined by
    the same code as the denoiser.

    Arguments:
        x: The slice (H, W), HU.
        change: What a sample of the flow changes, (H, W), HU; noise is taken where it is nothing.
        noise: Noise realisations of the slice, (N, H, W), HU.
        rho: Noise ratio of the analysis.
        seed: Draws the changes that leakage compares with.
    """
    if not change.any():
        change = noise[0]
    size = float(np.linalg.norm(change))
    network = wrap(_Known(), intensity="hu", name="controls")
    outcomes = []
    for name in ("identity", "constant"):
        observer = Observer(network, name, Embedder(1, 1))
        moves = noise_change(observer, x, noise[:_NOISES])
        (left,) = refine(observer, x, change[None], moves, rho=rho, rhos=()).at(rho)
        leak = _leakage(observer, x, change, seed)
        share = float(np.linalg.norm(left)) / size if size else 0.0
        if name == "identity":
            limit = min(1.0, rho * moves / size) if size else 0.0
            passed = share <= (1 + _SLACK) * limit and abs(leak - 1) <= _SLACK
            told = (
                f"a layer that forgets nothing leaves {share:.1%} of a change (limit {limit:.1%}; "
                f"leakage {leak:.2f})"
            )
            trouble = "a layer that forgets nothing would have a map too"
            figures = {"left": share, "limit": limit, "leakage": leak}
        else:
            off = float(np.linalg.norm(left - change)) / size if size else 0.0
            passed = off <= _SLACK and leak <= _SLACK
            told = f"one that forgets everything leaves {share:.0%} (leakage {leak:.2f})"
            trouble = "a layer that forgets everything would not show it"
            figures = {"left": share, "off": off, "leakage": leak}
        # A change that is not a number fails, as no comparison holds.
        outcomes.append(Control(name, bool(passed), told, trouble, figures))
    return outcomes


def _leakage(observer: Observer, x: Image, change: Image, seed: int) -> float:
    @torch.no_grad()
    def see(image: Image) -> Tensor:
        z: Tensor = observer(torch.from_numpy(np.ascontiguousarray(image))[None, None])
        return z[0]

    seen = seen_changes(see, x, (x + change)[None], rng(seed, Purpose.LEAKAGE_CONTROL))
    return float(seen.leakage()[0])


def shuffled_control(scores: FitScores | None) -> list[Control]:
    """Whether the flow does worse with ``z`` of other patches, as it must unless the layer is blind.

    Arguments:
        scores: Figures of the fit.

    Returns:
        One control; none where the fit has no figures.
    """
    if scores is None:
        return []
    cost = scores.nll_shuffled - scores.nll
    return [
        Control(
            "shuffled",
            bool(cost > _COST),
            f"z of other patches costs the flow {cost:.3f} bits/dim",
            "the flow does no worse with z of other patches than with the right one",
            {"cost": cost},
        )
    ]


def bound_control(e: Evidence) -> list[Control]:
    """Whether the flow's samples spread no wider than what can be read back from the layer allows.

    The mean variance of the image given ``z`` is at most the error of any reading of ``z``, here as
    the autoencoder shows both: on this image or on held-out patches, whichever is larger.

    Returns:
        One control; none where there is no reading.
    """
    if e.reading_code is None:
        return []
    body = np.asarray(e.x > _BODY)
    inside = body if body.any() else np.ones_like(body)
    told = None if e.scores is None or e.scores.reading is None else e.scores.reading.decoded
    limit = max(rms(e.reading_code - e.reconstruction, inside), told or 0.0)
    spread = rms(e.std_flow, inside)
    return [
        Control(
            "bound",
            spread <= max(_WIDER * limit, _LITTLE),
            f"the flow's samples spread by {spread:.1f} HU, what was read back is {limit:.1f} HU off",
            "the flow's samples spread wider than the layer's own output allows",
            {"spread": spread, "limit": limit},
        )
    ]


def controls_figure(tried: list[Control]) -> ControlsFigure:
    """The controls as one figure of an audit: how many passed, and which failed."""
    failed = tuple(control.name for control in tried if not control.passed)
    lead = f"Failed: {', '.join(failed)}. " if failed else ""
    return ControlsFigure(
        value=len(tried) - len(failed),
        unit=f"of {len(tried)}",
        n=len(tried),
        meaning=f"{lead}Cases whose answer is known: {'; '.join(c.told for c in tried)}.",
        title="Controls passed",
        failed=failed,
        figures={control.name: control.figures for control in tried},
    )
