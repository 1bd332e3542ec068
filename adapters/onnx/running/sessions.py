"""ONNX Runtime sessions: the device that was asked for, exact numbers, clear refusals."""

from __future__ import annotations

import ctypes
import re
import sys
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from ctinv.adapters.errors import DeviceError, ModelError, UnsupportedModelError
from ctinv.adapters.onnx.graph.file import one_line
from ctinv.adapters.onnx.graph.weights import is_external

from .binding import run_bound

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
        has_device = driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
    except (OSError, AttributeError):
        return f"no NVIDIA driver ({library}) is installed"
    return "" if has_device and count.value > 0 else "the NVIDIA driver sees no GPU"


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


class _NoProviderError(DeviceError):
    """CUDA is there but the runtime cannot use it."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class Sessions:
    """Makes and keeps the sessions of one model.

    Arguments:
        where: The model's path, for messages.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: Threads within one operator; 0 leaves it to the runtime.
        weights: Weights that are not in the models that sessions are made of.

    Raises:
        DeviceError: CUDA was asked for and cannot work.
    """

    def __init__(self, where: str, device: str, threads: int, weights: Mapping[str, np.ndarray]) -> None:
        self.where = where
        self.asked = device
        self.threads = threads
        self.weights = weights
        self._weights = {name: ort.OrtValue.ortvalue_from_numpy(value) for name, value in weights.items()}
        self.notice = ""
        self._kind, self._number, reason = choose_device(device)
        if reason:
            self.notice = f"running on the CPU: {reason}"
        if self._kind == "cuda":
            _preload()
        self._made: OrderedDict[tuple[Any, ...], ort.InferenceSession] = OrderedDict()

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
        if len(feeds) > 1:  # every layer needs the image, but not every other input
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

    @property
    def _demanded(self) -> bool:
        return self.asked.startswith("cuda")

    def _options(self, exact: bool, strict: bool) -> ort.SessionOptions:
        options = ort.SessionOptions()
        level = ort.GraphOptimizationLevel
        options.graph_optimization_level = level.ORT_DISABLE_ALL if exact else level.ORT_ENABLE_BASIC
        options.intra_op_num_threads = self.threads
        options.log_severity_level = 4
        if strict:
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        return options

    def _open(self, model: onnx.ModelProto, exact: bool) -> ort.InferenceSession:
        if self._kind == "cpu":
            return self._start(model, exact, [_CPU])
        cuda = (_CUDA, {"device_id": str(self._number), "use_tf32": "0"})
        try:
            # A runtime that may not fall back refuses to be given the CPU as well.
            session = self._start(model, exact, [cuda] if self._demanded else [cuda, _CPU])
        except ModelError as error:
            if self._demanded and "fallback" in str(error) and not self._started(model, exact, cuda):
                raise self._no_provider() from error
            raise
        if _CUDA not in session.get_providers():
            broken = self._no_provider()
            if self._demanded:
                raise broken
            self._kind, self.notice = "cpu", f"running on the CPU: {broken.reason}"
        return session

    def _started(self, model: onnx.ModelProto, exact: bool, cuda: Any) -> bool:
        """Whether CUDA itself works, so that only single operators lack a kernel."""
        return _CUDA in self._start(model, exact, [cuda, _CPU]).get_providers()

    def _start(self, model: onnx.ModelProto, exact: bool, providers: list[Any]) -> ort.InferenceSession:
        options = self._options(exact, strict=_CPU not in providers)
        outside = [t.name for t in model.graph.initializer if t.name in self._weights and is_external(t)]
        if outside:
            options.add_external_initializers(outside, [self._weights[name] for name in outside])
        try:
            # Its fallback would print, and go on elsewhere than asked.
            return ort.InferenceSession(
                model.SerializeToString(), options, providers=providers, enable_fallback=False
            )
        except Exception as error:
            raise self._refusal(model, error) from error

    def _no_provider(self) -> _NoProviderError:
        reason = (
            f"ONNX Runtime {ort.__version__} could not start its CUDA provider; it needs CUDA and cuDNN "
            "libraries of the versions it was built for"
        )
        return _NoProviderError(
            f"device {self.asked!r} was asked for but {reason}; use device cpu or auto", reason
        )

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
