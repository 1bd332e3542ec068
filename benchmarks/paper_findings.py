"""The four findings of the method's paper, each decided by one figure with its interval over slices."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from ctinv import zoo
from ctinv.invariance.data.simulation.noise import calm_tissue, fine_part, noise_like
from ctinv.invariance.infra.randomness import Purpose, rng
from ctinv.invariance.reporting.explanation import Explanation
from scipy import stats
from torch import nn

__all__ = ["Case", "Estimate", "Finding", "findings", "layer_rows", "page"]

_LEVEL = 0.95
_NOISES = 3


@dataclass(frozen=True)
class Case:
    """One network's layer on one slice, numbered by ``row``."""

    network: str
    layer: str
    row: int
    explanation: Explanation


@dataclass(frozen=True)
class Estimate:
    """A mean over slices with its 95 % interval by Student's t; no interval for one slice."""

    value: float
    low: float
    high: float
    n: int
    unit: str = ""

    @classmethod
    def of(cls, values: Sequence[float], unit: str = "") -> Estimate:
        """From one value per slice."""
        given = np.asarray(values, dtype=float)
        n, mean = len(given), float(np.mean(given))
        if n < 2:
            return cls(mean, math.nan, math.nan, n, unit)
        half = float(stats.t.ppf((1 + _LEVEL) / 2, n - 1) * given.std(ddof=1) / math.sqrt(n))
        return cls(mean, mean - half, mean + half, n, unit)

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        if math.isnan(self.low):
            return f"{self.value:.2f}{unit} (one slice, no interval)"
        return f"{self.value:.2f}{unit} (95 % interval {self.low:.2f} to {self.high:.2f}, n = {self.n})"

    @property
    def sign(self) -> int:
        """Of the value, where the interval leaves no doubt about it; else 0."""
        if self.low > 0:
            return 1
        return -1 if self.high < 0 else 0


@dataclass(frozen=True)
class Finding:
    """What the paper says, what was found here, and the numbers behind it."""

    claim: str
    outcome: str
    figures: Mapping[str, Estimate]

    @property
    def sentence(self) -> str:
        """All in one line."""
        numbers = "; ".join(f"{name}: {estimate}" for name, estimate in self.figures.items())
        return f"{self.claim} {self.outcome.capitalize()}. {numbers}."


def _noise_hidden(one: Explanation) -> float:
    """Share of the noise in calm soft tissue that a layer does not see."""
    assert one.std_noise is not None
    calm = calm_tissue(one.x)
    spacing = one.meta.spacing
    noise = noise_like(one.x, _NOISES, rng(one.meta.seed or 0, Purpose.NOISE), spacing)
    hidden = np.mean(np.square(one.std_noise[calm], dtype=np.float64))
    return float(np.sqrt(hidden / np.mean(np.square(noise[:, calm], dtype=np.float64))))


def _anatomy_hidden(one: Explanation) -> float:
    """Anatomy hidden beyond what a layer that forgets nothing lets through: noise ratio times noise."""
    lower, noise, rho = one.bounds.lower, one.audit.map.noise, one.meta.refinement.rho
    return math.nan if lower is None or noise is None or rho is None else lower.value - rho * noise.value


def _explained(one: Explanation) -> float:
    """By how much less of unrefined samples the layer sees if the autoencoder's error is not counted."""
    leakage = one.audit.leakage
    if leakage.flow is None or leakage.flow_from_reconstruction is None or not leakage.flow.value > 0:
        return math.nan
    return 1 - leakage.flow_from_reconstruction.value / leakage.flow.value


def _texture(image: npt.NDArray[np.float32], calm: npt.NDArray[np.bool_]) -> float:
    return float(np.std(fine_part(image)[calm], dtype=np.float64))


def _texture_kept(one: Explanation) -> float:
    """Fine texture of the output in calm soft tissue, as a share of the input's."""
    calm = calm_tissue(one.x)
    return _texture(one.denoised, calm) / _texture(one.x, calm)


def findings(cases: Sequence[Case], outputs: Mapping[str, str]) -> list[Finding]:
    """The four findings.

    Arguments:
        cases: All analyses.
        outputs: The output layer of each network.
    """

    def at_output(network: str, measure: Callable[[Explanation], float]) -> list[float]:
        chosen = [c for c in cases if c.network == network and c.layer == outputs[network]]
        return [measure(c.explanation) for c in sorted(chosen, key=lambda c: c.row)]

    def compared(measure: Callable[[Explanation], float]) -> dict[str, Estimate]:
        chen, yang = (at_output(network, measure) for network in ("chen", "yang"))
        return {
            "Chen": Estimate.of(chen),
            "Yang": Estimate.of(yang),
            "Chen minus Yang, slice by slice": Estimate.of(np.subtract(chen, yang).tolist()),
        }

    anatomy = {f"{n.capitalize()}, output": Estimate.of(at_output(n, _anatomy_hidden), "HU") for n in outputs}
    noise, texture = compared(_noise_hidden), compared(_texture_kept)
    explained = {f"{n.capitalize()}, output": Estimate.of(at_output(n, _explained)) for n in outputs}
    difference = "Chen minus Yang, slice by slice"
    return [
        Finding(
            "Anatomy is hidden to some extent (more than a layer that forgets nothing lets through).",
            _verdict(min(e.sign for e in anatomy.values()), 1),
            anatomy,
        ),
        Finding(
            "Chen hides more of the noise in homogeneous tissue than Yang (share of its standard deviation).",
            _verdict(noise[difference].sign, 1),
            noise,
        ),
        Finding(
            "The autoencoder's error explains part of what unrefined samples show (share of what is seen).",
            _verdict(min(e.sign for e in explained.values()), 1),
            explained,
        ),
        Finding(
            "Adversarial training keeps texture (standard deviation of fine texture, output to input).",
            _verdict(texture[difference].sign, -1),
            texture,
        ),
    ]


def _verdict(found: int, wanted: int) -> str:
    if found == wanted:
        return "confirmed"
    return "refuted" if found == -wanted else "not decided"


def _architecture(network: str) -> list[str]:
    """The layers of a network by their indices, as words."""
    words = []
    for module in zoo.network(network, pretrained=False).modules():
        if isinstance(module, nn.Conv2d):
            words.append(f"Conv k{module.kernel_size[0]} f{module.out_channels}")
        elif isinstance(module, nn.ReLU):
            words.append("ReLU")
    return words


def layer_rows(cases: Sequence[Case]) -> list[str]:
    """One row of a Markdown table per network and layer: means over slices, HU inside the body."""

    def mean(values: Sequence[float | None]) -> str:
        known = [v for v in values if v is not None]
        return f"{np.mean(known):.1f}" if known else "-"

    rows = []
    for network, layer in dict.fromkeys((c.network, c.layer) for c in cases):
        some = [c.explanation for c in cases if (c.network, c.layer) == (network, layer)]
        found = [one.bounds for one in some]
        figures = [
            mean([None if e.audit.map.std_flow is None else e.audit.map.std_flow.value for e in some]),
            mean([None if b.lower is None else b.lower.value for b in found]),
            mean([None if b.noise is None else b.noise.value for b in found]),
            mean([None if b.upper is None else b.upper.value for b in found]),
            mean([None if e.audit.map.noise is None else e.audit.map.noise.value for e in some]),
        ]
        ended = sum(b.converged is True for b in found)
        cells = [network, f"`{layer}`", *figures, f"{ended} of {len(some)}"]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def page(cases: Sequence[Case], decided: Sequence[Finding], count: int, origin: str, preset: str) -> str:
    """The page in Markdown: Table I, the figures, what the layers hide, the findings.

    Arguments:
        cases: All analyses.
        decided: The findings.
        count: How many slices.
        origin: What they are.
        preset: Of the fits.
    """
    chen, yang = (_architecture(network) for network in ("chen", "yang"))
    rows = [
        f"| {k + 1} | {chen[k] if k < len(chen) else ''} | {yang[k]} |"
        for k in range(max(len(chen), len(yang)))
    ]
    told = []
    for number, one in enumerate(decided, 1):
        told += [f"{number}. *{one.claim}* **{one.outcome.capitalize()}.**", ""]
        told += [f"   - {name}: {estimate}" for name, estimate in one.figures.items()] + [""]
    return "\n".join(
        [
            "# The paper again",
            "",
            f"Written by `python benchmarks/paper.py` from {count} {origin}, preset `{preset}`.",
            "Maps are refined to a noise ratio of 0.03; intervals are over slices.",
            "",
            "## Table I: the reference denoisers",
            "",
            "| index | Chen et al. 2017 | Yang et al. 2018 |",
            "|---|---|---|",
            *rows,
            "",
            "## Figure 1: what the outputs hide",
            "",
            "![Both networks at their outputs on every slice](fig1.png)",
            "",
            "## Figure 2: layer by layer",
            "",
            "![Two slices seen through three layers of each network](fig2.png)",
            "",
            "## What each layer hides",
            "",
            "Means over slices, HU inside the body. *Flow*: spread of samples before refinement.",
            "",
            "| network | layer | flow | anatomy, at least | noise, at least | at most | noise of the image | "
            "searches ended |",
            "|---|---|---|---|---|---|---|---|",
            *layer_rows(cases),
            "",
            "## Findings",
            "",
            *told,
        ]
    )
