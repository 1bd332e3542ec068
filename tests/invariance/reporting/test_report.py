"""The figure and the report: complete, self-contained, honest about what is not known."""

import dataclasses
import io
import re
from html.parser import HTMLParser

import matplotlib as mpl
import numpy as np
import pytest
from ctinv.invariance.audit.record import Audit, ControlsFigure, CurvePoint, Figure, Tissues
from ctinv.invariance.audit.scores import scores
from ctinv.invariance.data.windows import choose_window
from ctinv.invariance.reporting.figure import figure_png, layers_png
from ctinv.invariance.reporting.report import report_html
from ctinv.invariance.reporting.sheet import _CAPTION, _GAP, _HEAD, _MARGIN, _PANEL, _TITLE
from PIL import Image

from .test_result import make

VOID = {"input", "meta", "img", "br", "link", "hr"}


class _Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.open, self.text, self.attributes, self.tags = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


def pixels(png):
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("shape", [(32, 32), (96, 160), (512, 512)])
def test_nothing_touches_the_edge_of_the_figure(shape):
    picture = pixels(figure_png(make(shape)))
    edge = 4
    for strip in (picture[:edge], picture[-edge:], picture[:, :edge], picture[:, -edge:]):
        assert (strip == 255).all()


def test_slices_keep_their_own_pixels():
    assert pixels(figure_png(make((512, 512)))).shape[1] == 2 * pixels(figure_png(make((128, 128)))).shape[1]


def centre(picture, row, column):
    """The colour in the middle of a panel of a square image."""
    top = _HEAD + row * (_TITLE + _PANEL + _CAPTION) + _TITLE
    return picture[top + _PANEL // 2, _MARGIN + column * (_PANEL + _GAP) + _PANEL // 2].astype(int)


@pytest.mark.parametrize("k", [1, 5, 9])
def test_samples_are_drawn_side_by_side_in_their_order(k):
    flat = [np.full((32, 32), -150 + 40 * number) for number in range(k)]
    picture = pixels(figure_png(dataclasses.replace(make(k=k), samples=np.stack(flat).astype(np.float32))))
    for column in range(5):
        grey = round(255 * 40 * column / 400) if column < k else 255
        np.testing.assert_allclose(centre(picture, 1, column), grey, atol=2)


def test_no_samples_leave_the_lower_row_out():
    assert pixels(figure_png(make(k=0))).shape[0] < pixels(figure_png(make(k=1))).shape[0]


def test_a_layer_that_sees_everything_has_a_dark_map():
    for std, least, most in ((np.zeros((32, 32)), 0, 8), (np.full((32, 32), 20.0), 150, 255)):
        assert least <= centre(pixels(figure_png(make(std=std))), 0, 4).max() <= most


def test_grey_values_follow_the_window():
    """A flat image is drawn in the grey that its HU have in the soft-tissue window."""
    for hu, grey in ((-150, 0), (50, 128), (250, 255)):
        flat = np.full((32, 32), hu, dtype=np.float32)
        picture = pixels(figure_png(make(denoised=flat, x=np.zeros((32, 32)))))
        inside = picture[200, 18 + 2 * 266 + 128]
        np.testing.assert_allclose(inside, grey, atol=2)


def test_drawing_leaves_matplotlib_alone():
    before = dict.copy(mpl.rcParams)
    figure_png(make())
    assert dict.copy(mpl.rcParams) == before


def test_text_from_files_is_no_formula():
    ends = []
    for model, source in (("$\\frac{1", "$x$.dcm"), ("frac1", "x.dcm")):
        dark = (
            pixels(figure_png(make(meta={"model": model, "layer": "a_b^c$", "source": source})))[:_HEAD] < 160
        )
        ends.append([int(np.flatnonzero(line.any((0, 2))).max()) for line in (dark[10:30], dark[31:46])])
    # A formula would draw fewer characters than the text has.
    assert ends[0][0] > ends[1][0]
    assert ends[0][1] > ends[1][1]


@pytest.mark.parametrize("count", [1, 5])
def test_layers_are_drawn_on_one_scale(count):
    picture = pixels(layers_png([make() for _ in range(count)]))
    assert (picture[:, -4:] == 255).all()


def test_window_follows_the_share_of_lung():
    image = np.full((10, 10), 40, dtype=np.float32)
    image[:3] = -800
    assert choose_window(image).limits == (-150, 250)
    image[:4] = -800
    assert choose_window(image).limits == (-1350, 150)
    assert choose_window(np.full((4, 4), -1024, dtype=np.float32)).name == "soft-tissue"


def test_report_is_self_contained():
    page = _Page(report_html(make()))
    for name, value in page.attributes:
        assert name not in ("srcset", "action", "poster", "onclick", "onload")
        if name in ("src", "href"):
            assert value.startswith("data:image/") or value == "data:,", value


def test_report_tells_figures_with_unit_count_and_meaning():
    audit = {
        "verdict": ["The images can be trusted.", "Mostly."],
        "embedding": {"rmse": {"value": 41.26, "unit": "HU", "n": 1, "meaning": "Distance to the image."}},
        "leakage": {
            "flow": {"value": 0.0812, "n": 250, "low": 0.05, "high": 0.12, "interval": "90 % of them"}
        },
        "flow": {"coverage": {"value": float("nan"), "meaning": "Unknown here."}},
    }
    words = _Page(report_html(make(audit=audit))).words
    assert words.index("The images can be trusted.") < words.index("Error of the reconstruction")
    for text in ("41.3 HU", "Distance to the image.", "0.0812", "0.0500 to 0.120, 90 % of them", "250"):
        assert text in words
    assert "Coverage error of the flow not available" in words
    assert "nan" not in words.lower().split()


def test_errors_and_notices_have_their_own_place():
    assert "Errors and notices None." in _Page(report_html(make())).words
    strange = {"value": 5.0, "limit": 2.0, "familiar": False}
    audit = {
        "controls": {"value": 3, "failed": ["constant"], "figures": {}},
        "bounds": {"converged": False},
        "image": {"strangeness": strange},
    }
    words = _Page(
        report_html(make(audit=audit, meta={"notices": ["On the CPU."], "fit": {"notices": ["Cut."]}}))
    ).words
    for said in ("failed: constant", "had not ended", "unlike those", "On the CPU.", "Cut."):
        assert said in words[words.index("Errors and notices") :]


def test_a_page_stays_below_ten_megabytes():
    """The worst that there is: a large slice of nothing but noise, which no packing shortens."""
    rng = np.random.default_rng(0)
    shape = (640, 640)
    noise = lambda: rng.uniform(-2000, 2000, shape).astype(np.float32)  # noqa: E731
    samples = np.stack([noise() for _ in range(5)])
    loud = make((8, 8), x=np.zeros((8, 8)))
    loud = dataclasses.replace(
        loud, x=noise(), denoised=noise(), reconstruction=noise(), samples=samples, mean=noise(), std=noise()
    )
    assert 3e6 < len(report_html(loud, figure_png(make((8, 8)))).encode()) < 10e6


def test_report_says_what_was_analysed_and_its_limits():
    meta = {
        "model": "yang",
        "model_hash": "3f9a" * 16,
        "layer": "conv7",
        "intensity": "unit:-1024:3072",
        "intensity_found": "the model's own metadata",
        "provider": "CPUExecutionProvider",
        "preset": "small",
        "seed": 0,
        "data": "48 phantoms",
        "versions": {"ctinv": "0.1.0"},
        "timings": {"fit": 120.25},
        "notices": ["Running on the CPU."],
        "source": "/data/slice.dcm",
        "spacing": (0.7, 0.7),
    }
    words = _Page(report_html(make(meta=meta))).words
    for value in (
        "3f9a" * 16,
        "conv7",
        "unit:-1024:3072",
        "the model's own metadata",
        "48 phantoms",
        "ctinv 0.1.0",
    ):
        assert value in words
    for value in (
        "CPUExecutionProvider",
        "Seed 0",
        "fit 120 s",
        "Running on the CPU.",
        "/data/slice.dcm",
        "0.7 × 0.7 mm",
    ):
        assert value in words
    assert "Not for clinical use" in words
    assert "relative to the fitted prior" in words


def test_report_escapes_what_users_name():
    nasty = "<script>alert(1)</script>"
    audit = {"verdict": [nasty], "flow": {"nll": {"value": 1.0, "meaning": nasty, "title": nasty}}}
    meta = {"model": nasty, "layer": nasty, "source": nasty, "notices": [nasty], "versions": {nasty: nasty}}
    usual = _Page(report_html(make(audit=audit)))
    page = _Page(report_html(make(audit=audit, meta=meta)))
    assert page.tags.count("script") == usual.tags.count("script")
    assert nasty in page.words


def test_report_without_audit_claims_nothing():
    words = _Page(report_html(make(audit={}, meta={}))).words
    assert "No verdict was recorded" in words
    assert "No audit was recorded" in words


def test_figures_of_an_audit_keep_order_and_names():
    audit = Audit(
        controls=ControlsFigure(value=1, failed=(), figures={}),
        leakage_in=Tissues(soft=Figure(2.5, title="Own name")),
        curve={"0.1": CurvePoint(value=3)},
        verdict=("x",),
    )
    assert [(s.key, s.title, s.text) for s in scores(audit)] == [
        ("controls", "Controls", "1"),
        ("leakage_in.soft", "Own name", "2.50"),
        ("curve.0.1", "Curve, 0.1", "3"),
    ]
    assert scores(Audit()) == ()


def test_page_parses_the_style_away():
    assert not re.search(r"font-size", _Page(report_html(make())).words)


def refined(found=True):
    curve = {
        f"{rho:g}": {"value": 20 * rho, "unit": "HU", "rho": rho, "reached": rho} for rho in (1.0, 0.1, 0.03)
    }
    audit = {
        "map": {"std": {"value": 3.0, "unit": "HU", "found": found, "rho": 0.03}, "noise": {"value": 12.0}},
        "curve": curve,
    }
    flow = np.full((32, 32), 30, np.float32)
    return make((32, 32), audit=audit, std_flow=flow, meta={"refinement": {"samples": 7, "rho": 0.03}})


def test_refined_maps_stand_beside_the_flows():
    words = _Page(report_html(refined())).words
    for said in ("7 refined samples", "30.0 HU", "at most 3 % of what"):
        assert said in words


def test_where_nothing_was_found_no_map_is_drawn():
    assert make().found is True
    for found in (True, False):
        explanation = refined(found)
        assert explanation.found is found
        right = pixels(figure_png(explanation))[72:300, 18 + 4 * 266 :].astype(int)
        colourful = np.ptp(right, axis=-1) > 40
        assert colourful.any() == found


def test_the_curve_of_a_blind_layer_says_so():
    from ctinv.invariance.reporting.figure import draw_curve
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    draw_curve(axes, Audit(curve={"0.03": CurvePoint(value=300.0, reached=0.0)}))
    assert axes.texts[0].get_text() == "blind to everything"
    axes = Figure().add_subplot()
    draw_curve(axes, refined().audit)
    line, forgets_nothing = axes.lines[:2]
    np.testing.assert_allclose(line.get_ydata(), [0.6, 2.0, 20.0])
    np.testing.assert_allclose(forgets_nothing.get_ydata(), [0.36, 1.2, 12.0])
