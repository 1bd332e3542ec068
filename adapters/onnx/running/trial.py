"""The first load of an unknown file happens in another process: some graphs end the one that loads them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import onnxruntime as ort
from ctinv.adapters.errors import ModelError
from ctinv.adapters.onnx.graph.prune import Wanted, prefix
from ctinv.adapters.places import cache_root

from .child import NO_MEMORY, pack
from .runner import Runner

__all__ = ["TRUST", "try_first"]

TRUST = "CTINV_TRUST_MODELS"
"""Where the environment has this, files are loaded without a trial."""

_ROOM = "models"  # of the cache
_SECONDS = 300.0
_SIDE = 64
_SURVIVED = "survived"
_CHILD = Path(__file__).with_name("child.py")


def try_first(
    path: Path,
    runner: Runner,
    output: Wanted,
    wanted: Iterable[Wanted],
    fingerprint: str,
    notify: Callable[[str], None],
) -> None:
    """Load a file's graph and run it once in another process, unless that is known to go well.

    What became of it is kept in the cache by the file's hash, so that a file is tried once. The child
    computes on the CPU, on one small image and on two; what ends the process only on larger images, or
    only on a GPU, is not found.

    Arguments:
        path: The file.
        runner: Runs its graph here, later.
        output: The tensor that is the image.
        wanted: All tensors that may be asked for.
        fingerprint: Of the graph and all its weights.
        notify: Told where no other process can be started; the file is then loaded without.

    Raises:
        ModelError: The other process was ended by it, or did not come to an end.
    """
    if os.environ.get(TRUST) or getattr(sys, "frozen", False):
        return
    key = _key(path, fingerprint)
    fate = _remembered(key)
    if fate is None:
        try:
            fate, lasting = _tried(runner, output, tuple(wanted))
        except OSError as error:
            reason = (error.strerror or type(error).__name__).lower()
            notify(
                f"the file could not be tried in a process of its own ({reason}); it is loaded all the same"
            )
            return
        if lasting:
            _remember(key, fate)
    if fate != _SURVIVED:
        raise ModelError(
            f"{path}: in a trial, ONNX Runtime {ort.__version__} {fate} on this model; export it again, or "
            f"try another onnxruntime ({TRUST}=1 loads it without a trial)"
        )


def _tried(runner: Runner, output: Wanted, wanted: tuple[Wanted, ...]) -> tuple[str, bool]:
    """What became of the other process, and whether it would again."""
    models = [prefix(runner.trace, wants).SerializeToString() for wants in (wanted, (output,)) if wants]
    feeds = [runner.inputs.feeds(image) for image in _images(runner)]
    with tempfile.TemporaryFile() as file:
        pack(file, models, feeds, runner.outside)
        file.seek(0)
        words = [sys.executable, "-P", str(_CHILD)]
        child = subprocess.Popen(
            words, stdin=file, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=_environment()
        )
        try:
            code = child.wait(_SECONDS)
        except subprocess.TimeoutExpired:
            return f"did not end within {_SECONDS:.0f} s", False
        finally:
            child.kill()
            child.wait()
    if code in (0, 1):  # 1: an error of Python's own, which does no harm
        return _SURVIVED, code == 0
    if code == NO_MEMORY:
        return "asks for more memory than a network takes for so small an image", False
    if code == -signal.SIGKILL:
        return "was killed, perhaps for want of memory,", False
    return f"ends its process ({_told(code)})", True


def _told(code: int) -> str:
    """An exit code in words.

    Example:
        >>> _told(-11), _told(-100), _told(3)
        ('SIGSEGV', 'exit code -100', 'exit code 3')
    """
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"exit code {code}"


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def _images(runner: Runner) -> list[np.ndarray]:
    """One image and, where the graph takes any number, two; in the graph's own axis order."""
    height, width = (size or _SIDE for size in runner.size)
    rng = np.random.default_rng(0)
    images = []
    for count in (runner.batch,) if runner.batch else (1, 2):
        x = rng.random((count, runner.channels or 1, height, width), dtype=np.float32)
        image = x.transpose(0, 2, 3, 1) if runner.last else x
        images.append(np.ascontiguousarray(image, dtype=runner.inputs.dtype))
    return images


def _key(path: Path, fingerprint: str) -> str:
    digest = hashlib.sha256(f"{fingerprint} {ort.__version__} {platform.platform()} ".encode())
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _remembered(key: str) -> str | None:
    try:
        return (cache_root() / _ROOM / key).read_text(encoding="utf-8").strip() or None
    except (OSError, ValueError):
        return None


def _remember(key: str, fate: str) -> None:
    """Keep what became of it; a cache that cannot be written costs another trial next time."""
    folder = cache_root() / _ROOM
    draft = folder / f".{key}.{secrets.token_hex(4)}.part"
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            draft.touch(0o600)
            draft.write_text(f"{fate}\n", encoding="utf-8")
            os.replace(draft, folder / key)
        finally:
            draft.unlink(missing_ok=True)
