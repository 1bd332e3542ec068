"""The newcomer's walk of docs/walk.md in a browser: every page that it writes, at two widths, as pictures.

The pictures go into the folder that the variable CTINV_WALK names, where it is set. In the quick form
nothing is fitted: samples are made up, figures are those of an earlier analysis, the pages are real. The
long one (``make walk``) fits with the preset ``tiny``.
"""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from ctinv import invariance
from ctinv.cli import main
from ctinv.invariance.audit.record import Audit
from ctinv.invariance.data import default_slice, new_series_uid, phantom, write_dicom
from ctinv.invariance.networks.fit_record import FitRecord
from ctinv.invariance.reporting.explanation import Explanation
from ctinv.invariance.reporting.provenance import Provenance
from PIL import Image
from scipy.ndimage import gaussian_filter

from ..docs.blocks import blocks, commands

PAGE = Path(__file__).parents[2] / "docs" / "walk.md"
WIDTHS = (1280, 360)
PAGES = ("demo", "out", "against", "probe")
STORED = json.loads(
    (Path(__file__).parents[1] / "invariance" / "reporting" / "result_refined.json").read_text(
        encoding="utf-8"
    )
)


class Made:
    """A stand-in for a fit: its samples differ by smooth noise, more in deeper layers."""

    memory: int | None = None

    def __init__(self, denoiser, layer):
        self.denoiser, self.layer, self.info = denoiser, denoiser.resolve(layer).name, FitRecord()

    def explain(self, image, *, seed, **_):
        x, size = image.hu, 0.5 + self.denoiser.layers.index(self.denoiser.resolve(self.layer))
        rng = np.random.default_rng(seed)
        drawn = np.stack([gaussian_filter(rng.normal(0, 3 * size, x.shape), 1) for _ in range(4)])
        spread = gaussian_filter(drawn.std(0), 2).astype(np.float32)
        given = {
            **STORED,
            "model": self.denoiser.name,
            "model_hash": self.denoiser.fingerprint,
            "layer": self.layer,
            "seed": seed,
            "source": image.name,
            "spacing": image.spacing,
            "intensity": str(self.denoiser.intensity),
            "output": self.denoiser.output,
        }
        bounds = {
            "lower": {"value": size, "unit": "HU", "growth": 0.01, "steps": 20, "converged": True},
            "noise": {"value": 1.2 * size, "unit": "HU", "growth": 0.01, "steps": 20, "converged": True},
            "upper": {"value": 3 * size, "unit": "HU"},
            "converged": True,
        }
        said = f"{self.layer} hides between {1.2 * size:.1f} and {3 * size:.1f} HU."
        return Explanation(
            x=x,
            denoised=np.asarray(self.denoiser.denoise(x[None, None]))[0, 0],
            reconstruction=gaussian_filter(x, 1).astype(np.float32),
            samples=(x + drawn).astype(np.float32),
            mean=x,
            std=spread,
            std_flow=4 * spread,
            std_noise=1.2 * spread,
            reading=gaussian_filter(x, 0.5).astype(np.float32),
            audit=Audit.from_json({**STORED["audit"], "bounds": bounds, "verdict": [said]}),
            meta=Provenance.from_json(given),
        )


def slices(folder, size):
    """Two slices of a made-up body, with noise, as DICOM."""
    folder.mkdir()
    rng, series, study, place = np.random.default_rng(4), new_series_uid(), new_series_uid(), default_slice()
    for number in (1, 2):
        truth = phantom(rng, size)
        hu = (truth.hu + rng.normal(0, 15, truth.hu.shape)).astype(np.float32)
        x, y, z = place.position
        one = replace(
            place,
            hu=hu,
            valid=np.ones(hu.shape, bool),
            spacing=truth.spacing,
            position=(x, y, z + 5 * number),
            source=None,
            meta={},
        )
        path = folder / f"{number}.dcm"
        write_dicom(one, None, path, "made up", instance=number, series_uid=series)
        dataset = pydicom.dcmread(path)
        dataset.StudyInstanceUID = dataset.FrameOfReferenceUID = study  # as of one scan
        dataset.save_as(path)


def as_tiny(monkeypatch):
    """Fits of the preset tiny, and fewer samples, whatever the page asks for."""
    whole, explain = invariance.fit, invariance.Explainer.explain

    def fit(denoiser, layers, **options):
        return whole(denoiser, layers, **options | {"preset": "tiny"})

    def few(self, image, **options):
        return explain(self, image, **options | {"samples": 16})

    monkeypatch.setattr(invariance, "fit", fit, raising=False)
    monkeypatch.setattr(invariance.Explainer, "explain", few)


def follow(folder, monkeypatch, more=None):
    """Run every command of the page; ``more`` are words for some of them."""
    monkeypatch.chdir(folder)
    for block in blocks(PAGE):
        for words in commands(block.text):
            assert main(words[1:] + (more or {}).get(words[1], [])) == 0, " ".join(words)


def take(browse, folder, out):
    """A picture of every page at every width; nothing may be wider than the screen, or blank."""
    for name in PAGES:
        for width in WIDTHS:
            page = browse(folder / name / "report.html", width=width, height=800)
            page.wait_for_load_state("load")
            if page.locator(".viewer").count():
                page.wait_for_selector(".viewer[data-ready]")
            assert page.evaluate("document.documentElement.scrollWidth") <= width, name
            broken = "some => some.filter((one) => one.complete && !one.naturalWidth).length"
            assert page.eval_on_selector_all("img", broken) == 0
            assert page.locator("h1").text_content().strip()
            picture = out / f"{name}-{width}.png"
            page.screenshot(path=picture, full_page=True)
            with Image.open(picture) as drawn:
                assert drawn.width == width
                assert drawn.height > 800
                levels = np.asarray(drawn.convert("L"))
            assert levels.std() > 10
            page.context.close()


def pictures(tmp_path):
    given = os.environ.get("CTINV_WALK")
    out = Path(given) if given else tmp_path / "pictures"
    out.mkdir(parents=True, exist_ok=True)
    return out


def test_the_page_leads_to_every_page(browse):
    told = PAGE.read_text(encoding="utf-8")
    assert all(f"`{name}/report.html`" in told for name in PAGES)


def test_the_walk_is_followed_and_pictured(browse, tmp_path, monkeypatch):
    slices(tmp_path / "scans", 64)

    def fit(denoiser, layers, **_):
        return [Made(denoiser, layer) for layer in layers]

    monkeypatch.setattr(invariance, "fit", fit, raising=False)
    monkeypatch.setattr("ctinv.invariance.comparing.compare._PLACES", 1)
    follow(tmp_path, monkeypatch, {"compare": ["--samples", "2"], "probe": ["--realisations", "32"]})
    take(browse, tmp_path, pictures(tmp_path))


@pytest.mark.slow
def test_the_walk_is_followed_and_pictured_with_fits(browse, tmp_path, monkeypatch):
    slices(tmp_path / "scans", 256)
    as_tiny(monkeypatch)
    follow(tmp_path, monkeypatch)
    out = pictures(tmp_path)
    take(browse, tmp_path, out)
    for name in PAGES:
        shutil.copy(tmp_path / name / "report.html", out / f"{name}.html")
