"""One number for any value: equal values give equal numbers, in every process."""

from __future__ import annotations

import functools
import hashlib
import types
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import nn

from .code import class_parts, function_parts, is_known
from .state import HOOKS, unwrap

__all__ = ["Digest"]

_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis), range, slice)
_BY_TEXT = (
    torch.dtype,
    torch.layout,
    torch.memory_format,
    torch.Size,
    torch._ops.OpOverload,
    torch._ops.OpOverloadPacket,
    np.ufunc,
)
# Classes of Python itself whose instances hold settings; others (locks, files, loggers) hold none.
_HOLDERS = frozenset(
    [
        "argparse",
        "types",
        "collections",
        "functools",
        "enum",
        "pathlib",
        "decimal",
        "fractions",
        "datetime",
        "array",
        "operator",
    ]
)
# Kinds that have no attributes of their own.
_BARE = frozenset([*_PLAIN, list, tuple, dict, set, frozenset, OrderedDict, np.ndarray])
_FEW = (bool, int, float, str, type(None))


class Digest:
    """Walks a value with everything inside it.

    What holds no numbers for a network is passed over: places of computing, training flags, names of
    files. What cannot be looked into is told in :attr:`opaque`.
    """

    def __init__(self) -> None:
        self.opaque: set[str] = set()
        self._sum = hashlib.sha256()
        self._seen: dict[int, tuple[int, Any]] = {}

    def hexdigest(self) -> str:
        """The number, as text."""
        return self._sum.hexdigest()

    def add(self, label: str, value: Any) -> None:
        """Take in one value under a name."""
        self._text(f"|{label}=")
        if isinstance(value, torch.device):
            return
        if isinstance(value, _PLAIN) and not isinstance(value, Enum):
            self._text(f"{type(value).__name__}:{value!r}")
            self._beside(value)
        elif isinstance(value, np.generic) and value.dtype.kind != "O":
            self._text(f"{value.dtype}:{value!r}")
        elif id(value) in self._seen:
            self._text(f"again:{self._seen[id(value)][0]}")
        else:
            # Kept alive, so that no other value gets its address.
            self._seen[id(value)] = (len(self._seen), value)
            try:
                self._inside(value)
            except RecursionError:
                self.opaque.add("values nested too deeply")

    def _text(self, text: str) -> None:
        self._sum.update(text.encode("utf-8", "backslashreplace"))

    def _inside(self, value: Any) -> None:
        if isinstance(value, nn.Module):
            self._module(unwrap(value))
        elif isinstance(value, torch.Tensor):
            self._tensor(value)
            self._beside(value)
        elif isinstance(value, np.ndarray):
            self._array(value)
            self._beside(value)
        elif isinstance(value, Mapping):
            self._text(f"{type(value).__name__}:{len(value)}")
            for index, (key, item) in enumerate(value.items()):
                self.add(f"key {index}", key)
                self.add("item", item)
            if isinstance(value, defaultdict):
                self.add("default", value.default_factory)
            self._beside(value)
        elif isinstance(value, list | tuple | deque):
            self._text(f"{type(value).__name__}:{len(value)}")
            for index, item in enumerate(value):
                self.add(str(index), item)
            self._beside(value)
        elif isinstance(value, set | frozenset):
            self._text(f"set:{sorted(self._alone(item) for item in value)}")
            self._beside(value)
        elif isinstance(value, (Enum, *_BY_TEXT)):
            self._text(str(value))
        elif callable(value) and not _has_state(value):
            self._callable(value)
        else:
            self._object(value)

    def _beside(self, value: Any) -> None:
        """What a number, container or tensor has beside its items: attributes, and a class of its own."""
        if type(value) in _BARE:
            return
        self._all(class_parts(type(value)))
        own = getattr(value, "__dict__", None)
        if isinstance(own, dict):
            for key in sorted(own, key=str):
                self.add(f"beside {key}", own[key])

    def _alone(self, value: Any) -> str:
        inner = Digest()
        inner.add("", value)
        self.opaque |= inner.opaque
        return inner.hexdigest()

    def _all(self, parts: Iterator[tuple[str, Any]]) -> None:
        for label, value in parts:
            self.add(label, value)

    def _tensor(self, tensor: torch.Tensor) -> None:
        self._text(f"{tuple(tensor.shape)}{tensor.dtype}{tensor.layout}")
        tensor = tensor.detach()
        if tensor.device.type == "meta":
            return
        if hasattr(type(tensor), "__tensor_flatten__"):
            wrapped: Any = tensor
            names, about = wrapped.__tensor_flatten__()
            self.add("about", about)
            for name in names:
                self.add(name, getattr(tensor, name))
        elif tensor.is_quantized:
            self.add("integers", tensor.int_repr())
            if tensor.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
                self.add("scale", (tensor.q_scale(), tensor.q_zero_point()))
            else:
                self.add("scales", tensor.q_per_channel_scales())
                self.add("zeros", tensor.q_per_channel_zero_points())
        elif tensor.is_nested:
            self.add("nested", list(tensor.unbind()))
        elif tensor.layout != torch.strided:
            self.add("dense", tensor.to_dense())
        else:
            plain = tensor.resolve_conj().resolve_neg().to("cpu").contiguous()
            self._sum.update(plain.flatten().view(torch.uint8).numpy().tobytes())

    def _array(self, array: np.ndarray) -> None:
        self._text(f"{array.shape}{array.dtype}")
        if array.dtype.kind == "O":
            self.add("objects", array.ravel().tolist())
        else:
            self._sum.update(np.ascontiguousarray(array).tobytes())

    def _module(self, module: nn.Module) -> None:
        cls = type(module)
        self._text(f"{cls.__module__}.{cls.__qualname__}")
        if isinstance(module, torch.jit.ScriptModule):
            self.add("script", str(module.code) if hasattr(module, "code") else "")
            self.add("state", dict(module.state_dict()))
            self.opaque.add("compiled code")
            return
        self._all(class_parts(cls))
        own = vars(module)
        for key in sorted(own.keys() - HOOKS):
            value = own[key]
            if key in ("_parameters", "_buffers", "_modules"):
                for name, item in value.items():
                    self.add(f"{key} {name}", unwrap(item) if isinstance(item, nn.Module) else item)
            else:
                self.add(key, value)
        for key in ("_forward_pre_hooks", "_forward_hooks"):
            for hook in (own.get(key) or {}).values():
                self._hook(hook)

    def _hook(self, hook: Any) -> None:
        """The code of a hook and its settings; what a hook gathers is not part of the network."""
        self.opaque.add("hooks")
        function = getattr(hook, "__func__", hook)
        held = getattr(hook, "__self__", hook)
        if isinstance(function, types.FunctionType):
            for label, value in function_parts(function):
                if isinstance(value, (*_FEW, bytes, tuple)):
                    self.add(label, value)
        if not isinstance(held, types.FunctionType | types.ModuleType | nn.Module):
            self._all(class_parts(type(held)))
            for key, value in sorted(getattr(held, "__dict__", {}).items()):
                if isinstance(value, _FEW):
                    self.add(key, value)

    def _callable(self, value: Any) -> None:
        if isinstance(value, functools.partial):
            self.add("partial", value.func)
            self.add("arguments", value.args)
            self.add("keywords", value.keywords)
        elif isinstance(value, types.MethodType):
            self.add("method", value.__func__)
            self.add("of", value.__self__)
        elif (inner := getattr(value, "_torchdynamo_orig_callable", None)) is not None:
            self.add("compiled", inner)
        elif (inner := getattr(value, "__wrapped__", None)) is not None:
            self.add("wrapped", inner)
            if isinstance(value, types.FunctionType) and not is_known(value.__module__):
                self._all(function_parts(value))
        elif isinstance(value, torch.jit.ScriptFunction):
            self.add("script", str(value.code))
        else:
            module = getattr(value, "__module__", None)
            self._text(f"{module}.{getattr(value, '__qualname__', str(type(value)))}")
            if isinstance(value, types.FunctionType) and not is_known(module):
                self._all(function_parts(value))
            elif isinstance(value, type):
                self._all(class_parts(value))
            elif not isinstance(owner := getattr(value, "__self__", None), types.ModuleType | None):
                self.add("of", owner)  # a method written in C

    def _object(self, value: Any) -> None:
        cls = type(value)
        self._text(f"{cls.__module__}.{cls.__qualname__}")
        if isinstance(value, types.ModuleType):
            self._text(value.__name__)
            return
        home = cls.__module__.partition(".")[0]
        if is_known(home) and home not in ("torch", "numpy", "scipy", *_HOLDERS):
            self.opaque.add(cls.__qualname__)
            return
        self._all(class_parts(cls))
        state = _state(value)
        if state is None:
            self.opaque.add(cls.__qualname__)
        else:
            for key in sorted(state):
                self.add(key, state[key])


def _has_state(value: Any) -> bool:
    """Whether something that can be called is rather an object with attributes of its own."""
    functions = (
        *(types.FunctionType, types.MethodType, types.BuiltinFunctionType, types.MethodWrapperType),
        *(types.WrapperDescriptorType, types.MethodDescriptorType, type, functools.partial),
        torch.jit.ScriptFunction,
    )
    return not isinstance(value, functions) and not hasattr(value, "__wrapped__")


def _state(value: Any) -> dict[str, Any] | None:
    """The attributes of an object; None where it shows none."""
    if isinstance(value, torch.Generator | np.random.Generator | np.random.RandomState):
        return None
    state: dict[str, Any] = dict(getattr(value, "__dict__", {}))
    for ancestor in type(value).__mro__:
        slots = vars(ancestor).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                state[name] = getattr(value, name)
    if state or hasattr(value, "__dict__"):
        return state
    for show in (_packed, _made_from):
        try:
            kept = show(value)
        except Exception:  # whatever foreign code raises, it does not show its state
            continue
        if kept is not None:
            return {"state": kept}
    return None


def _packed(value: Any) -> Any:
    """The tensors inside packed weights of quantised layers."""
    return value.__getstate__() if isinstance(value, torch.ScriptObject) else None


def _made_from(value: Any) -> Any:
    """What an object written in C says it would be made from again; nothing is made."""
    reduced = value.__reduce_ex__(2)
    return list(reduced[1:3]) if isinstance(reduced, tuple) else reduced
