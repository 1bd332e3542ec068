"""``ctinv compare``: finished analyses of any models and layers, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .console import Screen
from .models import ModelSpec, open_model
from .options import device_option, json_option, out_option, quiet_option

if TYPE_CHECKING:
    from ctinv.adapters.base import Denoiser
    from ctinv.invariance import Comparison
    from ctinv.invariance.reporting.result import AnalysisResult

__all__ = ["compare"]


@click.command()
@click.argument("folders", nargs=-1, required=True, metavar="OUT...", type=click.Path(path_type=Path))
@click.option(
    "--model",
    "-m",
    "models",
    multiple=True,
    metavar="M",
    help="A model that was analysed, to see what one hides from another; repeatable. The zoo's are known.",
)
@click.option(
    "--dose",
    metavar="D,...",
    help="Analyse the slices again at fractions of their dose, such as 1,0.5,0.25; needs the models.",
)
@click.option(
    "--rho",
    type=click.FloatRange(min=0, min_open=True),
    metavar="R",
    help="The noise ratio to compare at.  [default: the smallest that all analyses know]",
)
@click.option(
    "--samples",
    "-n",
    default=3,
    show_default=True,
    type=click.IntRange(min=2),
    help="Refined samples of each layer that are held against the others.",
)
@out_option("ctinv-compare")
@device_option
@json_option
@quiet_option
def compare(
    folders: tuple[Path, ...],
    models: tuple[str, ...],
    dose: str | None,
    rho: float | None,
    samples: int,
    out: Path,
    device: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Set finished analyses against each other: what each layer hides, and from whom.

    OUT are folders that ctinv analyze wrote, at any depth, of any models, layers and slices. DIR
    receives report.html, figure.png, images.npz and result.json. To compare an exported network with
    its original, see compare-models.

    \b
    Examples:
      ctinv compare out-chen out-yang
      ctinv compare out --model a.onnx --model b.onnx -o against
      ctinv compare out --dose 1,0.5,0.25,0.1
    """
    with Screen(as_json, quiet) as screen:
        from ctinv import invariance
        from ctinv.invariance.comparing.compare import find_analyses
        from ctinv.invariance.comparing.doses import parse_doses
        from ctinv.invariance.infra.files import check_writable

        # Everything that can be refused is refused here, before anything long.
        doses = () if dose is None else parse_doses(dose)
        check_writable(out)
        places: Sequence[Path] = [p for p in find_analyses(folders) if out / "doses" not in p.parents]
        denoisers = _models(places, models, device, screen)
        with screen.progress() as progress:
            if doses:
                places = _at_doses(screen, places, denoisers, doses, out / "doses")
            comparison = invariance.compare(
                places, denoisers=denoisers, rho=rho, samples=samples, progress=progress
            )
        files = comparison.save(out)
        _show(screen, comparison, files["report.html"].parent, sorted(files))


def _models(places: Sequence[Path], given: Sequence[str], device: str, screen: Screen) -> list[Denoiser]:
    """The models that were analysed: those that the user names, and those of the zoo.

    Raises:
        CtinvError: A model that the user names was not analysed.
    """
    import json

    from ctinv.adapters.errors import CtinvError, ModelError
    from ctinv.adapters.intensity import parse_intensity

    about: dict[str, dict[str, str]] = {}
    for place in places:
        told = json.loads((place / "result.json").read_text(encoding="utf-8"))
        about.setdefault(str(told.get("model_hash")), told)
    models: dict[str, Denoiser] = {}
    for name in given:
        denoiser = open_model(ModelSpec(name, device=device))
        if denoiser.fingerprint not in about:
            analysed = ", ".join(sorted({str(told.get("model")) for told in about.values()}))
            raise CtinvError(
                f"{name} is none of the models that were analysed ({analysed}); give the same file, or run "
                "ctinv analyze on it first"
            )
        models[denoiser.fingerprint] = denoiser
    for key, told in about.items():
        if key in models:
            continue
        try:
            denoiser = open_model(ModelSpec(str(told.get("model")), device=device))
        except (CtinvError, ModelError):  # a file whose path is not recorded
            continue
        if denoiser.fingerprint == key:
            models[key] = denoiser
    for key, denoiser in models.items():
        denoiser.intensity = parse_intensity(str(about[key]["intensity"]))
        denoiser.output = about[key].get("output") or denoiser.output  # type: ignore[assignment]
    return list(models.values())


def _at_doses(
    screen: Screen, places: Sequence[Path], denoisers: Sequence[Denoiser], doses: Sequence[float], out: Path
) -> list[Path]:
    """Analyses of all slices at all doses, written below a folder."""
    from ctinv.adapters.errors import CtinvError
    from ctinv.invariance.comparing.doses import at_doses
    from ctinv.invariance.reporting.result import AnalysisResult
    from ctinv.invariance.runs.cases import folder_names

    models = {d.fingerprint: d for d in denoisers}
    written: list[Path] = []
    names = folder_names([_short(AnalysisResult.load(place)) for place in places])
    for place, name in zip(places, names, strict=True):
        analysis = AnalysisResult.load(place)
        denoiser = models.get(analysis.meta.model_hash or "")
        if denoiser is None:
            raise CtinvError(f"doses need the model of {place} ({analysis.meta.model}); give it with --model")
        with screen.progress() as progress:
            for e in at_doses(analysis, denoiser, doses, progress):
                folder = out / name / f"dose-{e.meta.dose:g}"
                e.save(folder)
                written.append(folder)
    return written


def _short(analysis: AnalysisResult) -> str:
    meta = analysis.meta
    return f"{meta.model}-{meta.layer}-{meta.source}-seed{meta.seed}"


def _show(screen: Screen, comparison: Comparison, folder: Path, files: Sequence[str]) -> None:
    if screen.as_json:
        screen.result([case.entry for case in comparison.cases])
        return
    from ctinv.invariance.comparing.page import HEADS, cells

    ratio = "" if comparison.rho is None else f"What is hidden at noise ratio {comparison.rho:g}, HU"
    screen.table(ratio, HEADS, [cells(row) for row in comparison.rows])
    for notice in comparison.notices:
        screen.note(f"note: {notice}")
    for line in comparison.verdict:
        screen.line(line)
    screen.line(f"written to {folder}: {', '.join(files)}")
