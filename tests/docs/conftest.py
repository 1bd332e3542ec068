"""The folder in which pages are followed, and a fit that takes no time."""

import shutil
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from ctinv import adapters, invariance, zoo
from ctinv.invariance.audit.record import Audit, Figure, Leakage
from ctinv.invariance.data import default_slice, new_series_uid, write_dicom
from ctinv.invariance.networks.fit_record import FitRecord
from ctinv.invariance.reporting.provenance import Provenance

TINY = {"fit.steps": "5", "fit.patches": "64", "reading.slices": "2", "reading.steps": "3"}


@pytest.fixture(scope="session")
def given(tmp_path_factory):
    """What the pages take as given: a slice, folders of slices at one and two doses, model files."""
    folder = tmp_path_factory.mktemp("given")
    whole = default_slice()
    cut = replace(whole, hu=whole.hu[32:96, 32:96], valid=whole.valid[32:96, 32:96], source=None, meta={})
    write_dicom(cut, None, folder / "slice.dcm", "a slice")
    write_dicom(replace(cut, hu=cut.hu[::-1].copy()), None, folder / "another.dcm", "another")
    rng = np.random.default_rng(0)
    study = new_series_uid()
    for dose, noise in (("scans", 5), ("full", 5), ("quarter", 40)):
        series = new_series_uid()
        (folder / dose).mkdir()
        for number in range(1, 4):
            x, y, z = whole.position
            hu = whole.hu + rng.normal(0, noise, whole.shape).astype(np.float32)
            one = replace(whole, hu=hu, position=(x, y, z + 5 * number), source=None, meta={})
            path = write_dicom(
                one, None, folder / dose / f"{number}.dcm", dose, instance=number, series_uid=series
            )
            dataset = pydicom.dcmread(path)
            dataset.StudyInstanceUID = dataset.FrameOfReferenceUID = study
            dataset.save_as(path)
    hu = cut.hu[:32, :32]
    np.save(folder / "shifted.npy", hu + 1024)
    np.save(folder / "unit.npy", (hu + 1024) / 4096)
    np.save(folder / "odd.npy", np.abs(hu))
    np.save(folder / "negated.npy", -hu)
    (folder / "npy_img").mkdir()
    for number, noise in enumerate(np.random.default_rng(0).normal(0, 40, (3, *cut.hu.shape))):
        for side, image in (("input", cut.hu + noise), ("target", cut.hu)):
            np.save(folder / "npy_img" / f"L067_{number}_{side}.npy", (image + 1024) / 4096)
    zoo.export("yang", folder / "model.onnx")
    return folder


@pytest.fixture
def place(given, tmp_path, monkeypatch):
    """A fresh folder that holds a copy of it, as the working directory."""
    shutil.copytree(given, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.syspath_prepend(tmp_path / "here")
    return tmp_path / "here"


class Explainer:
    """Explains without having been fitted."""

    def __init__(self, denoiser, layer):
        self.denoiser, self.layer, self.info = denoiser, denoiser.resolve(layer).name, FitRecord()

    def explain(self, image, *, samples=3, seed=0, **_):
        x = np.asarray(getattr(image, "hu", image), dtype=np.float32)
        drawn = x + np.random.default_rng(seed).normal(0, 5, (3, *x.shape)).astype(np.float32)
        return invariance.Explanation(
            x=x,
            denoised=np.asarray(self.denoiser.denoise(x[None, None]))[0, 0],
            reconstruction=x,
            samples=drawn,
            mean=drawn.mean(0),
            std=drawn.std(0),
            audit=Audit(leakage=Leakage(Figure(0.25, n=samples)), verdict=("Read with care.",)),
            meta=Provenance(
                model=self.denoiser.name,
                model_hash=self.denoiser.fingerprint,
                layer=self.layer,
                seed=seed,
                source=getattr(image, "name", None),
                dose=getattr(image, "meta", {}).get("simulated_dose"),
            ),
        )

    def save(self, folder):
        folder.mkdir(parents=True)
        return folder

    @classmethod
    def load(cls, folder, denoiser):
        return cls(denoiser, "conv7")


@pytest.fixture
def stand_in(monkeypatch):
    """Nothing is fitted, drawn or plotted; all else is real."""

    def fit(denoiser, layers, **_):
        found = [Explainer(denoiser, layer) for layer in ([layers] if isinstance(layers, str) else layers)]
        return found[0] if isinstance(layers, str) else found

    monkeypatch.setattr(invariance, "fit", fit, raising=False)
    monkeypatch.setattr(invariance, "Explainer", Explainer, raising=False)
    picture = "ctinv.invariance.reporting.explanation"
    monkeypatch.setattr(f"{picture}.figure_png", lambda *_, **__: b"no picture")
    monkeypatch.setattr(f"{picture}.report_html", lambda *_, **__: "no page")
    return fit


@pytest.fixture
def tiny(monkeypatch):
    """Fits of the preset tiny, of few steps, and few samples, whatever a page asks for."""
    whole, explain = invariance.fit, invariance.Explainer.explain

    def fit(denoiser, layers, **options):
        options |= {"preset": "tiny", "overrides": TINY, "data": options.get("data")}
        return whole(denoiser, layers, **options)

    def few(self, image, **options):
        return explain(self, image, **options | {"samples": 4, "refine": 1})

    monkeypatch.setattr(invariance, "fit", fit, raising=False)
    monkeypatch.setattr(invariance.Explainer, "explain", few)
    return adapters
