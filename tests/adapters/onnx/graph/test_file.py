"""Files that are no models."""

import pytest
from ctinv.adapters.errors import (
    ModelError,
)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"\n  <!DOCTYPE html><html></html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "LFS"),
        (b"PK\x03\x04....", "zip archive"),
        (b'{"message": "Not found"}', "JSON"),
        (b"\x80\x02}q\x00.", "damaged"),
        (b"\x08\x07", "no network"),
    ],
)
def test_files_that_are_no_models(tmp_path, open_onnx, content, says):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=says) as caught:
        open_onnx(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_files_and_folders(tmp_path, open_onnx):
    with pytest.raises(ModelError, match="no such file"):
        open_onnx(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="a folder"):
        open_onnx(tmp_path)


@pytest.mark.parametrize("cut", [1, 10, 100, 300, 500])
def test_truncated_files(conv_graph, open_onnx, cut):
    path = conv_graph()
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(ModelError):
        open_onnx(path)
