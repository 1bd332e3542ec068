"""Explanations and layers in Python: small HTML, axes, data of other libraries."""

import base64
import io
import re
import sys

import numpy as np
import pytest
from ctinv.adapters._types import Layer, Layers
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.audit.scores import scores
from PIL import Image

from .test_report import _Page
from .test_result import make

NASTY = "<script>alert(1)</script>"


def test_a_cell_shows_verdict_and_small_pictures():
    shown = make(
        (400, 300), audit={"verdict": ["conv1 hides <i>much</i>."]}, meta={"layer": NASTY, "model": NASTY}
    )
    html = shown._repr_html_()
    page = _Page(html)
    assert "conv1 hides <i>much</i>." in page.words
    assert page.words.count(NASTY) == 2
    assert "script" not in page.tags
    assert page.tags.count("img") == 4
    for text in re.findall(r"base64,([^\"]+)", html):
        assert max(Image.open(io.BytesIO(base64.b64decode(text))).size) <= 192
    assert len(html) < 300_000


def test_without_samples_and_verdict_the_cell_says_so():
    page = _Page(make(k=0, audit={})._repr_html_())
    assert page.tags.count("img") == 2
    assert "No verdict was recorded." in page.words


def test_layers_show_themselves_as_a_table():
    layers = Layers([Layer("conv1", "Conv", (32, 8, 8)), Layer(NASTY, "Op", (), (), False, "why")])
    page = _Page(layers._repr_html_())
    assert "conv1 Conv 32 × 8 × 8" in page.words
    assert f"{NASTY} Op not known why" in page.words
    assert "script" not in page.tags
    assert layers == tuple(layers)
    assert isinstance(layers, tuple)


def test_plots_hold_the_images():
    explanation = make(meta={"spacing": [1.0, 0.5]})
    axes = explanation.plot()
    shown = [np.asarray(place.images[0].get_array()) for place in axes]
    e = explanation
    for got, image in zip(shown, (e.x, e.samples[0], e.samples[0] - e.x, e.std), strict=True):
        np.testing.assert_array_equal(got, image)
    assert {place.get_aspect() for place in axes} == {2.0}


def test_plots_go_into_axes_that_are_given():
    from matplotlib.figure import Figure

    given = Figure().subplots(2, 2)
    assert make().plot(given)[3] is given[1, 1]
    assert len(make(k=0).plot(Figure().subplots(1, 2))[1].images) == 1
    with pytest.raises(CtinvError, match="4 panels do not fit into 3 axes; give 4"):
        make().plot(Figure().subplots(1, 3))


@pytest.mark.parametrize(("library", "call"), [("xarray", "to_xarray"), ("pandas", "to_dataframe")])
def test_a_library_that_is_not_installed_is_named(monkeypatch, library, call):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(CtinvError, match=f"{library} is not installed; .*pip install {library}"):
        getattr(make(), call)()


def test_arrays_become_a_dataset():
    pytest.importorskip("xarray")
    quantiles = np.stack([np.eye(32), 2 * np.eye(32)])
    explanation = make(quantiles=quantiles, meta={"spacing": [0.5, 0.25], "quantiles": [0.1, 0.9]})
    found = explanation.to_xarray()
    np.testing.assert_array_equal(found["samples"], explanation.samples)
    np.testing.assert_array_equal(found["std"], explanation.std)
    assert found["x"].dims == ("row", "column")
    assert float(found["row"][1] - found["row"][0]) == 0.5
    np.testing.assert_array_equal(found["quantiles"].sel(share=0.9), 2 * np.eye(32))
    assert found.attrs["units"] == "HU"
    assert "reading" not in found


def test_figures_become_a_frame():
    pytest.importorskip("pandas")
    explanation = make()
    found = explanation.to_dataframe()
    assert list(found.index) == [score.key for score in scores(explanation.audit)]
    assert found.loc["leakage.flow", "value"] == 0.1
    assert found.loc["leakage.flow", "n"] == 250
