"""Images at the door: what is accepted, in batches, and back in the kind they came in."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .errors import ImageError

__all__ = [
    "batches",
    "check_images",
    "is_finite",
    "is_tensor",
    "join",
    "neighbours",
    "pad_reflect",
    "restore",
]

_PIXELS_PER_BATCH = 2**20


def is_tensor(x: Any) -> bool:
    """Whether ``x`` is a torch tensor; a program without PyTorch does not import it for this."""
    if isinstance(x, np.ndarray):
        return False
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def is_finite(x: Any) -> bool:
    """Whether an array or tensor holds no NaN and no infinity."""
    if isinstance(x, np.ndarray):
        return bool(np.logical_and.reduce(np.isfinite(x), axis=None))
    return bool(x.isfinite().all())


def check_images(x: Any) -> None:
    """Refuse anything but finite float images of shape (N, 1, H, W).

    Raises:
        ImageError: Wrong kind, type, shape, or non-finite values.
    """
    if isinstance(x, np.ndarray):
        floating = x.dtype.kind == "f"
    elif is_tensor(x):
        floating = x.is_floating_point()
    else:
        raise ImageError(
            f"images must be a numpy array or a torch tensor (N, 1, H, W) in HU, not {type(x).__name__}"
        )
    shape = tuple(x.shape)
    if len(shape) == 2:
        raise ImageError(
            f"images must have shape (N, 1, H, W), not {shape}; for one slice give x[None, None]"
        )
    if len(shape) == 3:
        raise ImageError(
            f"images must have shape (N, 1, H, W), not {shape}; for a stack of slices give x[:, None]"
        )
    if len(shape) != 4 or shape[1] != 1:
        raise ImageError(f"images must have shape (N, 1, H, W), one grey channel, not {shape}")
    if 0 in shape:
        raise ImageError(f"images must not be empty, and these have shape {shape}")
    if not floating:
        raise ImageError(
            f"images must be floating point, in HU, not {x.dtype}; apply the rescale slope and intercept, "
            "then convert to float32"
        )
    if not is_finite(x):
        raise ImageError("images must be finite; these hold NaN or infinity")


def batches(x: Any, size: int | None) -> Iterator[Any]:
    """Slices of ``x`` along its first axis; without a size, about a million pixels each."""
    if size is None:
        size = max(1, _PIXELS_PER_BATCH // (x.shape[-1] * x.shape[-2]))
    if size < 1:
        raise ImageError(f"batch_size must be at least 1, not {size}")
    for start in range(0, x.shape[0], size):
        yield x[start : start + size]


def neighbours(x: Any, start: int, count: int, width: int) -> Any:
    """Slices of a series with those around them as channels.

    Arguments:
        x: The series (N, 1, H, W).
        start: The first slice wanted.
        count: How many.
        width: Slices side by side, the wanted one in the middle; beyond an end the end slice is repeated.

    Returns:
        (count, width, H, W).

    Example:
        >>> x = np.arange(3.0).reshape(3, 1, 1, 1)
        >>> neighbours(x, 1, 2, 3)[..., 0, 0].tolist()
        [[0.0, 1.0, 2.0], [1.0, 2.0, 2.0]]
    """
    last = x.shape[0] - 1
    places = [
        min(max(middle + offset - width // 2, 0), last)
        for middle in range(start, start + count)
        for offset in range(width)
    ]
    return x[places].reshape(count, width, *x.shape[-2:])


def pad_reflect(x: Any, bottom: int, right: int) -> Any:
    """Mirror the last rows and columns (the border itself is not repeated)."""
    height, width = x.shape[-2:]
    if bottom:
        x = x[..., [*range(height), *(height - 2 - i for i in range(bottom))], :]
    if right:
        x = x[..., [*range(width), *(width - 2 - i for i in range(right))]]
    return x


def restore(z: Any, like: Any) -> Any:
    """``z`` as float32 of the kind and on the device of the image ``like``."""
    if isinstance(like, np.ndarray) and isinstance(z, np.ndarray):
        return np.asarray(z, dtype=np.float32)
    if is_tensor(like):
        torch: Any = sys.modules["torch"]
        tensor = z if is_tensor(z) else torch.from_numpy(np.ascontiguousarray(z))
        return tensor.to(device=like.device, dtype=torch.float32)
    if is_tensor(z):
        z = z.detach().cpu().numpy()
    return np.asarray(z, dtype=np.float32)


def join(parts: Sequence[Any]) -> Any:
    """Batches of one kind along their first axis."""
    if len(parts) == 1:
        return parts[0]
    if is_tensor(parts[0]):
        torch: Any = sys.modules["torch"]
        return torch.cat(list(parts))
    return np.concatenate(list(parts))
