"""Running a protocol: one denoiser at one dose after the other, each kept as soon as it is done."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ctinv.adapters._types import Image, Progress
from ctinv.adapters.base import INPUT, OUTPUT, Denoiser
from ctinv.invariance.infra.files import write_files
from ctinv.invariance.infra.records import plain, read
from ctinv.invariance.probing.observers.maps import judge_maps
from ctinv.invariance.probing.observers.study import Study
from numpy.typing import NDArray

from .record import Case, Outcome, Protocol, Results, judged, where_name
from .scenes import Scene
from .shares import Kept
from .station import WINDOW, Station, bank, margin_of

__all__ = ["Plan", "Subject", "plan", "run"]

_LARGEST = 96  # side of the square on which margins are tried
_MOST_LAYERS = 8
_RESAMPLES = 300


@dataclass(frozen=True, eq=False)
class Subject:
    """A denoiser with the places to look at.

    Arguments:
        denoiser: The denoiser.
        layers: Canonical names, ``@input`` first and ``@output`` last.
    """

    denoiser: Denoiser
    layers: tuple[str, ...]

    @classmethod
    def of(cls, denoiser: Denoiser, layers: Sequence[str] = ()) -> Subject:
        """With the layers asked for, or at most eight convolutions spread over the network.

        Raises:
            LayerError: No such layer.
        """
        names = [denoiser.resolve(name).name for name in layers]
        if not names:
            names = [layer.name for layer in denoiser.layers if layer.op.startswith("Conv")]
            if len(names) > _MOST_LAYERS:
                chosen = np.linspace(0, len(names) - 1, _MOST_LAYERS).round().astype(int)
                names = [names[i] for i in chosen]
        inner = [n for n in dict.fromkeys(names) if n not in (INPUT, OUTPUT)]
        return cls(denoiser, (INPUT, *inner, OUTPUT))


@dataclass(frozen=True)
class Plan:
    """What a protocol will take.

    Arguments:
        cases: Denoisers times doses that are still to be done.
        done: Those that were found done.
        passes: Squares that go through denoisers in all.
        seconds: About how long, from one batch of each denoiser.
    """

    cases: int
    done: int
    passes: int
    seconds: float

    def __str__(self) -> str:
        minutes = self.seconds / 60
        shown = f"{minutes:.0f} minutes" if minutes >= 1.5 else f"{self.seconds:.0f} seconds"
        kept = f", {self.done} done before" if self.done else ""
        return f"{self.cases} cases{kept}, {self.passes} images through denoisers: about {shown}"


@dataclass(frozen=True, eq=False)
class _Questions:
    """The alternatives of all tasks as images, each once, and the channels that look at each."""

    signals: tuple[Image, ...]
    channels: tuple[NDArray[np.float64], ...]
    rows: tuple[tuple[int, int, dict[str, slice], dict[str, slice]], ...]

    @classmethod
    def of(cls, protocol: Protocol, side: int, spacing: tuple[float, float]) -> _Questions:
        signals: dict[bytes, int] = {}
        images: list[Image] = []
        stacks: list[dict[bytes, tuple[int, NDArray[np.float64]]]] = []
        rows = []
        middle = (side // 2, side // 2)
        for task in protocol.tasks:
            made = bank(task, spacing, protocol.observers, projected=protocol.projected)
            questions = []
            for signal in task.signals((side, side), middle, spacing, projected=protocol.projected):
                key = signal.tobytes()
                if key not in signals:
                    signals[key] = len(images)
                    images.append(signal)
                    stacks.append({})
                number = signals[key]
                parts = {}
                for name, part in made.parts.items():
                    content = made.images[part].astype(np.float32).tobytes()
                    taken = sum(len(c) for _, c in stacks[number].values())
                    first, channels = stacks[number].setdefault(content, (taken, made.images[part]))
                    parts[name] = slice(first, first + len(channels))
                questions.append((number, parts))
            rows.append((questions[0][0], questions[1][0], questions[0][1], questions[1][1]))
        banks = tuple(np.concatenate([c for _, c in stack.values()]) for stack in stacks)
        return cls(tuple(images), banks, tuple(rows))


def plan(subjects: Sequence[Subject], scene: Scene, protocol: Protocol, folder: Path) -> Plan:
    """How long a protocol will take, from one batch of every denoiser.

    Arguments:
        subjects: The denoisers.
        scene: The background.
        protocol: What is asked.
        folder: Where cases that are done lie.
    """
    passes, seconds, cases, done = 0, 0.0, 0, 0
    side = max(_side(subject, scene, protocol) for subject in subjects)
    for subject in subjects:
        left = [d for d in protocol.doses if _kept(folder, subject, scene, protocol, d, side) is None]
        done += len(protocol.doses) - len(left)
        cases += len(left)
        if not left:
            continue
        questions = _Questions.of(protocol, side, scene.spacing)
        started = time.perf_counter()
        squares = next(iter(scene.squares(left[0], side, 16, protocol.seed)))
        drawing = (time.perf_counter() - started) / len(squares)
        station = Station(subject.denoiser, subject.layers, squares)
        started = time.perf_counter()
        station.respond(squares[:16], questions.channels[0])
        looking = (time.perf_counter() - started) / len(squares[:16])
        count = len(left) * protocol.realisations
        passes += count * len(questions.signals)
        studies = len(protocol.tasks) * len(protocol.observers) * len(subject.layers) * len(left)
        judging = studies * protocol.readers * 0.01 * (1 + (protocol.realisations / 400) ** 2)
        seconds += count * (drawing + len(questions.signals) * looking) + judging
    return Plan(cases, done, passes, seconds)


def run(
    subjects: Sequence[Subject],
    scene: Scene,
    protocol: Protocol,
    folder: Path,
    progress: Progress | None = None,
) -> Results:
    """Do what a protocol asks, and go on where an earlier call was interrupted.

    Images are drawn, seen and forgotten a few at a time; what stays are the channels' responses, a few kB per
    image and layer.

    Arguments:
        subjects: The denoisers.
        scene: The background.
        protocol: What is asked.
        folder: Each denoiser at each dose leaves a file in ``cases`` as soon as it is done; what is there
            and was asked in the same way is not done again.
        progress: Called with (stage, done, total).

    Raises:
        CtinvError: The folder cannot be written.
        ImageError: No place for the squares.
    """
    cases: list[Case] = []
    total = len(subjects) * len(protocol.doses)
    side = max(_side(subject, scene, protocol) for subject in subjects)  # all see the same images
    for number, subject in enumerate(subjects):
        for place, dose in enumerate(protocol.doses):
            kept = _kept(folder, subject, scene, protocol, dose, side)
            if kept is None:
                kept = _case(subject, scene, protocol, dose, side, progress)
                _store(folder, subject, dose, _asked(subject, scene, protocol, dose, side), kept)
            cases.append(kept)
            if progress:
                progress("cases", number * len(protocol.doses) + place + 1, total)
    layers = {s.denoiser.name: tuple(where_name(name) for name in s.layers) for s in subjects}
    outcomes = tuple(o for case in cases for o in case.outcomes)
    return Results(protocol, scene.name, layers, outcomes, tuple(k for case in cases for k in case.kept))


def _side(subject: Subject, scene: Scene, protocol: Protocol) -> int:
    """Side of the squares: the window, and around it what the layers look at."""
    largest = max(WINDOW, min(_LARGEST, getattr(scene, "room", _LARGEST)))
    example = next(iter(scene.squares(protocol.doses[0], largest, 1, protocol.seed)))[:1]
    return WINDOW + 2 * margin_of(subject.denoiser, subject.layers, example)


def _case(
    subject: Subject, scene: Scene, protocol: Protocol, dose: float, side: int, progress: Progress | None
) -> Case:
    questions = _Questions.of(protocol, side, scene.spacing)
    seen: list[dict[str, list[NDArray[np.float32]]]] = [
        {name: [] for name in subject.layers} for _ in questions.signals
    ]
    station, count = None, 0
    for squares in scene.squares(dose, side, protocol.realisations, protocol.seed):
        station = station or Station(subject.denoiser, subject.layers, squares)
        for signal, channels, responses in zip(questions.signals, questions.channels, seen, strict=True):
            for name, answer in station.respond(squares + signal, channels).items():
                responses[name].append(answer)
        count += len(squares)
        if progress:
            progress(f"{subject.denoiser.name}, dose {dose:g}", count, protocol.realisations)
    whole = [{name: np.concatenate(parts) for name, parts in one.items()} for one in seen]
    outcomes: list[Outcome] = []
    shares: list[Kept] = []
    model = subject.denoiser.name
    for observer in protocol.observers:
        studies = [
            {name: _study(whole, row, name, observer, protocol) for name in subject.layers}
            for row in questions.rows
        ]
        more = judged(protocol.tasks, studies, model=model, dose=dose, observer=observer)
        outcomes, shares = outcomes + list(more.outcomes), shares + list(more.kept)
    return Case(tuple(outcomes), tuple(shares))


def _study(
    whole: Sequence[Mapping[str, NDArray[np.float32]]],
    row: tuple[int, int, dict[str, slice], dict[str, slice]],
    layer: str,
    observer: str,
    protocol: Protocol,
) -> Study:
    first, second, of_first, of_second = row
    pair = []
    for number, parts in ((first, of_first), (second, of_second)):
        answers = whole[number][layer]
        # A layer that is no map of the image has one answer for all channels.
        pair.append(answers[:, :, parts[observer]] if answers.shape[2] > 1 else answers)
    return judge_maps(
        pair[0],
        pair[1],
        prewhitens=observer != "npwe",
        seed=protocol.seed,
        readers=protocol.readers,
        internal=protocol.internal,
        resamples=_RESAMPLES,
    )


def _asked(subject: Subject, scene: Scene, protocol: Protocol, dose: float, side: int) -> dict[str, Any]:
    """All that decides a case's numbers."""
    asked = {**protocol.asked, "doses": dose, "scene": scene.name, "layers": list(subject.layers)}
    return {**asked, "model": subject.denoiser.fingerprint, "name": subject.denoiser.name, "side": side}


def _store(folder: Path, subject: Subject, dose: float, asked: dict[str, Any], case: Case) -> None:
    stored = {
        "asked": asked,
        "outcomes": [asdict(o) for o in case.outcomes],
        "kept": [asdict(k) for k in case.kept],
    }
    text = json.dumps(plain(stored), indent=1, allow_nan=False)
    write_files(folder / "cases", {_file(subject, dose): text.encode()})


def _file(subject: Subject, dose: float) -> str:
    name = re.sub(r"[^\w.-]+", "_", subject.denoiser.name)
    return f"{name}-{hashlib.sha256(subject.denoiser.fingerprint.encode()).hexdigest()[:8]}-{dose:g}.json"


def _kept(
    folder: Path, subject: Subject, scene: Scene, protocol: Protocol, dose: float, side: int
) -> Case | None:
    """What an earlier call found, where it was asked the same."""
    try:
        stored = json.loads((folder / "cases" / _file(subject, dose)).read_text(encoding="utf-8"))
        if stored["asked"] != plain(_asked(subject, scene, protocol, dose, side)):
            return None
        outcomes = tuple(read(Outcome, outcome) for outcome in stored["outcomes"])
        return Case(outcomes, tuple(read(Kept, one) for one in stored["kept"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None
