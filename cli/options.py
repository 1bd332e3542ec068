"""Options that several commands share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from .images import Images

__all__ = [
    "amount",
    "data_option",
    "device_option",
    "format_options",
    "input_options",
    "json_option",
    "layer_option",
    "layers_option",
    "memory_option",
    "model_options",
    "models_options",
    "name_options",
    "out_option",
    "preset_options",
    "quantiles_option",
    "quiet_option",
    "refine_options",
    "run_options",
    "samples_option",
    "seed_option",
    "series_option",
    "value_options",
]

_F = TypeVar("_F", bound=Callable[..., Any])


def _pairs(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> tuple[tuple[str, str], ...]:
    """Each ``key=value`` as a pair."""
    pairs = []
    for value in values:
        key, sign, text = value.partition("=")
        if not sign or not key.strip():
            raise click.BadParameter(f"{value!r} is not of the form key=value", ctx, param)
        pairs.append((key.strip(), text.strip()))
    return tuple(pairs)


_PATH = click.Path(path_type=Path)


_MODEL = "An .onnx file, a zoo name (chen, yang), or package.module:callable[?weights=FILE]"


def model_options(function: _F) -> _F:
    """``--model`` and how to understand it."""
    return click.option("--model", "-m", required=True, metavar="M", help=f"{_MODEL}.")(
        reading_options(function)
    )


def models_options(function: _F) -> _F:
    """``--model``, which may be given several times, and how to understand all of them."""
    return click.option(
        "--model", "-m", "models", multiple=True, required=True, metavar="M", help=f"{_MODEL}; repeatable."
    )(reading_options(function))


def reading_options(function: _F) -> _F:
    """How to understand a model."""
    options = (
        click.option(
            "--intensity",
            default="auto",
            show_default=True,
            metavar="SPEC",
            help="The model's units: auto, hu, unit:LO:HI, standard:MEAN:STD or offset:K[:...].",
        ),
        click.option(
            "--output",
            type=click.Choice(["auto", "image", "residual"]),
            default="auto",
            show_default=True,
            help="Whether the model returns the image or the noise to subtract.",
        ),
        click.option(
            "--feed",
            multiple=True,
            callback=_pairs,
            metavar="KEY=VALUE",
            help="A fixed value for a further model input, or channel, such as sigma=0.1; repeatable.",
        ),
        click.option(
            "--channels",
            type=click.IntRange(min=1),
            metavar="N",
            help="Channels that a module takes: colours, or neighbouring slices.  [default: 1]",
        ),
        click.option(
            "--output-tensor",
            metavar="T",
            help="Which output is the image, where a model has several: its name or number.",
        ),
        click.option("--input-name", metavar="NAME", help="Which input of an ONNX file takes the image."),
        click.option(
            "--layout", type=click.Choice(["NCHW", "NHWC"]), help="The order of an ONNX file's axes."
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


def preset_options(function: _F) -> _F:
    """``--preset`` and ``--set``."""
    function = click.option(
        "--set",
        "overrides",
        multiple=True,
        callback=_pairs,
        metavar="SECTION.FIELD=VALUE",
        help="Change one field of the preset, such as fit.steps=2000; repeatable.",
    )(function)
    return click.option(
        "--preset", default="small", show_default=True, metavar="NAME", help="Sizes and steps of the fit."
    )(function)


def amount(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """An amount such as 1.5GB in bytes."""
    if value is None:
        return None
    from ctinv.adapters.errors import CtinvError
    from ctinv.invariance.infra.sizes import memory_size

    try:
        return memory_size(value)
    except CtinvError as error:
        raise click.BadParameter(str(error), ctx, param) from error


memory_option = click.option(
    "--memory",
    callback=amount,
    metavar="SIZE",
    help="Memory that sampling may take, such as 1.5GB.  [default: a quarter of what is free]",
)


def _shares(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[float, ...]:
    """Numbers between 0 and 1, separated by commas."""
    if value is None:
        return ()
    try:
        shares = tuple(float(part) for part in value.split(","))
    except ValueError:
        shares = ()
    if not shares or not all(0 < share < 1 for share in shares):
        raise click.BadParameter(
            f"{value!r} is no list of numbers between 0 and 1; write it like 0.05,0.95", ctx, param
        )
    return shares


quantiles_option = click.option(
    "--quantiles",
    callback=_shares,
    metavar="Q,...",
    help="Keep these pixelwise quantiles of the samples (before refinement) too, such as 0.05,0.95.",
)


def refine_options(function: _F) -> _F:
    """``--refine`` and ``--rho``."""
    function = click.option(
        "--rho",
        default=0.03,
        show_default=True,
        type=click.FloatRange(min=0, min_open=True),
        metavar="R",
        help="How far a refined sample may move the layer, over how far noise moves it.",
    )(function)
    return click.option(
        "--refine",
        type=click.IntRange(min=0),
        metavar="N",
        help="Samples to move onto the layer's fibre; 0 for none.  [default: what takes some 30 s]",
    )(function)


layers_option = click.option(
    "--layer",
    "-l",
    "layers",
    multiple=True,
    required=True,
    metavar="L",
    help="A layer's name, a pattern such as 'conv*', or all; repeatable.",
)
layer_option = click.option(
    "--layer", "-l", "layers", multiple=True, required=True, metavar="L", help="A layer's name; repeatable."
)
series_option = click.option(
    "--series", metavar="S", help="Which series of a folder: its UID, number or description."
)


def value_options(function: _F) -> _F:
    """``--offset`` and ``--scale``: how the files' values become HU where the files do not say so."""
    function = click.option(
        "--scale", type=float, metavar="S", help="Multiply the files' values by this, before --offset."
    )(function)
    return click.option(
        "--offset",
        type=float,
        metavar="K",
        help="Take this off the files' values, such as 1024 for HU + 1024; 0 says that they are HU.",
    )(function)


def name_options(function: _F) -> _F:
    """``--keep-names`` and ``--anonymous``, which come to the command as ``names``."""
    function = click.option(
        "--anonymous",
        "names",
        flag_value="anonymous",
        help="Call slices by a hash even where their tags say that identity was removed.",
    )(function)
    return click.option(
        "--keep-names",
        "names",
        flag_value="keep",
        help="Call slices by their file names in what is written.  [default: a hash and the slice's number]",
    )(function)


def input_options(function: _F) -> _F:
    """``--input`` and all that says how to read it; the command gets them as ``images``."""

    @functools.wraps(function)
    def call(
        *args: Any,
        source: Path | None,
        series: str | None,
        offset: float | None,
        scale: float | None,
        names: str | None,
        **rest: Any,
    ) -> Any:
        return function(*args, images=Images(source, series, offset, scale, names), **rest)

    wrapped = click.option(
        "--input",
        "-i",
        "source",
        type=_PATH,
        metavar="SLICE_OR_FOLDER",
        help="A CT slice, or a folder of them.  [default: a slice that ships with ctinv]",
    )(series_option(value_options(name_options(call))))
    return cast(_F, wrapped)


samples_option = click.option(
    "--samples", "-n", default=48, show_default=True, type=click.IntRange(min=2), help="Invariances to draw."
)


def _sources(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """A folder, or low=FOLDER,high=FOLDER, that exists."""
    if value is None or value == "phantom":
        return value
    from ctinv.adapters.errors import CtinvError
    from ctinv.invariance.data.spec import sources_of

    try:
        sources_of(value)
    except CtinvError as error:
        raise click.BadParameter(str(error), ctx, param) from error
    return value


def data_option(required: str = "") -> Callable[[_F], _F]:
    """``--data``; with a text what must be given, else phantoms stand in."""
    return click.option(
        "--data",
        required=bool(required),
        callback=_sources,
        metavar="FOLDER",
        help=required
        or "CT to fit on, or low=FOLDER,high=FOLDER; behind it ,scale=S,offset=K makes HU of other values.  "
        "[default: phantoms with simulated noise]",
    )


device_option = click.option(
    "--device", default="auto", show_default=True, metavar="DEVICE", help="auto, cpu, cuda or cuda:N."
)
seed_option = click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, nothing else.")
quiet_option = click.option("--quiet", "-q", is_flag=True, help="No progress and no notes.")


def _shard(ctx: click.Context, param: click.Parameter, value: str) -> Any:
    from ctinv.adapters.errors import CtinvError
    from ctinv.invariance.runs.cases import Shard

    try:
        return Shard.parse(value)
    except CtinvError as error:
        raise click.BadParameter(str(error), ctx, param) from error


def run_options(function: _F) -> _F:
    """``--shard``, ``--fail-fast``, ``--restart`` and ``--no-report``: how many cases are worked through."""
    options = (
        click.option(
            "--shard",
            default="1/1",
            callback=_shard,
            metavar="I/N",
            help="Only every N-th case, from the I-th; all shards may share one DIR.",
        ),
        click.option(
            "--fail-fast", is_flag=True, help="End at the first case that fails.  [default: go on, exit 3]"
        ),
        click.option("--restart", is_flag=True, help="Analyse anew what is finished in DIR."),
        click.option(
            "--no-report",
            "report",
            flag_value=False,
            default=True,
            help="No figure and no page for each case, which saves about a second of each.",
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


def format_options(function: _F) -> _F:
    """``--format`` and ``--deidentify``: what is written besides the usual files."""
    function = click.option(
        "--deidentify", is_flag=True, help="Leave the patient out of DICOM (PS3.15, basic profile)."
    )(function)
    return click.option(
        "--format",
        "formats",
        multiple=True,
        type=click.Choice(["dicom"]),
        help="Also write this: dicom for maps and samples that viewers lay over the slice.",
    )(function)


def out_option(default: str) -> Callable[[_F], _F]:
    """``--out`` with this default."""
    return click.option(
        "--out", "-o", type=_PATH, default=default, show_default=True, metavar="DIR", help="Where to write."
    )
