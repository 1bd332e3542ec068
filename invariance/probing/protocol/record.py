"""What a protocol was asked and what it found, as records and as tables."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from ctinv.adapters.base import INPUT, OUTPUT
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.probing.observers.study import Study
from ctinv.invariance.probing.tasks.task import Task, low_contrast

from .shares import ALL, Difference, Kept, Share, efficiency, kept, losses, share
from .station import OBSERVERS

__all__ = ["Case", "Outcome", "Protocol", "Results", "judged", "to_csv", "where_name"]


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
        detected = study.detectability
        return cls(
            task=task.kind,
            size=task.size,
            contrast=task.contrast,
            auc=study.auc.value,
            auc_low=study.auc.low,
            auc_high=study.auc.high,
            reader_error=study.reader_error,
            detectability=detected.value,
            detectability_low=detected.low,
            detectability_high=detected.high,
            efficiency=efficiency(study, image),
            n=study.n,
            **names,
        )

    @property
    def question(self) -> tuple[str, float, float]:
        """Task, size and contrast."""
        return self.task, self.size, self.contrast


@dataclass(frozen=True)
class Case:
    """What was found with one denoiser at one dose.

    Arguments:
        outcomes: One for each task, place and observer.
        kept: Means over tasks.
    """

    outcomes: tuple[Outcome, ...]
    kept: tuple[Kept, ...]


def judged(
    tasks: Sequence[Task],
    studies: Sequence[Mapping[str, Study]],
    *,
    model: str,
    dose: float,
    observer: str,
) -> Case:
    """The outcomes of one observer and their means.

    Arguments:
        tasks: The tasks.
        studies: For each task, the canonical name of each place to the study there; ``@input`` among them.
        model: The denoiser's name.
        dose: Fraction of the routine dose.
        observer: Its name.
    """
    outcomes: list[Outcome] = []
    shares: list[Kept] = []
    names: dict[str, Any] = {"model": model, "dose": dose, "observer": observer}
    for task, here in zip(tasks, studies, strict=True):
        for place, study in here.items():
            outcomes.append(Outcome.of(study, here[INPUT], task, **names, where=where_name(place)))
    for place in studies[0] if studies else ():
        triples = [(task, here[place], here[INPUT]) for task, here in zip(tasks, studies, strict=True)]
        shares += kept(triples, **names, where=where_name(place))
    return Case(tuple(outcomes), tuple(shares))


@dataclass(frozen=True)
class Results:
    """All that a protocol found.

    Arguments:
        protocol: What was asked.
        scene: The background, in words.
        layers: Model to the places that were looked at, in the order of the network.
        outcomes: What was found.
        kept: Means over tasks, with their resamples.
    """

    protocol: Protocol
    scene: str
    layers: dict[str, tuple[str, ...]]
    outcomes: tuple[Outcome, ...]
    kept: tuple[Kept, ...] = ()

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
            "shares": [asdict(one) for one in self.shares],
            "verdict": list(self.verdict),
        }

    @property
    def shares(self) -> tuple[Share, ...]:
        """What every place keeps of detection and of characterisation, by every observer."""
        shares = (
            share(self.kept, (model, place), observer, group, self.protocol.seed)
            for observer in self.protocol.observers
            for model, places in self.layers.items()
            for group in ALL
            for place in places
        )
        return tuple(one for one in shares if one is not None)

    @property
    def verdict(self) -> tuple[str, ...]:
        """Per denoiser what is left and after which layer it falls; then which denoiser keeps more."""
        first, seed = self.protocol.observers[0], self.protocol.seed
        shares = [one for one in self.shares if one.observer == first]
        inside: list[Difference] = []
        between: list[Difference] = []
        for group in ALL:
            steps, ends = losses(self.kept, self.layers, first, group, seed)
            inside, between = inside + steps, between + ends
        told = [_sentence(model, places, shares, inside) for model, places in self.layers.items()]
        return (*told, *(_comparison(one) for one in between))


def _sentence(model: str, places: Sequence[str], shares: Sequence[Share], steps: Sequence[Difference]) -> str:
    parts = []
    for group in ALL:
        ends = [s for s in shares if (s.model, s.where, s.group) == (model, places[-1], group)]
        falls = [d for d in steps if d.group == group and d.more[0] == model and d.low > 0]
        if not ends:
            continue
        (end,) = ends
        text = f"{group}: {end.where} keeps {_percent(end)} of the information in x"
        if falls:
            worst = max(falls, key=lambda d: d.value)
            text += f"; most is lost between {worst.more[1]} and {worst.less[1]}: {_percent(worst)}"
        parts.append(text)
    return f"{model}: {'. '.join(parts)}." if parts else f"{model}: x itself shows nothing at these doses."


def _comparison(difference: Difference) -> str:
    (one, _), (other, _) = difference.more, difference.less
    if not difference.clear:
        said = f"no difference between {one} and {other} is certain ({_percent(difference)})"
        return f"{difference.group}: {said}."
    if difference.value < 0:
        one, other = other, one
        difference = replace(difference, value=-difference.value, low=-difference.high, high=-difference.low)
    return f"{difference.group}: {one} keeps more than {other}: {_percent(difference)}."


def _percent(one: Share | Difference) -> str:
    return f"{100 * one.value:.0f} % [{100 * one.low:.0f}, {100 * one.high:.0f}]"


def where_name(layer: str) -> str:
    """What a reader calls a layer."""
    return {INPUT: "x", OUTPUT: "f(x)"}.get(layer, layer)


def to_csv(kind: type[Any], records: Sequence[Any]) -> str:
    """One row per record, with a head of its fields.

    Arguments:
        kind: The record's class.
        records: Of that class.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, [f.name for f in fields(kind)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(one) for one in records)
    return text.getvalue()
