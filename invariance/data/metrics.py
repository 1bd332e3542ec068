"""Image quality in stated HU windows, and the noise power spectrum."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from ctinv.adapters.errors import ImageError
from numpy.typing import NDArray

from .windows import WINDOWS

__all__ = ["NoisePower", "Quality", "fine_share", "noise_power", "quality", "transfer_cut_off"]


@dataclass(frozen=True)
class Quality:
    """Agreement of images with their reference, and on what it was computed.

    Arguments:
        rmse: Root mean square error in HU, inside the window.
        psnr: Peak signal-to-noise ratio in dB, for the window's width; infinite for equal images.
        ssim: Structural similarity, mean over images.
        window: Centre and width in HU that both were clipped to; None where nothing was clipped.
        data_range: HU that count as the full range.
        n: Number of images; each figure is the mean over them.
    """

    rmse: float
    psnr: float
    ssim: float
    window: tuple[float, float] | None
    data_range: float
    n: int


def quality(
    image: NDArray[Any],
    reference: NDArray[Any],
    window: str | tuple[float, float] | None,
    *,
    data_range: float | None = None,
) -> Quality:
    """RMSE, PSNR and SSIM in a HU window.

    Both images are clipped to the window; its width is the data range. The figures depend on it, so
    it is part of the result. SSIM is scikit-image's with the Gaussian weights (sigma 1.5) and
    population covariance of its source.

    Source: Wang, Bovik, Sheikh, Simoncelli, Image quality assessment: from error visibility to structural
    similarity, IEEE Transactions on Image Processing 13, 2004, https://doi.org/10.1109/TIP.2003.819861

    Arguments:
        image: (H, W), (N, H, W) or (N, 1, H, W), HU.
        reference: The same shape.
        window: A key of :data:`~.windows.WINDOWS`, (centre, width) in HU, or None for no clipping.
        data_range: Needed where there is no window, HU; not allowed with one.

    Raises:
        ImageError: Shapes differ, values are not finite, images are smaller than 11 x 11, or the
            window or data range make no sense.
    """
    from skimage.metrics import structural_similarity

    x, y = _stack(image), _stack(reference)
    if x.shape != y.shape:
        raise ImageError(f"image and reference have shapes {x.shape} and {y.shape}; they must agree")
    if min(x.shape[1:]) < 11:
        raise ImageError(
            f"images of {x.shape[1]} x {x.shape[2]} are too small for SSIM; give 11 x 11 or more"
        )
    chosen, span = _window(window, data_range)
    if chosen is not None:
        low, high = chosen[0] - chosen[1] / 2, chosen[0] + chosen[1] / 2
        x, y = x.clip(low, high), y.clip(low, high)
    errors = np.square(x - y).mean(axis=(1, 2))
    peaks = [10.0 * math.log10(span**2 / e) if e > 0 else math.inf for e in errors]
    similar = [
        structural_similarity(
            a, b, data_range=span, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        for a, b in zip(x, y, strict=True)
    ]
    return Quality(
        float(np.sqrt(errors).mean()), float(np.mean(peaks)), float(np.mean(similar)), chosen, span, len(x)
    )


def _stack(image: NDArray[Any]) -> NDArray[np.float64]:
    array = np.asarray(image, dtype=np.float64)
    if array.ndim == 4 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or array.size == 0:
        raise ImageError(f"images have shape {np.shape(image)}; give (H, W), (N, H, W) or (N, 1, H, W)")
    if not np.isfinite(array).all():
        raise ImageError("an image holds NaN or infinity; replace them by HU values")
    return array


def _window(
    window: str | tuple[float, float] | None, data_range: float | None
) -> tuple[tuple[float, float] | None, float]:
    if window is None:
        if data_range is None or not data_range > 0:
            raise ImageError("without a window, PSNR and SSIM need a positive data_range in HU")
        return None, float(data_range)
    if data_range is not None:
        raise ImageError("the window's width is the data range; give one or the other")
    if isinstance(window, str):
        if window not in WINDOWS:
            raise ImageError(f"window {window!r} is not known; choose one of: {', '.join(WINDOWS)}")
        return (WINDOWS[window].centre, WINDOWS[window].width), WINDOWS[window].width
    centre, width = float(window[0]), float(window[1])
    if not (math.isfinite(centre) and math.isfinite(width) and width > 0):
        raise ImageError(f"window {window} needs a centre and a positive width in HU")
    return (centre, width), width


@dataclass(frozen=True, eq=False)
class NoisePower:
    """Noise power spectrum of an ensemble.

    Arguments:
        nps: Float64 (H, W), HU^2 mm^2, frequency zero first as in ``numpy.fft``.
        rows: Frequencies along the rows' axis, (H,), cycles per mm.
        columns: Frequencies along the columns' axis, (W,), cycles per mm.
        variance: Pixel variance of the noise in HU^2, computed in the image: equal to the sum of
            ``nps`` times the area of one frequency cell.
        n: Number of images or regions.
    """

    nps: NDArray[np.float64]
    rows: NDArray[np.float64]
    columns: NDArray[np.float64]
    variance: float
    n: int

    @property
    def integral(self) -> float:
        """The spectrum summed over all frequencies, HU^2."""
        return float(self.nps.sum() * (self.rows[1] - self.rows[0]) * (self.columns[1] - self.columns[0]))

    def radial(self, bins: int | None = None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean over directions.

        Arguments:
            bins: Rings up to the lower Nyquist frequency; as many as half the shorter side where None.

        Returns:
            Mean frequency of each ring in cycles per mm and its mean power in HU^2 mm^2; rings
            without a sample are left out.
        """
        frequency = np.hypot(self.rows[:, None], self.columns[None, :])
        limit = min(np.abs(self.rows).max(), np.abs(self.columns).max())
        count = bins or min(self.nps.shape) // 2
        ring = np.floor(frequency / limit * count).astype(int).ravel()
        keep = ring < count
        members = np.bincount(ring[keep], minlength=count)
        filled = members > 0
        power = np.bincount(ring[keep], self.nps.ravel()[keep], count)[filled] / members[filled]
        centre = np.bincount(ring[keep], frequency.ravel()[keep], count)[filled] / members[filled]
        return centre, power


def noise_power(noise: NDArray[Any], spacing: tuple[float, float], *, about: str = "ensemble") -> NoisePower:
    """The noise power spectrum, ``|DFT|^2`` times the pixel area over the number of pixels.

    Arguments:
        noise: (N, H, W) or (N, 1, H, W), HU: noisy images of one object, or regions without structure.
        spacing: Row and column spacing in mm.
        about: What to subtract. ``ensemble``: the mean over the images, with the factor N / (N - 1)
            that this costs; structure that all share goes, two images are needed. ``image``: each
            image's own mean. ``surface``: the second-order surface nearest to each image.
            ``nothing``: the noise has mean zero already.

    Returns:
        The spectrum; its integral is the pixel variance (Parseval), which the tests hold it to.

    Raises:
        ImageError: Too few images, a spacing that is not positive, or an unknown ``about``.
    """
    stack = _stack(noise)
    rows, columns = float(spacing[0]), float(spacing[1])
    if not (rows > 0 and columns > 0 and math.isfinite(rows) and math.isfinite(columns)):
        raise ImageError(f"pixel spacing {spacing} is not two positive lengths in mm")
    if min(stack.shape[1:]) < 2:
        raise ImageError(
            f"images of {stack.shape[1]} x {stack.shape[2]} have no spectrum; give 2 x 2 or more"
        )
    n, height, width = stack.shape
    factor = 1.0
    if about == "ensemble":
        if n < 2:
            raise ImageError("one image has no ensemble mean; give two or more, or about='image'")
        stack = stack - stack.mean(axis=0)
        factor = n / (n - 1)
    elif about == "image":
        stack = stack - stack.mean(axis=(1, 2), keepdims=True)
    elif about == "surface":
        stack = stack - _surfaces(stack)
    elif about != "nothing":
        raise ImageError(f"about={about!r} is not known; choose ensemble, image, surface or nothing")
    power = np.zeros((height, width))
    for image in stack:
        power += np.abs(np.fft.fft2(image)) ** 2
    power *= factor * rows * columns / (n * height * width)
    variance = factor * float(np.square(stack).mean())
    frequencies = [np.fft.fftfreq(k, d).astype(np.float64) for k, d in ((height, rows), (width, columns))]
    return NoisePower(power, frequencies[0], frequencies[1], variance, n)


def _surfaces(stack: NDArray[np.float64]) -> NDArray[np.float64]:
    """The second-order surfaces nearest to images (N, H, W)."""
    rows, columns = np.meshgrid(*(np.linspace(-1.0, 1.0, side) for side in stack.shape[1:]), indexing="ij")
    basis = np.stack([np.ones_like(rows), rows, columns, rows * columns, rows**2, columns**2])
    flat = basis.reshape(len(basis), -1).T
    surfaces = flat @ np.linalg.lstsq(flat, stack.reshape(len(stack), -1).T, rcond=None)[0]
    return np.asarray(surfaces.T.reshape(stack.shape), dtype=np.float64)


def transfer_cut_off(image: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """Frequency at which an image (H, W) carries half of its reference's amplitude, cycles per pixel.

    The transfer is the cross-spectrum over the reference's spectrum, in 32 rings; 0.5 where it
    stays above one half.
    """
    window = np.outer(np.hanning(image.shape[0]), np.hanning(image.shape[1]))
    a, b = (np.fft.rfft2((im - im.mean()) * window) for im in (image, reference))
    rows, columns = np.fft.fftfreq(image.shape[0]), np.fft.rfftfreq(image.shape[1])
    ring = np.minimum((np.hypot(rows[:, None], columns) * 64).astype(int), 32).ravel()
    cross = np.bincount(ring, (a * b.conj()).real.ravel(), 33)[:32]
    power = np.bincount(ring, np.abs(b).ravel() ** 2, 33)[:32]
    below = np.flatnonzero(cross < 0.5 * power)
    return float(below[0] / 64) if len(below) else 0.5


def fine_share(changes: NDArray[np.float32]) -> float:
    """Share of the energy of changes (K, H, W) above half of the finest frequency (0.25 cycles/pixel)."""
    power = np.square(np.abs(np.fft.rfft2(changes))).sum(0)
    power[:, 1:-1] *= 2  # rfft2 holds half of the plane
    rows, columns = np.fft.fftfreq(changes.shape[-2]), np.fft.rfftfreq(changes.shape[-1])
    fine = np.hypot(rows[:, None], columns) > 0.25
    return float(power[fine].sum() / max(power.sum(), 1e-30))
