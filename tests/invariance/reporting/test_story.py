"""What a report says of an analysis: the bracket, the three figures that decide, groups, methods, command."""

import dataclasses
import shlex

import numpy as np
import pytest
from ctinv.invariance.audit.record import Figure
from ctinv.invariance.presets import preset
from ctinv.invariance.reporting.methods import command, methods_text
from ctinv.invariance.reporting.spectra import spectrum_plot
from ctinv.invariance.reporting.story import bracket, decisions, groups

from .test_plots import drawn
from .test_result import make

LOW = {"growth": 0.0, "steps": 10, "converged": True}


def audit(**changes):
    return {
        "map": {
            "std": {"value": 3.0, "unit": "HU", "found": True, "rho": 0.03},
            "noise": {"value": 20.0, "unit": "HU"},
        },
        "bounds": {
            "lower": {"value": 3.0, **LOW},
            "noise": {"value": 5.0, **LOW},
            "upper": {"value": 8.0},
            "upper_here": {"value": 10.0},
        },
        "leakage": {"refined": {"value": 0.5}},
        "noise_ratio": {"refined": {"value": 0.029}},
        "controls": {"value": 4, "unit": "of 4", "failed": [], "figures": {}},
    } | changes


def test_the_bracket_is_what_the_bounds_say():
    found = bracket(make(audit=audit()))
    assert dataclasses.astuple(found) == (5.0, 3.0, 5.0, 10.0, 20.0)
    assert found.share(found.top) == 100
    assert found.share(20.0) == pytest.approx(2 * found.share(10.0), abs=0.02)
    assert found.told == "proven hidden: 5.0 HU; possibly hidden: up to 10.0 HU; noise of the image: 20.0 HU"


def test_without_refinement_there_is_no_bracket():
    assert bracket(make()) is None
    first, second, third = decisions(make())
    assert first.value == "not known"
    assert second.value == "leakage 0.100"
    assert second.grade == "bad"
    assert third.value == "not known"


def test_a_bracket_without_an_upper_end():
    bounds = {"lower": {"value": 3.0, **LOW}}
    found = bracket(make(audit=audit(bounds=bounds, map={})))
    assert (found.possible, found.grain, found.noise) == (None, None, None)
    assert "possibly" not in found.told


def test_three_figures_decide():
    first, second, third = decisions(make(audit=audit()))
    assert (first.value, first.grade) == ("5.0 HU", "")
    assert "25 % of the image's own noise" in first.says
    assert (second.value, second.grade) == ("2.9 %", "good")
    assert "2.0 times as much" in second.says
    assert (third.value, third.grade) == ("4 of 4 controls passed", "good")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"controls": {"value": 3, "unit": "of 4", "failed": ["constant"], "figures": {}}},
            "Do not read the map",
        ),
        (
            {"image": {"strangeness": {"value": 5.0, "limit": 2.0, "familiar": False}}},
            "unlike those of the fit",
        ),
    ],
)
def test_what_forbids_reading_is_called_bad(changes, said):
    third = decisions(make(audit=audit(**changes)))[2]
    assert third.grade == "bad"
    assert said in third.says


def test_a_large_noise_ratio_is_called_bad():
    assert decisions(make(audit=audit(noise_ratio={"refined": {"value": 0.4}})))[1].grade == "bad"


def test_every_figure_stands_in_one_group():
    explanation = make(
        audit=audit(
            flow={"nll": {"value": 1.0}}, where={"bone": {"value": 60.0, "unit": "%", "std": 1, "area": 2}}
        )
    )
    from ctinv.invariance.audit.scores import scores

    listed = [row.key for group in groups(explanation) for row in group.rows]
    assert sorted(listed) == sorted(row.key for row in scores(explanation.audit))
    assert all(group.says.endswith(".") for group in groups(explanation))


def test_groups_that_are_not_known_come_last(monkeypatch):
    from ctinv.invariance.reporting import story

    rows = (*story.scores(make().audit), *story.scores({"new": {"thing": Figure(1.0)}}))
    monkeypatch.setattr(story, "scores", lambda _: rows)
    assert [row.key for row in groups(make())[-1].rows] == ["new.thing"]


def test_tissues_are_bars_of_the_longest():
    where = {
        name: {"value": v, "unit": "%", "std": 1.0, "area": 0.1}
        for name, v in (("bone", 60.0), ("soft", 15.0))
    }
    (group,) = [g for g in groups(make(audit=audit(where=where))) if g.bars]
    ((_, bars),) = group.bars
    assert [(b.name, b.share, b.text) for b in bars] == [
        ("soft tissue", 25.0, "15.0 %"),
        ("bone", 100.0, "60.0 %"),
    ]


def test_the_spectrum_shows_a_wave_where_it_is():
    rows = np.arange(64)[:, None] * np.ones(64)
    wave = np.cos(2 * np.pi * rows / 8).astype(np.float32)
    x = np.zeros((64, 64), np.float32)
    explanation = make(
        (64, 64),
        x=x,
        samples=np.stack([x + wave]),
        denoised=x + np.roll(wave, 1),
        meta={"spacing": [0.5, 0.5]},
    )
    line = drawn(spectrum_plot(explanation))[0]
    peak = min(range(len(line)), key=lambda n: line[n][1])
    # 1 wave in 8 pixels of 0.5 mm: 0.25 of the 1 per mm that the axis ends at.
    assert line[peak][0] == pytest.approx(58 + 0.25 * (406 - 58), abs=6)


META = {
    "model": "my model",
    "model_hash": "ab" * 32,
    "layer": "conv7",
    "samples": 50,
    "refinement": {"samples": 8, "rho": 0.03},
    "preset": "small",
    "intensity": "unit:-1024:3072",
    "seed": 4,
    "source": "a b.dcm",
    "spacing": [0.7, 0.7],
    "versions": {"ctinv": "9.9"},
}


def options(words):
    return dict(zip(words[::2], words[1::2], strict=True))


def test_the_command_says_what_was_asked():
    words = shlex.split(command(make(meta=META)))
    assert words[:2] == ["ctinv", "analyze"]
    assert options(words[2:]) == {
        "--model": "my model",
        "--layer": "conv7",
        "--input": "a b.dcm",
        "--samples": "50",
        "--refine": "8",
        "--rho": "0.03",
        "--preset": "small",
        "--intensity": "unit:-1024:3072",
        "--seed": "4",
    }


def test_the_command_knows_what_was_changed_of_the_preset():
    fields = preset("small", {"flow.blocks": 3}).as_dict()
    assert "--set flow.blocks=3" in command(make(meta=META | {"preset_fields": fields}))
    assert "--set" not in command(make(meta=META | {"preset_fields": preset("small").as_dict()}))
    assert "--preset other" in command(make(meta=META | {"preset": "other", "preset_fields": fields}))


def test_every_option_of_the_command_exists():
    from ctinv.cli import cli

    known = {opt for p in cli.get_command(None, "analyze").params for opt in p.opts}
    meta = META | {
        "quantiles": [0.1, 0.9],
        "output": "image",
        "preset_fields": preset("small", {"flow.blocks": 3}).as_dict(),
    }
    used = {word for word in shlex.split(command(make(meta=meta))) if word.startswith("--")}
    assert len(used) >= 11
    assert used <= known


def test_methods_name_model_versions_and_sources():
    text = " ".join(methods_text(make(meta=META, audit=audit())))
    said_of_it = ("conv7", "my model", "ababababab", "0.7 × 0.7 mm", "50 samples", "8 of them", "3 % of what")
    for said in (*said_of_it, "ctinv 9.9", "Seed 4", "10.1002/mp.17413", "upper bound", "Controls"):
        assert said in text, said
    bare = " ".join(methods_text(make(meta={}, audit={})))
    assert "not recorded" in bare
    assert "None" not in bare
