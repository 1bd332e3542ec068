"""The command group and the rules for exit codes."""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import click

from .streams import unbroken_streams

__all__ = ["CasesFailedError", "cli", "main"]

DONE, FAILED, BAD_INPUT, SOME_FAILED, INTERRUPTED = 0, 1, 2, 3, 130

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)

_COMMANDS = {
    "layers": "layers:layers",
    "analyze": "analyze:analyze",
    "gather": "gather:gather",
    "fit": "fit:fit",
    "sample": "fit:sample",
    "audit": "audit:audit",
    "probe": "probe:probe",
    "spectrum": "changes:spectrum",
    "hide": "changes:hide",
    "attack": "changes:attack",
    "swap": "changes:swap",
    "compare": "compare_runs:compare",
    "compare-models": "compare:compare",
    "zoo": "zoo:zoo",
    "data": "data:data",
    "cache": "cache:cache",
    "bench": "bench:bench",
}


class CasesFailedError(Exception):
    """Some cases of a run came to nothing; the others are there.

    Arguments:
        failed: How many.
        total: Of how many.
        out: The folder of the run.
    """

    def __init__(self, failed: int, total: int, out: Path) -> None:
        super().__init__(
            f"{failed} of {total} failed; runs.csv in {out} says why, and the same command tries them again"
        )


class _LazyGroup(click.Group):
    """A group that imports a command's module when that command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        target = _COMMANDS.get(cmd_name)
        if target is None:
            return None
        module, _, name = target.partition(":")
        command: click.Command = getattr(importlib.import_module(f"ctinv.cli.{module}"), name)
        return command


def _show_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        from importlib.metadata import version

        click.echo(f"ctinv {version('ctinv')}")
        ctx.exit()


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version)
@click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks; works behind any command.")
def cli() -> None:
    """Show, as images, what a layer of a CT denoiser cannot see, and how far they can be trusted.

    Exit codes: 0 done, 1 our own failure, 2 bad usage or bad input, 3 some cases of a run failed,
    130 interrupted.
    """


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Every failure is one line on standard error that starts with ``ctinv:``.

    Arguments:
        args: The arguments; those of the process where None.
    """
    given = list(sys.argv[1:] if args is None else args)
    if given[:1] != ["bench"]:  # what others do is measured as it comes
        # PyTorch reads this once: large pages, without which clearing the memory of whole slices
        # takes as long as computing on it.
        os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
        # NumPy's threads wait by spinning, on the processors that PyTorch's then lack.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    debug = "--debug" in given
    with unbroken_streams():
        return _run([a for a in given if a != "--debug"], debug)


def _run(given: list[str], debug: bool) -> int:
    if any("\0" in word for word in given):
        return _complain(BAD_INPUT, "a word holds a null byte, which no file name has; leave it out")
    try:
        with _termination_interrupts():
            code = cli.main(given, prog_name="ctinv", standalone_mode=False)
            return code if isinstance(code, int) else DONE
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return BAD_INPUT
    except click.ClickException as error:
        hint = ""
        if isinstance(error, click.UsageError):
            hint = f" (see {error.ctx.command_path if error.ctx else 'ctinv'} --help)"
        return _complain(BAD_INPUT, error.format_message().rstrip(".") + hint)
    except CasesFailedError as error:
        return _complain(SOME_FAILED, str(error))
    except (KeyboardInterrupt, click.Abort):
        return _complain(INTERRUPTED, "interrupted; no file is left half-written")
    except Exception as error:
        from ctinv.adapters.errors import CtinvError

        if debug:
            traceback.print_exc()
        if isinstance(error, CtinvError):
            return _complain(BAD_INPUT, str(error))
        if isinstance(error, OSError) and error.errno in _FULL:
            where = "the output" if error.filename is None else f"{error.filename}"
            return _complain(BAD_INPUT, f"{where} cannot be written: {os.strerror(error.errno).lower()}")
        advice = "" if debug else "; --debug shows the traceback"
        return _complain(FAILED, f"internal error: {type(error).__name__}: {error}{advice}")


def _complain(code: int, message: str) -> int:
    with suppress(OSError):  # a full disk: the exit code tells it
        click.echo(f"ctinv: {' '.join(message.split())}", err=True)
    return code


@contextmanager
def _termination_interrupts() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the work as Ctrl-C does, so that temporary files are taken away."""

    def interrupt(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    try:
        before = {name: signal.signal(getattr(signal, name), interrupt) for name in names}
    except ValueError:  # not in the main thread: whoever runs us there handles signals
        yield
        return
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)
