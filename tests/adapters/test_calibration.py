"""Units found on CT: right, or refused; never wrong without a word."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ctinv import adapters
from ctinv.adapters import CANDIDATES, ImageError, IntensityError, parse_intensity
from ctinv.adapters.calibration import Trial, choose
from torch import nn

from .peers import peer

FIVE = ("hu", "offset:1024", "unit:-1024:3072", "unit:-160:240", "offset:1024:standard:481.454:502.185")


def body(count=2, side=128, seed=0):
    """A drawn chest: air, soft tissue with organs, lung, bone; HU, with a little noise."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:side, 0:side] / side - 0.5
    images = np.full((count, 1, side, side), -1000.0)
    for image in images[:, 0]:
        turn = rng.uniform(-0.1, 0.1)
        image[(rows / 0.42) ** 2 + (columns / 0.48) ** 2 < 1] = 40.0
        image[(rows + 0.1 + turn) ** 2 + (columns - 0.2) ** 2 < 0.015] = -850.0
        image[(rows / 0.4) ** 2 + ((columns + 0.2) / 0.4) ** 2 < 0.1] = 90.0
        image[(rows - 0.28) ** 2 + (columns + turn) ** 2 < 0.003] = 900.0
        for level in (-80.0, 10.0, 140.0):
            row, column = rng.uniform(-0.25, 0.25, 2)
            image[(rows - row) ** 2 + (columns - column) ** 2 < 0.002] = level
    return (images + rng.normal(0, 6, images.shape)).astype(np.float32)


class Lee(nn.Module):
    """A classical denoiser that knows its units: noise of 40 HU, values from -1150 to 3200 HU.

    Where the local variance is that of noise it takes the local mean (J.-S. Lee, 1980).
    """

    def forward(self, hu):
        x = hu.clamp(-1150.0, 3200.0)
        mean = F.avg_pool2d(x, 5, 1, 2, count_include_pad=False)
        spread = F.avg_pool2d((x - mean) ** 2, 5, 1, 2, count_include_pad=False)
        return mean + (1.0 - 1600.0 / spread.clamp(min=1e-3)).clamp(0.0, 1.0) * (x - mean)


class InUnits(nn.Module):
    """A denoiser of HU, rebuilt to take and give another convention's values."""

    def __init__(self, spec, hu, residual=False):
        super().__init__()
        self.units, self.hu, self.residual = parse_intensity(spec), hu, residual

    def forward(self, u):
        image = self.units.to_model(self.hu(self.units.to_hu(u)))
        return u - image if self.residual else image


# 500 HU per unit for 502, or a window half as wide again, hardly changes what such a filter does.
TWINS = ("standard:-500:500", "unit:-300:300")


@pytest.mark.parametrize("spec", [spec for spec in CANDIDATES if spec not in TWINS])
@pytest.mark.parametrize("residual", [False, True])
def test_D04_units_and_output_are_found(spec, residual):
    denoiser = adapters.wrap(InUnits(spec, Lee(), residual))
    images = body()
    found = denoiser.calibrate(images)
    assert (found.intensity.spec, found.output) == (spec, "residual" if residual else "image")
    assert (denoiser.intensity, denoiser.output) == (found.intensity, found.output)
    assert found.margin > 0
    assert len(found.table) == 2 * len(CANDIDATES)
    assert [t.score for t in found.table] == sorted(t.score for t in found.table)
    assert any(f"units found by calibration: {spec}" in notice for notice in denoiser.notices)
    np.testing.assert_allclose(denoiser.denoise(images), Lee()(torch.from_numpy(images)), atol=0.1)


def test_D04_what_the_user_said_about_the_output_holds():
    denoiser = adapters.wrap(InUnits("hu", Lee()), output="image")
    assert {trial.output for trial in denoiser.calibrate(body()).table} == {"image"}
    denoiser = adapters.wrap(InUnits("hu", Lee()))
    assert {trial.output for trial in denoiser.calibrate(body(), output="image").table} == {"image"}


class Identity(nn.Module):
    def forward(self, x):
        return x * 1.0


class Zero(nn.Module):
    def forward(self, x):
        return x * 0.0


@pytest.mark.parametrize("module", [Identity(), Zero()])
def test_D04_models_that_remove_nothing_are_refused(module):
    with pytest.raises(IntensityError, match="no known convention makes a denoiser of this model"):
        adapters.wrap(module).calibrate(body())


def test_D04_untrained_network_is_refused():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1))
    denoiser = adapters.wrap(module)
    with pytest.raises(IntensityError, match="give intensity= and output=") as refusal:
        denoiser.calibrate(body())
    for part in ("--intensity and --output", "unit:LO:HI where LO..HI HU became 0..1", "image or residual"):
        assert part in str(refusal.value)
    assert denoiser.intensity is None


def test_D04_filter_that_fits_every_scale_denoises_alike_under_the_choice():
    class Smooth(nn.Module):
        def forward(self, x):
            return F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), 3, 1)

    denoiser = adapters.wrap(Smooth())
    found = denoiser.calibrate(body())
    assert found.output == "image"
    x = body(1)
    np.testing.assert_allclose(denoiser.denoise(x), Smooth()(torch.from_numpy(x)), atol=0.01)


def _trial(spec, score, level):
    trial = Trial(parse_intensity(spec), "image", 10.0, 1.0, 3.0, 0.5, score)
    return trial, np.full((1, 1, 4, 4), level, np.float32)


def test_D04_too_close_to_call_is_refused_only_where_it_matters():
    with pytest.raises(IntensityError, match=r"cannot be told: hu .* hardly better than offset:1024"):
        choose([_trial("hu", 2.0, 0.0), _trial("offset:1024", 2.01, 30.0)])
    same = choose([_trial("hu", 2.0, 0.0), _trial("offset:1024", 2.01, 0.5), _trial("unit:0:1", 3.0, 30.0)])
    assert same.intensity.spec == "hu"
    assert same.margin == pytest.approx(1.0)


def _pictures(spec, score, lung, output="image", bias=50.0):
    trial = Trial(parse_intensity(spec), output, 10.0, 1.0, bias, 0.5, score)
    image = np.full((2, 1, 64, 64), 40.0, np.float32)
    image[..., 40:] = lung
    return trial, image


def test_D04_conventions_that_give_the_same_tissue_are_tied_and_the_most_common_is_taken():
    common, other = ("unit:-160:240", 2.01, -850.0), ("unit:-300:300", 2.0, -780.0)
    found = choose([_pictures(*common), _pictures(*other), _pictures("hu", 4.0, -1000.0)])
    assert found.intensity.spec == "unit:-160:240"
    assert [trial.intensity.spec for trial in found.ties] == ["unit:-300:300"]
    assert choose([_pictures(*common), _pictures("hu", 4.0, -1000.0)]).ties == ()


@pytest.mark.parametrize("how", ["output", "tissue", "bias"])
def test_D04_ties_that_matter_are_refused(how):
    common, other = ("unit:-160:240", 2.01, -850.0), ("unit:-300:300", 2.0, -780.0)
    bad = _pictures(
        *other, output="residual" if how == "output" else "image", bias=300.0 if how == "bias" else 50.0
    )
    if how == "tissue":
        bad[1][..., :40] += 6.0
    with pytest.raises(IntensityError, match="cannot be told"):
        choose([_pictures(*common), bad])


def test_D04_good_in_a_window_only_is_refused_where_another_is_good_everywhere():
    narrow = _pictures("unit:-160:240", 2.0, -400.0, bias=500.0)
    with pytest.raises(IntensityError, match=r"yet unit:-1024:3072.*give more slices"):
        choose([_pictures("unit:-1024:3072", 2.3, -850.0, bias=15.0), narrow])
    assert choose([_pictures("unit:-1024:3072", 2.6, -850.0, bias=15.0), narrow]).margin > 0.5
    assert choose([_pictures("unit:-1024:3072", 2.3, -850.0, bias=200.0), narrow]).margin > 0.2


def test_D04_denoisers_of_strong_noise_are_found_with_strong_noise_and_it_is_said(monkeypatch):
    own = "unit:-1024:3072"
    denoiser = adapters.wrap(InUnits(own, Lee()), output="image")

    def run(x, intensity, outputs):
        """Smooths, and is 25 HU off in its own units, far off in others."""
        smooth = F.avg_pool2d(torch.from_numpy(x), 5, 1, 2, count_include_pad=False).numpy()
        return [smooth + (25.0 if intensity.spec == own else 400.0)]

    monkeypatch.setattr(denoiser, "_tried", run)
    found = denoiser.calibrate(body())
    assert (found.intensity.spec, found.noise) == (own, 100.0)
    assert any("a rough choice" in note and "tissue by 2" in note for note in denoiser.notices)
    usual = adapters.wrap(InUnits(own, Lee()), output="image")
    assert usual.calibrate(body()).noise == 30.0
    assert not any("rough" in notice for notice in usual.notices)


def test_images_without_tissue_are_refused():
    denoiser = adapters.wrap(InUnits("hu", Lee()))
    with pytest.raises(ImageError, match="with soft tissue in them"):
        denoiser.calibrate(np.full((1, 1, 64, 64), -1000.0, np.float32))


def test_calibration_reports_progress_and_takes_tensors():
    seen = []
    denoiser = adapters.wrap(InUnits("unit:-1024:3072", Lee()))
    denoiser.calibrate(torch.from_numpy(body()), progress=lambda *args: seen.append(args))
    assert seen[0] == ("calibrate", 0, len(CANDIDATES))
    assert seen[-1] == ("calibrate", len(CANDIDATES), len(CANDIDATES))


def test_calibration_is_reproducible():
    tables = [adapters.wrap(InUnits("hu", Lee())).calibrate(body()).table for _ in range(2)]
    assert tables[0] == tables[1]


class FromUnits(nn.Module):
    """A network of some convention as a denoiser of HU."""

    def __init__(self, spec, net):
        super().__init__()
        self.units, self.net = parse_intensity(spec), net

    def forward(self, hu):
        return self.units.to_hu(self.net(self.units.to_model(hu)))


@pytest.mark.slow
def test_D04_trained_denoisers_in_five_conventions(shared_data):
    pydicom = pytest.importorskip("pydicom")
    from ctinv import zoo

    cores = {"dncnn": FromUnits("unit:-160:240", peer("kair dncnn"))}
    for name in ("chen", "yang"):
        cores[name] = FromUnits(zoo.metadata(name)["ctinv.intensity"], zoo.network(name))
    slices = []
    for path in sorted((shared_data / "ct" / "tcga").glob("*.dcm"))[30:34]:
        data = pydicom.dcmread(path)
        hu = data.pixel_array * float(data.RescaleSlope) + float(data.RescaleIntercept)
        slices.append(hu.clip(-1024, 3071).astype(np.float32))
    images = np.stack(slices)[:, None]
    right = []
    for name, core in cores.items():
        for spec in FIVE:
            try:
                found = adapters.wrap(InUnits(spec, core)).calibrate(images)
            except IntensityError:
                continue
            specs = [found.intensity.spec, *(trial.intensity.spec for trial in found.ties)]
            assert spec in specs, (name, spec)  # never wrong without a word
            assert found.output == "image"
            if specs[0] == spec:
                right.append((name, spec))
    assert len(right) >= 14, right
