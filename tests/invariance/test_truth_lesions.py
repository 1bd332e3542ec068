"""The battery's lesion part: it agrees with what is built in, and says so where it does not."""

import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ctinv.adapters.errors import ImageError
from ctinv.invariance.data import CTSlice
from scipy.ndimage import gaussian_filter


@pytest.fixture
def battery(monkeypatch):
    """The modules of ``benchmarks``, as its scripts import them."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import truth
    from truth_battery import lesions

    return SimpleNamespace(truth=truth, lesions=lesions)


@pytest.fixture(scope="module")
def body():
    """Tissue of 60 HU in air, with noise; pixels of 0.9 mm."""
    inside = np.hypot(*(np.indices((128, 128)) - 64)) < 54
    texture = gaussian_filter(np.random.default_rng(0).normal(size=(128, 128)), 0.7)
    hu = np.where(inside, 60 + 15 * texture / texture.std(), -1000).astype(np.float32)
    return CTSlice(hu, np.ones(hu.shape, bool), (0.9, 0.9))


def rows(battery, body, realisations=32):
    found = battery.lesions.lesion_truth([body], 0, realisations=realisations, side=5)
    return found, battery.truth.judge({"lesions": found})


def test_both_networks_are_told_apart_and_the_threshold_is_found(battery, body):
    found, judged = rows(battery, body)
    assert found["true_mm"] == pytest.approx(0.9 * 4 * math.sqrt(2))
    assert len(found["contrasts"]) == 2
    for part in found["contrasts"].values():
        assert part["steps_off"] <= 1
        assert part["found_in_image_mm"] < part["found_mm"]
    assert (found["dropper"]["says"], found["keeper"]["says"]) == ("lost", "visible")
    assert found["keeper"]["layer"] == pytest.approx(found["keeper"]["image"], rel=0.1)
    assert len(judged) == 4
    assert all(reached for *_, reached in judged)
    json.dumps(found, allow_nan=False)


def test_a_threshold_elsewhere_is_a_miss(battery, body, monkeypatch):
    class Wider(battery.lesions.DropsSmallDark):
        """Its square is larger than it says."""

        def __init__(self, side):
            super().__init__(side + 4)
            self.side = side

    monkeypatch.setattr(battery.lesions, "DropsSmallDark", Wider)
    _, judged = rows(battery, body)
    assert [reached for *_, reached in judged] == [False, False, True, True]


def test_a_network_that_drops_nothing_is_a_miss(battery, body, monkeypatch):
    class Keeps(battery.lesions.DropsSmallDark):
        def __init__(self, side):
            super().__init__(side)
            self.widen = self.narrow = torch.nn.Identity()

        def forward(self, x):
            return -self.narrow(-self.blur(x))

    monkeypatch.setattr(battery.lesions, "DropsSmallDark", Keeps)
    _, judged = rows(battery, body, realisations=96)
    assert [reached for *_, reached in judged] == [False, False, False, True]


def test_a_keeper_that_drops_is_a_miss(battery, body, monkeypatch):
    dropper = battery.lesions.DropsSmallDark

    class Drops(dropper):
        def __init__(self):
            super().__init__(7)
            self.deep = self.blur
            self.blur = self.narrow

        def forward(self, x):
            return -self.blur(-self.widen(self.deep(x)))

    monkeypatch.setattr(battery.lesions, "KeepsAll", Drops)
    _, judged = rows(battery, body)
    assert not judged[3][-1]


def test_a_slice_without_room_is_passed_over(battery, body):
    air = CTSlice(np.full((64, 64), -1000, np.float32), np.ones((64, 64), bool), (1.0, 1.0))
    assert battery.lesions.room(air) == 0
    assert battery.lesions.room(body) > 12
    with pytest.raises(ImageError, match="calm soft tissue"):
        battery.lesions.lesion_truth([air], 0)


def test_the_script_runs_this_part_alone(battery, monkeypatch, capsys, tmp_path):
    words = ["truth.py", "--only", "lesions", "--seed", "1", "--json", str(tmp_path / "found.json")]
    monkeypatch.setattr(sys, "argv", words)
    battery.truth.main()
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| lesions")]
    assert len(table) == 4
    assert all(line.endswith("| yes |") for line in table)
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert set(found) == {"seed", "seconds", "lesions"}
    monkeypatch.setattr(sys, "argv", ["truth.py", "--only", "lesion"])
    with pytest.raises(SystemExit):
        battery.truth.main()
    assert "the parts are gaussian, planted, layers, lesions" in capsys.readouterr().err
