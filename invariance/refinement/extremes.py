"""The two ends of a layer's spectrum: the changes that it sees least and most for their size.

The gain of a change ``d`` is ``|J d| / |d|`` over the same for noise: a change of gain 1 is seen as
noise of its size is, one of gain 0.03 a thirtieth as well. The changes of least and largest gain are
singular vectors of the layer's Jacobian ``J``. They come from Lanczos' recurrence with full
orthogonalisation, one run for each pair, orthogonal to what earlier runs have found, and from a last
rotation of all that was found (B. N. Parlett, The symmetric eigenvalue problem, SIAM 1998,
https://doi.org/10.1137/1.9781611971163). The largest gains converge fast. The least do not where many
are nearly alike: what is found is then one change among many that are hidden as well.
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
    numbers = generator(seed, Purpose.SPECTRUM)
    found = torch.zeros(0, operator.unknowns)
    longest = 0
    for run in range(count):
        if len(found) == operator.unknowns:
            break
        start = torch.randn(operator.unknowns, generator=numbers)
        ends, taken = _ends(operator, start, found, min(steps, operator.unknowns - len(found)))
        found, longest = torch.cat([found, ends]), max(longest, taken)
        if progress:
            progress("spectrum", run + 1, count)
    noise = torch.from_numpy(sight.noise[:, *part[2:]])
    gain = _noise_gain(operator, noise, torch.from_numpy(inside[part[2:]]))
    rotated, values = _rotated(operator, found)
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


def _over(value: float, unit: float) -> float:
    return value / unit if unit > 0 else 0.0


def _noise_gain(operator: _Restricted, noise: Tensor, inside: Tensor) -> float:
    """Root of ``mean |J n|^2 / mean |n|^2`` of noise inside the region."""
    parts = [one[inside] for one in noise]
    size = sum(float(part.double().square().sum()) for part in parts)
    moved = sum(float(operator.seen(part).double().square().sum()) for part in parts)
    return float(np.sqrt(moved / max(size, 1e-30)))


def _ends(operator: _Restricted, start: Tensor, found: Tensor, steps: int) -> tuple[Tensor, int]:
    """The lowest and the highest Ritz vector of one run, orthogonal to those found before."""
    first = len(found)
    basis = torch.cat([found, torch.zeros(steps, operator.unknowns)])
    projected = np.zeros((steps, steps))
    v, last = _without(start, found), first
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
        if float(v.norm()) <= _NOTHING * max(size, 1e-30):
            break
    taken = last - first
    _, vectors = np.linalg.eigh(projected[:taken, :taken], UPLO="U")
    ends = vectors[:, [0, -1]] if taken > 1 else vectors[:, :1]
    return torch.from_numpy(ends.T.astype(np.float32)) @ basis[first:last], taken


def _without(v: Tensor, others: Tensor) -> Tensor:
    """A vector less what it has along orthonormal others; twice, for single precision."""
    for _ in range(2):
        v = v - others.T @ (others @ v)
    return v


def _rotated(operator: _Restricted, found: Tensor) -> tuple[Tensor, Numbers]:
    """The best changes within the space of those found, by rising gain, and their gains squared."""
    q = torch.linalg.qr(found.T.double())[0].T
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

    def hidden(size: float) -> bool:
        return sight.ratio(np.float32(size) * change) <= rho

    low, high = 0.0, min(max(guess, _NEAREST), _FARTHEST)
    while hidden(high):
        if high >= _FARTHEST:
            return float("inf")
        low, high = high, min(1.5 * high, _FARTHEST)
    while low == 0.0 and high > _NEAREST:  # by steps downwards, until it is hidden
        lower = high / 1.5
        low, high = (lower, high) if hidden(lower) else (0.0, lower)
    for _ in range(_HALVINGS if low else 0):
        middle = (low + high) / 2
        low, high = (middle, high) if hidden(middle) else (low, middle)
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
    found = []
    for change in changes:
        d = torch.from_numpy(np.ascontiguousarray(change))[None, None]
        missed = sight.observer(base + d) - jacobian.value - jacobian.forward(d)
        found.append(_over(float(missed.norm()), noise_gain * float(d.norm())))
    return np.array(found)
