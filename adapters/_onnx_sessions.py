"""ONNX Runtime sessions: the device that was asked for, exact numbers, clear refusals."""

from __future__ import annotations

import ctypes
import re
import shutil
import sys
import tempfile
import weakref
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from . import _onnx_file
from ._onnx_binding import run_bound
from ._onnx_file import one_line
from .errors import DeviceError, ModelError, UnsupportedModelError

__all__ = ["Sessions", "choose_device"]

_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"
_KEEP = 16
_DOMAINS = {"", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training", "com.microsoft"}


def _no_cuda() -> str:
    """Why CUDA cannot work here; empty where it may."""
    if _CUDA not in ort.get_available_providers():
        return f"onnxruntime {ort.__version__} as installed has no CUDA support; install onnxruntime-gpu"
    library = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(library)
        count = ctypes.c_int(0)
        found = driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
    except (OSError, AttributeError):
        return f"no NVIDIA driver ({library}) is installed"
    return "" if found and count.value > 0 else "the NVIDIA driver sees no GPU"


def choose_device(asked: str) -> tuple[str, int, str]:
    """Where to run: ``(cpu or cuda, device number, why not CUDA)``.

    Raises:
        DeviceError: CUDA was asked for and cannot work, or the device is unknown.
    """
    match = re.fullmatch(r"(auto|cpu|cuda)(?::(\d+))?", asked)
    if match is None or (match[2] and match[1] != "cuda"):
        raise DeviceError(f"device {asked!r} is not known to ONNX models; give auto, cpu, cuda or cuda:N")
    if match[1] == "cpu":
        return "cpu", 0, ""
    reason = _no_cuda()
    if not reason:
        return "cuda", int(match[2] or 0), ""
    if match[1] == "cuda":
        raise DeviceError(f"device {asked!r} was asked for but {reason}; use device cpu or auto")
    return "cpu", 0, reason


class Sessions:
    """Makes and keeps the sessions of one model.

    Arguments:
        where: The model's path, for messages.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: Threads within one operator; 0 leaves it to the runtime.

    Raises:
        DeviceError: CUDA was asked for and cannot work.
    """

    def __init__(self, where: str, device: str = "auto", threads: int = 0) -> None:
        self.where = where
        self.asked = device
        self.threads = threads
        self.notice = ""
        self._kind, self._number, reason = choose_device(device)
        if reason:
            self.notice = f"running on the CPU: {reason}"
        if self._kind == "cuda":
            _preload()
        self._made: OrderedDict[tuple[Any, ...], ort.InferenceSession] = OrderedDict()
        self._folder: Path | None = None

    @property
    def device(self) -> str:
        """Where sessions really run."""
        return f"cuda:{self._number}" if self._kind == "cuda" else "cpu"

    def get(self, key: tuple[Any, ...], make: Any, *, exact: bool = False) -> ort.InferenceSession:
        """The session of a key, made from ``make()`` the first time.

        Raises:
            ModelError: The runtime refuses the model.
            DeviceError: CUDA was demanded and the session does not run on it.
        """
        key = (*key, exact)
        if key in self._made:
            self._made.move_to_end(key)
        else:
            self._made[key] = self._open(make(), exact)
            while len(self._made) > _KEEP:
                self._made.popitem(last=False)
        return self._made[key]

    def run(
        self, session: ort.InferenceSession, names: Sequence[str], feeds: Mapping[str, Any]
    ) -> list[np.ndarray]:
        """Run a session and check that every tensor came back.

        Arrays, or one tensor of PyTorch for the image, which is then read where it lies.

        Raises:
            ModelError: The runtime failed.
            UnsupportedModelError: One of the tensors did not come back.
        """
        known = {value.name for value in (*session.get_inputs(), *session.get_overridable_initializers())}
        feeds = {name: value for name, value in feeds.items() if name in known}
        try:
            if any(not isinstance(value, np.ndarray) for value in feeds.values()):
                values = run_bound(session, names, feeds)
            else:
                values = session.run(list(names), feeds)
        except Exception as error:
            raise ModelError(
                f"{self.where}: ONNX Runtime {ort.__version__} failed ({one_line(error)})"
            ) from error
        for name, value in zip(names, values, strict=True):
            if not isinstance(value, np.ndarray):
                raise UnsupportedModelError(
                    f"{self.where}: ONNX Runtime returned no tensor for {name!r}; choose another layer"
                )
        return values

    def _options(self, exact: bool) -> ort.SessionOptions:
        options = ort.SessionOptions()
        level = ort.GraphOptimizationLevel
        options.graph_optimization_level = level.ORT_DISABLE_ALL if exact else level.ORT_ENABLE_BASIC
        options.intra_op_num_threads = self.threads
        options.log_severity_level = 4
        if self.asked.startswith("cuda"):
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        return options

    def _open(self, model: onnx.ModelProto, exact: bool) -> ort.InferenceSession:
        providers: list[Any] = [_CPU]
        if self._kind == "cuda":
            providers = [(_CUDA, {"device_id": str(self._number), "use_tf32": "0"}), _CPU]
        try:
            session = ort.InferenceSession(self._source(model), self._options(exact), providers=providers)
        except Exception as error:
            raise self._refusal(model, error) from error
        if self._kind == "cuda" and _CUDA not in session.get_providers():
            reason = (
                f"ONNX Runtime {ort.__version__} could not start its CUDA provider; it needs CUDA and cuDNN "
                "libraries of the versions it was built for"
            )
            if self.asked.startswith("cuda"):
                raise DeviceError(f"device {self.asked!r} was asked for but {reason}; use device cpu or auto")
            self._kind, self.notice = "cpu", f"running on the CPU: {reason}"
        return session

    def _source(self, model: onnx.ModelProto) -> bytes | str:
        if model.ByteSize() < _onnx_file.INLINE_LIMIT:
            return bytes(model.SerializeToString())
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="ctinv-onnx-"))
            weakref.finalize(self, shutil.rmtree, str(self._folder), True)
        target = Path(tempfile.mkdtemp(dir=self._folder)) / "model.onnx"
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        onnx.save_model(
            copy, str(target), save_as_external_data=True, location="weights", size_threshold=1024
        )
        return str(target)

    def _refusal(self, model: onnx.ModelProto, error: Exception) -> ModelError:
        text = one_line(error)
        if self.asked.startswith("cuda") and "fallback" in text.lower():
            return ModelError(
                f"{self.where}: some operators have no CUDA kernel ({text}); use device auto or cpu"
            )
        opsets = ", ".join(f"{o.domain or 'ai.onnx'} {o.version}" for o in model.opset_import)
        foreign = {
            f"{node.domain}::{node.op_type}" for node in model.graph.node if node.domain not in _DOMAINS
        }
        hint = "export the model for an older opset, or update onnxruntime"
        if foreign:
            hint = f"operators outside the standard cannot run: {', '.join(sorted(foreign))}"
        return ModelError(
            f"{self.where}: ONNX Runtime {ort.__version__} cannot load this model of IR version "
            f"{model.ir_version} and opset {opsets}; {hint} ({text})"
        )


def _preload() -> None:
    """Let the runtime find the CUDA libraries that PyTorch or the nvidia wheels brought."""
    preload = getattr(ort, "preload_dlls", None)
    if preload is not None:
        preload()
