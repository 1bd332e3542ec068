"""What the code of functions and classes is made of, as far as it decides numbers."""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Iterator
from typing import Any, NamedTuple

__all__ = ["class_parts", "code_parts", "function_parts", "is_known"]

Part = tuple[str, Any]

# Libraries whose own code is taken to compute what its name says.
_KNOWN = frozenset(sys.stdlib_module_names) | {"torch", "numpy", "scipy"}


class _Item(NamedTuple):
    item: int


# Places of attributes within an object, and of items within a named tuple.
_SLOTS = (
    types.MemberDescriptorType,
    types.GetSetDescriptorType,
    type(vars(_Item)["item"]),
)
_PLAIN = (bool, int, float, complex, str, bytes, type(None))
# Made anew by every Python, or no part of what a class computes.
_ASIDE = frozenset(
    [
        "__module__",
        "__qualname__",
        "__doc__",
        "__dict__",
        "__weakref__",
        "__annotations__",
        "__firstlineno__",
        "__slots__",
        "__static_attributes__",
        "__parameters__",
        "__orig_bases__",
        "__abstractmethods__",
        "_abc_impl",
        "__match_args__",
        "__annotate__",
        "__annotate_func__",
        "__annotations_cache__",
        "__dataclass_fields__",
        "__dataclass_params__",
    ]
)


def is_known(name: str | None) -> bool:
    """Whether a module belongs to Python or to one of the libraries that need not be looked into."""
    return name is None or name.partition(".")[0] in _KNOWN


def code_parts(code: types.CodeType) -> Iterator[Part]:
    """Instructions, constants and names, without places in files."""
    yield "code", code.co_code
    yield "names", (*code.co_names, *code.co_varnames, *code.co_freevars)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from code_parts(constant)
        elif isinstance(constant, frozenset):
            yield "constant", sorted(map(repr, constant))
        else:
            yield "constant", constant


def function_parts(function: types.FunctionType) -> Iterator[Part]:
    """Code, defaults, enclosed values, own attributes, and the globals that are named in the code."""
    yield from code_parts(function.__code__)
    yield "defaults", function.__defaults__
    yield "keywords", function.__kwdefaults__
    yield "attributes", {key: value for key, value in vars(function).items() if key != "__wrapped__"}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        # A method that says super() encloses its own class, which is looked at by itself.
        if name != "__class__":
            try:
                yield f"enclosed {name}", cell.cell_contents
            except ValueError:
                yield f"enclosed {name}", None
    names = _names(function.__code__)
    for name in sorted(names & function.__globals__.keys()):
        value = function.__globals__[name]
        if isinstance(value, types.ModuleType):
            yield from _of_module(value, names)
        elif _counts(value, function.__globals__):
            yield f"global {name}", value


def class_parts(cls: type) -> Iterator[Part]:
    """What a class and those that it builds upon say, known libraries left out."""
    for ancestor in cls.__mro__:
        if is_known(ancestor.__module__):
            continue
        yield "class", ancestor.__qualname__
        for key, value in sorted(vars(ancestor).items()):
            if key in _ASIDE:
                continue
            if isinstance(value, staticmethod | classmethod):
                yield key, value.__func__
            elif isinstance(value, property):
                yield key, value.fget
            elif isinstance(value, functools.cached_property):
                yield key, value.func
            elif not isinstance(value, _SLOTS):
                yield key, value


def _names(code: types.CodeType) -> set[str]:
    inner = [_names(constant) for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return set(code.co_names).union(*inner)


def _of_module(module: types.ModuleType, names: set[str]) -> Iterator[Part]:
    if is_known(module.__name__) or _is_installed(vars(module)):
        return
    for name in sorted(names & vars(module).keys()):
        value = vars(module)[name]
        if not isinstance(value, types.ModuleType):
            yield f"{module.__name__}.{name}", value


def _counts(value: Any, names: dict[str, Any]) -> bool:
    """Whether a global decides numbers; of installed packages only constants and their own functions do.

    What else such packages keep are often memories of what they did before.
    """
    if not _is_installed(names):
        return True
    home = str(names.get("__name__", "")).partition(".")[0]
    if isinstance(value, types.FunctionType | type):
        return (value.__module__ or "").partition(".")[0] == home
    return isinstance(value, _PLAIN) or (
        isinstance(value, tuple) and all(isinstance(item, _PLAIN) for item in value)
    )


def _is_installed(names: dict[str, Any]) -> bool:
    file = str(names.get("__file__") or "")
    return "site-packages" in file or "dist-packages" in file
