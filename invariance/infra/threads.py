"""Work divided between threads, whose results come in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["divided"]

T = TypeVar("T")


def divided(
    work: Callable[[int], T], count: int, workers: int, prepare: Callable[[], object] | None = None
) -> Iterator[T]:
    """``work(0)`` to ``work(count - 1)`` in order, whichever thread does them.

    What has not begun is dropped where the caller stops, or one of them fails.

    Arguments:
        work: Makes the result of a number; called by several threads at once.
        count: How many results.
        workers: Threads; with one, the caller's own does it.
        prepare: Called once by each new thread.
    """
    if workers < 2:
        yield from map(work, range(count))
        return
    pool = ThreadPoolExecutor(workers, initializer=prepare)
    try:
        yield from pool.map(work, range(count))
    finally:
        pool.shutdown(cancel_futures=True)
