"""``ctinv cache``: what is kept between runs, and how to make room."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from .console import Screen
from .options import amount, json_option, quiet_option

if TYPE_CHECKING:
    from ctinv.invariance.infra.store import Entry

__all__ = ["cache"]


@click.group()
def cache() -> None:
    """See what is kept between runs, and make room.

    Fits, answers, made-up slices and checkpoints lie in the folder that CTINV_CACHE names, or in the
    user's cache folder. CTINV_CACHE_SIZE bounds them (default 10GB): what was used longest ago goes first.
    """


@cache.command()
@json_option
@quiet_option
def info(as_json: bool, quiet: bool) -> None:
    """Show where the cache is and what it holds.

    \b
    Example:
      ctinv cache info
    """
    with Screen(as_json, quiet) as screen:
        from ctinv.invariance.infra.cache import cache_root
        from ctinv.invariance.infra.store import cache_limit, entries

        there = entries()
        rooms: dict[str, list[int]] = defaultdict(list)
        for entry in there:
            rooms[entry.room].append(entry.size)
        if as_json:
            kinds = {room: {"entries": len(s), "bytes": sum(s)} for room, s in sorted(rooms.items())}
            total = sum(entry.size for entry in there)
            screen.result(
                {"folder": str(cache_root()), "bytes": total, "limit": cache_limit(), "kinds": kinds}
            )
            return
        screen.line(f"{cache_root()}, at most {cache_limit() / 1e9:.3g} GB")
        rows = [(room, str(len(s)), f"{sum(s) / 1e6:.1f}") for room, s in sorted(rooms.items())]
        screen.table("", ("Kind", "Entries", "MB"), rows)


@cache.command()
@click.option("--size", callback=amount, metavar="SIZE", help="What may stay, such as 2GB.")
@json_option
@quiet_option
def prune(size: int | None, as_json: bool, quiet: bool) -> None:
    """Remove what was used longest ago until the rest fits.

    \b
    Example:
      ctinv cache prune --size 2GB
    """
    with Screen(as_json, quiet) as screen:
        from ctinv.invariance.infra.store import prune as prune_store

        _tell(screen, prune_store(size))


@cache.command()
@json_option
@quiet_option
def clear(as_json: bool, quiet: bool) -> None:
    """Remove everything; the next run fits anew.

    \b
    Example:
      ctinv cache clear
    """
    with Screen(as_json, quiet) as screen:
        from ctinv.invariance.infra.store import clear as clear_store

        _tell(screen, clear_store())


def _tell(screen: Screen, removed: Sequence[Entry]) -> None:
    size = sum(entry.size for entry in removed)
    if screen.as_json:
        screen.result({"removed": len(removed), "bytes": size})
        return
    screen.line(f"removed {len(removed)} entries, {size / 1e6:.1f} MB")
