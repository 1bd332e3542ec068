"""Phantoms from disk: read, searched, told apart."""

import numpy as np
import pytest
from ctinv import adapters
from ctinv.adapters.errors import ImageError
from ctinv.invariance.probing.protocol.disk import read_phantom, run_disk
from ctinv.invariance.probing.protocol.record import Protocol
from ctinv.invariance.probing.protocol.run import Subject
from ctinv.invariance.probing.protocol.search import (
    Insert,
    empty_places,
    find_inserts,
    find_inserts_alone,
    phantom_body,
)
from ctinv.invariance.probing.tasks.shapes import draw
from scipy.ndimage import gaussian_filter
from torch import nn

INSERTS = (((40, 40), 10.0, 20.0), ((88, 44), 6.0, 30.0), ((60, 92), 8.0, -25.0))
SPACING = (0.8, 0.8)


def scans(n, dose, seed, inserts=INSERTS, shape=(128, 128)):
    rng = np.random.default_rng(seed)
    image = np.full(shape, 40.0)
    for at, size, contrast in inserts:
        image = image + draw("disc", size, contrast, shape, at, SPACING)
    return (image + rng.normal(0, 12 / np.sqrt(dose), (n, *shape))).astype(np.float32)


@pytest.fixture
def folder(tmp_path):
    for dose, place in ((1.0, "full"), (0.25, "quarter")):
        (tmp_path / place).mkdir()
        np.save(tmp_path / place / "with.npy", scans(24, dose, 1) + 1024)
        np.save(tmp_path / place / "without.npy", scans(20, dose, 2, ()) + 1024)
    write(tmp_path)
    return tmp_path


def write(folder, more=""):
    text = "present: with.npy\nabsent: without.npy\noffset: 1024\nspacing: 0.8\n"
    (folder / "phantom.yaml").write_text(text + "doses: {1.0: full, 0.25: quarter}\n" + more)


def test_inserts_are_found_by_themselves():
    found = find_inserts(scans(30, 1.0, 0, ()), scans(30, 1.0, 1), SPACING)
    assert len(found) == 3
    for at, size, contrast in INSERTS:
        (one,) = [f for f in found if np.hypot(f.at[0] - at[0], f.at[1] - at[1]) <= 1.5]
        assert one.diameter == pytest.approx(size, rel=0.3)
        assert one.contrast == pytest.approx(contrast, rel=0.25)
    assert find_inserts(scans(30, 1.0, 0, ()), scans(30, 1.0, 1, ()), SPACING) == ()


def test_a_scanned_phantom_is_told_at_every_place(folder):
    write(folder, "inserts:\n  - {at: [40, 40], diameter: 10, contrast: 20}\n")
    phantom = read_phantom(folder)
    assert (phantom.found, phantom.spacing, set(phantom.images)) == (False, (0.8, 0.8), {1.0, 0.25})
    assert phantom.images[1.0][1].mean() == pytest.approx(40, abs=1)
    one = Subject.of(adapters.wrap(nn.Identity(), intensity="hu", name="same"), [])
    results = run_disk([one], phantom, Protocol(observers=("lg",), seed=3))
    full, quarter = (results.at(where="x", dose=d)[0] for d in (1.0, 0.25))
    assert (full.n, results.scene) == (20, f"scans of {folder.name}")
    assert full.auc > 0.95
    assert quarter.detectability < full.detectability
    for dose in (1.0, 0.25):
        x, out = results.at(dose=dose)
        assert out.auc == x.auc


def test_what_is_not_told_is_searched(folder):
    phantom = read_phantom(folder)
    assert phantom.found
    assert len(phantom.inserts) == 3


RING = 50.0  # mm, radius on which the discs of a CatPhan-like phantom lie
GROUP = (15.0, 9.0, 8.0, 7.0, 6.0)  # mm


def catphan(n=12, seed=0, contrasts=(10.0, 5.0), noise=8.0, turned=0.0, moved=(0, 0)):
    """Scans of a cylinder of 200 mm in air with cupping, and two groups of discs on a ring; and the discs."""
    side, step = 200, 1.1
    rows, columns = np.indices((side, side)) - side / 2
    radius = np.hypot(rows - moved[1], columns - moved[0]) * step
    image = np.where(radius < 100, 60 - 8 * (1 - (radius / 100) ** 2) + 2 * columns / side, -1000.0)
    discs = []
    for group, contrast in enumerate(contrasts):
        for number, size in enumerate(GROUP):
            angle = np.deg2rad(turned + 170 * group + 28 * number)
            along = RING / step * np.array([np.cos(angle), np.sin(angle)])
            at = (side / 2 + moved[0] + along[0], side / 2 + moved[1] + along[1])
            image = image + draw("disc", size, contrast, image.shape, at, (step, step))
            discs.append((at, size, contrast))
    draws = np.random.default_rng(seed)
    white = draws.normal(size=(n, side, side))
    blurred = gaussian_filter(white, (0, 0.7, 0.7))
    return (image + noise * blurred / blurred.std()).astype(np.float32), discs, (step, step)


@pytest.mark.parametrize(("turned", "moved"), [(0.0, (0, 0)), (37.0, (6, -4))])
def test_a_catphan_is_searched_without_scans_of_the_empty_phantom(turned, moved):
    scans_, discs, spacing = catphan(turned=turned, moved=moved)
    found = find_inserts_alone(scans_, spacing)
    strong = [d for d in discs if d[2] == 10.0]
    assert len(found) >= len(strong) + 1
    for at, size, contrast in strong:
        (one,) = [f for f in found if np.hypot(f.at[0] - at[0], f.at[1] - at[1]) <= 2]
        assert one.diameter == pytest.approx(size, rel=0.35)
        assert one.contrast == pytest.approx(contrast, rel=0.35)
    near = [min(np.hypot(f.at[0] - d[0][0], f.at[1] - d[0][1]) for d in discs) for f in found]
    assert max(near) <= 2, "nothing is found where there is nothing"


def test_a_phantom_without_discs_has_none():
    scans_, _, spacing = catphan(contrasts=())
    assert find_inserts_alone(scans_, spacing) == ()
    assert find_inserts_alone(np.full((4, 64, 64), -1000.0, np.float32), spacing) == ()


def test_empty_places_lie_beside_the_discs_on_their_ring():
    scans_, discs, spacing = catphan()
    body = phantom_body(scans_.mean(0, dtype=np.float64), spacing)
    inserts = [Insert((round(at[0]), round(at[1])), size, contrast) for at, size, contrast in discs]
    for insert in (inserts[0], inserts[4]):
        places = empty_places(insert, inserts, body, spacing, 40, 4)
        assert len(places) == 4
        for column, row in places:
            radius = np.hypot(column - 100, row - 100) * spacing[0]
            assert radius == pytest.approx(RING, abs=5.5)
            for other in inserts:
                gap = np.hypot(column - other.at[0], row - other.at[1]) * spacing[0]
                assert gap >= (other.diameter + insert.diameter) / 2 + 3
    crowd = [Insert((c, r), 25.0, 1.0) for c in range(0, 200, 15) for r in range(0, 200, 15)]
    assert empty_places(crowd[60], crowd, body, spacing, 40, 4) == []


def test_scans_with_inserts_alone_are_enough(tmp_path):
    scans_, _, spacing = catphan(n=16)
    np.save(tmp_path / "discs.npy", scans_)
    (tmp_path / "phantom.yaml").write_text(f"present: discs.npy\noffset: 0\nspacing: {spacing[0]}\n")
    phantom = read_phantom(tmp_path)
    assert phantom.found
    assert phantom.images[1.0][0] is None
    one = Subject.of(adapters.wrap(nn.Identity(), intensity="hu", name="same"), [])
    results = run_disk([one], phantom, Protocol(observers=("lg",)))
    large = [o for o in results.at(where="x") if o.size > 12 and o.contrast > 7]
    assert large
    assert min(o.auc for o in large) > 0.95
    assert [o.auc for o in results.at(where="f(x)")] == [o.auc for o in results.at(where="x")]


REFUSED = {
    "no file": (lambda f: (f / "phantom.yaml").unlink(), "has no phantom.yaml"),
    "no YAML": (lambda f: (f / "phantom.yaml").write_text("{{"), "cannot be read"),
    "an unknown key": (lambda f: write(f, "discs: 3\n"), "keys are absent"),
    "an insert without a place": (lambda f: write(f, "inserts: [{diameter: 3}]\n"), "diameter: mm"),
    "a list of doses": (lambda f: (f / "phantom.yaml").write_text("doses: [1, 2]\n"), "numbers to folders"),
    "too few scans": (lambda f: np.save(f / "full" / "with.npy", scans(2, 1, 0) + 1024), "4 or more"),
    "nothing there": (lambda f: (f / "full" / "with.npy").unlink(), "does not exist"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_phantom_is_refused(case, folder):
    change, said = REFUSED[case]
    change(folder)
    with pytest.raises(ImageError, match=said):
        read_phantom(folder)
