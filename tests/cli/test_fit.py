"""Fitting, sampling and auditing as separate steps, and one whole run with nothing replaced."""

import json

import numpy as np
import pydicom
import pytest

TINY = ("--preset", "tiny", "--set", "fit.steps=4", "--set", "fit.patches=64")


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("image") / "slice.npy"
    np.save(path, np.random.default_rng(0).normal(40, 30, (48, 48)).astype(np.float32))
    return path


def test_fit_then_sample_equals_analyze(run, tmp_path, image):
    """The one test that fits for real: both ways must give the same numbers, bit for bit."""
    fitted = run("fit", "-m", "chen", "-l", "conv3", *TINY, "-o", tmp_path / "fitted", "--json")
    assert fitted.code == 0, fitted.err
    assert fitted.json["layer"] == "conv3"
    common = ("-m", "chen", "-i", image, "-n", 3, "--quantiles", "0.05, 0.95")
    sampled = run("sample", "-e", tmp_path / "fitted", *common, "-o", tmp_path / "a", "--json")
    assert sampled.code == 0, sampled.err
    analysed = run("analyze", "-l", "conv3", *TINY, *common, "-o", tmp_path / "b", "--json")
    assert analysed.code == 0, analysed.err
    with np.load(tmp_path / "a" / "arrays.npz") as a, np.load(tmp_path / "b" / "arrays.npz") as b:
        assert set(a.files) == set(b.files)
        for name in a.files:
            np.testing.assert_array_equal(a[name], b[name])
            assert np.isfinite(a[name]).all()
        assert a["std"].shape == (48, 48)
        assert a["quantiles"].shape == (2, 48, 48)
        assert a["quantiles"].dtype == np.float32
        assert (a["quantiles"][0] < a["quantiles"][1]).mean() > 0.9
    assert sampled.json["audit"] == analysed.json["audit"]
    assert sampled.json["quantiles"] == analysed.json["quantiles"] == [0.05, 0.95]
    for key in ("model_hash", "layer", "preset", "seed", "units", "intensity", "timings", "versions", "data"):
        assert analysed.json[key] not in (None, "", {}), key

    wrong = run("sample", "-e", tmp_path / "fitted", "-m", "yang", "-i", image, "-o", tmp_path / "c")
    assert wrong.code == 2
    assert "another denoiser" in wrong.err
    assert not (tmp_path / "c").exists()


def test_several_layers_are_fitted_at_once_with_fields_changed(run, tmp_path):
    import torch
    from safetensors.torch import load_file

    options = ("--preset", "tiny", "--set", "fit.steps=2", "--set", "fit.patches=32")
    fitted = run(
        *("fit", "-m", "chen", "-l", "conv3", "-l", "conv5", *options, "--set", "flow.blocks=3"),
        *("-o", tmp_path / "fitted", "--json"),
    )
    assert fitted.code == 0, fitted.err
    assert [entry["layer"] for entry in fitted.json] == ["conv3", "conv5"]
    for entry in fitted.json:
        folder = tmp_path / "fitted" / entry["layer"]
        assert entry["folder"] == str(folder)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        assert config["preset"]["flow"]["blocks"] == 3
        assert config["layer"] == entry["layer"]
    alone = run(
        *("fit", "-m", "chen", "-l", "conv5", *options, "--set", "flow.blocks=3"), "-o", tmp_path / "one"
    )
    assert alone.code == 0, alone.err
    one, two = (load_file(f / "flow.safetensors") for f in (tmp_path / "one", tmp_path / "fitted" / "conv5"))
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert sum(name.endswith("order") for name in one) == 3  # one shuffle per block


def test_sample_refuses_a_folder_without_a_fit(run, tmp_path):
    result = run("sample", "-m", "chen", "-e", tmp_path, "-o", tmp_path / "out")
    assert result.code == 2
    assert str(tmp_path) in result.err


def test_audit_reads_what_analyze_wrote(run, fits, tmp_path):
    run("analyze", "-m", "chen", "-l", "conv1", "-l", "conv3", "-o", tmp_path)
    shown = run("audit", tmp_path)
    assert shown.code == 0
    assert shown.out.count("Read with care.") == 2
    found = run("audit", tmp_path, "--json").json
    assert [entry["layer"] for entry in found] == ["conv1", "conv3"]
    stored = json.loads((tmp_path / "conv1" / "result.json").read_text(encoding="utf-8"))
    assert found[0]["audit"] == stored["audit"]


def test_audit_refuses_a_folder_without_results(run, tmp_path):
    result = run("audit", tmp_path)
    assert result.code == 2
    assert str(tmp_path) in result.err


def test_simulate_writes_a_noisier_series(run, tmp_path):
    from ctinv.invariance.data import default_slice, read

    source = default_slice().source
    result = run("data", "simulate", source, "--dose", 0.1, "-o", tmp_path / "low", "--json")
    assert result.code == 0, result.err
    (file,) = result.json["files"]
    before, (after,) = read(source), read(tmp_path / "low")
    difference = after.hu - before[0].hu
    assert 2 < difference.std() < 200
    assert abs(difference.mean()) < 1
    assert pydicom.dcmread(file).SOPInstanceUID != pydicom.dcmread(source).SOPInstanceUID
    again = run("data", "simulate", source, "--dose", 0.1, "-o", tmp_path / "again")
    assert again.code == 0
    np.testing.assert_array_equal(read(tmp_path / "again")[0].hu, after.hu)


def test_simulate_writes_numpy_files_of_the_same_values(run, tmp_path):
    from ctinv.invariance.data import default_slice, read

    source = default_slice().source
    for kind in ("dicom", "npy"):
        result = run("data", "simulate", source, "--format", kind, "-o", tmp_path / kind)
        assert result.code == 0, result.err
    (file,) = (tmp_path / "npy").iterdir()
    values = np.load(file)
    assert values.dtype == np.float32
    assert np.abs(values - read(tmp_path / "dicom")[0].hu).max() <= 0.51


def test_simulate_needs_the_pixel_spacing(run, tmp_path, image):
    result = run("data", "simulate", image, "-o", tmp_path / "low")
    assert result.code == 2
    assert "spacing" in result.err
    assert not (tmp_path / "low").exists()
