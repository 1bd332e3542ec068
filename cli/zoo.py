"""``ctinv zoo``: the reference denoisers."""

from __future__ import annotations

from pathlib import Path

import click

from .console import Screen
from .options import data_option, json_option, out_option, quiet_option, seed_option
from .results import division

__all__ = ["zoo"]


@click.group()
def zoo() -> None:
    """List, export and train the reference denoisers."""


@zoo.command("list")
@click.option("--card", metavar="NAME", help="Print the model card of one denoiser instead.")
@json_option
@quiet_option
def list_(card: str | None, as_json: bool, quiet: bool) -> None:
    """List the denoisers that come with trained weights.

    \b
    Examples:
      ctinv zoo list
      ctinv zoo list --card yang
    """
    with Screen(as_json, quiet) as screen:
        from ctinv import zoo as library
        from ctinv.zoo.registry import find

        if card is not None:
            text = library.card(card)
            screen.result({"name": find(card).name, "card": text}) if as_json else screen.line(text)
            return
        entries = [(find(name), library.metadata(name)) for name in library.names()]
        if as_json:
            screen.result(
                [{"name": e.name, "aliases": list(e.aliases), "metadata": about} for e, about in entries]
            )
            return
        rows = [
            (e.name, ", ".join(e.aliases), about["ctinv.intensity"], about.get("citation", ""))
            for e, about in entries
        ]
        screen.table("", ("Name", "Also", "Intensity", "Source"), rows)


@zoo.command()
@click.argument("name")
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--exporter",
    type=click.Choice(["dynamo", "torchscript"]),
    default="dynamo",
    show_default=True,
    help="PyTorch's way to trace.",
)
@quiet_option
def export(name: str, path: Path, exporter: str, quiet: bool) -> None:
    """Write a denoiser as ONNX; its layers keep their names.

    \b
    Example:
      ctinv zoo export yang model.onnx
    """
    with Screen(quiet=quiet) as screen:
        from ctinv import zoo as library

        written = library.export(
            name, path, exporter="torchscript" if exporter == "torchscript" else "dynamo"
        )
        screen.line(str(written))


@zoo.command()
@click.argument("name")
@data_option(
    "CT slices at both doses in any layout, low=FOLDER,high=FOLDER, or high dose alone to simulate from."
)
@click.option("--steps", required=True, type=click.IntRange(min=1), help="Steps of the denoiser.")
@click.option("--vgg", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="VGG-19 weights.")
@click.option("--restart", is_flag=True, help="Replace a checkpoint in DIR instead of going on from it.")
@out_option("ctinv-training")
@seed_option
@quiet_option
def train(
    name: str, data: str, steps: int, vgg: Path | None, restart: bool, out: Path, seed: int, quiet: bool
) -> None:
    """Train a denoiser of the zoo; an interrupted training goes on where it was.

    \b
    Example:
      ctinv zoo train chen --data scans --steps 4000 --out chen-training
    """
    with Screen(quiet=quiet) as screen:
        from ctinv.invariance.infra.files import check_writable
        from ctinv.zoo import training
        from ctinv.zoo.registry import find

        find(name)
        check_writable(out)
        with screen.progress() as progress:
            pairs = training.load_pairs(data, seed=seed, progress=progress)
            for note in pairs.notes:
                screen.note(f"note: {note}")
            if pairs.division is not None:
                screen.note(division(pairs.division))
            weights = training.train(
                name, pairs, steps, out, resume=not restart, seed=seed, progress=progress, vgg=vgg
            )
        screen.line(str(weights))
