"""``ctinv bench``: what it prints, and that it refuses early."""

import pytest


@pytest.fixture(autouse=True)
def _small_matrices(monkeypatch):
    monkeypatch.setattr("ctinv.invariance.bench.machine._SIDES", {"cpu": 64})


def test_bench_sampling_prints_json_alone(run):
    result = run("bench", "sampling", "--preset", "tiny", "-n", 2, "--loop", 1, "--rounds", 1, "--json")
    assert result.code == 0, result.err
    assert result.json["samples_per_s"] > 0
    assert result.json["ratio_to_published_loop"] > 0
    assert result.json["equal"] is True


def test_bench_sampling_says_it_in_words(run):
    result = run(
        "bench", "sampling", "--preset", "tiny", "-n", 2, "--loop", 1, "--rounds", 1, "--device", "cpu"
    )
    assert result.code == 0, result.err
    assert "samples a second" in result.out
    assert "published loop" in result.out


def test_bench_lists_what_it_can_measure(run):
    result = run("bench", "--help")
    assert result.code == 0
    assert all(name in result.out for name in ("analyze", "sampling", "suite"))


def test_bench_refuses_before_it_measures(run, tmp_path):
    assert run("bench", "sampling", "--preset", "none").code == 2
    assert run("bench", "sampling", "--preset", "tiny", "--device", "abacus").code == 2
    assert run("bench", "suite", "--preset", "none", "--out", tmp_path / "x").code == 2
    assert not (tmp_path / "x").exists()


def test_memory_is_an_amount(run, fits, slices, tmp_path):
    arguments = ("-m", "chen", "-l", "conv1", "-i", slices / "a.npy", "--intensity", "hu", "-n", 2)
    result = run("analyze", *arguments, "-o", tmp_path / "a", "--memory", "much")
    assert result.code == 2
    assert "800MB" in result.err
    assert run("analyze", *arguments, "-o", tmp_path / "b", "--memory", "500MB").code == 0
