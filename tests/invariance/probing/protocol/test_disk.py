"""Phantoms from disk: read, searched, told apart."""

import numpy as np
import pytest
from ctinv import adapters
from ctinv.adapters.errors import ImageError
from ctinv.invariance.probing.protocol.disk import find_inserts, read_phantom, run_disk
from ctinv.invariance.probing.protocol.record import Protocol
from ctinv.invariance.probing.protocol.run import Subject
from ctinv.invariance.probing.tasks.shapes import draw
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
