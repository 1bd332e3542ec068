"""``ctinv analyze --scheduler``: the cases of a run on the workers of a Dask cluster."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .console import Screen
from .question import Question, prepare
from .work import Analyst, Task, sum_up

if TYPE_CHECKING:
    from ctinv.invariance.runs.cases import Case, Shard

__all__ = ["explain_on_cluster", "work"]

_PARTS = 8  # parts of the work that each thread of a worker gets, so that none waits long for the last
_RETRIES = 3
_ANSWER = 20  # seconds in which the scheduler must answer


def explain_on_cluster(screen: Screen, task: Task, question: Question, address: str) -> int:
    """Divide the cases among workers that share the file system and the cache, then sum up.

    A part whose worker dies is given to another one, which finds what was finished.

    Arguments:
        screen: Shows how far it is.
        task: The whole run, prepared here.
        question: The same for the workers: they open the models by path, and check their hashes.
        address: Of the scheduler, such as ``tcp://host:8786``.

    Returns:
        How many cases have failed.

    Raises:
        CtinvError: Dask is not installed, or the scheduler does not answer.
    """
    from ctinv.invariance.runs.locks import alone_in

    hashes = tuple(subject.denoiser.fingerprint for subject in task.subjects)
    text = dataclasses.replace(question, hashes=hashes).text()
    with alone_in(task.out, task.shard), _client(address) as client:
        threads = sum(client.nthreads().values()) or 1
        parts = max(1, min(task.count, _PARTS * threads))
        submitted = [
            client.submit(
                work,
                text,
                str(task.out.absolute()),
                [task.shard.number, task.shard.count],
                [number, parts],
                {"fail_fast": task.fail_fast or task.plan.single, "restart": task.again},
                retries=_RETRIES,
                pure=False,
            )
            for number in range(1, parts + 1)
        ]
        try:
            _wait(screen, submitted, task.count)
        except BaseException:
            client.cancel(submitted, force=True)
            if not task.plan.single:
                sum_up(screen, task, silently=True)
            raise
        return sum_up(screen, task)


def _wait(screen: Screen, submitted: list[Any], total: int) -> None:
    from distributed import as_completed

    over = 0
    with screen.progress() as progress:
        for future in as_completed(submitted):
            over += int(future.result())
            if progress is not None:
                progress("cases", over, total)


@contextlib.contextmanager
def _client(address: str) -> Any:
    from ctinv.adapters.errors import CtinvError

    try:
        from distributed import Client
    except ImportError as error:
        raise CtinvError("--scheduler needs Dask; install it with pip install 'ctinv[cluster]'") from error
    try:
        client = Client(address, timeout=_ANSWER)
    except (OSError, ValueError, TimeoutError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CtinvError(
            f"the scheduler {address} does not answer ({reason}); start dask scheduler"
        ) from error
    try:
        yield client
    finally:
        client.close()


def work(text: str, out: str, shard: list[int], part: list[int], how: dict[str, bool]) -> int:
    """What a worker does: one part of a shard's cases.

    Arguments:
        text: The question, see :meth:`Question.text`.
        out: The run's folder.
        shard: Its number and count.
        part: Number and count of the part of that shard.
        how: ``fail_fast`` and ``restart``.

    Returns:
        How many cases these were.
    """
    from ctinv.invariance.runs.cases import Shard
    from ctinv.invariance.runs.loop import run_cases

    whole, own = Shard(*shard), Shard(*part)
    screen = Screen(quiet=True)
    with screen:
        task = _prepared(text, out, whole, how["fail_fast"], how["restart"])
        mine: list[Case] = list(own.of(task.cases()))
        analyst = Analyst(screen, task, None, cases=mine)
        run_cases(
            mine,
            len(mine),
            Path(out),
            analyst,
            fail_fast=how["fail_fast"],
            again=how["restart"],
            files=task.written.files,
        )
    return len(mine)


@functools.lru_cache(maxsize=1)
def _prepared(text: str, out: str, shard: Shard, fail_fast: bool, restart: bool) -> Task:
    """Opened once by each worker, for all the parts that it gets."""
    screen = Screen(quiet=True)
    return prepare(Question.of(text), Path(out), shard, screen, fail_fast=fail_fast, restart=restart)
