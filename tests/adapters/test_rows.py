"""Hard cases in docs/adapters.md have tests that bear their numbers; adapters leave other runtimes alone."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
GUIDE = TESTS.parent / "docs" / "adapters.md"
ROWS = [
    f"{kind}{int(number):02d}"
    for kind, number in re.findall(
        r"^\| ([TOED])(\d+) \| \w", GUIDE.read_text(encoding="utf-8"), re.MULTILINE
    )
]


def named():
    """Numbers in the names of tests."""
    found: set[str] = set()
    for file in TESTS.rglob("test_*.py"):
        for name in re.findall(r"def (test_\w+)", file.read_text(encoding="utf-8")):
            found.update(re.findall(r"_([TOED]\d\d)(?=_|$)", name))
    return found


def test_rows_are_numbered_without_a_gap():
    for kind in "TOED":
        numbers = [int(row[1:]) for row in ROWS if row[0] == kind]
        assert numbers == list(range(1, len(numbers) + 1))
        assert numbers


def test_every_row_has_a_test():
    assert not set(ROWS) - named()


def test_no_test_bears_an_unknown_number():
    assert not named() - set(ROWS)


def imported(code):
    program = f"{code}\nimport sys\nprint(*sorted({{'torch', 'onnx', 'onnxruntime'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("code", "needs"),
    [
        ("from ctinv.adapters import TorchDenoiser", ["torch"]),
        ("from ctinv.adapters import OnnxDenoiser", []),
        (
            "import torch\nfrom ctinv import adapters\n"
            "d = adapters.wrap(torch.nn.Conv2d(1, 1, 3, padding=1), intensity='hu')\n"
            "d.features(torch.zeros(1, 1, 32, 32), d.layers[0].name) if d.layers else 0\n"
            "d.denoise(torch.zeros(1, 1, 32, 32))",
            ["torch"],
        ),
    ],
)
def test_an_adapter_does_not_import_the_runtime_of_the_other(code, needs):
    assert imported(code) == needs
