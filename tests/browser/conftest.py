"""Chromium, driven by playwright; tests that need it skip where either is not at hand."""

import shutil

import numpy as np
import pytest
from ctinv.invariance.audit.record import Audit
from ctinv.invariance.reporting.explanation import Explanation
from ctinv.invariance.reporting.provenance import Provenance
from ctinv.invariance.reporting.report import report_html

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SHAPE = (48, 64)


@pytest.fixture(scope="session")
def chromium():
    """One browser for all tests."""
    program = next((path for path in map(shutil.which, NAMES) if path), None)
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def browse(chromium):
    """Opens a file as a page; at the end, nothing may have been complained of or asked for."""
    complaints, contexts = [], []

    def opened(path, width=1280, height=900, **options):
        contexts.append(chromium.new_context(viewport={"width": width, "height": height}, **options))
        page = contexts[-1].new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: _watch(request.url, complaints))
        page.goto(path.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


def _watch(url, complaints):
    if not url.startswith(("file:", "data:", "blob:")):
        complaints.append(f"asked for {url}")


@pytest.fixture(scope="session")
def explanation():
    """Images whose pixels all differ, of pixels that are not square."""
    rng = np.random.default_rng(3)
    x = np.round(rng.normal(40, 60, SHAPE)).astype(np.float32)
    near = lambda spread: (x + rng.normal(0, spread, SHAPE)).astype(np.float32)  # noqa: E731
    spread = lambda: np.abs(rng.normal(4, 1, SHAPE)).astype(np.float32)  # noqa: E731
    audit = {
        "map": {"std": {"value": 3.0, "unit": "HU", "found": True, "rho": 0.03}, "noise": {"value": 20.0}},
        "leakage": {"refined": {"value": 0.4, "meaning": 'Says "so", twice.'}},
        "verdict": ["conv7 hides something."],
    }
    meta = {"model": "yang", "layer": "conv7", "spacing": [0.8, 0.5], "refinement": {"rho": 0.03}}
    return Explanation(
        x=x,
        mean=x,
        denoised=near(9),
        reconstruction=near(20),
        samples=np.stack([near(5) for _ in range(3)]),
        std=spread(),
        std_flow=spread(),
        std_noise=spread(),
        reading=near(6),
        audit=Audit.from_json(audit),
        meta=Provenance.from_json(meta),
    )


@pytest.fixture(scope="session")
def report(explanation, tmp_path_factory):
    """The report of that explanation, as a file."""
    path = tmp_path_factory.mktemp("pages") / "report.html"
    path.write_text(report_html(explanation), encoding="utf-8")
    return path


@pytest.fixture
def page(browse, report):
    """That report, opened, its images read."""
    opened = browse(report, accept_downloads=True)
    opened.wait_for_selector(".viewer[data-ready]")
    return opened
