"""The bench of one denoiser as plain values: what files hold and pages show."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ctinv.adapters._types import Progress
from ctinv.adapters.base import Denoiser
from ctinv.invariance.infra.files import write_files
from ctinv.invariance.infra.records import plain, read
from numpy.typing import NDArray

from .bench import BenchFigures, BenchRow, bench_figures

__all__ = ["Curve", "Plane", "Sheet", "bench_sheet", "sheets_csv"]

_DIGITS = 5


@dataclass(frozen=True)
class Curve:
    """A figure over spatial frequency.

    Arguments:
        kind: ``transfer`` (no unit) or ``noise`` (HU^2 mm^2).
        name: Of what.
        frequency: Cycles per mm.
        image: In x.
        output: In f(x).
    """

    kind: str
    name: str
    frequency: tuple[float, ...] = field(repr=False)
    image: tuple[float, ...] = field(repr=False)
    output: tuple[float, ...] = field(repr=False)


@dataclass(frozen=True)
class Plane:
    """A two-dimensional noise power spectrum, frequency zero in the middle.

    Arguments:
        name: Of what.
        limit: Highest frequency along rows and columns, cycles per mm.
        values: HU^2 mm^2, row by row.
    """

    name: str
    limit: tuple[float, float]
    values: tuple[tuple[float, ...], ...] = field(repr=False)


@dataclass(frozen=True)
class Sheet:
    """All that the bench says of one denoiser.

    Arguments:
        model: The denoiser's name.
        doses: Fractions of the routine dose.
        n: Realisations of each.
        seed: Of noise and abdomen.
        rows: The figures.
        curves: Transfers and radial noise power spectra.
        planes: Two-dimensional noise power spectra.
    """

    model: str
    doses: tuple[float, ...]
    n: int
    seed: int
    rows: tuple[BenchRow, ...]
    curves: tuple[Curve, ...]
    planes: tuple[Plane, ...]

    @classmethod
    def of(cls, measured: BenchFigures, model: str, doses: Sequence[float], seed: int) -> Sheet:
        """From what was measured."""
        curves = [
            Curve(
                "transfer",
                f"{one.contrast:+g} HU, dose {one.dose:g}",
                _plain(one.output.frequency),
                _plain(one.image.value),
                _plain(one.output.value),
            )
            for one in measured.transfers
        ]
        planes = []
        for noise in measured.noise:
            spectra = _plain(noise.image.radial), _plain(noise.output.radial)
            curves.append(Curve("noise", noise.place, _plain(noise.image.frequency), *spectra))
            for name, figures in (("x", noise.image), ("f(x)", noise.output)):
                planes.append(_plane(f"{name}, {noise.place}", figures.power))
        return cls(model, tuple(doses), measured.n, seed, measured.rows(), tuple(curves), tuple(planes))


def _plain(values: NDArray[Any]) -> tuple[float, ...]:
    return tuple(float(f"{v:.{_DIGITS}g}") for v in values)


def _plane(name: str, power: Any) -> Plane:
    import numpy as np

    rows = tuple(_plain(row) for row in np.fft.fftshift(power.nps))
    return Plane(name, (float(np.abs(power.rows).max()), float(np.abs(power.columns).max())), rows)


def bench_sheet(
    denoiser: Denoiser,
    folder: Path,
    *,
    doses: Sequence[float],
    realisations: int,
    seed: int,
    progress: Progress | None = None,
) -> Sheet:
    """Measure a denoiser, or find what an earlier call measured in the same way.

    Arguments:
        denoiser: The denoiser.
        folder: Where ``cases`` holds what is done.
        doses: Fractions of the routine dose.
        realisations: Of each.
        seed: Draws noise and abdomen.
        progress: Called with (stage, done, total).

    Raises:
        CtinvError: Doses or realisations that make no bench, or the folder cannot be written.
    """
    name = re.sub(r"[^\w.-]+", "_", denoiser.name)
    file = f"bench-{name}-{hashlib.sha256(denoiser.fingerprint.encode()).hexdigest()[:8]}.json"
    asked = {
        "model": denoiser.fingerprint,
        "doses": [float(d) for d in doses],
        "realisations": realisations,
        "seed": seed,
    }
    try:
        stored = json.loads((folder / "cases" / file).read_text(encoding="utf-8"))
        if stored["asked"] == asked:
            return read(Sheet, stored["sheet"])
    except (OSError, ValueError, TypeError, KeyError):
        pass
    figures = bench_figures(denoiser, doses=doses, realisations=realisations, seed=seed, progress=progress)
    sheet = Sheet.of(figures, denoiser.name, doses, seed)
    text = json.dumps({"asked": asked, "sheet": plain(sheet)}, allow_nan=False)
    write_files(folder / "cases", {file: text.encode()})
    return sheet


def sheets_csv(sheets: Sequence[Sheet]) -> str:
    """One row per denoiser and figure, with a head."""
    text = io.StringIO()
    writer = csv.DictWriter(text, ["model", *(f.name for f in fields(BenchRow)), "n"], lineterminator="\n")
    writer.writeheader()
    writer.writerows({"model": s.model, **asdict(row), "n": s.n} for s in sheets for row in s.rows)
    return text.getvalue()
