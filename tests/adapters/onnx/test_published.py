"""ONNX files that others made: a published DnCNN in two forms, and files that are no models."""

import numpy as np
import pytest
import torch
from ctinv.adapters.errors import ModelError

from ..peers import peer


def slices(folder, count, size):
    """Centres of real slices, HU."""
    import pydicom

    found = []
    for path in sorted((folder / "ct" / "tcga").rglob("*.dcm"))[:count]:
        data = pydicom.dcmread(path)
        hu = data.pixel_array * float(data.RescaleSlope) + float(data.RescaleIntercept)
        top, left = (hu.shape[0] - size) // 2, (hu.shape[1] - size) // 2
        found.append(hu[top : top + size, left : left + size])
    return np.stack(found)[:, None].astype(np.float32)


@pytest.fixture(scope="module")
def dncnn():
    """The published weights in PyTorch: what makes the noise."""
    return peer("kair dncnn").model


@pytest.fixture(scope="module")
def published(shared_data, open_onnx):
    return open_onnx(
        shared_data / "models" / "AndresLL_dncnn25_compatible.onnx",
        intensity="unit:-1024:3072",
        output="residual",
        threads=0,
    )


def test_published_legacy_file_equals_its_torch_weights(published, dncnn, shared_data):
    x = slices(shared_data, 2, 64)
    u = torch.from_numpy((x + 1024) / 4096)
    layers = [layer for layer in published.layers if layer.op in ("Conv", "Relu")]
    assert [layer.name for layer in layers[:3]] == ["Conv_0", "Relu_1", "Conv_2"]
    assert len(layers) == len(dncnn)
    with torch.no_grad():
        for index, layer in enumerate(layers):
            u = dncnn[index](u)
            if index % 7 == 0 or index == len(layers) - 1:
                z = published.features(x, layer.name)
                assert np.abs(z - u.numpy()).max() < 1e-4, layer.name
                if layer.op == "Conv":
                    assert published.resolve(f"dncnn.{index}").name == layer.name
    y = published.denoise(x)
    assert np.abs(y - (x - u.numpy() * 4096)).max() < 1e-4 * 4096
    assert any("1x256x256" in notice for notice in published.notices)


def test_published_legacy_file_at_its_own_size(published, dncnn, shared_data):
    x = slices(shared_data, 1, 256)
    with torch.no_grad():
        u = torch.from_numpy((x + 1024) / 4096)
        assert np.abs(published.features(x, "35") - dncnn[:1](u).numpy()).max() < 1e-4
        assert np.abs(published.features(x, "Conv_32") - dncnn(u).numpy()).max() < 1e-4


@pytest.mark.slow
def test_published_keras_file_is_channels_first_at_any_size(shared_data, open_onnx, capture):
    path = shared_data / "models" / "raja-shetty_covid_denoiser.onnx"
    denoiser = open_onnx(path, intensity="unit:-1024:3072", threads=0)
    x = slices(shared_data, 2, 96)
    assert denoiser.layers[1].shape[0] == 64
    first = denoiser.features(x, "Conv__52")
    assert first.shape == (2, 64, 96, 96)
    assert "post-BN" in denoiser.resolve("Conv__52").note
    whole = slices(shared_data, 1, 512)
    u = ((whole + 1024) / 4096).transpose(0, 2, 3, 1)
    reference = capture(path, {"input": u})["subtract"]
    y = denoiser.denoise(whole)
    assert np.abs((y + 1024) / 4096 - reference.transpose(0, 3, 1, 2)).max() < 1e-4
    assert np.sqrt(np.mean((denoiser.denoise(x) - x) ** 2)) < 200


@pytest.mark.parametrize(
    ("file", "says"),
    [("html_saved_as_dncnn.onnx", "web page"), ("dynamo_missing_external_data_dncnn_25.onnx", "onnx.data")],
)
def test_awkward_files_are_refused_in_one_line(shared_data, open_onnx, file, says):
    with pytest.raises(ModelError, match=says) as caught:
        open_onnx(shared_data / "awkward" / file)
    assert file in str(caught.value)
    assert "\n" not in str(caught.value)
