"""The files of a comparison."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
from ctinv.invariance.infra.files import write_files

from .figure import place_png
from .page import page_html
from .record import ComparisonResult

__all__ = ["save"]


def save(comparison: ComparisonResult, out_dir: str | Path) -> dict[str, Path]:
    """Write the figure, the images, the page and, last, ``result.json``; whole or not at all.

    ``images.npz`` holds for the slice number ``s`` the slice ``x_s``, the maps ``maps_s`` (L, H, W) in
    the order of ``labels`` in ``result.json``, and ``only_s_i_j``: changes (K, H, W) that layer ``i``
    hides and layer ``j`` sees. All in HU.

    Raises:
        CtinvError: The folder cannot be written.
    """
    out = Path(out_dir)
    pictures = [place_png(comparison, place) for place in comparison.places]
    links = {case.folder: _relative(case.folder, out) for case in comparison.cases if case.folder is not None}
    text = json.dumps(comparison.result, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    named = {f"figure{'' if k == 0 else f'-{k + 1}'}.png": png for k, png in enumerate(pictures)}
    return write_files(
        out,
        {
            **named,
            "images.npz": _images(comparison),
            "report.html": page_html(comparison, pictures, links).encode(),
            "result.json": text.encode(),
        },
    )


def _images(comparison: ComparisonResult) -> bytes:
    arrays: dict[str, npt.NDArray[np.float32]] = {}
    for s, place in enumerate(comparison.places):
        arrays[f"x_{s}"], arrays[f"maps_{s}"] = place.x, place.maps
        for pair in place.pairs:
            i, j = place.labels.index(pair.hides), place.labels.index(pair.sees)
            arrays[f"only_{s}_{i}_{j}"] = pair.changes
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _relative(folder: Path, out: Path) -> PurePosixPath | None:
    """The report of an analysis, as the page's folder sees it; None where there is none."""
    report = folder / "report.html"
    if not report.is_file():
        return None
    return PurePosixPath(Path(os.path.relpath(report.resolve(), out.resolve())).as_posix())
