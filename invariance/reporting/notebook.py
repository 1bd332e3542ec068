"""An explanation in Python: as a few lines of HTML, as axes, as data of other libraries."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from ctinv.adapters._types import Image
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.audit.scores import scores
from ctinv.invariance.data.windows import choose_window

if TYPE_CHECKING:
    from .result import AnalysisResult

__all__ = ["plot", "short_html", "to_dataframe", "to_xarray"]

_IMAGES = ("x", "denoised", "reconstruction", "reading", "mean", "std", "std_flow", "std_noise")


def short_html(e: AnalysisResult) -> str:
    """The verdict and four small pictures, without scripts, for a notebook's cell.

    Arguments:
        e: The explanation.
    """
    title = f"Layer {e.meta.layer or '(unnamed)'} of {e.meta.model or 'the model'}"
    said = "".join(f"<p>{escape(line)}</p>" for line in e.audit.verdict) or "<p>No verdict was recorded.</p>"
    cells = "".join(
        f'<td style="text-align:left"><img alt="{escape(name)}" src="data:image/png;base64,'
        f'{base64.b64encode(png).decode("ascii")}"><br>{escape(name)}</td>'
        for name, png in _pictures(e)
    )
    return f"<div><b>{escape(title)}</b>{said}<table><tr>{cells}</tr></table></div>"


def _panels(e: AnalysisResult) -> list[tuple[str, Image, dict[str, Any]]]:
    """Name, image and colours of what is shown: x, the first sample, how they differ, and the map."""
    low, high = choose_window(e.x).limits
    grey = {"cmap": "gray", "vmin": low, "vmax": high}
    panels: list[tuple[str, Image, dict[str, Any]]] = [("x", e.x, grey)]
    if len(e.samples):
        change = e.samples[0] - e.x
        end = float(np.percentile(np.abs(change), 99.5)) or 1.0
        name = "x″" if e.std_flow is not None else "x′"
        panels.append((f"{name}, a sample", e.samples[0], grey))
        panels.append((f"{name} − x, ±{end:.1f} HU", change, {"cmap": "RdBu_r", "vmin": -end, "vmax": end}))
    top = float(np.percentile(e.std, 99.5)) or 1.0
    panels.append(
        (f"standard deviation, 0 to {top:.1f} HU", e.std, {"cmap": "inferno", "vmin": 0, "vmax": top})
    )
    return panels


def _pictures(e: AnalysisResult, side: int = 192) -> list[tuple[str, bytes]]:
    from matplotlib import colormaps
    from PIL import Image as Picture

    pictures = []
    for name, image, style in _panels(e):
        share = (image - style["vmin"]) / (style["vmax"] - style["vmin"])
        colours = colormaps[style["cmap"]](np.clip(share, 0, 1), bytes=True)[..., :3]
        picture = Picture.fromarray(np.ascontiguousarray(colours))
        picture.thumbnail((side, side))
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", optimize=True)
        pictures.append((name, buffer.getvalue()))
    return pictures


def plot(e: AnalysisResult, axes: Sequence[Any] | npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
    """Draw x, the first sample, their difference, and the map, each in its own axes.

    Arguments:
        e: The explanation.
        axes: Matplotlib axes to draw into, as many as there are panels (four; two where no sample was
            kept); None for a new figure, which ``axes[0].figure`` then is.

    Returns:
        The axes.

    Raises:
        CtinvError: There are fewer axes than panels.
    """
    panels = _panels(e)
    if axes is None:
        from matplotlib.figure import Figure

        axes = np.atleast_1d(
            Figure(figsize=(4 * len(panels), 4), layout="constrained").subplots(1, len(panels))
        )
    given = np.asarray(axes, dtype=object).ravel()
    if len(given) < len(panels):
        raise CtinvError(f"{len(panels)} panels do not fit into {len(given)} axes; give {len(panels)}")
    rows, columns = e.meta.spacing if e.meta.spacing and all(e.meta.spacing) else (1.0, 1.0)
    for place, (name, image, style) in zip(given, panels, strict=False):
        place.imshow(image, aspect=rows / columns, **style)
        place.set_title(name)
        place.set_axis_off()
    return given


def to_xarray(e: AnalysisResult) -> Any:
    """All arrays as an ``xarray.Dataset`` in HU, over ``row`` and ``column``, in mm where that is known.

    Arguments:
        e: The explanation.

    Raises:
        CtinvError: xarray is not installed.
    """
    xarray = _needed("xarray")
    height, width = e.x.shape
    mm = e.meta.spacing if e.meta.spacing and all(e.meta.spacing) else (1.0, 1.0)
    images = {name: getattr(e, name) for name in _IMAGES}
    arrays: dict[str, Any] = {k: (("row", "column"), v) for k, v in images.items() if v is not None}
    arrays["samples"] = (("sample", "row", "column"), e.samples)
    places: dict[str, Any] = {
        "row": (np.arange(height) + 0.5) * mm[0],
        "column": (np.arange(width) + 0.5) * mm[1],
    }
    if e.quantiles is not None and e.meta.quantiles:
        arrays["quantiles"] = (("share", "row", "column"), e.quantiles)
        places["share"] = list(e.meta.quantiles)
    about = {
        "units": "HU",
        "model": e.meta.model or "",
        "layer": e.meta.layer or "",
        "source": e.meta.source or "",
    }
    return xarray.Dataset(arrays, places, about)


def to_dataframe(e: AnalysisResult) -> Any:
    """All audit figures as a ``pandas.DataFrame``, one row per figure, by its key.

    Arguments:
        e: The explanation.

    Raises:
        CtinvError: pandas is not installed.
    """
    pandas = _needed("pandas")
    names = ("title", "value", "unit", "low", "high", "interval", "n", "meaning")
    table = scores(e.audit)
    rows = [[getattr(score, name) for name in names] for score in table]
    return pandas.DataFrame(rows, index=pandas.Index([s.key for s in table], name="key"), columns=list(names))


def _needed(name: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise CtinvError(f"{name} is not installed; install it with: pip install {name}") from error
