"""``ctinv spectrum``, ``hide``, ``attack`` and ``swap``: questions about changes of one slice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .console import Screen
from .images import Images, read_slices
from .models import ModelSpec, distinct, open_model, settle_units
from .options import (
    data_option,
    device_option,
    input_options,
    json_option,
    layer_option,
    model_options,
    out_option,
    preset_options,
    quiet_option,
    seed_option,
)

if TYPE_CHECKING:
    from ctinv.adapters.base import Denoiser
    from ctinv.invariance.changes.answer import Answer
    from ctinv.invariance.data import CTSlice
    from ctinv.invariance.refinement.sight import Mask

__all__ = ["attack", "hide", "spectrum", "swap"]

_F = TypeVar("_F", bound=Callable[..., Any])

_rho_option = click.option(
    "--rho",
    default=0.03,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    metavar="R",
    help="Noise ratio that counts as hidden: the layer's change over the change that noise makes.",
)


def _region_options(function: _F) -> _F:
    """``--mask`` and ``--ellipse``."""
    mask = click.option(
        "--mask",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        metavar="FILE",
        help="A region of the slice's size: .npy, a grey picture, NIfTI, NRRD, MetaImage or DICOM SEG; what "
        "is not 0 is inside.",
    )
    ellipse = click.option(
        "--ellipse", metavar="X:Y:W[:H]", help="A region: centre, width and height of an ellipse, in pixels."
    )
    return ellipse(mask(function))


def _region(one: CTSlice, mask: Path | None, ellipse: str | None) -> Mask | None:
    """The region that was marked, if any.

    Raises:
        CtinvError: Two, or one that does not fit the slice.
    """
    from ctinv.adapters.errors import CtinvError
    from ctinv.invariance.changes.masks import read_mask
    from ctinv.invariance.changes.regions import ellipse as marked

    if mask is not None and ellipse is not None:
        raise CtinvError("--mask and --ellipse both name a region; give one of them")
    if mask is not None:
        return read_mask(mask, one)
    return None if ellipse is None else marked(ellipse, one.shape)


def _opened(spec: ModelSpec, images: Images, out: Path, screen: Screen) -> tuple[Denoiser, CTSlice]:
    """The model with known units, and the one slice; all that can be refused is refused here.

    Raises:
        CtinvError: The model, the slice or the folder is of no use.
    """
    from ctinv.adapters.errors import ImageError
    from ctinv.invariance.infra.files import check_writable

    check_writable(out)
    denoiser = open_model(spec)
    slices = read_slices(images, screen)
    if len(slices) > 1:
        raise ImageError(f"{images.source} holds {len(slices)} slices; one is needed: name its file")
    settle_units(denoiser, spec, slices, screen)
    for notice in denoiser.notices:
        screen.note(f"note: {notice}")
    return denoiser, slices[0]


def _finish(screen: Screen, answers: Sequence[Answer], out: Path) -> None:
    """Write the answers, and show them."""
    from ctinv.invariance.audit.scores import scores
    from ctinv.invariance.changes.answer import answers_html
    from ctinv.invariance.infra.files import write_files
    from ctinv.invariance.runs.cases import folder_names

    several = len(answers) > 1
    names = folder_names([f"{answer.about.layer} {answer.part}".strip() for answer in answers])
    places = [out / name for name in names] if several else [out]
    written = [answer.save(place) for answer, place in zip(answers, places, strict=True)]
    if several:
        write_files(out, {"report.html": answers_html(answers).encode()})
    if screen.as_json:
        told = [
            {**a.result, "files": {name: str(path) for name, path in files.items()}}
            for a, files in zip(answers, written, strict=True)
        ]
        screen.result(told if several else told[0])
        return
    for answer, place, files in zip(answers, places, written, strict=True):
        screen.line(f"\n{answer.title}")
        screen.table("", ("Figure", "Value"), [(s.title, s.text) for s in scores(answer.figures)])
        for line in answer.verdict:
            screen.line(line)
        screen.line(f"written to {place}: {', '.join(sorted(files, reverse=True))}")


@click.command()
@model_options
@layer_option
@input_options
@_region_options
@click.option("--tissues", is_flag=True, help="Once in each tissue: lung, fat, soft tissue, bone and so on.")
@click.option("--size", default=10.0, show_default=True, help="Size of the changes, HU RMS in the region.")
@click.option("--count", default=3, show_default=True, type=click.IntRange(1, 5), help="Changes at each end.")
@click.option(
    "--steps", default=96, show_default=True, type=click.IntRange(min=2), help="Steps of the search at most."
)
@_rho_option
@out_option("ctinv-spectrum")
@device_option
@seed_option
@json_option
@quiet_option
def spectrum(
    layers: tuple[str, ...],
    images: Images,
    mask: Path | None,
    ellipse: str | None,
    tissues: bool,
    size: float,
    count: int,
    steps: int,
    rho: float,
    out: Path,
    seed: int,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Show the changes of a slice that layers see least and most, with their gain and how far they hold.

    A gain of 1 is that of noise. Nothing is fitted; the model needs gradients.

    \b
    Examples:
      ctinv spectrum -m yang -l conv7
      ctinv spectrum -m yang -l conv7 --tissues --count 1
      ctinv spectrum -m model.onnx -l conv7 -i slice.dcm --ellipse 250:300:40:30
    """
    spec = ModelSpec(**options)
    with Screen(as_json, quiet) as screen:
        from ctinv.adapters.errors import CtinvError

        if tissues and (mask is not None or ellipse is not None):
            raise CtinvError("--tissues asks in all tissues, --mask and --ellipse in one region; give one")
        denoiser, one = _opened(spec, images, out, screen)
        region = _region(one, mask, ellipse)
        names = distinct(denoiser, layers)
        from ctinv import invariance

        with screen.progress() as progress:
            asked: dict[str, Any] = {"size": size, "count": count, "steps": steps, "rho": rho, "seed": seed}
            asked["progress"] = progress
            if tissues:
                answers = [a for name in names for a in invariance.spectra(denoiser, name, one, **asked)]
            else:
                answers = [invariance.spectrum(denoiser, name, one, region=region, **asked) for name in names]
        _finish(screen, answers, out)


@click.command()
@model_options
@layer_option
@input_options
@click.option(
    "--lesion",
    metavar="SPEC",
    help="Put in a lesion and ask about it: size=6mm,contrast=-15HU[,at=COLUMN:ROW].  [default: this one, "
    "unless a region is given]",
)
@_region_options
@_rho_option
@click.option(
    "--realisations",
    default=64,
    show_default=True,
    type=click.IntRange(min=0),
    help="Noise realisations for d'; 0 leaves it out.",
)
@out_option("ctinv-hide")
@device_option
@seed_option
@json_option
@quiet_option
def hide(
    layers: tuple[str, ...],
    images: Images,
    lesion: str | None,
    mask: Path | None,
    ellipse: str | None,
    rho: float,
    realisations: int,
    out: Path,
    seed: int,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Say which share of a lesion's or region's contrast can vanish without layers noticing.

    Nothing is fitted; the model needs gradients.

    \b
    Examples:
      ctinv hide -m yang -l conv7 --lesion size=6mm,contrast=-15HU
      ctinv hide -m model.onnx -l conv7 -i slice.dcm --ellipse 250:300:20:14
      ctinv hide -m model.onnx -l conv7 -i slice.dcm --mask lesion.png
    """
    spec = ModelSpec(**options)
    with Screen(as_json, quiet) as screen:
        from ctinv.adapters.errors import CtinvError
        from ctinv.invariance.probing.lesions import Lesion

        if lesion is not None and (mask is not None or ellipse is not None):
            raise CtinvError("--lesion puts something in, --mask and --ellipse name what is there; give one")
        denoiser, one = _opened(spec, images, out, screen)
        region = _region(one, mask, ellipse)
        wanted = None if region is not None else Lesion.parse(lesion or "size=6mm,contrast=-15HU")
        names = distinct(denoiser, layers)
        from ctinv import invariance

        with screen.progress() as progress:
            asked: dict[str, Any] = {"rho": rho, "realisations": realisations, "seed": seed}
            asked |= {"lesion": wanted, "region": region, "progress": progress}
            answers = [invariance.hide(denoiser, name, one, **asked) for name in names]
        for notice in dict.fromkeys(n for a in answers for n in a.about.notices if n not in denoiser.notices):
            screen.note(f"note: {notice}")
        _finish(screen, answers, out)


@click.command()
@model_options
@click.option("--layer", "-l", "layers", multiple=True, metavar="L", help="Follow it through these.  [all]")
@input_options
@_region_options
@click.option("--size", default=20.0, show_default=True, help="Largest pixel of the change, HU.")
@out_option("ctinv-attack")
@device_option
@seed_option
@json_option
@quiet_option
def attack(
    layers: tuple[str, ...],
    images: Images,
    mask: Path | None,
    ellipse: str | None,
    size: float,
    out: Path,
    seed: int,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Show the small change that moves f(x) most, and what each layer makes of it.

    Nothing is fitted; the model needs gradients.

    \b
    Example:
      ctinv attack -m yang -i slice.dcm --size 20
    """
    spec = ModelSpec(**options)
    with Screen(as_json, quiet) as screen:
        denoiser, one = _opened(spec, images, out, screen)
        region = _region(one, mask, ellipse)
        names = distinct(denoiser, layers) or None
        from ctinv import invariance

        with screen.progress() as progress:
            attacked = invariance.attack(
                denoiser, one, layers=names, region=region, size=size, seed=seed, progress=progress
            )
        _finish(screen, [attacked], out)


@click.command()
@model_options
@layer_option
@input_options
@click.option(
    "--other",
    type=click.Path(exists=True, path_type=Path),
    metavar="SLICE",
    help="The slice whose invariances are taken.  [default: the input, turned upside down]",
)
@_rho_option
@out_option("ctinv-swap")
@preset_options
@data_option()
@device_option
@seed_option
@json_option
@quiet_option
def swap(
    layers: tuple[str, ...],
    images: Images,
    other: Path | None,
    rho: float,
    out: Path,
    preset: str,
    overrides: tuple[tuple[str, str], ...],
    data: str | None,
    seed: int,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Keep what layers see of one slice and take the rest from another; the layers are fitted first.

    \b
    Example:
      ctinv swap -m yang -l conv7 -i slice.dcm --other another.dcm
    """
    spec = ModelSpec(**options)
    with Screen(as_json, quiet) as screen:
        from ctinv.invariance.presets import preset as find_preset

        find_preset(preset, dict(overrides))
        denoiser, one = _opened(spec, images, out, screen)
        second = one.hu[::-1].copy() if other is None else read_slices(Images(other), screen)[0].hu
        names = distinct(denoiser, layers)
        from ctinv import invariance

        with screen.progress() as progress:
            fits = invariance.fit(
                denoiser,
                names,
                data=data,
                preset=preset,
                overrides=dict(overrides),
                seed=seed,
                progress=progress,
            )
            answers = [fit.swap(one, second, seed=seed, rho=rho, progress=progress) for fit in fits]
        _finish(screen, answers, out)
