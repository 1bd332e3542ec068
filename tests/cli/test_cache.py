"""``ctinv cache``, and what the user is told when the cache fails."""

import numpy as np
import pytest
from ctinv import invariance
from ctinv.invariance.infra.cache import cache_root
from ctinv.invariance.infra.store import keep

TINY = ("--preset", "tiny", "--set", "fit.steps=2", "--set", "fit.patches=32", "-n", 2, "--refine", 0)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("CTINV_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_info_prune_and_clear(run, root):
    for name in "ab":
        keep(cache_root() / "vaes" / name, lambda draft: (draft / "x").write_text("x" * 1000))
    told = run("cache", "info", "--json").json
    assert told["folder"] == str(root)
    assert told["kinds"]["vaes"]["entries"] == 2
    assert told["bytes"] == told["kinds"]["vaes"]["bytes"] > 2000
    assert run("cache", "prune", "--size", "2KB", "--json").json["removed"] == 1
    assert "removed 1 entries" in run("cache", "clear").out
    assert run("cache", "info", "--json").json["kinds"] == {}
    assert run("cache", "prune", "--size", "much").code == 2


def test_a_cache_that_fails_is_one_note_and_the_work_goes_on(run, root, tmp_path, monkeypatch):
    root.write_text("a file where the folder should be")
    rng = np.random.default_rng(0)
    images = [rng.normal(0, 200, (64, 64)).astype(np.float32) for _ in range(4)]
    whole = invariance.fit

    def fit(denoiser, layers, *, data, **options):
        return whole(denoiser, layers, data=images, **options)  # drawing phantoms takes long

    monkeypatch.setattr(invariance, "fit", fit)
    words = ("analyze", "-m", "chen", "-l", "conv5", *TINY)
    result = run(*words, "-o", tmp_path / "out")
    assert result.code == 0, result.err
    told = [line for line in result.err.splitlines() if "CTINV_CACHE" in line]
    assert len(told) == 1
    assert str(root) in told[0]
    assert (tmp_path / "out" / "result.json").is_file()
