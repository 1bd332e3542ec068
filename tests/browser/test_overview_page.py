"""The page of many cases in a browser: ten thousand rows, and points that open cases."""

import csv
from pathlib import PurePosixPath

import pytest
from ctinv.invariance.reporting.overview import Case, summary

COUNT = 10_000


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Ten thousand cases, of which case n hides n / 100 HU."""
    folder = tmp_path_factory.mktemp("many")
    cases = [
        Case(
            "yang" if n % 2 else "chen",
            f"conv{n % 5}",
            f"slice {n:05d}",
            {"bounds.lower": n / 100, "bounds.upper": None if n % 3 else 200.0},
            PurePosixPath(f"case {n}") / "report.html",
        )
        for n in range(COUNT)
    ]
    return summary(cases, folder / "report.html")


def column(page, number):
    return page.locator(f".rows tbody tr td:nth-child({number})").all_text_contents()


def test_ten_thousand_rows_open_with_few_elements_and_little_work(browse, many):
    page = browse(many)
    assert page.locator(".count").text_content() == "10000 rows"
    assert page.evaluate("document.querySelectorAll('*').length") < 1500
    assert many.stat().st_size < 2_000_000
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    measured = {m["name"]: m["value"] for m in session.send("Performance.getMetrics")["metrics"]}
    # Seconds that the page was at work until it stood; a tenth of it where nothing else runs.
    assert measured["TaskDuration"] < 3


def test_rows_are_sorted_both_ways_and_what_is_not_known_comes_last(browse, many):
    page = browse(many)
    head = page.locator(".rows thead th").nth(4).locator("button")
    head.click()
    assert column(page, 5)[:3] == ["0", "0.0100", "0.0200"]
    head.click()
    assert column(page, 5)[:2] == ["100.0", "100.0"]  # 99.99 and 99.98
    assert page.locator(".rows thead th").nth(4).get_attribute("aria-sort") == "descending"
    upper = page.locator(".rows thead th").nth(5).locator("button")
    for _ in range(2):
        upper.click()
        assert column(page, 6)[0] == "200"
    page.locator(".rows thead th").nth(3).locator("button").click()
    assert column(page, 4)[0] == "slice 00000"


def test_leaves_are_turned(browse, many):
    page = browse(many)
    first = column(page, 4)
    assert page.locator(".back").is_disabled()
    page.locator(".on").click()
    assert not set(first) & set(column(page, 4))
    page.locator(".back").click()
    assert column(page, 4) == first


def test_a_search_narrows_the_rows_that_are_saved(browse, many):
    page = browse(many, accept_downloads=True)
    page.locator("input[type=search]").fill("chen 0123")
    kept = [f"slice {n:05d}" for n in range(COUNT) if not n % 2 and "0123" in f"{n:05d}"]
    assert column(page, 4) == kept
    assert page.locator(".count").text_content() == f"{len(kept)} of 10000 rows"
    with page.expect_download() as waiting:
        page.locator(".csv").click()
    with open(waiting.value.path(), encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0][:4] == ["Case", "Model", "Layer", "Image"]
    assert [row[3] for row in rows[1:]] == kept


def test_a_row_opens_its_case(browse, many):
    page = browse(many)
    address = page.locator(".rows tbody a").first.evaluate("one => one.href")
    assert address == (many.parent / "case 0" / "report.html").as_uri()


def test_a_point_opens_its_case(browse, tmp_path):
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / "report.html").write_text("<title>the case</title>")
    case = Case("yang", "conv7", "a.dcm", {"bounds.lower": 3.0}, PurePosixPath("a b/report.html"))
    page = browse(summary([case], tmp_path / "report.html"))
    canvas = page.locator(".strip canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    at = {"x": box["width"] / 2, "y": 25}
    canvas.hover(position=at)
    assert "conv7" in page.locator(".strip .told").text_content()
    canvas.click(position=at)
    page.wait_for_url("**/a%20b/report.html")
    assert page.title() == "the case"


def test_words_that_a_spreadsheet_would_run_are_saved_as_text(browse, tmp_path):
    case = Case('=cmd|"x"', "conv7", "a,b", {"bounds.lower": -3.0})
    page = browse(summary([case], tmp_path / "report.html"), accept_downloads=True)
    with page.expect_download() as waiting:
        page.locator(".csv").click()
    with open(waiting.value.path(), encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[1] == ["1", '\'=cmd|"x"', "conv7", "a,b", "-3"]
