"""What a machine can do: its matrix rate and its memory bandwidth."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from .timing import wait

__all__ = ["machine", "operations"]

_SIDES = {"cpu": 2048, "cuda": 8192}  # of the matrices


def _best(work: Callable[[], object], device: torch.device, rounds: int) -> float:
    work()
    times = []
    for _ in range(rounds):
        wait(device)
        start = time.perf_counter()
        work()
        wait(device)
        times.append(time.perf_counter() - start)
    return min(times)


def machine(device: torch.device, dtype: torch.dtype = torch.float32, rounds: int = 5) -> dict[str, Any]:
    """Matrix rate (GFLOP/s) and memory bandwidth (GB/s) as measured here, and what the machine is.

    Arguments:
        device: Where.
        dtype: Of the matrices.
        rounds: The best of so many counts.
    """
    side = _SIDES.get(device.type, 2048)
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    numbers = torch.zeros(16 * side**2 // (4 if device.type == "cuda" else 1), device=device)
    copy = torch.empty_like(numbers)
    with torch.inference_mode():
        product = _best(lambda: torch.mm(a, b), device, rounds)
        moved = _best(lambda: copy.copy_(numbers), device, rounds)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "name": name,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "dtype": str(dtype).removeprefix("torch."),
        "matmul_gflops": 2 * side**3 / product / 1e9,
        "bandwidth_gbytes": 2 * numbers.numel() * 4 / moved / 1e9,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.system(),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            named = next(line for line in lines if line.startswith("model name"))
            return named.partition(":")[2].strip()
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def operations(work: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products and convolutions that something does."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        work()
    return int(counter.get_total_flops())
