"""Amounts of memory as people write them."""

from __future__ import annotations

import re

from ctinv.adapters.errors import CtinvError

__all__ = ["memory_size"]

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def memory_size(text: str) -> int:
    """Bytes that a text such as ``1.5GB``, ``800M`` or ``2 GiB`` means.

    Raises:
        CtinvError: The text is no amount of memory.

    Example:
        >>> memory_size("1.5GB"), memory_size("2MiB")
        (1500000000, 2097152)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(I?)B?\s*", text.upper())
    if match is None or float(match[1]) <= 0:
        raise CtinvError(f"{text!r} is no amount of memory; write for example 800MB or 1.5GB")
    unit = _UNITS[match[2]]
    if match[3]:
        unit = 2 ** {1: 0, 10**3: 10, 10**6: 20, 10**9: 30, 10**12: 40}[unit]
    return int(float(match[1]) * unit)
