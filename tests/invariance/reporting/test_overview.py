"""The page of many cases and its parts: complete, linked, escaped, bounded."""

import io
import json
import math
import re
from pathlib import PurePosixPath

import numpy as np
import pytest
from ctinv.invariance.infra.pages import link, page
from ctinv.invariance.reporting.overview import Case, overview_html
from ctinv.invariance.reporting.parts import Cell, Column, Matrix, Table, map_png, thumbnail
from ctinv.invariance.reporting.report import summary
from PIL import Image

from .test_report import _Page
from .test_result import make

FLAT = np.full((8, 8), 3.0, dtype=np.float32)


def case(model="yang", layer="conv7", source="a.dcm", lower=3.0, upper=9.0, **changes):
    figures = {"bounds.lower": lower, "bounds.upper": upper, "map.noise": 25.0}
    path = PurePosixPath(source) / layer / "report.html"
    return Case(model, layer, source, **{"figures": figures, "path": path, "thumbnail": FLAT} | changes)


def stored(html):
    (text,) = re.findall(r'id="cases-data">(.*?)</script>', html)
    return json.loads(text)


def links(page):
    return {value for name, value in page.attributes if name == "href" and value.startswith("./")}


def test_a_case_is_what_its_explanation_says():
    audit = {
        "bounds": {
            "upper": {"value": 9.0},
            "noise": {"value": 4.0, "growth": 0, "steps": 1, "converged": True},
        },
        "verdict": ["One.", "Two."],
    }
    meta = {"model": "yang", "layer": "conv7", "source": "folder/a.dcm"}
    made = Case.of(make((200, 100), audit=audit, meta=meta), PurePosixPath("a/report.html"))
    assert (made.model, made.layer, made.source, made.verdict) == ("yang", "conv7", "a.dcm", "One. Two.")
    assert made.figures == {"bounds.upper": 9.0, "bounds.noise": 4.0}
    assert made.bracket == "4.0 to 9.0 HU"
    assert made.hidden == 4.0
    assert max(made.thumbnail.shape) <= 96


@pytest.mark.parametrize(
    ("figures", "bracket", "hidden"),
    [
        ({}, "no bounds", None),
        ({"map.std": 2.0}, "spread 2.00 HU", 2.0),
        ({"bounds.lower": 2.0}, "2.0 HU or more", 2.0),
        ({"bounds.lower": 2.0, "bounds.upper": 1.0}, "2.0 HU or more", 2.0),
        ({"bounds.lower": 2.0, "bounds.upper": math.nan}, "2.0 HU or more", 2.0),
        ({"bounds.lower": 2.0, "bounds.noise": 3.0, "bounds.upper": 5.0}, "3.0 to 5.0 HU", 3.0),
    ],
)
def test_a_case_tells_what_is_known_of_its_bracket(figures, bracket, hidden):
    assert (case(figures=figures).bracket, case(figures=figures).hidden) == (bracket, hidden)


def test_summary_spans_layers_and_leads_to_each(tmp_path):
    layers = ["conv1", "conv7", "conv13"]
    cases = [case(layer=name, verdict=f"{name} hides.") for name in layers]
    path = summary(cases, tmp_path / "report.html")
    page = _Page(path.read_text(encoding="utf-8"))
    assert "What layers conv1, conv7 and conv13 of yang cannot see" in page.words
    assert links(page) == {f"./a.dcm/{name}/report.html" for name in layers}
    assert page.tags.count("img") == len(layers)
    for name in layers:
        assert f"{name}: {name} hides." in page.words
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_the_overview_names_most_and_least_hidden_of_many():
    cases = [case(layer=f"conv{n}", lower=float(n)) for n in range(1, 10)]
    words = _Page(overview_html(cases)).words
    assert "9 cases: 1 model, 9 layers, 1 image." in words
    assert "Most is hidden at conv9 of yang, a.dcm (9.0 HU or more); least is hidden at conv1" in words


def test_errors_and_notices_have_a_place_even_where_there_are_none():
    assert "Errors and notices None." in _Page(overview_html([case()])).words
    told = _Page(overview_html([case()], failed=[("b.dcm", "it is cut off")], notices=["On the CPU."])).words
    assert "b.dcm failed: it is cut off" in told
    assert "On the CPU." in told
    assert "Errors and notices None." not in told


def test_figures_that_no_case_has_get_no_column_and_no_strip():
    html = overview_html(
        [case(), case(source="b.dcm", figures={"map.noise": 20.0, "bounds.lower": math.inf})]
    )
    assert [c["key"] for c in stored(html)["columns"]] == [
        "case", "model", "layer", "source", "bounds.lower", "bounds.upper", "map.noise",
    ]  # fmt: skip
    assert [row[4:] for row in stored(html)["rows"]] == [[3, 9, 25], [None, None, 20]]
    assert re.findall(r'data-key="([\w.]+)"', html) == ["bounds.lower", "bounds.upper", "map.noise"]


def test_names_from_files_are_words_and_never_markup():
    nasty = '</script><script>alert(1)</script>"&'
    html = overview_html([case(nasty, nasty, nasty, path=PurePosixPath(f"javascript:{nasty}/r.html"))] * 2)
    page = _Page(html)
    assert page.tags.count("script") == 2  # the rows and the code
    assert stored(html)["rows"][0][1] == nasty
    assert all(value.startswith("./javascript%3A") for value in links(page) if "javascript" in value)
    assert stored(html)["links"][0].startswith("./javascript%3A")


def test_many_cases_hold_no_maps_and_stay_small():
    cases = [case(m, layer, f"s{n}") for m in ("a", "b") for layer in ("c1", "c2") for n in range(600)]
    html = overview_html(cases)
    page = _Page(html)
    assert "img" not in page.tags
    assert "3.0 HU, n = 600" in page.words
    assert len(stored(html)["rows"]) == 2400
    assert page.tags.count("tr") < 40
    assert len(html) < 400_000


def test_the_matrix_leaves_room_for_cases_that_are_not_there():
    cases = [case(layer="c1"), case(layer="c2"), case(layer="c1", source="b.dcm")]
    page = _Page(overview_html(cases))
    assert page.tags.count("img") == 3
    assert "b.dcm" in page.words
    assert page.text.count("none") == 1


def test_shades_follow_the_values():
    matrix = Matrix("", "", ["a", "b", "c"], ["r"], [[Cell("", 2.0), Cell("", 4.0), None]])
    assert [shade for _, shade in next(iter(matrix.lines))[1]] == [50, 100, 0]


def test_rows_that_do_not_fit_are_refused():
    columns = [Column("a", "A"), Column("b", "B")]
    with pytest.raises(ValueError, match="'t'"):
        Table("t", "t", "", columns, [[1.0]], [None])
    with pytest.raises(ValueError, match="'t'"):
        Table("t", "t", "", columns, [[1.0, 2.0]], [])


@pytest.mark.parametrize("shape", [(96, 96), (97, 40), (512, 512), (300, 700)])
def test_a_thumbnail_keeps_the_energy_and_the_place(shape):
    image = np.zeros(shape, dtype=np.float32)
    image[: shape[0] // 2] = 6.0
    small = thumbnail(image)
    assert max(small.shape) <= 96
    assert small[0, 0] == 6
    assert small[-1, -1] == 0
    np.testing.assert_allclose(np.mean(small**2), np.mean(image**2), rtol=0.05)


def test_a_small_map_is_drawn_from_black_to_the_top():
    picture = Image.open(io.BytesIO(map_png(np.array([[0.0, 5.0, 10.0, 99.0]], np.float32), 10.0)))
    light = np.asarray(picture.convert("RGB")).astype(int).sum(-1)[0]
    assert light[0] < 10
    assert light[0] < light[1] < light[2] == light[3]


def test_a_page_allows_its_own_script_and_nothing_else():
    import base64
    import hashlib

    html = overview_html([case()])
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', html)
    policy = policy.replace("&#39;", "'")
    (code,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none';")
    assert "http" not in policy
    unscripted = page("cases.html.j2", title="", lines=[], map=None, table=Table("t", "t", "", [], [], []),
                      plotted=[], failed=[], notices=[], facts=[])  # fmt: skip
    assert "script-src &#39;none&#39;" in unscripted


def test_links_are_relative_whatever_folders_are_called():
    for name in ("javascript:alert(1)", "//else.where/a", "a b#c?d.html", "Ü&<"):
        assert link(name).startswith("./")
        assert not set(link(name)) & set(' #?&<>"')
