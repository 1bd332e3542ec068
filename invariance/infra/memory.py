"""How much is computed at once: within a memory budget, and less where memory runs out."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

import psutil
import torch
from ctinv.adapters.errors import CtinvError

__all__ = ["Budget", "available_memory", "freed_blocks_kept", "hand_back", "ran_out"]

_SHARE = 0.25  # of the free memory, where the user names no limit

# Parameters of glibc's mallopt, and the largest values that it takes by itself.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_USUAL_MMAP, _LARGE = 2**25, 2**30

T = TypeVar("T")


def available_memory(device: torch.device) -> int:
    """Bytes that are free on a device now."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def ran_out(error: BaseException) -> bool:
    """Whether an error says that there was not enough memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


@contextmanager
def freed_blocks_kept() -> Iterator[None]:
    """While active, the C library keeps freed blocks for the next tensors.

    It hands blocks above 32 MB back to the system at once otherwise, and a map of 32 channels of a
    slice is as large as that: every operation then waits for fresh, zeroed pages. Afterwards they
    are handed back. Only glibc knows of this; elsewhere nothing changes.
    """
    try:
        library = ctypes.CDLL(None)
        library.malloc_trim(0)
        library.mallopt(_MMAP_THRESHOLD, _LARGE)
        library.mallopt(_TRIM_THRESHOLD, _LARGE)
    except (AttributeError, OSError, TypeError):  # another C library
        yield
        return
    try:
        yield
    finally:
        library.mallopt(_MMAP_THRESHOLD, _USUAL_MMAP)
        library.mallopt(_TRIM_THRESHOLD, 2 * _USUAL_MMAP)
        library.malloc_trim(0)


def hand_back() -> None:
    """Hand freed blocks back to the system, between two stages whose tensors are of other sizes.

    Blocks that were kept for one stage seldom fit the next, which would then add to them.
    """
    with suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


class Budget:
    """How many samples are taken at once.

    Arguments:
        most: Never more than this.
        memory: Bytes that may be used; a quarter of what is free where None.
    """

    def __init__(self, most: int, memory: int | None = None) -> None:
        self.batch = max(1, most)
        self._memory = memory

    def fit(self, one: int, device: torch.device) -> None:
        """Lower the batch to what memory allows.

        Arguments:
            one: Bytes that one sample takes.
            device: Where it takes them.
        """
        memory = self._memory if self._memory is not None else int(_SHARE * available_memory(device))
        self.batch = max(1, min(self.batch, memory // max(one, 1)))

    def run(self, work: Callable[[int], T]) -> T:
        """Do something with at most ``batch`` samples at once; halve that where memory runs out.

        Arguments:
            work: Gets the batch; is called again with half of it where it ran out of memory.

        Raises:
            CtinvError: There is not memory enough for a single sample.
        """
        while True:
            try:
                return work(self.batch)
            except (RuntimeError, MemoryError) as error:
                if not ran_out(error):
                    raise
                if self.batch == 1:
                    raise CtinvError(
                        "memory does not suffice for a single sample; free some, or choose a smaller preset"
                    ) from error
            # Outside the handler, so that the traceback's tensors are gone before the next attempt.
            self.batch //= 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
