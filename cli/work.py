"""From explainers and slices to files: the part that analyze and sample share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from .console import Screen
from .extras import Extras
from .results import division, show, with_meta

if TYPE_CHECKING:
    from ctinv.adapters import Denoiser
    from ctinv.adapters._types import Progress
    from ctinv.invariance import Explainer
    from ctinv.invariance.changes.answer import Answer
    from ctinv.invariance.data import CTSlice
    from ctinv.invariance.data.io.stored import StoredSlice
    from ctinv.invariance.reporting.explanation import Explanation
    from ctinv.invariance.runs.cases import Case, Plan, Shard
    from ctinv.invariance.runs.keys import FitIdentity
    from ctinv.invariance.runs.outcomes import Failure

__all__ = [
    "Analyst",
    "Maker",
    "Saving",
    "Subject",
    "Task",
    "Written",
    "explain_all",
    "notes",
    "own_cases",
    "sum_up",
]

_FEW = 50  # cases up to which answers go into the cache as well; the folder itself is what a restart reads
_MOST_TOLD = 20


class Maker(Protocol):
    """Fits or loads an explainer for each layer."""

    def __call__(self, layers: Sequence[str], progress: Progress | None, /) -> Sequence[Explainer]: ...


@dataclass
class Subject:
    """One model that is looked into.

    Arguments:
        denoiser: The model, with its units known.
        layers: Which layers, as the user calls them.
        known: What else the report should say of the origin.
        make: Fits its layers.
        fit: What decides those fits.
    """

    denoiser: Denoiser
    layers: Sequence[str]
    known: Mapping[str, Any]
    make: Maker
    fit: FitIdentity


@dataclass(frozen=True)
class Written:
    """What is written of an explanation besides the usual files.

    Arguments:
        formats: See ``Explanation.save``.
        deidentify: Leave the patient out of it.
        report: Whether figure and page are among the usual files.
        extras: What is asked besides.
    """

    formats: tuple[str, ...] = ()
    deidentify: bool = False
    report: bool = True
    extras: Extras = field(default_factory=Extras)

    @property
    def files(self) -> Sequence[str]:
        """What a finished case consists of."""
        from ctinv.invariance.runs.outcomes import FILES, FILES_WITHOUT_REPORT

        return FILES if self.report else FILES_WITHOUT_REPORT

    def checked(self, slices: Sequence[StoredSlice], screen: Screen) -> Written:
        """The same, unless it cannot be written: refused before anything long. Says what DICOM takes over.

        Raises:
            ImageError: See :func:`ctinv.invariance.reporting.dicom.check_dicom`.
        """
        if self.formats:
            from ctinv.invariance.reporting.dicom import check_dicom

            for one in slices:
                check_dicom(one.header)
            if not self.deidentify and any("sop_uid" in one.header.meta for one in slices):
                screen.note("note: DICOM files get the slice's tags, the patient's too; see --deidentify")
        return self

    def of(self, explanation: Explanation, one: CTSlice, answers: Sequence[Answer] = ()) -> Saving:
        """The explanation of a slice, ready to be saved, with answers to what was asked besides."""
        return Saving(explanation, one, self, answers)


@dataclass(frozen=True)
class Saving:
    """An explanation with all that decides which files come of it."""

    found: Explanation
    image: CTSlice
    written: Written
    answers: Sequence[Answer] = ()

    def save(self, folder: Path) -> Mapping[str, Path]:
        """Write its files, see ``Explanation.save``; each answer has a folder of its own in that folder."""
        for answer in self.answers:
            answer.save(folder / answer.kind)
        written = self.written
        asked: dict[str, Any] = {"added": [a.added() for a in self.answers]} if self.answers else {}
        return self.found.save(
            folder,
            report=written.report,
            formats=written.formats,
            template=self.image,
            deidentify=written.deidentify,
            **asked,
        )


@dataclass
class Task:
    """What to draw, from what, and where to write it.

    Arguments:
        source: What the user gave as input; a folder has one sub-folder per slice.
        slices: The slices found in it.
        out: Where to write.
        subjects: The models.
        drawing: How to draw: samples, refine, rho, quantiles and seed, see ``Explainer.explain``.
        shard: Which part of it.
        memory: Bytes that sampling may take; None for a quarter of what is free.
        fail_fast: Let the first error end the run.
        again: Analyse what is there already, too.
        written: What is written besides the usual files.
    """

    source: Path | None
    slices: Sequence[StoredSlice]
    out: Path
    subjects: Sequence[Subject]
    drawing: Mapping[str, Any]
    shard: Shard
    memory: int | None = None
    fail_fast: bool = False
    again: bool = False
    written: Written = Written()
    plan: Plan = field(init=False)

    def __post_init__(self) -> None:
        from ctinv.invariance.runs.cases import Plan

        self.plan = Plan(
            tuple(subject.denoiser.name for subject in self.subjects),
            tuple(tuple(subject.layers) for subject in self.subjects),
            tuple(one.name for one in self.slices),
            by_slice=self.source is not None and self.source.is_dir(),
        )

    def cases(self) -> Iterator[Case]:
        """Those of this shard."""
        return self.shard.of(iter(self.plan))

    @property
    def count(self) -> int:
        """How many these are."""
        return len(range(self.shard.number - 1, len(self.plan), self.shard.count))


def explain_all(screen: Screen, task: Task) -> int:
    """Explain every slice at every layer, write each result at once, and show what was found.

    Processes that torchrun started divide the cases; the first of them shows and sums up, from
    what all of them wrote.

    Returns:
        How many cases of this shard have failed.
    """
    from ctinv.invariance.infra.distributed import world
    from ctinv.invariance.runs.locks import alone_in
    from ctinv.invariance.runs.loop import run_cases

    everyone = world()
    with alone_in(task.out, task.shard) if everyone.leads else contextlib.nullcontext():
        try:
            with screen.progress() as progress:
                analyst = Analyst(screen, task, progress)
                if not everyone.alone:  # all of them fit together, whoever needs it
                    analyst.prepare()
                run_cases(
                    own_cases(task),
                    len(range(everyone.rank, task.count, everyone.size)),
                    task.out,
                    analyst,
                    fail_fast=task.fail_fast or task.plan.single,
                    again=task.again,
                    files=task.written.files,
                    progress=progress,
                )
        except BaseException:
            if everyone.leads and not task.plan.single and task.out.is_dir():
                _table(task)
            raise
        everyone.wait()
        return sum_up(screen, task) if everyone.leads else 0


def own_cases(task: Task) -> Iterator[Case]:
    """The cases of this process, of all that torchrun started."""
    from ctinv.invariance.infra.distributed import world

    everyone = world()
    return islice(task.cases(), everyone.rank, None, everyone.size)


class Analyst:
    """Analyses the cases of a task, with the fits of one model at a time."""

    def __init__(
        self, screen: Screen, task: Task, progress: Progress | None, cases: Sequence[Case] | None = None
    ) -> None:
        self._screen, self._task, self._progress = screen, task, progress
        self._cases = cases
        self._fits: dict[int, dict[int, Explainer | Exception]] = {}
        self._slice: tuple[int, CTSlice] | None = None
        self._told = 0
        self._cache = len(task.plan) <= _FEW

    def key(self, case: Case) -> str:
        """What decides the outcome of a case."""
        from ctinv.invariance.runs.keys import case_key

        subject = self._task.subjects[case.model]
        one = self._task.slices[case.slice]
        asked = dict(self._task.drawing)
        if self._task.written.formats:  # a result without them is not yet what was asked for
            asked |= {"formats": self._task.written.formats, "deidentify": self._task.written.deidentify}
        asked |= self._task.written.extras.key()
        return case_key(subject.denoiser, subject.layers[case.layer], one, subject.fit, asked)

    def solve(self, case: Case, key: str) -> Saving:
        """The explanation of a case, with its key and what else is known."""
        explainer = self._explainer(case)
        explainer.memory = self._task.memory
        one = self._read(case.slice)
        explanation = explainer.explain(one, **self._task.drawing, cache=self._cache, progress=self._progress)
        explanation = with_meta(explanation, **self._task.subjects[case.model].known, case=key)
        written = self._task.written
        answers = written.extras.answers(explainer, one, self._task.drawing, self._progress)
        return written.of(explanation, one, answers)

    def failure(self, case: Case, key: str, error: Exception) -> Failure:
        """The record of a case that failed, without any path of the input; the user is told."""
        from ctinv.invariance.runs.outcomes import Failure, without_paths

        subject, one = self._task.subjects[case.model], self._task.slices[case.slice]
        reason = without_paths(error, one.header.source, self._task.source, name=one.name)
        self._told += 1
        if self._told <= _MOST_TOLD:
            self._screen.note(f"failed: {case.folder}: {reason}")
        return Failure(
            subject.denoiser.name,
            subject.denoiser.fingerprint,
            subject.denoiser.resolve(subject.layers[case.layer]).name,
            one.name,
            key,
            reason,
            type(error).__name__,
        )

    def prepare(self) -> None:
        """Fit all layers of all models now."""
        from ctinv.invariance.runs.loop import RunEnds

        for number, subject in enumerate(self._task.subjects):
            try:
                self._fits[number] = self._fitted(number, range(len(subject.layers)))
            except RunEnds as end:
                raise end.reason from None

    def _explainer(self, case: Case) -> Explainer:
        if case.layer not in self._fits.get(case.model, {}):
            self._fits = {case.model: self._fitted(case.model, self._needed(case))}
        explainer = self._fits[case.model][case.layer]
        if isinstance(explainer, Exception):
            raise explainer
        return explainer

    def _needed(self, first: Case) -> Sequence[int]:
        """Numbers of the layers of a case's model that have anything left to do here."""
        from ctinv.invariance.runs.outcomes import done

        def open_(case: Case) -> bool:
            folder, files = self._task.out / case.folder, self._task.written.files
            return self._task.again or not done(folder, self.key(case), files)

        left: list[int] = []
        for layer in range(len(self._task.subjects[first.model].layers)):
            same = (
                c
                for c in (self._cases or own_cases(self._task))
                if (c.model, c.layer) == (first.model, layer)
            )
            if layer == first.layer or any(open_(case) for case in same):
                left.append(layer)
        return left

    def _fitted(self, model: int, layers: Sequence[int]) -> dict[int, Explainer | Exception]:
        """The explainers of some layers; where not all can be fitted, the reasons of those that cannot.

        Raises:
            RunEnds: Nothing can be fitted, and there is no other model.
        """
        from ctinv.invariance.runs.loop import RunEnds

        subject = self._task.subjects[model]
        names = [subject.layers[layer] for layer in layers]
        fitted: dict[int, Explainer | Exception] = {}
        try:
            fitted = dict(zip(layers, subject.make(names, self._progress), strict=True))
        except Exception as error:
            if len(layers) == 1 or self._task.fail_fast:
                fitted = dict.fromkeys(layers, error)
            else:
                fitted = {layer: self._alone(subject, layer) for layer in layers}
        errors = [e for e in fitted.values() if isinstance(e, Exception)]
        if errors and (
            self._task.fail_fast or (len(errors) == len(fitted) and len(self._task.subjects) == 1)
        ):
            raise RunEnds(errors[0])
        fits = [e for e in fitted.values() if not isinstance(e, Exception)]
        for note in dict.fromkeys(note for e in fits for note in notes(e)):
            self._screen.note(note)
        return fitted

    def _alone(self, subject: Subject, layer: int) -> Explainer | Exception:
        try:
            return subject.make([subject.layers[layer]], self._progress)[0]
        except Exception as error:
            return error

    def _read(self, number: int) -> CTSlice:
        """A slice; the last one is kept, as all layers look at it one after another."""
        if self._slice is None or self._slice[0] != number:
            self._slice = None
            self._slice = number, self._task.slices[number].read()
        return self._slice[1]


def _table(task: Task) -> None:
    from ctinv.invariance.runs.locks import in_turn
    from ctinv.invariance.runs.table import rows_of, write_table

    with in_turn(task.out):
        write_table(task.out, rows_of(task.out, (case.folder for case in task.plan)))


def sum_up(screen: Screen, task: Task, *, silently: bool = False) -> int:
    """Table and page of the whole run, and what this shard has found; how many of its cases failed.

    Arguments:
        screen: Where to show it.
        task: The run.
        silently: Only write the table, as the run has ended early.
    """
    from ctinv.invariance.runs.pages import write_page

    report = None
    if not task.plan.single:
        _table(task)
        if silently:
            return 0
        report = write_page(task.out)
    folders = [case.folder for case in task.cases()]
    return show(screen, task.out, folders, report, task.plan.single)


def notes(explainer: Explainer) -> Sequence[str]:
    """What a user should know about a fit: checkpoints that were of no use, how patients were divided."""
    info = explainer.info
    divided = [division(info.split)] if info.split else []
    return [*(f"note: {notice}" for notice in info.notices or ()), *divided]
