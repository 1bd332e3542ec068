"""The two figures of the method's paper, drawn from finished analyses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from ctinv.invariance.data.windows import choose_window
from ctinv.invariance.reporting.sheet import Sheet, distance, scale_bar, spacing_text, top_of
from paper_findings import Case

__all__ = ["outputs_png", "stages_png"]

_TITLES = {"chen": "Chen", "yang": "Yang"}


def outputs_png(cases: Sequence[Case], outputs: Mapping[str, str]) -> bytes:
    """Figure 1: a column per slice; the input, then for each network output, anatomy and noise hidden."""
    shown = [c for c in cases if c.layer == outputs[c.network]]
    count = 1 + max(c.row for c in shown)
    first = shown[0].explanation
    sheet = Sheet(first.x.shape, columns=count, rows=1 + 3 * len(outputs), compact=True)
    sheet.head("What the outputs of both networks hide", "refined maps; one colour scale per row")
    window = choose_window(first.x)
    for case in shown:
        if case.network == next(iter(outputs)):
            e = case.explanation
            caption = spacing_text(e.meta.spacing)
            axes, _ = sheet.grey(0, case.row, e.x, window, f"x, slice {case.row + 1}", caption)
            scale_bar(axes, e.meta.spacing)
    for block, network in enumerate(outputs):
        some = [c for c in shown if c.network == network]
        name, row = _TITLES[network], 1 + 3 * block
        anatomy = top_of([c.explanation.std for c in some])
        noise = top_of([_noise(c) for c in some])
        for c in some:
            e = c.explanation
            sheet.grey(row, c.row, e.denoised, window, f"{name}: f(x)", distance(e.denoised, e.x))
            caption = f"mean {np.mean(e.std):.2f} HU, white {anatomy:.1f} HU"
            sheet.spread(row + 1, c.row, e.std, anatomy, f"{name}: anatomy hidden", caption)
            caption = f"mean {np.mean(_noise(c)):.2f} HU, white {noise:.1f} HU"
            sheet.spread(row + 2, c.row, _noise(c), noise, f"{name}: noise hidden", caption)
    sheet.foot(f"Grey images: {window}.")
    return sheet.png()


def stages_png(cases: Sequence[Case], layers: Mapping[str, Sequence[str]], count: int) -> bytes:
    """Figure 2: a row per slice and layer; input, samples, and maps before and after refinement."""
    wanted = [
        c
        for row in range(count)
        for network, names in layers.items()
        for layer in names
        for c in cases
        if (c.network, c.layer, c.row) == (network, layer, row)
    ]
    first = wanted[0].explanation
    sheet = Sheet(first.x.shape, columns=7, rows=len(wanted), compact=True)
    sheet.head("Layer by layer", "two refined samples each, and maps before and after refinement")
    window = choose_window(first.x)
    for row, c in enumerate(wanted):
        e, name = c.explanation, f"{_TITLES[c.network]} {c.layer}"
        axes, _ = sheet.grey(row, 0, e.x, window, f"{name}: x", spacing_text(e.meta.spacing))
        scale_bar(axes, e.meta.spacing)
        sheet.grey(row, 1, e.reconstruction, window, "D(E(x))", distance(e.reconstruction, e.x))
        for k, sample in enumerate(e.samples[:2]):
            sheet.grey(row, 2 + k, sample, window, f"x″, sample {k + 1}", distance(sample, e.x))
        before = e.std if e.std_flow is None else e.std_flow
        for column, (title, image) in enumerate(
            (("std before refinement", before), ("anatomy hidden", e.std), ("noise hidden", _noise(c)))
        ):
            top = top_of([image])
            caption = f"mean {np.mean(image):.2f} HU, white {top:.1f} HU"
            sheet.spread(row, 4 + column, image, top, title, caption)
    sheet.foot(f"Grey images: {window}.")
    return sheet.png()


def _noise(case: Case) -> np.ndarray:
    hidden = case.explanation.std_noise
    return np.zeros_like(case.explanation.x) if hidden is None else hidden
