"""Stand-ins for the long parts, so that the command line itself is what is tested."""

import dataclasses
import json

import numpy as np
import pytest
from ctinv.cli import main
from ctinv.invariance.audit.record import Audit, Figure, Leakage
from ctinv.invariance.networks.fit_record import FitRecord
from ctinv.invariance.reporting.explanation import Explanation
from ctinv.invariance.reporting.provenance import Provenance


@dataclasses.dataclass
class Run:
    """What one call of the command line gave."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture
def run(capfd):
    """Call the command line as the installed command does."""

    def call(*args):
        capfd.readouterr()
        code = main([str(a) for a in args])
        out, err = capfd.readouterr()
        return Run(code, out, err)

    return call


class Explainer:
    """Explains without having been fitted."""

    def __init__(self, denoiser, layer):
        self.denoiser, self.layer, self.info = denoiser, layer, FitRecord()

    def explain(self, image, *, samples, seed, progress=None, **_):
        x = image.hu
        rng = np.random.default_rng(seed)
        drawn = x + rng.normal(0, 5, (min(5, samples), *x.shape)).astype(np.float32)
        return Explanation(
            x=x,
            denoised=self.denoiser.denoise(x[None, None])[0, 0],
            reconstruction=x,
            samples=drawn,
            mean=drawn.mean(0),
            std=drawn.std(0),
            audit=Audit(leakage=Leakage(Figure(0.25, n=samples)), verdict=("Read with care.",)),
            meta=Provenance(
                model=self.denoiser.name,
                model_hash=self.denoiser.fingerprint,
                layer=self.denoiser.resolve(self.layer).name,
                seed=seed,
                samples=samples,
                source=image.name,
            ),
        )


@pytest.fixture
def fits(monkeypatch):
    """Replace the fit; what it was asked for is listed here."""
    from ctinv import invariance

    asked = []

    def fit(denoiser, layers, **options):
        asked.extend((layer, options) for layer in layers)
        print("a library that prints")  # noqa: T201 (it must not reach a JSON result)
        return [Explainer(denoiser, layer) for layer in layers]

    monkeypatch.setattr(invariance, "fit", fit, raising=False)
    return asked


@pytest.fixture
def slices(tmp_path):
    """A folder of two small NumPy slices."""
    folder = tmp_path / "ct"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        np.save(folder / f"{name}.npy", rng.normal(0, 50, (64, 64)).astype(np.float32))
    return folder
