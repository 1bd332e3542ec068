"""The viewer as a reader uses it: every control, every key, and values that equal the arrays."""

import io

import numpy as np
import pytest
from PIL import Image

from .conftest import SHAPE

KEYS = {
    "x": lambda e: e.x,
    "reconstruction": lambda e: e.reconstruction,
    "reading": lambda e: e.reading,
    "denoised": lambda e: e.denoised,
    "sample1": lambda e: e.samples[0],
    "std": lambda e: e.std,
    "std_noise": lambda e: e.std_noise,
    "std_flow": lambda e: e.std_flow,
    "reading-x": lambda e: e.reading - e.x,
    "sample1-x": lambda e: e.samples[0] - e.x,
}


def settle(page):
    """Let two frames pass, so that what was asked for is drawn."""
    page.evaluate("() => new Promise((on) => requestAnimationFrame(() => requestAnimationFrame(on)))")


def canvas(page, number=0):
    return page.locator(".pane canvas:not(.bar)").nth(number)


def point(page, column, row, number=0):
    """Hover over the middle of a pixel while all of the image is shown."""
    box = canvas(page, number).bounding_box()
    at = {"x": (column + 0.5) / SHAPE[1] * box["width"], "y": (row + 0.5) / SHAPE[0] * box["height"]}
    canvas(page, number).hover(position=at)
    settle(page)


def told(page):
    """The values under the cursor, by image."""
    read = "nodes => nodes.map((n) => [n.dataset.key, parseFloat(n.textContent.replace('−', '-'))])"
    return dict(page.eval_on_selector_all(".values dd", read))


def painted_at(page, across, down):
    """Red, green, blue and opacity at a place of the first canvas, as shares of its width and height."""
    read = """(canvas, [across, down]) => {
      const copy = document.createElement("canvas");
      [copy.width, copy.height] = [canvas.width, canvas.height];
      const pen = copy.getContext("2d", { willReadFrequently: true });
      pen.drawImage(canvas, 0, 0);
      const [x, y] = [Math.floor(across * copy.width), Math.floor(down * copy.height)];
      return [...pen.getImageData(x, y, 1, 1).data];
    }"""
    return canvas(page).evaluate(read, [across, down])


def titles(page):
    labels = page.eval_on_selector_all(
        ".pane canvas:not(.bar)", "nodes => nodes.map((n) => n.getAttribute('aria-label'))"
    )
    return [label.split(", shown")[0] for label in labels]


def ends(page):
    return page.locator(".ends").all_text_contents()


@pytest.mark.parametrize(("column", "row"), [(0, 0), (63, 47), (10, 40), (37, 5)])
def test_values_under_the_cursor_equal_the_arrays(page, explanation, column, row):
    point(page, column, row)
    found = told(page)
    assert set(found) >= set(KEYS)
    for key, array in KEYS.items():
        assert found[key] == pytest.approx(float(array(explanation)[row, column]), abs=0.18), key
    assert found["x"] == explanation.x[row, column]
    place = page.locator(".place").text_content()
    assert place.startswith(f"column {column}, row {row}, ")
    right, down = (float(part.split()[0]) for part in place.split(", ")[2:])
    assert (right, down) == pytest.approx(((column + 0.5) * 0.5, (row + 0.5) * 0.8), abs=0.051)


def test_all_panes_show_the_same_place_however_it_is_zoomed(page):
    canvas(page).dblclick()
    page.locator(".panes").focus()
    for _ in range(4):
        page.keyboard.press("+")
    page.keyboard.press("Control+ArrowRight")
    settle(page)
    places = []
    for number in range(3):
        canvas(page, number).hover(position={"x": 61, "y": 73})
        settle(page)
        places.append(page.locator(".place").text_content())
    assert len(set(places)) == 1
    page.keyboard.press("0")
    canvas(page).hover(position={"x": 61, "y": 73})
    settle(page)
    assert page.locator(".place").text_content() != places[0]


def test_zoom_keeps_what_is_under_the_wheel(page):
    point(page, 20, 30)
    page.locator(".panes").focus()
    page.mouse.wheel(0, -300)
    settle(page)
    page.mouse.move(*_middle(page))
    settle(page)
    before = page.locator(".place").text_content()
    assert before != "column 20, row 30, 10.3 mm right, 24.4 mm down"
    box = canvas(page).bounding_box()
    page.mouse.move(box["x"] + 20.5 / SHAPE[1] * box["width"], box["y"] + 30.5 / SHAPE[0] * box["height"])
    settle(page)
    assert page.locator(".place").text_content().startswith("column 20, row 30,")


def _middle(page):
    box = canvas(page).bounding_box()
    return box["x"] + 5, box["y"] + 5


def test_arrows_and_slider_go_through_the_samples(page, explanation):
    point(page, 5, 6)
    page.locator(".panes").focus()
    for key, sample in (("ArrowRight", 2), ("ArrowUp", 3), ("ArrowRight", 1), ("ArrowLeft", 3)):
        page.keyboard.press(key)
        settle(page)
        assert page.locator(".sample output").text_content() == f"{sample} of 3"
        shown = told(page)[f"sample{sample}"]
        assert shown == pytest.approx(float(explanation.samples[sample - 1][6, 5]), abs=0.12)
    page.locator(".sample input").fill("2")
    settle(page)
    assert titles(page)[1] == "x″₂, sample 2"


def test_space_puts_x_in_place_of_the_sample_and_back(page):
    page.locator(".panes").focus()
    seen = []
    for _ in range(3):
        settle(page)
        seen.append(titles(page))
        page.keyboard.press(" ")
    assert seen[0] == seen[2] == ["x, the image", "x″₁, sample 1", "Map: hidden anatomy"]
    assert seen[1] == ["x, the image", "x, the image", "Map: hidden anatomy"]


def test_pixels_are_painted_in_the_window(page, explanation):
    page.locator("button[data-preset='0']").click()
    settle(page)
    for column, row in ((3, 4), (40, 20), (60, 9)):
        grey = np.clip((explanation.x[row, column] + 150) / 400 * 255, 0, 255)
        painted = painted_at(page, (column + 0.5) / SHAPE[1], (row + 0.5) / SHAPE[0])
        assert painted == pytest.approx([grey, grey, grey, 255], abs=1)


def test_windows_change_by_preset_by_drag_and_back(page):
    first = ends(page)
    page.locator("button[data-preset='1']").click()
    settle(page)
    assert ends(page)[:2] == ["−1350.0 to 150.0 HU"] * 2
    page.locator(".panes").focus()
    page.keyboard.press("4")
    settle(page)
    assert ends(page)[0] == "0.0 to 80.0 HU"
    assert ends(page)[2] == first[2]
    drag(page, 0, 100, 0)
    wide = ends(page)[0]
    assert wide == ends(page)[1]
    low, high = (float(n.replace("−", "-")) for n in wide.removesuffix(" HU").split(" to "))
    assert high - low == pytest.approx(80 * np.exp(0.5), abs=0.2)
    assert (high + low) / 2 == pytest.approx(40, abs=0.2)
    drag(page, 0, 0, 60)
    assert float(ends(page)[0].split(" to ")[1].removesuffix(" HU")) > high
    drag(page, 2, 50, 0)
    assert ends(page)[2].startswith("0.0 to ")
    assert ends(page)[2] != first[2]
    page.locator(".first").click()
    settle(page)
    assert ends(page) == first


def drag(page, number, dx, dy):
    box = canvas(page, number).bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + dx, y + dy)
    page.mouse.up()
    settle(page)


def test_a_drag_can_move_instead(page):
    page.locator(".closer").click()
    page.locator(".hand").click()
    first = ends(page)
    canvas(page).hover(position={"x": 100, "y": 100})
    settle(page)
    before = page.locator(".place").text_content()
    drag(page, 0, 40, 30)
    canvas(page).hover(position={"x": 100, "y": 100})
    settle(page)
    assert ends(page) == first
    assert page.locator(".place").text_content() != before


@pytest.mark.parametrize(
    ("key", "layout", "panes"), [("o", "one", 1), ("s", "side", 3), ("v", "overlay", 1), ("a", "all", 9)]
)
def test_panes_are_laid_by_button_and_key(page, key, layout, panes):
    page.locator(f"button[data-layout={layout}]").click()
    assert page.locator(".pane").count() == panes
    page.locator("button[data-layout=side]").click()
    page.locator(".panes").focus()
    page.keyboard.press(key)
    assert page.locator(".pane").count() == panes
    assert page.locator(f"button[data-layout={layout}]").get_attribute("aria-pressed") == "true"
    assert page.locator(".opacity").is_visible() == (layout == "overlay")


def test_the_overlay_blends_from_one_to_the_other(page):
    page.locator("button[data-layout=overlay]").click()
    colours = []
    for share in ("0", "50", "100"):
        page.locator(".opacity input").fill(share)
        settle(page)
        colours.append(painted_at(page, 0.5, 0.5))
    assert len({*colours[0][:3]}) == 1  # grey alone
    assert len({*colours[2][:3]}) > 1
    np.testing.assert_allclose(colours[1], np.mean([colours[0], colours[2]], axis=0), atol=3)


def test_any_image_can_be_chosen_in_any_pane(page):
    lists = page.locator(".pane select")
    for number in range(3):
        for value in lists.nth(number).evaluate("list => [...list.options].map((one) => one.value)"):
            lists.nth(number).select_option(value)
            settle(page)
    lists.nth(0).select_option("sample-x")
    settle(page)
    assert titles(page)[0] == "x″₁ − x"
    assert ends(page)[0].startswith("−")


def test_the_cursor_goes_by_keys(page):
    point(page, 10, 10)
    page.locator(".panes").focus()
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("Shift+ArrowDown")
    settle(page)
    assert page.locator(".place").text_content().startswith("column 11, row 12,")


def test_every_button_can_be_pressed(page):
    """None may complain; the fixture sees to that."""
    for number in range(page.locator(".viewer button").count()):
        button = page.locator(".viewer button").nth(number)
        if button.is_visible() and "save" not in (button.get_attribute("class") or ""):
            button.click()
            settle(page)
            page.evaluate("document.fullscreenElement && document.exitFullscreen()")


def test_the_viewer_fills_the_screen(page):
    page.locator(".full").click()
    page.locator(".viewer:fullscreen").wait_for()


def test_the_picture_that_is_saved_shows_the_panes(page):
    with page.expect_download() as waiting:
        page.locator(".save").click()
    assert waiting.value.suggested_filename == "ctinv-conv7.png"
    with open(waiting.value.path(), "rb") as file:
        picture = np.asarray(Image.open(io.BytesIO(file.read())).convert("RGB"))
    box = canvas(page).bounding_box()
    assert picture.shape[1] >= 3 * box["width"]
    assert np.ptp(picture[60:200, 60:200]) > 100
