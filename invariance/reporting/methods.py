"""How an analysis was made, in words to paste and as a command."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ctinv.adapters.errors import CtinvError
from ctinv.invariance.presets import preset

if TYPE_CHECKING:
    from .result import AnalysisResult

__all__ = ["CITATIONS", "command", "methods_text"]

CITATIONS = (
    "E. Eulig, B. Ommer, M. Kachelrieß, Reconstructing invariances of CT image denoising networks using "
    "invertible neural networks, Proc. SPIE 12304, 2022.",
    "E. Eulig et al., Reconstructing and analyzing the invariances of low-dose CT image denoising networks, "
    "Medical Physics, 2024, doi 10.1002/mp.17413.",
    "R. Rombach, P. Esser, B. Ommer, Making sense of CNNs: interpreting deep representations and their "
    "invariances with INNs, ECCV, 2020.",
)


def methods_text(e: AnalysisResult) -> list[str]:
    """Paragraphs for the methods section of a paper: what was done, with which versions, after whom."""
    meta = e.meta
    versions = ", ".join(f"{name} {version}" for name, version in meta.versions.items())
    return [
        " ".join(_done(e)),
        f"Software: {versions or 'versions not recorded'}. Seed {_or_unknown(meta.seed)}.",
        "References: " + " ".join(f"[{n}] {text}" for n, text in enumerate(CITATIONS, start=1)),
    ]


def _done(e: AnalysisResult) -> Iterator[str]:
    meta = e.meta
    sha = f" (SHA-256 {meta.model_hash[:12]}…)" if meta.model_hash else ""
    rows, columns = e.x.shape
    mm = f", {meta.spacing[0]:.3g} × {meta.spacing[1]:.3g} mm" if meta.spacing else ""
    yield (
        f"The invariances of layer {meta.layer or 'unnamed'} of the denoiser {meta.model or 'unnamed'}{sha} "
        f"were reconstructed [1-3] for one slice of {rows} × {columns} pixels{mm}."
    )
    fitted = f", fitted on {meta.data}" if meta.data else ""
    yield (
        f"An autoencoder and a conditional normalizing flow (preset {meta.preset or 'not recorded'}{fitted}) "
        f"gave {_or_unknown(meta.samples)} samples of images with the layer's output given."
    )
    done = meta.refinement
    if done.samples:
        noise = f"{100 * done.rho:g} % of what" if done.rho else "less than what"
        yield (
            f"{done.samples} of them, and realisations of the image's noise, were moved onto the layer's "
            f"fibre until they change its output by no more than {noise} the image's noise does; the spread "
            "of these is the lower bound of what the layer hides."
        )
    if e.bounds.upper is not None:
        yield (
            "The upper bound is the error of the image read back from the layer's output, on slices held "
            "out from the fit."
        )
    if e.audit.controls is not None:
        yield "Controls with a known answer (identity, constant, exchanged output) were run beside it."


def _or_unknown(value: int | None) -> str:
    return "not recorded" if value is None else str(value)


def command(e: AnalysisResult) -> str:
    """The command that makes this analysis again, given the same model file and slice.

    Paths are never stored, so the model and the slice are called by their names.
    """
    meta = e.meta
    words = ["ctinv", "analyze", "--model", meta.model or "MODEL", "--layer", meta.layer or "LAYER"]
    if meta.source:
        words += ["--input", meta.source]
    if meta.samples is not None:
        words += ["--samples", str(meta.samples)]
    if meta.refinement.samples:
        words += ["--refine", str(meta.refinement.samples)]
    if meta.refinement.rho is not None:
        words += ["--rho", f"{meta.refinement.rho:g}"]
    if meta.quantiles:
        words += ["--quantiles", ",".join(f"{share:g}" for share in meta.quantiles)]
    words += _preset_words(e)
    if meta.intensity:
        words += ["--intensity", meta.intensity]
    if meta.output:
        words += ["--output", meta.output]
    if meta.seed is not None:
        words += ["--seed", str(meta.seed)]
    return shlex.join(map(str, words))


def _preset_words(e: AnalysisResult) -> list[str]:
    """The preset, and what was changed of it."""
    meta = e.meta
    if not meta.preset:
        return []
    words = ["--preset", meta.preset]
    try:
        usual = preset(meta.preset).as_dict()
    except CtinvError:  # of a version with other presets
        return words
    for name, value in _changed(meta.preset_fields or {}, usual):
        words += ["--set", f"{name}={value}"]
    return words


def _changed(fields: object, usual: object, above: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(fields, dict) and isinstance(usual, dict):
        for key, value in fields.items():
            if key in usual:
                yield from _changed(value, usual[key], f"{above}.{key}" if above else str(key))
    elif fields != usual and not isinstance(usual, list | tuple):
        yield above, fields
