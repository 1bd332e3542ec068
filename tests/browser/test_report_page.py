"""The rest of the report in a browser: folds, plots, texts to hand on, sizes of screens, no scripts."""

import csv
import shutil
import subprocess
from pathlib import Path

import pytest
from ctinv.invariance.audit.scores import scores
from ctinv.invariance.reporting.methods import command

SCRIPTS = Path(__file__).parents[2] / "invariance" / "templates" / "js"


@pytest.mark.parametrize("width", [360, 1280, 2560])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_the_screen(browse, report, width, scheme):
    page = browse(report, width=width, color_scheme=scheme)
    page.wait_for_selector(".viewer[data-ready]")
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    paper = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")


def test_figures_are_saved_as_csv(page, explanation):
    with page.expect_download() as waiting:
        page.locator("[data-csv]").click()
    with open(waiting.value.path(), encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["key"] for row in rows] == [score.key for score in scores(explanation.audit)]
    (leakage,) = [row for row in rows if row["key"] == "leakage.refined"]
    assert float(leakage["value"]) == 0.4
    assert leakage["meaning"] == 'Says "so", twice.'


@pytest.mark.parametrize("what", ["methods", "command"])
def test_texts_are_selected_for_copying(page, explanation, what):
    page.locator(f"[data-copy={what}]").click()
    page.locator(".copied:not(:empty)").wait_for()
    chosen = page.evaluate("String(getSelection())")
    assert (chosen.strip() == command(explanation)) if what == "command" else ("conv7" in chosen)


def test_groups_unfold(page):
    group = page.locator("details.group").first
    assert not group.locator("table").is_visible()
    group.locator("summary").click()
    assert group.locator("table").is_visible()


def test_every_picture_says_what_it_shows(page):
    bare = "nodes => nodes.filter((n) => !(n.getAttribute('alt') || n.getAttribute('aria-label'))).length"
    assert page.eval_on_selector_all("img, [role=img], svg[role]", bare) == 0


def test_every_control_has_a_name_and_the_tab_key_reaches_it(page):
    nameless = """nodes => nodes.filter((n) => n.offsetParent && !(n.textContent.trim() ||
      n.getAttribute('aria-label') || n.closest('label'))).map((n) => n.outerHTML)"""
    assert page.eval_on_selector_all("button, input, select", nameless) == []
    assert page.eval_on_selector_all("[tabindex]", "nodes => nodes.filter((n) => n.tabIndex > 0).length") == 0


def test_without_scripts_the_report_still_says_everything(browse, report):
    page = browse(report, java_script_enabled=False)
    text = page.locator("body").inner_text()
    for said in ("conv7 hides something.", "The viewer needs JavaScript", "Errors and notices", "To hand on"):
        assert said in text
    assert not page.locator("button:visible").count()


def test_scripts_have_the_types_that_they_state():
    compiler = shutil.which("tsc")
    if compiler is None:
        pytest.skip("no TypeScript compiler (tsc) to check the types of the scripts with")
    options = "--noEmit --allowJs --checkJs --strict --target es2022 --lib es2022,dom,dom.iterable"
    files = sorted(map(str, SCRIPTS.glob("*.js")))
    done = subprocess.run([compiler, *options.split(), *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
