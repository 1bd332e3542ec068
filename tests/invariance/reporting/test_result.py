"""Explanations: what they hold, and that their files appear whole or not at all."""

import dataclasses
import json
import math
import os
import stat
from pathlib import Path

import numpy as np
import pytest
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.audit.record import Audit, Figure, Leakage
from ctinv.invariance.infra.files import check_writable, write_files
from ctinv.invariance.reporting.explanation import Explanation
from ctinv.invariance.reporting.provenance import Provenance

NAMES = {"arrays.npz", "figure.png", "report.html", "result.json"}


def make(shape=(32, 32), k=5, **changes):
    rng = np.random.default_rng(0)
    image = lambda: rng.normal(40, 20, shape).astype(np.float32)  # noqa: E731
    samples = rng.normal(40, 20, (k, *shape)).astype(np.float32)
    fields = {
        "x": image(),
        "denoised": image(),
        "reconstruction": image(),
        "samples": samples,
        "mean": image(),
        "std": np.abs(image()),
        "audit": {"leakage": {"flow": {"value": 0.1, "unit": "", "n": 250, "meaning": "Small is good."}}},
        "meta": {"model": "toy", "layer": "conv1", "op": "Conv", "samples": 250, "spacing": [0.7, 0.7]},
    }
    fields |= changes
    audit, meta = Audit.from_json(fields.pop("audit")), Provenance.from_json(fields.pop("meta"))
    return Explanation(**fields, audit=audit, meta=meta)


def strict(text):
    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_arrays_are_float32_and_read_only():
    given = np.ones((32, 32))
    explanation = make(std=given)
    assert explanation.std.dtype == np.float32
    for field in dataclasses.fields(explanation):
        value = getattr(explanation, field.name)
        if isinstance(value, np.ndarray):
            with pytest.raises(ValueError, match="read-only"):
                value[...] = 0
    given[0, 0] = 2  # the caller's own array stays writable


@pytest.mark.parametrize(
    "changes",
    [
        {"x": np.zeros((3, 32, 32))},
        {"std": np.zeros((16, 32))},
        {"samples": np.zeros((32, 32))[None, None]},
        {"samples": np.zeros((5, 16, 32))},
        {"std_flow": np.zeros((8, 8))},
        {"quantiles": np.zeros((32, 32))},
        {"quantiles": np.zeros((2, 8, 32))},
    ],
)
def test_shapes_that_do_not_fit_are_refused(changes):
    with pytest.raises(ValueError, match="shape"):
        make(**changes)


def test_save_writes_four_whole_files_and_nothing_else(tmp_path):
    written = make().save(tmp_path / "a" / "b")
    assert set(written) == NAMES
    assert {p.name for p in (tmp_path / "a" / "b").iterdir()} == NAMES
    assert written["figure.png"].read_bytes().startswith(b"\x89PNG")


def test_result_json_is_strict_and_says_what_it_is(tmp_path):
    audit = {
        "flow": {"coverage": {"value": float("nan"), "n": np.int64(3)}, "nll": {"value": np.float32(0.5)}},
        "curve": {"0.03": {"value": 1.0, "reached": math.inf}},
        "verdict": ["Read with care."],
    }
    meta = {"layer": "conv1", "seed": np.int32(4), "source": Path("a"), "spacing": (1, 2.0)}
    explanation = make(audit=audit, meta=meta)
    explanation.save(tmp_path)
    result = strict((tmp_path / "result.json").read_text(encoding="utf-8"))
    said = {key: result[key] for key in ("schema_version", *meta, "shape", "units")}
    assert said == {
        "schema_version": 1,
        "layer": "conv1",
        "seed": 4,
        "source": "a",
        "spacing": [1, 2.0],
        "shape": [32, 32],
        "units": "HU",
    }
    assert result["audit"]["flow"] == {"nll": {"value": 0.5}, "coverage": {"value": None, "n": 3}}
    assert result["audit"]["curve"] == {"0.03": {"value": 1.0, "reached": None}}
    assert result["audit"]["verdict"] == ["Read with care."]


@pytest.mark.parametrize("name", ["refined", "unrefined"])
def test_what_an_earlier_version_wrote_is_written_again_alike(name):
    """Two results that stood in ``result.json`` before there were records: same keys, same values."""
    earlier = strict((Path(__file__).parent / f"result_{name}.json").read_text(encoding="utf-8"))
    audit = Audit.from_json(earlier["audit"])
    assert audit == {**earlier["audit"], "bounds": {}}
    told = {k: v for k, v in earlier.items() if k not in ("schema_version", "shape", "audit")}
    kept = dict(Provenance.from_json(told))
    assert kept.pop("intensity_found", None) == told.pop("intensity_found", None)
    assert kept == told


def test_an_audit_is_a_record_and_the_mapping_that_json_holds():
    audit = make().audit
    assert audit.leakage.flow.value == audit["leakage"]["flow"]["value"] == 0.1
    assert json.loads(json.dumps(audit)) == audit
    assert "Leakage(refined=None" in repr(audit)
    better = dataclasses.replace(audit, leakage=Leakage(flow=Figure(0.05)))
    assert better["leakage"] == {"flow": {"value": 0.05}}


@pytest.mark.parametrize(
    "broken", [{"leakage": {"flow": {"n": 3}}}, {"leakage": 0.1}, {"leakage": {"flow": [1]}}]
)
def test_an_audit_of_another_kind_is_refused(broken, tmp_path):
    make().save(tmp_path)
    stored = strict((tmp_path / "result.json").read_text(encoding="utf-8")) | {"audit": broken}
    (tmp_path / "result.json").write_text(json.dumps(stored), encoding="utf-8")
    with pytest.raises(CtinvError, match="no readable explanation"):
        Explanation.load(tmp_path)


@pytest.mark.parametrize("refined", [False, True])
def test_load_gives_back_what_was_saved(tmp_path, refined):
    further = {"std_flow": np.full((32, 32), 7.0), "quantiles": np.stack([np.eye(32), 2 * np.eye(32)])}
    explanation = make(**(further if refined else {}))
    explanation.save(tmp_path)
    again = Explanation.load(tmp_path)
    assert again.result == explanation.result
    assert (again.std_flow is None, again.quantiles is None) == (not refined, not refined)
    for field in dataclasses.fields(explanation):
        value = getattr(explanation, field.name)
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(getattr(again, field.name), value)


def test_arrays_are_stored_under_the_documented_names(tmp_path):
    make(std_flow=np.zeros((32, 32)), quantiles=np.zeros((2, 32, 32))).save(tmp_path)
    with np.load(tmp_path / "arrays.npz", allow_pickle=False) as stored:
        assert set(stored.files) == {
            "x",
            "denoised",
            "reconstruction",
            "samples",
            "mean",
            "std",
            "std_flow",
            "quantiles",
        }
        assert all(stored[name].dtype == np.float32 for name in stored.files)


def test_the_same_explanation_gives_the_same_files(tmp_path):
    for folder in ("one", "two"):
        make().save(tmp_path / folder)
    for name in NAMES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_load_refuses_what_is_no_explanation(tmp_path):
    with pytest.raises(CtinvError, match=str(tmp_path)):
        Explanation.load(tmp_path)
    make().save(tmp_path)
    later = strict((tmp_path / "result.json").read_text(encoding="utf-8")) | {"schema_version": 99}
    (tmp_path / "result.json").write_text(json.dumps(later), encoding="utf-8")
    with pytest.raises(CtinvError, match="later ctinv"):
        Explanation.load(tmp_path)


@pytest.mark.parametrize("fails_at", [0, 1, 2, 3])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_write_leaves_the_folder_as_it_was(tmp_path, monkeypatch, fails_at, error):
    (tmp_path / "b").write_bytes(b"old")
    calls = []
    whole = Path.write_bytes

    def broken(self, data):
        calls.append(self)
        if len(calls) > fails_at:
            whole(self, data[:1])
            raise error("stop")
        return whole(self, data)

    monkeypatch.setattr(Path, "write_bytes", broken)
    with pytest.raises((KeyboardInterrupt, CtinvError)):
        write_files(tmp_path, {name: b"new" for name in "abcd"})
    assert [p.name for p in tmp_path.iterdir()] == ["b"]
    assert (tmp_path / "b").read_bytes() == b"old"


def test_files_have_ordinary_permissions(tmp_path):
    (path,) = write_files(tmp_path, {"a": b"1"}).values()
    (tmp_path / "plain").touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_check_writable_leaves_no_trace(tmp_path):
    check_writable(tmp_path / "new" / "deeper")
    check_writable(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("act", [check_writable, lambda folder: make().save(folder)])
def test_a_folder_that_cannot_be_written_is_named(tmp_path, act):
    (tmp_path / "file").touch()
    with pytest.raises(CtinvError, match=r"file/deeper.*another folder"):
        act(tmp_path / "file" / "deeper")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(CtinvError, match=str(tmp_path)):
            check_writable(tmp_path / "new")
    finally:
        tmp_path.chmod(0o700)
