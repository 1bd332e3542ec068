"""The two ends of a layer's spectrum: the changes that it sees least and most for their size.

The gain of a change ``d`` is ``|J d| / |d|`` over the same for noise: a change of gain 1 is seen as
noise of its size is, one of gain 0.03 a thirtieth as well. The changes of least and largest gain are
singular vectors of the layer's Jacobian ``J``. They come from Lanczos' recurrence with full
orthogonalisation (B. N. Parlett, The symmetric eigenvalue problem, SIAM 1998,
https://doi.org/10.1137/1.9781611971163), all of them from one run; where that ends early, because gains
are alike, from further runs orthogonal to what was found. The largest gains converge fast. The least do
not where many are nearly alike: what is found is then one change among many that are hidden as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from ctinv.adapters._types import Image, Progress
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.infra.randomness import Purpose, generator
from torch import Tensor

from .jacobian import Linearised
from .refine import RHO, linearised_near
from .sight import Mask, Sight

__all__ = ["Extreme", "Extremes", "curvature", "extremes", "radius"]

_NOTHING = 1e-5  # of a vector, from which on its rest is rounding
_FARTHEST = 1000.0  # HU RMS; no change of a slice is larger
_NEAREST = 1e-4  # HU RMS; what is visible there is never hidden
_HALVINGS = 6
_NEAR_ENOUGH = 0.01  # of a radius
_CHECK = 8  # steps between looks at whether the gains stand still
_STILL = 0.002  # share by which they then change at most
_UNSEEN = 0.1  # of the noise ratio that counts as hidden: gains below need not be known better

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Extreme:
    """One change at an end of the spectrum.

    Arguments:
        change: (H, W), 1 HU RMS inside the region and zero outside.
        gain: How well the layer sees it, over how well it sees noise.
        error: How far it is from a singular vector, as a share of the largest gain squared; 0 is exact.
    """

    change: Image
    gain: float
    error: float


@dataclass(frozen=True, eq=False)
class Extremes:
    """Both ends of a layer's spectrum.

    Arguments:
        hidden: The changes of least gain, rising.
        amplified: The changes of largest gain, falling.
        noise_gain: How far noise moves the layer per HU, that is ``|J n| / |n|``.
        steps: Steps of the longest run.
    """

    hidden: tuple[Extreme, ...]
    amplified: tuple[Extreme, ...]
    noise_gain: float
    steps: int


class _Restricted:
    """``J^T J`` on the changes inside a region, as vectors of its pixels.

    Arguments:
        jacobian: The layer's, at a part of the slice.
        region: The region within that part.
    """

    def __init__(self, jacobian: Linearised, region: Mask) -> None:
        self._jacobian, self._where = jacobian, torch.from_numpy(region)
        self.unknowns = int(region.sum())

    def image(self, v: Tensor) -> Tensor:
        out = torch.zeros(1, 1, *self._where.shape)
        out[0, 0][self._where] = v
        return out

    def seen(self, v: Tensor) -> Tensor:
        return self._jacobian.forward(self.image(v)).flatten()

    def gram(self, v: Tensor) -> Tensor:
        return self._jacobian.adjoint(self._jacobian.forward(self.image(v)))[0, 0][self._where]


def extremes(
    sight: Sight,
    region: Mask | None = None,
    *,
    count: int = 3,
    steps: int = 48,
    seed: int = 0,
    progress: Progress | None = None,
) -> Extremes:
    """The changes of a region that a layer sees least and most for their size.

    Arguments:
        sight: The layer at a slice, differentiable.
        region: Where changes may be, (H, W) of the extended slice; the body where None.
        count: How many at each end.
        steps: Lanczos steps of each run; each costs about two passes through the layer.
        seed: Draws the starts.
        progress: Called with ("spectrum", done, total).

    Raises:
        UnsupportedModelError: The denoiser has no gradients.
        CtinvError: The region is empty, or fewer than one change is asked for.
    """
    inside = sight.body if region is None else region
    if inside.shape != sight.x.shape:
        raise CtinvError(f"the region is {inside.shape}, the slice {sight.x.shape}; they must agree")
    if count < 1 or steps < 2:
        raise CtinvError(f"{count} changes by {steps} steps cannot be found; ask for one or more, by 2 steps")
    base = torch.from_numpy(np.ascontiguousarray(sight.x))[None, None]
    jacobian, part = linearised_near(sight.observer, base, inside[None].astype(np.float32))
    if not inside[part[2:]].any():
        raise CtinvError("the region holds no pixel of the body; give one that does")
    operator = _Restricted(jacobian, inside[part[2:]])
    noise = torch.from_numpy(sight.noise[:, *part[2:]])
    gain = _noise_gain(operator, noise, torch.from_numpy(inside[part[2:]]))
    changes, longest = _search(operator, count, steps, gain, seed, progress)
    rotated, values = _rotated(operator, changes)
    top = max(float(values.max()), 1e-30)

    def extreme(row: int) -> Extreme:
        v = rotated[row]
        v = v * (1.0 if float(v[v.abs().argmax()]) > 0 else -1.0)  # its sign is free
        error = float((operator.gram(v) - float(values[row]) * v).norm()) / top
        change = np.zeros(sight.x.shape, dtype=np.float32)
        change[part[2:]] = operator.image(v)[0, 0].numpy() * np.sqrt(operator.unknowns)
        return Extreme(change, _over(float(np.sqrt(values[row])), gain), error)

    few = min(count, len(rotated))
    return Extremes(
        tuple(extreme(row) for row in range(few)),
        tuple(extreme(row) for row in range(len(rotated) - 1, len(rotated) - 1 - few, -1)),
        gain,
        longest,
    )


def _search(
    operator: _Restricted, count: int, steps: int, noise_gain: float, seed: int, progress: Progress | None
) -> tuple[Tensor, int]:
    """Changes that span both ends, orthonormal, (K, unknowns), and the steps of the longest run."""
    numbers = generator(seed, Purpose.SPECTRUM)
    changes = torch.zeros(0, operator.unknowns)
    most, longest = min(2 * count, operator.unknowns), 0
    while len(changes) < most:
        start = torch.randn(operator.unknowns, generator=numbers)
        left = min(steps, operator.unknowns - len(changes))
        ends, taken = _ends(
            operator, start, changes, left, -(-(most - len(changes)) // 2), noise_gain, progress
        )
        changes, longest = torch.cat([changes, ends]), max(longest, taken)
    if progress:
        progress("spectrum", steps, steps)
    return changes, longest


def _over(value: float, unit: float) -> float:
    return value / unit if unit > 0 else 0.0


def _noise_gain(operator: _Restricted, noise: Tensor, inside: Tensor) -> float:
    """Root of ``mean |J n|^2 / mean |n|^2`` of noise inside the region."""
    parts = [one[inside] for one in noise]
    size = sum(float(part.double().square().sum()) for part in parts)
    moved = sum(float(operator.seen(part).double().square().sum()) for part in parts)
    return float(np.sqrt(moved / max(size, 1e-30)))


def _ends(
    operator: _Restricted,
    start: Tensor,
    known: Tensor,
    steps: int,
    count: int,
    noise_gain: float,
    progress: Progress | None = None,
) -> tuple[Tensor, int]:
    """The lowest and the highest Ritz vectors of one run, see :func:`_run`, and its steps."""
    basis, projected = _run(operator, start, known, steps, count, noise_gain, progress)
    taken = len(basis)
    _, vectors = np.linalg.eigh(projected, UPLO="U")
    if taken > 2 * count:
        vectors = vectors[:, [*range(count), *range(taken - count, taken)]]
    return torch.from_numpy(vectors.T.astype(np.float32)) @ basis, taken


def _run(
    operator: _Restricted,
    start: Tensor,
    known: Tensor,
    steps: int,
    count: int,
    noise_gain: float,
    progress: Progress | None = None,
) -> tuple[Tensor, Numbers]:
    """Lanczos' recurrence, orthogonal to what was found before, until the gains at both ends stand still.

    Arguments:
        operator: ``J^T J``.
        start: Where the run starts.
        known: What earlier runs have found, orthonormal, (K, unknowns).
        steps: Steps at most.
        count: How many gains at each end must stand still.
        noise_gain: How far noise moves the layer per HU.
        progress: Called with ("spectrum", done, total).

    Returns:
        The basis, orthonormal, (steps, unknowns), and ``J^T J`` in it, upper triangle.
    """
    first = len(known)
    basis = torch.cat([known, torch.zeros(steps, operator.unknowns)])
    projected = np.zeros((steps, steps))
    v, last, before = _without(start, known), first, None
    while last < first + steps:
        # Once more after division: what rounding has left along the others has grown by it.
        v = _without(v / v.norm().clamp_min(1e-30), basis[:last])
        basis[last] = v / v.norm().clamp_min(1e-30)
        last += 1
        w = operator.gram(basis[last - 1])
        # All products, not the last two: in single precision the others do not vanish.
        projected[: last - first, last - 1 - first] = (basis[first:last] @ w).numpy()
        size = float(w.norm())
        v = _without(w, basis[:last])
        if progress:
            progress("spectrum", last - first, steps)
        if float(v.norm()) <= _NOTHING * max(size, 1e-30):
            break
        if (last - first) % _CHECK == 0 and last - first >= 4 * count:
            now = _gains(projected[: last - first, : last - first], count, noise_gain)
            if before is not None and _still(before, now, count):
                break
            before = now
    taken = last - first
    return basis[first:last], projected[:taken, :taken]


def _gains(projected: Numbers, count: int, noise_gain: float) -> Numbers:
    """The lowest and the highest gains so far."""
    values = np.sqrt(np.maximum(np.linalg.eigvalsh(projected, UPLO="U"), 0.0))
    return np.concatenate([values[:count], values[-count:]]) / max(noise_gain, 1e-30)


def _still(before: Numbers, now: Numbers, count: int) -> bool:
    """Whether more steps are unlikely to find other gains at either end."""
    alike = np.abs(now - before) <= _STILL * now
    alike[:count] |= now[:count] <= _UNSEEN * RHO
    return bool(alike.all())


def _without(v: Tensor, others: Tensor) -> Tensor:
    """A vector less what it has along orthonormal others; twice, for single precision."""
    for _ in range(2):
        v = v - others.T @ (others @ v)
    return v


def _rotated(operator: _Restricted, changes: Tensor) -> tuple[Tensor, Numbers]:
    """The best changes within the space of those found, by rising gain, and their gains squared."""
    q = torch.linalg.qr(changes.T.double())[0].T
    seen = torch.stack([operator.seen(v.float()) for v in q]).double()
    values, vectors = torch.linalg.eigh(seen @ seen.T)
    rotated = (vectors.T @ q).float()
    return rotated, np.maximum(values.numpy(), 0.0)


def radius(sight: Sight, change: Image, rho: float = RHO, *, guess: float = 1.0) -> float:
    """How large a change may be made until the true layer moves by more than a noise ratio.

    Arguments:
        sight: The layer at a slice.
        change: The change (H, W) at 1 HU RMS.
        rho: The noise ratio.
        guess: Where to look first, HU RMS, such as what the linearised layer says.

    Returns:
        HU RMS; infinity where it is still hidden at 1000, 0 where it never is.
    """

    def seen(size: float) -> float:
        return sight.ratio(np.float32(size) * change)

    low, at_low = 0.0, 0.0
    high = min(max(guess, _NEAREST), _FARTHEST)
    at_high = seen(high)
    while at_high <= rho:
        if high >= _FARTHEST:
            return float("inf")
        low, at_low = high, at_high
        high = min(1.5 * high, _FARTHEST)
        at_high = seen(high)
    while low == 0.0 and high > _NEAREST:  # by steps downwards, until it is hidden
        lower = high / 1.5
        at_lower = seen(lower)
        if at_lower <= rho:
            low, at_low = lower, at_lower
        else:
            high, at_high = lower, at_lower
    for _ in range(_HALVINGS if low else 0):
        if high - low <= _NEAR_ENOUGH * high or rho - at_low <= _NEAR_ENOUGH * rho:
            break
        # Where the line between both ends meets the ratio, for most layers grow evenly with a change; not
        # too near to either end, so that layers that jump are cornered all the same.
        share = (rho - at_low) / max(at_high - at_low, 1e-30)
        middle = low + min(max(share, 0.1), 0.9) * (high - low)
        at_middle = seen(middle)
        if at_middle <= rho:
            low, at_low = middle, at_middle
        else:
            high, at_high = middle, at_middle
    return low


def curvature(sight: Sight, changes: Image, noise_gain: float) -> Numbers:
    """The index of non-linearity: what the linear reading misses, over what noise of that size would do.

    ``|Phi(x + d) - Phi(x) - J d| / (g |d|)``, with ``g`` the gain of noise; 0 for a linear layer.

    Arguments:
        sight: The layer at a slice.
        changes: ``d``, (N, H, W), HU.
        noise_gain: ``g``, see :class:`Extremes`.

    Returns:
        One index for each change, (N,).
    """
    base = torch.from_numpy(np.ascontiguousarray(sight.x))[None, None]
    jacobian = sight.observer.linearise(base)
    indices = []
    for change in changes:
        d = torch.from_numpy(np.ascontiguousarray(change))[None, None]
        missed = sight.observer(base + d) - jacobian.value - jacobian.forward(d)
        indices.append(_over(float(missed.norm()), noise_gain * float(d.norm())))
    return np.array(indices)
