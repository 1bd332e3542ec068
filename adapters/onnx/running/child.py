"""Loads a graph and runs it, in a process of its own that may end over it; ``trial.py`` starts it by path."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np

__all__ = ["NO_MEMORY", "main", "pack"]

NO_MEMORY = 4
"""The exit code that tells that a graph asked for too much memory."""

_LEAST = 4 << 30  # bytes that any graph may have
_EACH_PIXEL = 1 << 16  # and these for each pixel of the images


def pack(
    file: BinaryIO,
    models: Sequence[bytes],
    feeds: Sequence[Mapping[str, np.ndarray]],
    outside: Mapping[str, np.ndarray],
) -> None:
    """Write what the child needs.

    Arguments:
        file: Where to.
        models: Graphs to try; what follows the first that runs is left out.
        feeds: What each is fed, one after another.
        outside: Weights that are not in the graphs; only their types and shapes are told.
    """
    pixels = max(sum(value.size for value in feed.values()) for feed in feeds)
    weights = max(map(len, models)) + sum(value.nbytes for value in outside.values())
    head = {
        "memory": _LEAST + _EACH_PIXEL * pixels + 4 * weights,
        "models": [len(model) for model in models],
        "feeds": [[_about(name, value) for name, value in feed.items()] for feed in feeds],
        "outside": [_about(name, value) for name, value in outside.items()],
    }
    file.write(json.dumps(head).encode() + b"\n")
    for model in models:
        file.write(model)
    for feed in feeds:
        for value in feed.values():
            file.write(np.ascontiguousarray(value).tobytes())


def _about(name: str, value: np.ndarray) -> tuple[str, str, list[int]]:
    return name, value.dtype.name, list(value.shape)


def _limit(most: int) -> None:
    """Take no more memory than this, be the first to go where it lacks, and leave no core file."""
    with contextlib.suppress(ImportError, OSError, ValueError, AttributeError):
        import resource

        most = min(most, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")


def _arrays(file: BinaryIO, about: Sequence[Sequence[Any]]) -> Iterator[tuple[str, np.ndarray]]:
    for name, kind, shape in about:
        dtype = np.dtype(kind)
        raw = file.read(dtype.itemsize * int(np.prod(shape, dtype=np.int64)))
        yield name, np.frombuffer(raw, dtype).reshape(shape)


def main(file: BinaryIO) -> int:
    """Try the graphs of :func:`pack`; whoever waits sees whether this process survives it.

    Returns:
        :data:`NO_MEMORY` where a graph asked for more than it may have, else 0.
    """
    import onnxruntime as ort

    head = json.loads(file.readline())
    _limit(head["memory"])
    models = [file.read(size) for size in head["models"]]
    feeds = [dict(_arrays(file, about)) for about in head["feeds"]]
    outside = [
        (name, ort.OrtValue.ortvalue_from_numpy(np.zeros(shape, kind)))
        for name, kind, shape in head["outside"]
    ]
    for model in models:
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        if outside:
            options.add_external_initializers([name for name, _ in outside], [v for _, v in outside])
        try:
            session = ort.InferenceSession(
                model, options, providers=["CPUExecutionProvider"], enable_fallback=False
            )
            known = {value.name for value in (*session.get_inputs(), *session.get_overridable_initializers())}
            for feed in feeds:
                session.run(None, {name: value for name, value in feed.items() if name in known})
            return 0
        except Exception as error:  # refused, which is for the parent to tell
            if re.search("alloc|would require more than", str(error)):
                return NO_MEMORY
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.stdin.buffer))
