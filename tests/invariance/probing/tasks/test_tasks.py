"""Tasks: sizes, areas, contrasts, blur by the scanner, lesions from files."""

import itertools

import numpy as np
import pytest
from ctinv.adapters.errors import CtinvError, ImageError
from ctinv.invariance.data.simulation.dose import MU_WATER, kernel_window, noise_realisations
from ctinv.invariance.data.simulation.insertion import reconstructed
from ctinv.invariance.probing.lesions import Lesion, lesion_signal
from ctinv.invariance.probing.tasks.files import read_lesion
from ctinv.invariance.probing.tasks.shapes import SHAPES, draw
from ctinv.invariance.probing.tasks.task import TASKS, Task, low_contrast

PLANE = ((96, 96), (47.4, 48.0))
SPACINGS = [(0.5, 0.5), (0.8, 0.6)]


def area(signal, spacing, contrast):
    return float(signal.sum()) / contrast * spacing[0] * spacing[1]


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("sharp", [False, True])
def test_shapes_have_the_area_that_they_should(spacing, sharp):
    size = 9.0
    disc = np.pi / 4 * size**2
    wanted = {
        "disc": disc,
        "sphere": 2 / 3 * disc,
        "gaussian": np.pi / 4 / np.log(2) * size**2,
        "rod": size**2 / 3,
        "spiculated": disc,
        "two": disc,
        "gap": disc,
        "soft": disc,
        "texture": disc,
    }
    assert set(wanted) == set(SHAPES)
    for name, value in wanted.items():
        signal = draw(name, size, -12.0, *PLANE, spacing, sharp=sharp)
        assert area(signal, spacing, -12.0) == pytest.approx(value, rel=0.02), name
        rows, columns = np.indices(signal.shape)
        assert (signal * rows).sum() / signal.sum() == pytest.approx(48.0, abs=0.11), name
        assert (signal * columns).sum() / signal.sum() == pytest.approx(47.4, abs=0.11), name


def test_a_disc_is_the_lesion_of_the_probe():
    spacing, at = (0.7, 0.7), (40, 44)
    drawn = draw("disc", 6.0, -15.0, (96, 96), at, spacing)
    assert drawn == pytest.approx(lesion_signal((96, 96), Lesion(6.0, -15.0), at, spacing), abs=1e-3)


def test_every_pair_of_shapes_differs():
    drawn = {name: draw(name, 8.0, 30.0, *PLANE, (0.7, 0.7)) for name in SHAPES}
    for a, b in itertools.combinations(drawn, 2):
        assert np.abs(drawn[a] - drawn[b]).max() > 3, (a, b)


def test_a_gap_is_two_millimetres_wide():
    signal = draw("gap", 8.0, 10.0, *PLANE, (0.25, 0.25), sharp=True)
    inside = signal[48, 20:76]
    gap = np.flatnonzero(inside < 5)
    middle = gap[(gap > 10) & (gap < 45)]
    assert len(middle) * 0.25 == pytest.approx(2.0, abs=0.3)


def test_soft_edges_are_softer_by_what_they_say():
    hard, soft = (draw(name, 20.0, 100.0, (192, 192), (96, 96), (0.25, 0.25)) for name in ("disc", "soft"))
    slopes = [float(np.abs(np.diff(s[96])).max()) / 0.25 for s in (hard, soft)]
    assert slopes[0] == pytest.approx(100 / (np.sqrt(2 * np.pi) * 0.6), rel=0.05)
    assert slopes[1] == pytest.approx(100 / (np.sqrt(2 * np.pi) * 1.5), rel=0.05)


@pytest.mark.parametrize("kernel", ["smooth", "sharp"])
def test_a_lesion_in_the_projections_is_blurred_by_the_kernel(kernel):
    """Its spectrum is that of the sharp lesion times the kernel's window."""
    spacing = (0.6, 0.6)
    sharp = draw("disc", 10.0, 20.0, (128, 128), (64, 64), spacing, sharp=True)
    seen = reconstructed(sharp, spacing, kernel=kernel)
    plain, blurred = (np.fft.fft2(image)[0, :64] for image in (sharp, seen))
    frequency = np.fft.fftfreq(128, 0.6)[:64]
    used = (np.abs(plain) > 0.03 * np.abs(plain).max()) & (frequency > 0) & (frequency < 0.6)
    assert used.sum() > 8
    ratio = (blurred[used] / plain[used]).real
    assert ratio == pytest.approx(kernel_window(kernel, frequency[used]), abs=0.04)
    assert seen.sum() == pytest.approx(sharp.sum(), rel=0.02)


def test_lesion_and_noise_go_through_one_scan():
    """The noise belongs to what is scanned: a dense lesion lets less light through."""
    rows, columns = np.indices((96, 96)) - 48
    body = np.where(np.hypot(rows, columns) < 40, 40.0, -1000.0).astype(np.float32)
    lesion = draw("disc", 12.0, 400.0, (96, 96), (48, 48), (1.0, 1.0))
    drawn = []
    for image in (body, body + lesion):
        numbers = np.random.default_rng(1)
        noisy = next(noise_realisations(image, (1.0, 1.0), 0.2, 1, numbers, input_dose=np.inf))
        drawn.append(noisy - image)
    one, two = drawn
    assert MU_WATER * 12 * 0.4 > 0.05  # so much less light comes through
    inside = np.hypot(rows, columns) < 6
    assert 1.0 < two[inside].std() / one[inside].std() < 1.2


@pytest.mark.parametrize("kind", [k for k in TASKS if k != "detect-file"])
@pytest.mark.parametrize("projected", [False, True])
def test_alternatives_are_alike_but_for_what_is_asked(kind, projected):
    first, second = Task(kind, 8.0, 25.0).signals(*PLANE, (0.7, 0.7), projected=projected)
    assert np.abs(second - first).max() > 3
    if Task(kind, 8.0, 25.0).detects:
        assert not first.any()
    elif kind != "contrast":
        assert second.sum() == pytest.approx(first.sum(), rel=0.03)
    else:
        assert second == pytest.approx(1.5 * first, abs=1e-3)


def test_the_protocol_asks_both_kinds_of_questions():
    tasks = low_contrast()
    assert len({t.name for t in tasks}) == len(tasks)
    assert {t.kind for t in tasks if not t.detects} == {"spiculated", "two", "edge", "gap"}
    discs = {(t.size, t.contrast) for t in tasks if t.detects}
    assert {(3, 14), (5, 7), (7, 5), (10, 3)} <= discs


def test_lesions_come_from_files(tmp_path):
    mask = np.zeros((24, 24), np.float32)
    mask[8:16, 6:18] = 1
    np.save(tmp_path / "mask.npy", mask)
    held = read_lesion(tmp_path / "mask.npy")
    assert held.mask
    first, second = Task("detect-file", held.size, 20.0, held).signals((64, 64), (32, 30), (0.8, 0.8))
    assert (first.any(), second.max()) == (False, 20.0)
    assert area(second, (1, 1), 20.0) == pytest.approx(96, rel=0.01)
    rows, columns = np.indices(second.shape)
    assert (second * columns).sum() / second.sum() == pytest.approx(32, abs=0.01)
    assert (second * rows).sum() / second.sum() == pytest.approx(30, abs=0.01)
    np.save(tmp_path / "patch.npy", (-30 * mask + 2 * mask * np.arange(24)).astype(np.float32))
    patch = read_lesion(tmp_path / "patch.npy")
    assert (patch.mask, patch.strongest) == (False, -18.0)
    drawn = patch.placed((64, 64), (32, 30), (0.8, 0.8), patch.strongest)
    assert drawn.min() == pytest.approx(-18.0, abs=1.1)  # between pixels


REFUSED = {
    "an unknown task": (lambda p: Task("guess"), "detect"),
    "no contrast": (lambda p: Task("detect", 5.0, 0.0), "other than 0"),
    "no size": (lambda p: Task("detect", 0.0, 5.0), "up to 60 mm"),
    "a file's task without a file": (lambda p: Task("detect-file", 5.0, 5.0), "file"),
    "an unknown shape": (lambda p: draw("star", 5.0, 5.0, *PLANE, (1, 1)), "spiculated"),
    "smaller than two pixels": (lambda p: draw("disc", 1.0, 5.0, *PLANE, (0.8, 0.8)), "at least 1.6 mm"),
    "an empty file": (lambda p: read_lesion(_saved(p, np.zeros((9, 9)))), "no lesion"),
    "a whole slice": (lambda p: read_lesion(_saved(p, np.ones((300, 300)))), "at most 256"),
    "two slices": (lambda p: read_lesion(_saved(p, np.arange(800.0).reshape(2, 20, 20))), "must hold one"),
    "no image to project": (lambda p: reconstructed(np.ones(9, np.float32), (1, 1)), "8 x 8"),
}


def _saved(folder, values):
    np.save(folder / "lesion.npy", values.astype(np.float32))
    return folder / "lesion.npy"


@pytest.mark.parametrize("case", REFUSED)
def test_what_makes_no_task_is_refused(case, tmp_path):
    call, said = REFUSED[case]
    with pytest.raises((CtinvError, ImageError), match=said):
        call(tmp_path)
