"""``ctinv audit``: how far the images of a finished analysis can be trusted."""

from __future__ import annotations

from pathlib import Path

import click

from .console import Screen
from .options import json_option, quiet_option

__all__ = ["audit"]


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@json_option
@quiet_option
def audit(folder: Path, as_json: bool, quiet: bool) -> None:
    """Show every audit figure of the analyses in FOLDER, with what it means.

    \b
    Example:
      ctinv audit out
    """
    with Screen(as_json, quiet) as screen:
        from ctinv.adapters.errors import CtinvError
        from ctinv.invariance import Explanation
        from ctinv.invariance.audit.scores import scores

        # A probe's result has no arrays; it is not audited.
        places = sorted(p.parent for p in folder.rglob("result.json") if (p.parent / "arrays.npz").is_file())
        if not places:
            raise CtinvError(f"{folder} holds no result.json; give a folder that ctinv analyze wrote")
        answers = [(place, Explanation.load(place)) for place in places]
        if as_json:
            kept = ("model", "layer", "source", "audit")
            screen.result(
                [{"folder": str(place), **{k: e.result.get(k) for k in kept}} for place, e in answers]
            )
            return
        for place, e in answers:
            screen.line(f"\n{place}: {e.meta.model}, {e.meta.layer}")
            rows = [(s.title, s.text, "" if s.n is None else str(s.n), s.meaning) for s in scores(e.audit)]
            screen.table("", ("Audit", "Value", "n", "What it says"), rows)
            for line in e.audit.verdict:
                screen.line(line)
