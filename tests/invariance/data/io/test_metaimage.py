"""MetaImage whose data lie in several files: lists, patterns, and what is missing."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from ctinv.adapters.errors import ImageError
from ctinv.invariance.data import inspect, read

VOLUME = np.random.default_rng(0).integers(-1000, 1000, (4, 5, 7)).astype("<i2")
NUMBERED = "\n".join(f"s{i:02d}.raw" for i in range(1, 5))


def header(data, extra="", kind="MET_SHORT"):
    return (
        f"NDims = 3\nDimSize = 7 5 4\nElementSpacing = 0.5 0.6 2\n{extra}ElementType = {kind}\n"
        f"ElementDataFile = {data}"
    )


@pytest.fixture
def parts(tmp_path):
    for i, image in enumerate(VOLUME, start=1):
        blob = image.tobytes()
        (tmp_path / f"s{i:02d}.raw").write_bytes(blob)
        (tmp_path / f"h{i}.raw").write_bytes(b"head" + blob)
        (tmp_path / f"z{i}.zraw").write_bytes(zlib.compress(blob))
    for i in (0, 2):
        (tmp_path / f"two{i}.raw").write_bytes(VOLUME[i : i + 2].tobytes())
    return tmp_path


@pytest.mark.parametrize(
    "text",
    [
        header("s%02d.raw 1 4 1"),
        header("s%02d.raw 1 4"),
        header(f"LIST\n{NUMBERED}"),
        header(f"LIST 2\n{NUMBERED}\n\n"),
        header(f"LIST\n{NUMBERED}").replace("\n", "\r\n"),
        header("LIST 3\ntwo0.raw\ntwo2.raw\n"),
        header("h%d.raw 1 4 1", "HeaderSize = 4\n"),
        header("h%d.raw 1 4 1", "HeaderSize = -1\n"),
        header("LIST\n" + "\n".join(f"z{i}.zraw" for i in range(1, 5)), "CompressedData = True\n"),
    ],
)
def test_data_in_several_files(parts, text):
    (parts / "a.mhd").write_bytes(text.encode())
    np.testing.assert_array_equal([one.hu for one in read(parts / "a.mhd")], VOLUME)
    assert inspect(parts)["slices"] == 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (header("LIST\ns01.raw\nno.raw\nnor.raw"), r"needs no\.raw and 1 more beside it.*copy all"),
        (header("LIST\ns01.raw\ns02.raw"), "140 bytes, but has 70"),
        (header("LIST\n"), "lists 0 data files for 4 slices"),
        (header("LIST\n" + NUMBERED + "\ns01.raw"), "lists 5 data files for 4 slices"),
        (header("LIST\ns01.raw\ns02.raw\ns03.raw"), "has 4 slices in 3 data files"),
        (header("s%q.raw 1 4 1"), r"as in slice%03d\.raw 1 4 1"),
        (header("s%999999999d.raw 1 4 1"), r"as in slice%03d\.raw 1 4 1"),
        (header("s%02d.raw a b"), r"as in slice%03d\.raw 1 4 1"),
        (header("s%02d.raw 1 999999999999 1"), r"as in slice%03d\.raw 1 4 1"),
        (header("s%02d.raw 1 4 0"), r"as in slice%03d\.raw 1 4 1"),
    ],
)
def test_data_that_is_not_there(parts, text, words):
    (parts / "a.mhd").write_text(text)
    with pytest.raises(ImageError, match=words):
        read(parts / "a.mhd")


def test_long_numbers(tmp_path):
    (tmp_path / "a.mhd").write_bytes(
        header("LOCAL\n", kind="MET_LONG").encode() + VOLUME.astype("<i4").tobytes()
    )
    np.testing.assert_array_equal([one.hu for one in read(tmp_path / "a.mhd")], VOLUME)
