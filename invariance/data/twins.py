"""What the pixels of twins say: the same slice, in the same units, at two doses."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from ctinv.adapters.errors import ImageError
from numpy.typing import NDArray

from .io.arrays import array_kind
from .io.series import read_file
from .noise_level import alike, other_units, same_slice, soft_noise
from .pairing import Record

__all__ = ["check_doses", "refuse_hidden_low_dose"]

_NOISIER = 1.25  # noise of one series over that of another at the same places, from which one is low dose
_TWINS = 0.98  # least correlation of twins that names alone suggest; two patients stay below
_UNITS = (0.8, 1.25)  # slope of low over high dose beyond which one of them lost its own
_LEVEL = 100.0  # HU between them, likewise
_NEARER = 0.7  # distance to another slice over that to the twin, from which the twin is not its own
_THUMBNAIL = 64  # pixels


def refuse_hidden_low_dose(records: Sequence[Record], offset: float | None, scale: float | None) -> None:
    """Refuse series that show the same slices with clearly different noise or units, though nothing says so.

    Arguments:
        records: What was found, its doses told or not.
        offset: What the user says must be taken off to come to HU, or None.
        scale: What the user says the values must be multiplied by before, or None.

    Raises:
        ImageError: So it is; the message names the places.
    """
    for first, second, least in _suspects(records):
        try:
            one, two = (read_file(r.file, offset, scale)[0].hu for r in (first, second))
        except ImageError:
            continue
        if one.shape != two.shape or not alike(one, two, least):
            continue
        if (relation := other_units(one, two)) is not None:
            raise ImageError(
                f"{second.file} holds the image of {first.file} in other units: {relation[0]:.4g} times its "
                f"values {relation[1]:+.4g}; one of them lost its rescale slope or intercept (offset); "
                "keep the one in HU alone"
            )
        noises = sorted((soft_noise(one), soft_noise(two)))
        if _may_be_doses(first, second) and noises[1] > _NOISIER * max(noises[0], 0.1):
            places = [r.file.parent for r in (first, second)]
            if places[0] == places[1]:
                places = [r.file for r in (first, second)]
            raise ImageError(
                f"{places[0]} and {places[1]} show the same slices with "
                f"{noises[0]:.0f} and {noises[1]:.0f} HU of noise, as two doses do, and nothing says "
                "which is which; give low=FOLDER,high=FOLDER, or high=FOLDER with full dose alone"
            )


def _may_be_doses(first: Record, second: Record) -> bool:
    """Whether two slices may be of different dose: phases of one series are not, nor what is told alike."""
    return None in (first.dose, second.dose) and (first.series != second.series or not first.series)


def _suspects(records: Sequence[Record]) -> Iterator[tuple[Record, Record, float]]:
    """Of each group of slices that may be twins one pair, with the correlation that twins have."""
    placed: dict[tuple[object, ...], dict[float, list[Record]]] = defaultdict(lambda: defaultdict(list))
    named: dict[tuple[str, ...], dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        if record.height is not None:
            placed[(record.patient, record.key)][round(record.height, 1)].append(record)
        elif array_kind(record.file) is not None:
            folder, name = str(record.file.parent), record.file.name
            named["any folder",][name].append(record)
            if (bare := re.sub(r"[^\W\d_]+(?=[\W_]*\.)", "", name.lower(), count=1)) != name.lower():
                named["one folder", folder][bare].append(record)
    groups = [(places, 0.0) for places in placed.values()] + [(names, _TWINS) for names in named.values()]
    for places, least in groups:
        shared = [here for here in places.values() if len(here) > 1]
        for here in shared[len(shared) // 2 :][:1]:
            other = next((r for r in here if r.series != here[0].series), here[1])
            yield here[0], other, least


def check_doses(low: Sequence[NDArray[np.float32]], high: Sequence[np.ndarray], patient: str) -> None:
    """Make sure that twins show the same slices in the same units and that low dose is the noisier one.

    Arguments:
        low: Low-dose slices of one patient, HU.
        high: Their twins.
        patient: For the refusal.

    Raises:
        ImageError: They do not.
    """
    ratios = []
    for x, y in zip(low, high, strict=True):
        if not same_slice(x, y):
            raise ImageError(
                f"low and high dose of {patient} do not show the same slice; the folders are mixed up"
            )
        _check_units(x, y, patient)
        ratios.append(soft_noise(x) / max(soft_noise(y), 0.1))
    _check_order(low, high, patient)
    middle = float(np.median(ratios))
    if middle < 1.02:
        raise ImageError(
            f"the low dose of {patient} has {middle:.2f} times the noise of its high dose; it must have "
            "more: the doses seem to be the same or exchanged"
        )


def _check_units(x: NDArray[np.float32], y: NDArray[np.float32], patient: str) -> None:
    from scipy import ndimage

    a, b = (ndimage.gaussian_filter(np.asarray(v, np.float32), 2.0).ravel() for v in (x, y))
    if min(float(a.std()), float(b.std())) < 1.0:
        return
    slope = float(a.std() / b.std())
    apart = float(np.median(a - b))
    if float(np.corrcoef(a, b)[0, 1]) > _TWINS and (not _UNITS[0] < slope < _UNITS[1] or abs(apart) > _LEVEL):
        raise ImageError(
            f"low dose of {patient} is {slope:.3g} times its high dose, {apart:+.0f} HU apart: one "
            "of them lost its rescale slope or intercept (offset); export it anew"
        )


def _check_order(low: Sequence[NDArray[np.float32]], high: Sequence[np.ndarray], patient: str) -> None:
    """Refuse slices that lie clearly nearer to twins of others: stacks in another order."""
    if len(low) < 2 or len({x.shape for x in low}) > 1:
        return
    xs, ys = (np.stack([_thumbnail(v) for v in side]) for side in (low, high))
    distances = np.sqrt(np.square(xs[:, None] - ys[None]).mean(-1))
    wrong = int((distances.min(1) < _NEARER * np.diag(distances)).sum())
    if wrong >= max(2, 0.1 * len(low)):
        raise ImageError(
            f"{wrong} of {len(low)} low-dose slices of {patient} show what the twin of another shows: "
            "the slices lie in another order; give twins the same names, or places in their tags"
        )


def _thumbnail(hu: NDArray[np.float32]) -> NDArray[np.float32]:
    from scipy import ndimage

    step = -(-max(hu.shape) // _THUMBNAIL)
    smooth = ndimage.gaussian_filter(np.asarray(hu, np.float32).clip(-1024, 1500), max(2.0, step / 2))
    small: NDArray[np.float32] = smooth[::step, ::step].ravel()
    return small
