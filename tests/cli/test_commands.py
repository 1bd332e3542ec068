"""The smaller commands."""

import json

import numpy as np
import onnx
import pytest
from ctinv.invariance.runs.cases import folder_names


def test_layers_json_lists_layers_in_order(run):
    result = run("layers", "--model", "chen", "--json")
    assert result.code == 0
    assert [entry["name"] for entry in result.json] == ["conv1", "relu2", "conv3", "relu4", "conv5"]
    assert all({"name", "op", "shape"} <= set(entry) for entry in result.json)
    assert result.json[0]["shape"][0] == 64


def test_layers_table_names_every_layer_whole(run):
    result = run("layers", "--model", "yang")
    assert result.code == 0
    assert all(f" conv{i} " in result.out for i in range(1, 16, 2))


@pytest.mark.parametrize("command", [("layers", "-m", "chen"), ("zoo", "list"), ("data", "inspect")])
def test_json_is_pure_and_equal_to_itself(run, slices, command):
    path = [slices] if command[0] == "data" else []
    first, second = (run(*command, *path, "--json") for _ in range(2))
    assert first.code == 0
    assert json.loads(first.out) == json.loads(second.out)


def test_a_callable_beside_the_user_is_a_model(run, tmp_path, monkeypatch):
    (tmp_path / "mine_for_test.py").write_text(
        "import torch\nprint('noise from user code')\n"
        "def net():\n    return torch.nn.Sequential(torch.nn.Conv2d(1, 1, 3, padding=1))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    result = run("layers", "-m", "mine_for_test:net", "--json")
    assert result.code == 0, result.err
    assert [entry["op"] for entry in result.json] == ["Conv2d"]
    assert "noise from user code" in result.err


def test_zoo_list_shows_names_and_cards(run):
    assert [entry["name"] for entry in run("zoo", "list", "--json").json] == ["chen", "yang"]
    assert "# " in run("zoo", "list", "--card", "yang").out
    assert run("zoo", "list", "--card", "nobody").code == 2


@pytest.mark.filterwarnings("ignore")  # the exporter's own
def test_zoo_export_writes_onnx_that_the_cli_reads(run, tmp_path):
    path = tmp_path / "chen.onnx"
    result = run("zoo", "export", "chen", path, "--exporter", "torchscript")
    assert result.code == 0, result.err
    assert str(path) in result.out
    onnx.checker.check_model(onnx.load(path))
    assert {"conv1", "conv3", "conv5"} <= {e["name"] for e in run("layers", "-m", path, "--json").json}


def test_data_inspect_reads_ct_and_refuses_the_rest(run, slices, tmp_path):
    found = run("data", "inspect", slices, "--json")
    assert found.code == 0
    assert found.json["slices"] == 2
    assert "64 × 64" in run("data", "inspect", slices).out
    (tmp_path / "text.dcm").write_text("no")
    refused = run("data", "inspect", tmp_path / "text.dcm")
    assert refused.code == 2
    assert "text.dcm" in refused.err


def test_data_inspect_writes_a_page_with_pictures(run, slices, tmp_path):
    page = tmp_path / "new" / "ct.html"
    (slices / "<b>.txt").write_text("no")
    result = run("data", "inspect", slices, "--report", page)
    assert result.code == 0, result.err
    assert str(page) in result.out
    text = page.read_text(encoding="utf-8")
    assert text.count("data:image/png;base64,iVBOR") == 1
    assert "64 × 64" in text
    assert "<b>" not in text
    assert 'src="http' not in text
    assert run("data", "inspect", tmp_path / "none", "--report", tmp_path / "no.html").code == 2
    assert not (tmp_path / "no.html").exists()


def test_data_inspect_leaves_out_no_more_than_one_screen(run, slices):
    for number in range(30):
        (slices / f"{number:02d}.txt").write_text("no")
    assert "left out: 10 more files" in run("data", "inspect", slices).err
    assert len(run("data", "inspect", slices, "--json").json["skipped"]) == 30


def test_data_inspect_takes_raw_files_for_their_headers(run, tmp_path):
    np.arange(4096, dtype="<i2").tofile(tmp_path / "a.raw")
    head = "NDims = 2\nDimSize = 64 64\nElementType = MET_SHORT\nElementDataFile = a.raw\n"
    (tmp_path / "a.mhd").write_text(head)
    result = run("data", "inspect", tmp_path)
    assert result.code == 0
    assert "left out" not in result.err
    assert "offset" in result.err


@pytest.mark.parametrize(
    ("given", "made"),
    [
        (["conv1", "conv2"], ["conv1", "conv2"]),
        (["/conv7/Conv", "a:b\\c"], ["conv7_Conv", "a_b_c"]),
        (["Conv", "conv"], ["Conv", "conv-2"]),
        (["..", "@output", ""], ["unnamed", "@output", "unnamed-2"]),
    ],
)
def test_folder_names_are_safe_and_different(given, made):
    assert folder_names(given) == made


def test_slices_are_read_as_they_are(slices):
    from ctinv.cli.images import Images, read_slices

    stored = np.load(slices / "a.npy")
    np.testing.assert_array_equal(read_slices(Images(slices))[0].hu, stored)


def test_a_model_equals_itself(run):
    result = run("compare-models", "chen", "chen", "--json")
    assert result.code == 0, result.err
    assert [row["layer"] for row in result.json] == ["conv1", "relu2", "conv3", "relu4", "conv5", "@output"]
    assert all(row["largest"] == 0 and row["scale"] >= 0 for row in result.json)


def test_different_models_differ_and_say_where(run):
    result = run("compare-models", "chen", "yang", "--json")
    assert result.code == 0, result.err
    by_layer = {row["layer"]: row for row in result.json}
    assert "shapes differ" in by_layer["conv1"]["note"]
    assert by_layer["conv1"]["largest"] is None
    assert by_layer["@output"]["largest"] > 0


def test_bench_counts_samples_per_second(run, fits, monkeypatch):
    from ctinv.invariance import Explanation
    from ctinv.invariance.networks.fit_record import Timings
    from ctinv.invariance.reporting.provenance import Provenance

    seconds = iter([100.0, 2.0, 1.0, 4.0])  # the first is the warm-up

    class Timed:
        layer = "conv1"

        def explain(self, image, **_):
            x = image.hu
            meta = Provenance(timings=Timings(sampling=next(seconds)))
            return Explanation(x=x, denoised=x, reconstruction=x, samples=x[None], mean=x, std=x, meta=meta)

    monkeypatch.setattr("ctinv.invariance.fit", lambda *_, **__: Timed())
    result = run("bench", "analyze", "-m", "chen", "-l", "conv1", "--samples", 10, "--repeats", 3, "--json")
    assert result.code == 0, result.err
    assert result.json["seconds"] == [2.0, 1.0, 4.0]
    assert result.json["samples_per_second"] == 5.0


def test_two_names_of_one_layer_count_once():
    from types import SimpleNamespace

    from ctinv.cli.models import distinct

    homes = {"conv7": "conv7", "/conv7/Conv": "conv7", "relu8": "relu8"}
    denoiser = SimpleNamespace(resolve=lambda name: SimpleNamespace(name=homes[name]))
    assert distinct(denoiser, ["relu8", "/conv7/Conv", "conv7"]) == ["relu8", "/conv7/Conv"]
