"""Records (frozen dataclasses) as JSON values and back: the one place where they become dictionaries."""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

__all__ = ["NULL", "JsonRecord", "plain", "read"]

NULL = {"null": True}
"""Metadata of a field that is written as null where it is None; others are left out then."""

_T = TypeVar("_T")


class JsonRecord(dict[str, Any]):
    """A frozen dataclass that is also the mapping which JSON holds of it.

    Code reads the fields; ``json.dumps``, printing and those who know ``result.json`` read the mapping.
    """

    def __post_init__(self) -> None:
        self.update(_fields(self))


def plain(value: Any) -> Any:
    """JSON values only: numpy scalars unpacked, not-a-number as None, anything else as text.

    Of a record the fields that are None are left out, unless they have no default or are :data:`NULL`.

    Example:
        >>> plain({"a": np.float32(0.5), "b": (1, float("nan"))})
        {'a': 0.5, 'b': [1, None]}
    """
    if value is None or isinstance(value, bool | str):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _fields(value)
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Sequence | set | frozenset):
        return [plain(v) for v in value]
    return str(value)


def _fields(record: Any) -> dict[str, Any]:
    return {
        field.name: plain(value)
        for field in dataclasses.fields(record)
        if (value := getattr(record, field.name)) is not None
        or field.default is dataclasses.MISSING
        or "null" in field.metadata
    }


def read(kind: type[_T], stored: Mapping[str, Any], *, exact: bool = False) -> _T:
    """The record that :func:`plain` made JSON values of.

    Arguments:
        kind: A dataclass; its fields are records, tuples, mappings of records, or JSON values.
        stored: The values.
        exact: Whether what the record does not know is an error; otherwise it is passed over.

    Raises:
        TypeError: A field is missing or, where that matters, unknown, or a record is no mapping.
    """
    if not isinstance(stored, Mapping):
        raise TypeError(f"{stored!r:.40} is no mapping, as a {kind.__name__} must be")
    hints = get_type_hints(kind)
    if exact and not stored.keys() <= hints.keys():
        raise TypeError(f"{kind.__name__} has no {', '.join(sorted(stored.keys() - hints.keys()))}")
    names = [field.name for field in dataclasses.fields(kind) if field.init and field.name in stored]  # type: ignore[arg-type]
    return kind(**{name: _value(hints[name], stored[name], exact) for name in names})


def _value(hint: Any, value: Any, exact: bool) -> Any:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return None if value is None else _value(inner[0], value, exact)
    if dataclasses.is_dataclass(hint):
        return read(hint, value, exact=exact)  # type: ignore[type-var, arg-type]
    if origin is tuple:
        hints = repeat(inner[0]) if inner[-1] is Ellipsis else inner
        return tuple(_value(h, v, exact) for h, v in zip(hints, value, strict=False))
    if origin is Mapping:
        return {key: _value(inner[1], v, exact) for key, v in value.items()}
    return math.nan if hint is float and value is None else value
