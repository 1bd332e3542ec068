"""What tests of names in ONNX files share."""

import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def changing():
    """The benchmark that changes files and compares."""
    folder = str(Path(__file__).parents[4] / "benchmarks")
    sys.path.insert(0, folder)
    try:
        import changed_files

        return changed_files
    finally:
        sys.path.remove(folder)
