"""What a protocol was asked and what it found, as records and as tables."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any

from ctinv.adapters.base import INPUT, OUTPUT
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.probing.observers.study import Study
from ctinv.invariance.probing.tasks.task import Task, low_contrast

from .station import OBSERVERS

__all__ = ["Outcome", "Protocol", "Results", "to_csv", "where_name"]


@dataclass(frozen=True)
class Protocol:
    """What is asked.

    Arguments:
        tasks: The tasks.
        doses: Fractions of the routine dose.
        realisations: Images of each dose; of each, one for every alternative of every task.
        seed: Draws noise, halves and resamples.
        observers: The observers; the first is the one that figures and sentences speak of.
        readers: Disjoint halves that teach.
        internal: The observers' own noise, over that of their scores, as variances.
        projected: Whether lesions go into the projections.

    Raises:
        CtinvError: Something that makes no protocol.
    """

    tasks: tuple[Task, ...] = ()
    doses: tuple[float, ...] = (1.0, 0.5, 0.25)
    realisations: int = 256
    seed: int = 0
    observers: tuple[str, ...] = ("shaped",)
    readers: int = 4
    internal: float = 0.0
    projected: bool = False

    def __post_init__(self) -> None:
        if not self.tasks:
            object.__setattr__(self, "tasks", low_contrast())
        if not self.doses or not all(0 < dose <= 1 for dose in self.doses):
            raise CtinvError(
                f"doses {self.doses} are no fractions of the routine dose; give some, such as 1,0.5"
            )
        if self.realisations < 16:
            raise CtinvError(f"{self.realisations} realisations tell nothing about noise; give 16 or more")
        unknown = [name for name in self.observers if name not in OBSERVERS]
        if unknown or not self.observers:
            raise CtinvError(
                f"observers {', '.join(unknown)} are not known; choose of {', '.join(OBSERVERS)}"
            )
        object.__setattr__(self, "doses", tuple(dict.fromkeys(sorted(self.doses, reverse=True))))

    @property
    def asked(self) -> dict[str, Any]:
        """What decides the numbers, as plain values."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values["tasks"] = [task.name for task in self.tasks]
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


@dataclass(frozen=True)
class Outcome:
    """How well one observer does one task at one place of one denoiser.

    Arguments:
        model: The denoiser's name.
        where: ``x``, a layer's name, or ``f(x)``.
        dose: Fraction of the routine dose.
        task: Key of the task.
        size: Of the lesion, mm.
        contrast: HU.
        observer: Its name.
        auc: Area under the ROC curve.
        auc_low: Lower end of its 95 % interval over cases.
        auc_high: Upper end.
        reader_error: Standard deviation of the AUC over readers.
        detectability: d'.
        detectability_low: Lower end of its 95 % interval.
        detectability_high: Upper end.
        efficiency: (d' here over d' in x) squared, both corrected for what observers lose who learn from
            few cases; None where x itself shows nothing.
        n: Realisations.
    """

    model: str
    where: str
    dose: float
    task: str
    size: float
    contrast: float
    observer: str
    auc: float
    auc_low: float
    auc_high: float
    reader_error: float
    detectability: float
    detectability_low: float
    detectability_high: float
    efficiency: float | None
    n: int

    @classmethod
    def of(cls, study: Study, image: Study, task: Task, **names: Any) -> Outcome:
        """From a study here and that of ``x``."""
        found, own = study.detectability, image.detectability
        share = None
        if own.value > 2 * own.error:
            # An observer of many maps learns less from the same cases; both are set to what they would know.
            share = (max(found.value, 0.0) / own.value) ** 2 * image.learned / study.learned
        return cls(
            task=task.kind,
            size=task.size,
            contrast=task.contrast,
            auc=study.auc.value,
            auc_low=study.auc.low,
            auc_high=study.auc.high,
            reader_error=study.reader_error,
            detectability=found.value,
            detectability_low=found.low,
            detectability_high=found.high,
            efficiency=share,
            n=study.n,
            **names,
        )

    @property
    def question(self) -> tuple[str, float, float]:
        """Task, size and contrast."""
        return self.task, self.size, self.contrast


@dataclass(frozen=True)
class Results:
    """All that a protocol found.

    Arguments:
        protocol: What was asked.
        scene: The background, in words.
        layers: Model to the places that were looked at, in the order of the network.
        outcomes: What was found.
    """

    protocol: Protocol
    scene: str
    layers: dict[str, tuple[str, ...]]
    outcomes: tuple[Outcome, ...]

    def at(self, **wanted: Any) -> list[Outcome]:
        """The outcomes with these values, in the order they were found."""
        return [o for o in self.outcomes if all(getattr(o, k) == v for k, v in wanted.items())]

    def as_dict(self) -> dict[str, Any]:
        """What ``result.json`` holds."""
        return {
            "kind": "protocol",
            "schema_version": 1,
            "scene": self.scene,
            "protocol": self.protocol.asked,
            "layers": {model: list(names) for model, names in self.layers.items()},
            "outcomes": [asdict(outcome) for outcome in self.outcomes],
            "verdict": list(self.verdict),
        }

    @property
    def verdict(self) -> tuple[str, ...]:
        """Per denoiser: what is left of detection and of characterisation, and after which layer it falls."""
        return tuple(_sentence(self, model) for model in self.layers)


def _sentence(results: Results, model: str) -> str:
    first = results.protocol.observers[0]
    parts = []
    for what, detects in (("detection", True), ("characterisation", False)):
        kinds = {t.kind for t in results.protocol.tasks if t.detects == detects}
        mine = [o for o in results.at(model=model, observer=first) if o.task in kinds]
        shares = {}
        for place in results.layers[model]:
            found = [o.efficiency for o in mine if o.where == place and o.efficiency is not None]
            if found:
                shares[place] = sum(found) / len(found)
        if len(shares) < 2:
            continue
        names = list(shares)
        falls = [shares[a] - shares[b] for a, b in pairwise(names)]
        worst = max(range(len(falls)), key=lambda i: falls[i])
        text = f"{what}: f(x) keeps {100 * shares[names[-1]]:.0f} % of the information in x"
        if falls[worst] > 0.05:
            text += (
                f"; most is lost between {names[worst]} and {names[worst + 1]} "
                f"({100 * shares[names[worst]]:.0f} to {100 * shares[names[worst + 1]]:.0f} %)"
            )
        parts.append(text)
    return f"{model}: {'. '.join(parts)}." if parts else f"{model}: x itself shows nothing at these doses."


def where_name(layer: str) -> str:
    """What a reader calls a layer."""
    return {INPUT: "x", OUTPUT: "f(x)"}.get(layer, layer)


def to_csv(outcomes: Sequence[Outcome]) -> str:
    """One row per outcome, with a head."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [f.name for f in fields(Outcome)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(outcome) for outcome in outcomes)
    return text.getvalue()
