"""Find a layer by what a user calls it: name, alias, end of a name, or ordinal."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Sequence

from ._types import INPUT, OUTPUT, Layer
from .errors import AmbiguousLayerError, LayerError

__all__ = ["ordinal_kind", "resolve"]

_WRAPPERS = ("module", "_orig_mod")
_CALL = re.compile(r"@(-?\d+)")
_ORDINAL = re.compile(r"([a-z_]+?)_?(\d+)")
_KEY = re.compile(r"\[\s*(?:'([^']*)'|\"([^\"]*)\"|([^\]'\"]*))\s*\]")
_KINDS = {
    "batchnorm": ("bn", "norm"),
    "batchnormalization": ("bn", "norm"),
    "conv": ("convolution",),
    "convtranspose": ("tconv", "deconv"),
    "gemm": ("linear", "fc"),
    "linear": ("fc", "dense"),
    "matmul": ("linear", "fc"),
}


def ordinal_kind(op: str) -> str:
    """The word that counts layers of one operator, as ``conv`` in ``conv7``.

    Example:
        >>> ordinal_kind("Conv2d"), ordinal_kind("ParametrizedConvTranspose2d"), ordinal_kind("Relu")
        ('conv', 'convtranspose', 'relu')
    """
    return re.sub(r"[123]d$", "", op.removeprefix("Parametrized").lower())


def resolve(name: str, layers: Sequence[Layer]) -> tuple[Layer, str]:
    """Find the layer that a user means.

    Tried in this order: the layer's own name; one of its aliases; ``name@k``, the k-th call of a
    layer that runs several times (``@-1`` is the last); the end of exactly one dotted name; an
    ordinal such as ``conv7``, the seventh convolution in execution order, only where nothing bears
    that name. The prefixes ``module.`` and ``_orig_mod.`` of wrapped models are ignored.

    Arguments:
        name: What the user wrote; ``@input`` and ``@output`` are reserved.
        layers: All layers, in execution order.

    Returns:
        The layer, and how it was found: ``reserved``, ``name``, ``alias``, ``suffix`` or ``ordinal``.

    Raises:
        LayerError: No layer, or several (:class:`AmbiguousLayerError`), answer to this name, or the one
            that does cannot be read.
    """
    if name in (INPUT, OUTPUT):
        return Layer(name, name[1:], ()), "reserved"
    # A part may be called like a wrapper.
    wanted = name if any(layer.name == name for layer in layers) else _plain(name)
    for how, candidates in (
        ("name", _named(wanted, layers)),
        ("alias", _aliased(wanted, layers)),
        ("suffix", _ending(wanted, layers)),
        ("ordinal", _ordinal(wanted, layers)),
    ):
        if len(candidates) == 1:
            return _readable(name, candidates[0], layers), how
        if candidates:
            raise _ambiguous(name, candidates)
    raise _missing(name, layers)


def _plain(name: str) -> str:
    """The name without wrapper prefixes, its keys quoted alike."""
    dotted = _KEY.sub(lambda m: f"[{_key(m)}]", name.strip())
    return ".".join(part for part in dotted.split(".") if part not in _WRAPPERS)


def _key(match: re.Match[str]) -> str:
    text = next(group for group in match.groups() if group is not None).strip()
    bare = match.group(3) is not None
    return text if bare and re.fullmatch(r"-?\d+", text) else f'"{text}"'


def _stem(name: str) -> str:
    """The module part of a layer's name: no call number, no key."""
    return re.split(r"[@\[]", name, maxsplit=1)[0] if not name.startswith("@") else name


def _without_call(name: str) -> str:
    return _CALL.sub("", name)


def _select(wanted: str, layers: Sequence[Layer], match: Callable[[str, str], bool]) -> list[Layer]:
    """Layers with a name for which ``match(wanted, name)`` holds, after reading a call number."""
    exact = [layer for layer in layers if _any(wanted, layer, match, lambda text: text)]
    if exact:
        return exact
    call = _CALL.search(wanted)
    loose = _without_call(wanted)
    # Several calls, or several tensors, of one module answer to the module's name.
    calls = [layer for layer in layers if _any(loose, layer, match, _without_call)]
    calls = calls or [layer for layer in layers if _any(loose, layer, match, _stem)]
    if call is None or not calls:
        return calls
    numbers = list(dict.fromkeys(_number(layer.name) for layer in calls))
    index = int(call.group(1))
    if not -len(numbers) <= index < len(numbers):
        return []
    return [layer for layer in calls if _number(layer.name) == numbers[index]]


def _any(wanted: str, layer: Layer, match: Callable[[str, str], bool], shorten: Callable[[str], str]) -> bool:
    return any(match(wanted, shorten(text)) for text in (layer.name, *layer.aliases))


def _number(name: str) -> str:
    call = _CALL.search(name)
    return call.group(1) if call else ""


def _named(wanted: str, layers: Sequence[Layer]) -> list[Layer]:
    return [layer for layer in layers if layer.name == wanted]


def _aliased(wanted: str, layers: Sequence[Layer]) -> list[Layer]:
    return _select(wanted, layers, lambda a, b: a == b)


def _ending(wanted: str, layers: Sequence[Layer]) -> list[Layer]:
    return _select(wanted, layers, lambda a, b: b.endswith("." + a))


def _ordinal(wanted: str, layers: Sequence[Layer]) -> list[Layer]:
    parts = _ORDINAL.fullmatch(wanted)
    if parts is None:
        return []
    kind, index = parts.group(1), int(parts.group(2))
    same = [
        layer
        for layer in layers
        if kind in ((own := ordinal_kind(layer.op)), *_KINDS.get(own, ())) and (layer.tappable or layer.shape)
    ]
    return same[index - 1 : index] if index >= 1 else []


def _readable(name: str, layer: Layer, layers: Sequence[Layer]) -> Layer:
    if layer.tappable:
        return layer
    at = layers.index(layer)
    others = [other.name for other in layers if other.tappable]
    order = sorted((abs(i - at), other.name) for i, other in enumerate(layers) if other.tappable)
    near = [other for _, other in order[:2]] or [OUTPUT]
    near.sort(key=lambda text: others.index(text) if text in others else 0)
    reason = layer.note or "it cannot be observed"
    raise LayerError(
        f"layer {name!r} ({layer.op}) cannot be read: {reason}; nearest that can: {', '.join(near)}",
        name,
        near,
    )


def _table(layers: Iterable[Layer]) -> str:
    def show(layer: Layer) -> str:
        size = "x".join(map(str, layer.shape))
        return f"{layer.name} ({size})" if size else layer.name

    return ", ".join(show(layer) for layer in layers)


def _ambiguous(name: str, candidates: Sequence[Layer]) -> AmbiguousLayerError:
    stems = {_stem(layer.name) for layer in candidates}
    if len(stems) > 1:
        what = f"{len(candidates)} layers answer to {name!r}"
    elif len({_number(layer.name) for layer in candidates}) > 1:
        what = f"layer {name!r} runs {len({_number(layer.name) for layer in candidates})} times"
    else:
        what = f"layer {name!r} returns {len(candidates)} tensors"
    return AmbiguousLayerError(
        f"{what}; say which: {_table(candidates[:12])}{', ...' if len(candidates) > 12 else ''}",
        name,
        [layer.name for layer in candidates],
    )


def _missing(name: str, layers: Sequence[Layer]) -> LayerError:
    known: dict[str, str] = {}
    for layer in layers:
        if layer.tappable:
            for text in (layer.name, *layer.aliases, layer.name.rsplit(".", 1)[-1]):
                known.setdefault(text, layer.name)
    close = difflib.get_close_matches(_plain(name), list(known), n=6, cutoff=0.5)
    matches = list(dict.fromkeys(known[text] for text in close))[:4]
    if not matches:
        # An operation without a module (a sum, a concatenation) has no name: offer both ends.
        tappable = [layer.name for layer in layers if layer.tappable]
        matches = [*tappable[:1], *tappable[1:][-1:], OUTPUT]
        hint = f"layers are, for example, {', '.join(matches)}; operations outside modules have no name"
    else:
        hint = f"close: {', '.join(matches)}"
    return LayerError(
        f"no layer is called {name!r}; {hint}; ctinv layers --model ... lists all", name, matches
    )
