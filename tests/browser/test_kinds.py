"""What holds for pages of every kind: contrast, room on small and large screens, names."""

import re
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from ctinv import adapters, invariance
from ctinv.invariance import Lesion, LesionGrid
from ctinv.invariance.changes.about import About
from ctinv.invariance.changes.swap import Swap
from ctinv.invariance.probing.report import save, save_report
from ctinv.invariance.reporting.overview import Case, summary
from ctinv.invariance.reporting.report import report_html
from torch import nn

from ..invariance.comparing.toys import analysis

CONTRAST = (Path(__file__).with_name("contrast.js")).read_text(encoding="utf-8")
KINDS = ("report", "swapped", "overview", "comparison", "probe", "probes", "hide")
SIDE = 96


class Twice(nn.Module):
    """Two layers that keep everything."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Identity(), nn.Identity()

    def forward(self, x):
        return self.second(self.first(x) + 0)


def body():
    rng = np.random.default_rng(0)
    inside = np.hypot(*(np.indices((SIDE, SIDE)) - SIDE / 2)) < 0.42 * SIDE
    return np.where(inside, 60 + rng.normal(0, 12, (SIDE, SIDE)), -1000).astype(np.float32)


@pytest.fixture(scope="module")
def denoiser():
    return adapters.wrap(Twice(), intensity="hu", output="image", name="toy")


@pytest.fixture(scope="module")
def probes(denoiser):
    return invariance.probe(
        denoiser,
        ["first", "second"],
        body(),
        Lesion(6, -15),
        grid=LesionGrid((4.0, 6.0, 8.0), (-15.0, -30.0)),
        realisations=16,
        spacing=(1.0, 1.0),
    )


@pytest.fixture(scope="module")
def pages(explanation, denoiser, probes, tmp_path_factory):
    """A page of every kind, by its name."""
    folder = tmp_path_factory.mktemp("kinds")
    rng = np.random.default_rng(1)
    near = lambda: (explanation.x + rng.normal(0, 9, explanation.x.shape)).astype(np.float32)  # noqa: E731
    about = About("yang", "0" * 64, "pytorch", "conv7", "Conv2d", "hu", "slice", rho=0.03)
    swap = Swap(about, explanation.x, near(), near(), near(), near(), near(), 0.03, 0.5, 0.4)
    found = {name: folder / f"{name}.html" for name in ("report", "swapped", "overview")}
    found["report"].write_text(report_html(explanation), encoding="utf-8")
    found["swapped"].write_text(report_html(explanation, added=[swap.added()]), encoding="utf-8")
    cases = [
        Case("yang", f"conv{n}", f"slice {k}", {"bounds.lower": n / 3}, PurePosixPath("a.html"))
        for n in range(3)
        for k in range(2)
    ]
    summary(cases, found["overview"])
    analyses = []
    for name, lower in (("chen", 2.0), ("yang", 5.0)):
        analysis(name, "conv3", lower=lower, x=body()).save(folder / name)
        analyses.append(folder / name)
    found["comparison"] = invariance.compare(analyses).save(folder / "against")["report.html"]
    found["probe"] = save(probes[0], folder / "probe")["report.html"]
    found["probes"] = save_report(probes, folder / "probes" / "report.html")
    region = np.hypot(*(np.indices((SIDE, SIDE)) - SIDE / 2)) < 5
    spotted = body() + 40 * region.astype(np.float32)
    hidden = invariance.hide(denoiser, "first", spotted, region=region, realisations=0)
    found["hide"] = hidden.save(folder / "hide")["report.html"]
    return found


def opened(browse, path, **options):
    page = browse(path, **options)
    if page.locator(".viewer").count():
        page.wait_for_selector(".viewer[data-ready]")
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    return page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", KINDS)
def test_text_stands_out_from_what_is_behind_it(browse, pages, kind, scheme):
    page = opened(browse, pages[kind], color_scheme=scheme)
    assert page.evaluate(CONTRAST) == []


def test_faint_text_is_noticed(browse, tmp_path):
    path = tmp_path / "faint.html"
    path.write_text(
        "<body style='background:#fff'><p style='color:#999'>faint</p><p style='color:#595959'>well</p>"
        "<p style='color:#888;font-size:30px'>large</p>"
        "<div style='background:#111'><p style='color:#333'>dark</p>"
        "<p style='background:rgba(255,255,255,.9);color:#333'>laid over</p></div>"
        "<svg><text y='20' style='fill:#ccc'>drawn</text></svg>"
    )
    assert [one["text"] for one in browse(path).evaluate(CONTRAST)] == ["faint", "dark", "drawn"]


@pytest.mark.parametrize("width", [360, 1280, 2560])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "report"])
def test_no_page_is_wider_than_the_screen(browse, pages, kind, width):
    page = opened(browse, pages[kind], width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_and_controls_have_names_and_words_are_not_cut(browse, pages, kind):
    page = opened(browse, pages[kind], width=360)
    bare = "some => some.filter((n) => !(n.getAttribute('alt') || n.getAttribute('aria-label'))).length"
    assert page.eval_on_selector_all("img, [role=img], svg[role]", bare) == 0
    nameless = """some => some.filter((n) => n.checkVisibility() && !(n.textContent.trim() ||
      n.getAttribute('aria-label') || n.closest('label'))).map((n) => n.outerHTML)"""
    assert page.eval_on_selector_all("button, input, select", nameless) == []
    cut = """some => some.filter((n) => n.checkVisibility() && n.scrollWidth > n.clientWidth + 1
      && getComputedStyle(n).overflowX === 'hidden').map((n) => n.outerHTML.slice(0, 80))"""
    assert page.eval_on_selector_all("p, td, th, li, h1, h2, h3, button, figcaption", cut) == []


def test_the_probe_shows_its_images_in_hu(browse, pages, probes):
    page = opened(browse, pages["probe"])
    chosen = page.locator(".panes select").evaluate_all("some => some.map((one) => one.value)")
    assert chosen == ["x", "lesion", "passed"]
    page.locator(".panes").focus()
    page.keyboard.press("Shift+ArrowRight")
    page.locator(".place", has_text=re.compile(r"\d+,")).wait_for()
    told = page.locator(".place").text_content()
    column, row = (int(part.split()[-1]) for part in told.split(",")[:2])
    at = probes[0].finding.lesion.at
    assert abs(column - at[0]) <= 2  # it opens at the lesion
    assert abs(row - at[1]) <= 2
    value = page.locator(".values dd[data-key=lesion]").text_content()
    wanted = (probes[0].x + probes[0].signal)[row, column]
    assert float(value.replace("−", "-").split()[0]) == pytest.approx(wanted, abs=0.11)


def test_the_probe_flickers_between_x_and_the_lesion(browse, pages):
    page = opened(browse, pages["probe"])
    button = page.locator(".flicker")
    assert button.is_visible()
    pane = page.locator(".panes canvas").nth(2)  # each image has a colour bar below it
    before = pane.screenshot()
    button.click()
    page.wait_for_selector(".flicker[aria-pressed='true']")
    assert pane.screenshot() != before


def test_the_swap_stands_in_the_report_and_its_viewer(browse, pages):
    page = opened(browse, pages["swapped"])
    assert "sees of one image" in page.locator("section.added h2").text_content()
    offered = page.locator(".panes select").first.evaluate(
        "one => [...one.options].map((o) => o.textContent)"
    )
    assert "Swap: the other slice" in offered
    assert "Swap, refined: hidden from the layer" in offered
    assert page.locator("section.added tbody tr").count() == 3
