"""Six published denoisers, exported and optimised: no listed name gives another tensor in silence."""

import pytest


@pytest.mark.parametrize("name", ["EDCNN", "NAFNet", "Restormer", "SwinIR", "Uformer", "CTformer"])
def test_law_of_public_networks_as_the_runtime_saves_them(changing, tmp_path, name):
    tally = changing.Tally()
    changing.each(name, "torchscript", {"E": changing.runtime("ENABLE_EXTENDED")}, tally, tmp_path)
    assert not tally.wrong
    assert tally.counts["files read"] == 2
    assert tally.counts["listed: right"] >= 20


@pytest.mark.slow
@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
@pytest.mark.parametrize("name", ["EDCNN", "NAFNet", "Restormer", "SwinIR", "Uformer", "CTformer"])
def test_law_of_public_networks_with_every_tool(changing, tmp_path, name, exporter):
    tally = changing.Tally()
    changing.each(name, exporter, changing.optimisers(), tally, tmp_path)
    assert not tally.wrong
    assert tally.counts["listed: right"] >= 20


def test_a_name_that_lies_is_told(changing, tmp_path):
    """The comparison itself: a network whose weights are others than the file's is found out."""
    import torch

    network = changing.public_network("EDCNN")
    changing.export(network, tmp_path / "e.onnx", "torchscript", False, 18)
    tally = changing.Tally()
    with torch.no_grad():
        network.conv_f1.bias += 1.0
    tally.file(tmp_path / "e.onnx", network, "e")
    assert any("conv_f1" in text for text in tally.wrong)
