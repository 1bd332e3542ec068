"""``ctinv analyze``: fit, sample, audit and report in one go."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .console import Screen
from .images import folder_names, read_slices
from .models import ModelSpec, open_model, settle_units
from .options import (
    data_option,
    device_option,
    input_option,
    json_option,
    layer_option,
    model_options,
    out_option,
    preset_options,
    quiet_option,
    samples_option,
    seed_option,
    series_option,
)
from .results import show, with_meta

if TYPE_CHECKING:
    from ctinv.invariance.explanation import Explanation

__all__ = ["analyze"]


@click.command()
@model_options
@layer_option
@input_option
@series_option
@out_option("ctinv-out")
@samples_option
@preset_options
@data_option
@click.option("--no-cache", is_flag=True, help="Fit anew and keep nothing in the user's cache.")
@device_option
@seed_option
@json_option
@quiet_option
def analyze(
    layers: tuple[str, ...],
    source: Path | None,
    series: str | None,
    out: Path,
    samples: int,
    preset: str,
    overrides: tuple[tuple[str, str], ...],
    data: Path | None,
    no_cache: bool,
    seed: int,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Show what layers of a denoiser cannot see.

    DIR receives result.json, arrays.npz, figure.png and report.html; with several layers each has a
    folder of its own, and with a folder as input so has each slice.

    \b
    Examples:
      ctinv analyze --model model.onnx --layer conv7
      ctinv analyze -m yang -l conv1 -l conv7 -l conv13 -i slice.dcm -o out
    """
    spec = ModelSpec(**options)
    with Screen(as_json, quiet) as screen:
        from ctinv.invariance.files import check_writable
        from ctinv.invariance.presets import preset as find_preset

        # Everything that can be refused is refused here, before anything long.
        check_writable(out)
        find_preset(preset, dict(overrides))
        denoiser = open_model(spec)
        found = {denoiser.resolve(name).name: name for name in reversed(layers)}
        wanted = list(reversed(found.values()))
        slices = read_slices(source, series)
        known = {"intensity_found": settle_units(denoiser, spec, slices, screen)}
        for notice in denoiser.notices:
            screen.note(f"note: {notice}")

        from ctinv import invariance

        by_slice = source is not None and source.is_dir()
        slice_names = folder_names([_stem(s.source) for s in slices])
        layer_names = folder_names(wanted)
        done: dict[tuple[int, int], tuple[Explanation, Mapping[str, Path]]] = {}
        with screen.progress() as progress:
            for column, layer in enumerate(wanted):
                explainer = invariance.fit(
                    denoiser,
                    layer,
                    data=data,
                    preset=preset,
                    overrides=dict(overrides),
                    seed=seed,
                    cache=not no_cache,
                    progress=progress,
                )
                for row, one in enumerate(slices):
                    explanation = explainer.explain(one, samples=samples, seed=seed, progress=progress)
                    explanation = with_meta(explanation, **known)
                    folder = out / slice_names[row] if by_slice else out
                    folder = folder / layer_names[column] if len(wanted) > 1 else folder
                    done[row, column] = explanation, explanation.save(folder)
        ordered = [done[key] for key in sorted(done)]
        report = None
        if by_slice or len(ordered) > 1:
            from ctinv.invariance.report import summary

            report = summary([explanation for explanation, _ in ordered], out / "report.html")
        show(screen, ordered, report)


def _stem(source: Path | None) -> str:
    return "slice" if source is None else source.name.removesuffix(source.suffix)
