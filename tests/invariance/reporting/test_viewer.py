"""What the viewer is given: the images in their order, colours, windows, places."""

import base64

import numpy as np
import pytest
from ctinv.invariance.data.windows import PRESETS
from ctinv.invariance.infra.pages import page
from ctinv.invariance.reporting.viewer import SCRIPTS, pictures, viewer_data

from .test_report import refined
from .test_result import make


def test_images_come_in_the_order_in_which_they_are_read():
    whole = make(reading=np.zeros((32, 32)), std_noise=np.zeros((32, 32)), std_flow=np.zeros((32, 32)), k=2)
    assert [p.key for p in pictures(whole)] == [
        "x", "reconstruction", "reading", "denoised", "sample1", "sample2", "std", "std_noise", "std_flow",
    ]  # fmt: skip
    assert [p.key for p in pictures(make(k=0))] == ["x", "reconstruction", "denoised", "std"]
    assert [p.sample for p in pictures(make(k=2))] == [None, None, None, 1, 2, None]


def test_titles_tell_refined_samples_from_others():
    assert [p.title for p in pictures(make(k=1))][3] == "x′₁, sample 1"
    assert [p.title for p in pictures(refined())][3] == "x″₁, sample 1"
    assert [p.title for p in pictures(refined(found=False)) if p.key == "std"] == [
        "Map: hidden anatomy (nothing found)"
    ]


def test_data_hold_place_windows_and_colours():
    data = viewer_data(make((32, 48), meta={"spacing": [0.5, 0.7], "layer": "conv7"}))
    assert data["shape"] == [32, 48]
    assert data["spacing"] == [0.5, 0.7]
    assert data["name"] == "ctinv-conv7"
    assert [p["name"] for p in data["presets"]] == list(PRESETS) == ["Soft tissue", "Lung", "Bone", "Head"]
    assert data["presets"][1]["limits"] == [-1350, 150]
    for name in ("map", "difference"):
        assert len(base64.b64decode(data["colours"][name])) == 768
    assert list(base64.b64decode(data["colours"]["map"])[:3]) == [0, 0, 3]


@pytest.mark.parametrize("spacing", [None, [0.0, 0.7]])
def test_a_spacing_that_is_not_known_is_none(spacing):
    assert viewer_data(make(meta={"spacing": spacing}))["spacing"] is None


def test_averaged_pixels_are_larger_and_told():
    data = viewer_data(make((64, 64), meta={"spacing": [0.5, 0.5]}), budget=20_000)
    scale = 64 // data["shape"][0]
    assert scale > 1
    assert data["spacing"] == [0.5 * scale, 0.5 * scale]
    assert f"{scale} × {scale} pixels are averaged" in data["said"]
    few = viewer_data(make((64, 64)), budget=40_000)
    assert few["shape"] == [64, 64]
    left = 5 - sum(image["sample"] is not None for image in few["images"])
    assert f"{left} further samples" in few["said"]


def test_the_scripts_are_there_and_end_no_element():
    html = page("report.html.j2", scripts=SCRIPTS, **_bare())
    assert html.count("</script>") == 2  # images and code; without an audit there are no figures
    assert html.count("new Viewer(") == 1


def _bare():
    names = ("title", "layer", "command", "figure_kind", "rho")
    lists = ("verdict", "decisions", "groups", "notices", "methods", "facts", "added")
    numbers = {"samples": 1, "refined": 1, "std": 1.0, "std_flow": None, "bracket": None}
    return {
        **dict.fromkeys(names, ""), **{name: [] for name in lists}, **numbers,
        "figure": b"", "figures": {}, "images": viewer_data(make()),
    }  # fmt: skip
