"""Programs timed in turns, so that they meet the same machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch

__all__ = ["in_turns", "middle", "wait"]


def wait(device: torch.device) -> None:
    """Until a device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def in_turns(
    programs: Mapping[str, Callable[[], object]], rounds: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of every program in every round, after one round that does not count.

    Every other round goes backwards, so that none always follows the same one.
    """
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for turn in range(rounds + 1):
        names = list(programs) if turn % 2 else list(programs)[::-1]
        for name in names:
            wait(device)
            start = time.perf_counter()
            programs[name]()
            wait(device)
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def middle(seconds: list[float]) -> float:
    """Their median."""
    return statistics.median(seconds)
