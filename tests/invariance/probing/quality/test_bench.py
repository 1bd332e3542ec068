"""The bench on denoisers whose transfer, noise and bias are known."""

import csv
import io
import json

import numpy as np
import pytest
import torch
from ctinv import adapters
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.data.phantoms.phantom import phantom
from ctinv.invariance.infra.randomness import Purpose, rng
from ctinv.invariance.probing.quality import sheet as sheets
from ctinv.invariance.probing.quality.bench import _errors, _row, bench_figures
from ctinv.invariance.probing.quality.bias import hu_bias
from ctinv.invariance.probing.quality.files import save_bench
from torch import nn
from torch.nn import functional as F


class Known(nn.Module):
    """A Gaussian blur of 1 mm (0.8 mm pixels) that adds 3 HU."""

    def __init__(self):
        super().__init__()
        line = torch.exp(-0.5 * (torch.arange(-6, 7) / 1.25) ** 2)
        self.register_buffer("kernel", (line[:, None] * line / line.sum() ** 2)[None, None])

    def forward(self, x):
        return F.conv2d(F.pad(x, [6] * 4, mode="replicate"), self.kernel) + 3


@pytest.fixture(scope="module")
def found():
    denoiser = adapters.wrap(Known().eval(), intensity="hu")
    return bench_figures(denoiser, contrasts=(30.0,), doses=(1.0,), realisations=12)


def test_the_transfer_of_a_blur_is_found_through_noise(found):
    (one,) = found.transfers
    frequency = one.output.frequency
    truth = np.exp(-2 * (np.pi * 1.0 * frequency) ** 2)
    used = truth > 0.15
    assert one.output.value[used] / one.image.value[used] == pytest.approx(truth[used], abs=0.02)
    assert one.output.contrast == pytest.approx(30, rel=0.02)


def test_uniform_noise_is_that_of_a_routine_slice_and_alike_in_all_directions(found):
    noise = found.noise[0].image
    assert noise.magnitude == pytest.approx(12, rel=0.08)
    power = noise.power
    angle = np.arctan2(*np.meshgrid(power.rows, power.columns, indexing="ij"))
    middle = np.hypot(power.rows[:, None], power.columns) < 0.4
    diagonal = np.abs(np.sin(2 * angle)) > 0.7
    assert power.nps[middle & diagonal].mean() == pytest.approx(power.nps[middle & ~diagonal].mean(), rel=0.1)


@pytest.mark.parametrize("where", ["uniform", "patient"])
def test_noise_falls_and_grows_coarser(found, where):
    (one,) = [noise for noise in found.noise if noise.place == where]
    image, output = one.image, one.output
    assert output.magnitude < 0.7 * image.magnitude
    assert output.mean < image.mean
    for one in (image, output):
        assert one.power.integral == pytest.approx(one.magnitude**2, rel=0.01)


def test_what_a_denoiser_adds_is_its_bias(found):
    """That of the phantom without noise, blurred and brightened."""
    truth = phantom(rng(0, Purpose.PHANTOM, 0), 256, kind="abdomen", lesions=0).hu
    blurred = Known()(torch.from_numpy(truth)[None, None])[0].numpy()
    wanted = {b.tissue: b.value for b in hu_bias(blurred, truth)}
    assert {b.tissue for b in found.bias} == set(wanted)
    for one in found.bias:
        assert one.value == pytest.approx(wanted[one.tissue], abs=0.5 + 4 * one.error)


def test_the_table_names_every_figure_once(found):
    names = [row.figure for row in found.rows()]
    assert len(names) == len(set(names)) == 2 + 8 + len(found.bias)
    rows = {row.figure: row for row in found.rows()}
    assert rows["noise, uniform"].output == found.noise[0].output.magnitude
    assert rows["noise, uniform"].error is None  # twelve realisations are too few for an eighth
    width = np.sqrt(1.0 + 0.6**2 + 0.8**2 / 12)  # blur, the rod's edge and pixels, mm
    half = np.sqrt(np.log(2) / 2) / (np.pi * width)
    assert rows["TTF falls to 50 %, +30 HU, dose 1"].output == pytest.approx(half, rel=0.02)


@pytest.mark.parametrize(("error", "told"), [(0.2, 0.2), (4e-17, None), (float("nan"), None)])
def test_an_error_of_rounding_is_none(error, told):
    assert _row("NPS peak", "1/mm", 0.2, 0.1, error).error == told


def test_standard_errors_are_those_of_the_mean():
    """Of a mean they are known in closed form; those of the noise are what realisations spread by."""
    values = np.random.default_rng(0).normal(size=64)
    (error,) = _errors(lambda kept: [values[kept].mean()], 64)
    assert error == pytest.approx(values.std(ddof=1) / 8, rel=0.35)
    assert np.isnan(_errors(lambda kept: [values[:15][kept].mean()], 15)).all()
    draws = np.random.default_rng(1)
    noise = draws.standard_normal((24, 20, 20, 20))
    found = [_errors(lambda kept, n=one: [n[kept].std()], 20)[0] for one in noise]
    assert np.median(found) == pytest.approx(np.std([one.std() for one in noise], ddof=1), rel=0.5)


@pytest.mark.parametrize(
    ("asked", "said"), [({"realisations": 1}, "2 or more"), ({"doses": (2.0,)}, "make no")]
)
def test_what_makes_no_bench_is_refused(asked, said):
    with pytest.raises(CtinvError, match=said):
        bench_figures(adapters.wrap(nn.Identity(), intensity="hu"), **asked)


def test_a_sheet_is_stored_and_found_again(found, tmp_path, monkeypatch):
    denoiser = adapters.wrap(Known().eval(), intensity="hu", name="blur & more")
    asked = {"doses": (1.0,), "realisations": 12, "seed": 0}
    calls = []
    monkeypatch.setattr(sheets, "bench_figures", lambda *_, **__: calls.append(1) or found)
    one = sheets.bench_sheet(denoiser, tmp_path, **asked)
    assert sheets.bench_sheet(denoiser, tmp_path, **asked) == one
    assert len(calls) == 1
    sheets.bench_sheet(denoiser, tmp_path, **{**asked, "seed": 1})
    sheets.bench_sheet(adapters.wrap(nn.Identity(), intensity="hu", name="blur & more"), tmp_path, **asked)
    assert len(calls) == 3
    assert one.rows == found.rows()
    kinds = [(c.kind, c.name) for c in one.curves]
    assert kinds == [("transfer", "+30 HU, dose 1"), ("noise", "uniform"), ("noise", "patient")]
    plane = np.array(one.planes[0].values)
    assert plane.shape == (64, 64)
    cell = 2 * one.planes[0].limit[0] / 64
    assert plane.sum() * cell**2 == pytest.approx(found.noise[0].image.magnitude ** 2, rel=0.02)


def test_files_of_the_bench(found, tmp_path):
    pages = [sheets.Sheet.of(found, name, (1.0,), 0) for name in ("one <b>", "two")]
    files = save_bench(pages, tmp_path)
    assert set(files) == {"bench.png", "bench.csv", "report.html", "result.json"}
    rows = list(csv.DictReader(io.StringIO(files["bench.csv"].read_text(encoding="utf-8"))))
    assert [row["figure"] for row in rows] == 2 * [row.figure for row in found.rows()]
    assert float(rows[0]["output"]) == found.rows()[0].output
    stored = json.loads(files["result.json"].read_text(encoding="utf-8"))
    assert [one["model"] for one in stored["bench"]] == ["one <b>", "two"]
    text = files["report.html"].read_text(encoding="utf-8")
    assert "one &lt;b&gt;" in text
    assert "<b>" not in text.split("one ", 1)[1][:4]
    assert "Task Group 233" in text
