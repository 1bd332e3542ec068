"""The laws of adapters, each as a function that raises AssertionError where it is broken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from ctinv.adapters.base import INPUT, OUTPUT
from ctinv.adapters.errors import CtinvError, ImageError, LayerError, UnsupportedModelError

from .subject import InapplicableError, Subject, state_of

__all__ = ["CHECKS", "Check"]

Check = Callable[[Subject], None]

_SAME = 1e-3  # of the largest value
_SIZES = ((64, 64), (96, 80), (61, 67))


def _equal(a: np.ndarray, b: np.ndarray, what: str) -> None:
    assert a.shape == b.shape, f"{what}: shapes are {a.shape} and {b.shape}"
    span = float(np.abs(b).max(initial=0.0)) or 1.0
    apart = float(np.abs(a.astype(np.float64) - b).max(initial=0.0))
    assert apart <= _SAME * span, f"{what}: {apart:.3g} apart, of values up to {span:.3g}"


def layers_are_listed(subject: Subject) -> None:
    """Names are unique, shapes are numbers, and every name and alias leads to its layer."""
    layers = subject.denoiser.layers
    names = [layer.name for layer in layers]
    assert subject.names, "no layer can be read"
    assert len(set(names)) == len(names), "two layers have one name"
    assert not {INPUT, OUTPUT} & set(names), f"{INPUT} and {OUTPUT} are reserved"
    for layer in layers:
        assert layer.op, f"{layer.name} has no operator"
        assert all(isinstance(size, int) and size > 0 for size in layer.shape), f"{layer.name}: {layer.shape}"
        for name in (layer.name, *layer.aliases) if layer.tappable else ():
            assert subject.denoiser.resolve(name).name == layer.name, f"{name} does not lead to {layer.name}"
        assert layer.tappable or layer.note, f"{layer.name} cannot be read, and no note says why"


def readings_have_form(subject: Subject) -> None:
    """Float32 of the kind that was given, an axis for images, and the shape that is listed."""
    import torch

    denoiser, x = subject.denoiser, _resized(subject.images, subject.denoiser.probe_size)
    for name in [*subject.names, INPUT, OUTPUT]:
        z, t = denoiser.features(x, name), denoiser.features(torch.from_numpy(x), name)
        assert isinstance(z, np.ndarray), f"{name}: arrays come back as {type(z).__name__}"
        assert isinstance(t, torch.Tensor), f"{name}: tensors come back as {type(t).__name__}"
        assert z.dtype == np.float32, f"{name}: {z.dtype}, not float32"
        assert t.dtype == torch.float32, f"{name}: {t.dtype}, not float32"
        assert z.ndim, f"{name} has no axes"
        assert not len(z) % len(x), f"{name}: {len(z)} rows for {len(x)} images"
        shape = denoiser.resolve(name).shape
        if shape and len(z) == len(x):
            assert z.shape[1:] == tuple(shape), f"{name}: {z.shape[1:]} where {tuple(shape)} is listed"


def readings_equal_the_reference(subject: Subject) -> None:
    """Every layer is what an independent capture says it is."""
    expected = _expected(subject)
    known = [name for name in subject.names if name in expected]
    assert known, "the reference knows none of the layers"
    for name in known:
        _equal(subject.read(subject.images, name), np.asarray(expected[name]), name)


def output_is_in_hounsfield_units(subject: Subject) -> None:
    """``f(x)`` is the network's output in HU, or ``x`` less the noise that it returns."""
    expected, denoiser, x = _expected(subject), subject.denoiser, subject.images
    if OUTPUT not in expected or denoiser.intensity is None:
        raise InapplicableError(f"the reference does not know {OUTPUT}")
    raw, crop = np.asarray(expected[OUTPUT]), denoiser.crop
    inner = x[..., crop : x.shape[-2] - crop, crop : x.shape[-1] - crop]
    y = denoiser.denoise(x)
    image, noise = denoiser.intensity.to_hu(raw), inner - raw * denoiser.intensity.scale
    _equal(y, image if denoiser.output == "image" else noise, "f(x)")
    assert np.array_equal(denoiser.features(x, INPUT), x), f"{INPUT} is not x"


def layers_read_together_equal_those_read_alone(subject: Subject) -> None:
    """Several layers in one call are those of one call each."""
    names = [*subject.names, OUTPUT]
    together = subject.denoiser.features(subject.images, names)
    assert list(together) == names, "the names that were asked for do not come back in order"
    for name in names:
        _equal(np.asarray(together[name]), subject.read(subject.images, name), name)


def images_of_a_batch_are_independent(subject: Subject) -> None:
    """An image is read alike alone, beside others, in any order, in batches of any size."""
    x = subject.images.copy()
    x[0] *= 3.0
    for name in [*subject.names, OUTPUT]:
        whole = subject.read(x, name)
        rows = len(whole) // len(x)
        for k in range(len(x)):
            _equal(whole[k * rows : (k + 1) * rows], subject.read(x[k : k + 1], name), f"{name}, image {k}")
        if rows == 1:
            _equal(subject.read(x, name, batch_size=1), whole, f"{name}, batches of one")
            _equal(subject.read(x[::-1].copy(), name), whole[::-1], f"{name}, in reverse")


def runs_are_repeatable(subject: Subject) -> None:
    """Two readings of one image are the same, whatever was read between them."""
    first = {name: subject.read(subject.images, name) for name in [*subject.names, OUTPUT]}
    subject.denoiser.denoise(subject.images[::-1].copy())
    for name, z in first.items():
        _equal(subject.read(subject.images, name), z, name)


def readings_belong_to_the_caller(subject: Subject) -> None:
    """Neither does a reading change the image, nor does an edit of a reading reach anything."""
    x = subject.images.copy()
    for name in [*subject.names, INPUT, OUTPUT]:
        z = subject.denoiser.features(x, name)
        kept = z.copy()
        subject.denoiser.denoise(x + 1)
        assert np.array_equal(z, kept, equal_nan=True), f"{name}: a later run changes what was read"
        z[...] = 1e6
        assert np.array_equal(x, subject.images), f"{name}: the image is changed"
        _equal(subject.read(x, name), kept, f"{name}, after an edit of what was read")


def model_is_left_unchanged(subject: Subject) -> None:
    """Weights, buffers, flags and hooks are afterwards what they were, and so is the fingerprint."""
    denoiser, x = subject.denoiser, subject.images
    before = denoiser.fingerprint
    for name in [*subject.names, OUTPUT]:
        denoiser.features(x, name)
    assert state_of(subject.module) == list(subject.before), (
        "weights, buffers, training flags or hooks are changed"
    )
    assert denoiser.fingerprint == before, "the fingerprint changes as the model runs"


def fingerprint_follows_the_weights(subject: Subject) -> None:
    """Other weights, another fingerprint; the same weights again, the same."""
    import torch

    denoiser, module = subject.denoiser, subject.module
    assert isinstance(denoiser.fingerprint, str), "the fingerprint is no text"
    assert denoiser.fingerprint == denoiser.fingerprint, "the fingerprint is another each time"
    weights = [] if module is None else [p for p in module.parameters() if p.numel()]
    if not weights:
        raise InapplicableError("there are no weights to change")
    before, kept = denoiser.fingerprint, weights[-1].detach().clone()
    with torch.no_grad():
        weights[-1].add_(1.0)
        changed = denoiser.fingerprint
        weights[-1].copy_(kept)
    assert changed != before, "other weights have the same fingerprint"
    assert denoiser.fingerprint == before, "the same weights have another fingerprint"


def sizes_are_kept_or_refused(subject: Subject) -> None:
    """Images of any size come back in their own, less the stated crop; or an error says why not."""
    for size in _SIZES:
        x = _resized(subject.images[:2], size)
        try:
            y = subject.denoiser.denoise(x)
        except CtinvError:
            continue
        crop = subject.denoiser.crop
        assert y.shape == (2, 1, size[0] - 2 * crop, size[1] - 2 * crop), f"{size} comes back as {y.shape}"


def errors_are_of_the_family(subject: Subject) -> None:
    """What cannot be done raises the error that says so."""
    denoiser, x = subject.denoiser, subject.images
    name = subject.names[0]
    wrong: dict[str, tuple[type[Exception], Callable[[], Any]]] = {
        "an unknown layer": (LayerError, lambda: denoiser.features(x, "no such layer")),
        "values that are not finite": (ImageError, lambda: denoiser.denoise(x * np.nan)),
        "whole numbers": (ImageError, lambda: denoiser.denoise(x.astype(np.int16))),
        "a single slice": (ImageError, lambda: denoiser.denoise(x[0, 0])),
        "two channels": (ImageError, lambda: denoiser.features(np.concatenate([x, x], 1), name)),
    }
    for what, (kind, call) in wrong.items():
        try:
            call()
        except kind as error:
            if not str(error).strip():
                raise AssertionError(f"{what}: the error says nothing") from error
        except Exception as error:  # the wrong kind is what is looked for
            raise AssertionError(f"{what} raises {type(error).__name__}, not {kind.__name__}") from error
        else:
            raise AssertionError(f"{what} raises nothing")


def gradients_are_true(subject: Subject) -> None:
    """Gradients by the image are what differences say, and can be differentiated; or they are refused."""
    import torch

    denoiser = subject.denoiser
    x = torch.from_numpy(subject.images[:1].copy()).requires_grad_()
    name = subject.names[-1]
    if not denoiser.differentiable:
        try:
            denoiser.features(x, name, grad=True)
        except UnsupportedModelError:
            return
        raise AssertionError("gradients of a model without gradients are not refused")
    z = denoiser.features(x, name, grad=True)
    assert z.requires_grad, f"{name} does not depend on the image"
    generator = torch.Generator().manual_seed(0)
    direction, weight = torch.randn(x.shape, generator=generator), torch.randn(z.shape, generator=generator)
    (gradient,) = torch.autograd.grad((z * weight).sum(), x, create_graph=True)
    slope = float((gradient.detach() * direction).sum())
    with torch.no_grad():
        ends = [denoiser.features(x.detach() + s * direction, name) for s in (0.5, -0.5)]
        difference = float(((ends[0] - ends[1]).double() * weight).sum())
    size = float(gradient.detach().norm() * direction.norm())
    assert abs(slope - difference) <= 0.05 * size, (
        f"{name}: slope {slope:.4g}, by differences {difference:.4g}"
    )


def _expected(subject: Subject) -> dict[str, Any]:
    if subject.reference is None or subject.denoiser.intensity is None:
        raise InapplicableError("there is no reference; give reference=")
    return dict(subject.reference(subject.denoiser.intensity.to_model(subject.images.copy())))


def _resized(x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Images of another size, cut or repeated."""
    rows, columns = (np.arange(wanted) % own for wanted, own in zip(size, x.shape[-2:], strict=True))
    return np.ascontiguousarray(x[:, :, rows][:, :, :, columns])


CHECKS: tuple[Check, ...] = (
    layers_are_listed,
    readings_have_form,
    readings_equal_the_reference,
    output_is_in_hounsfield_units,
    layers_read_together_equal_those_read_alone,
    images_of_a_batch_are_independent,
    runs_are_repeatable,
    readings_belong_to_the_caller,
    model_is_left_unchanged,
    fingerprint_follows_the_weights,
    sizes_are_kept_or_refused,
    errors_are_of_the_family,
    gradients_are_true,
)
"""Every check, in the order in which they run."""
