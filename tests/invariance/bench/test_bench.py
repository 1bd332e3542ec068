"""The benchmark compares like with like: same weights, same noise, same images."""

import math
import sys

import pytest
import torch
from ctinv.invariance.bench import flows, suite
from ctinv.invariance.bench.machine import machine, operations
from ctinv.invariance.bench.published import PublishedLoop
from ctinv.invariance.bench.sampling import TOLERANCE, bench_sampling
from ctinv.invariance.bench.timing import in_turns
from ctinv.invariance.networks.vae import VAE
from ctinv.invariance.presets import preset
from torch import nn
from torch.nn import functional as F

SMALL = {
    "vae.channels": 4,
    "vae.patch": 32,
    "vae.code_channels": 32,
    "vae.mapping": (16,),
    "vae.encoder": "resnet18",
    "flow.width": 16,
    "flow.context": 8,
    "flow.embed_width": 8,
    "flow.blocks": 2,
}
SIZES = {"tiny": ("tiny", {}), "paper": ("paper", SMALL), "paper2024": ("paper2024", SMALL)}


@pytest.fixture(autouse=True)
def _small_matrices(monkeypatch):
    monkeypatch.setattr("ctinv.invariance.bench.machine._SIDES", {"cpu": 64})


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", SIZES)
def test_engine_and_published_loop_draw_the_same_images(name, precision):
    found = bench_sampling(preset(*SIZES[name]), samples=4, loop=2, rounds=1, precision=precision)
    assert found["equal"]
    assert found["dtype"] == precision
    assert 0 < found["relative_error"] < TOLERANCE[getattr(torch, precision)]
    assert found["samples_per_s"] > 0
    assert found["ratio_to_published_loop"] > 0
    # The rewriting saves work, and a share is counted for every part.
    assert 0 < found["gflop_per_sample"] < found["gflop_published"]


def test_another_decoder_would_be_noticed(monkeypatch):
    draw = PublishedLoop.draw
    monkeypatch.setattr(PublishedLoop, "draw", lambda *a: draw(*a) + torch.randn(1, 1, 32, 32))
    assert not bench_sampling("tiny", samples=2, loop=2, rounds=1)["equal"]


def test_spectral_norm_is_part_of_the_loop_and_of_the_weights():
    vae = VAE(preset(*SIZES["paper"]).vae)
    with torch.no_grad():
        vae.decoder.blocks[0].conv2.weight.mul_(50)
    PublishedLoop(vae, nn.Identity(), nn.Identity())
    largest = torch.linalg.matrix_norm(vae.decoder.blocks[0].conv2.weight.flatten(1), 2).item()
    # One power step never finds more than the largest singular value.
    assert 1 <= largest < 3


def test_operations_are_counted():
    x, weight = torch.randn(2, 3, 8, 8), torch.randn(5, 3, 3, 3)
    assert operations(lambda: F.conv2d(x, weight, padding=1)) == 2 * 2 * 5 * 3 * 9 * 64
    assert operations(lambda: torch.randn(4, 6) @ torch.randn(6, 7)) == 2 * 4 * 6 * 7


def test_programs_take_turns():
    calls = []
    device = torch.device("cpu")
    seconds = in_turns({n: lambda n=n: calls.append(n) for n in "ab"}, 3, device)
    assert "".join(calls) == "ba" + "ab" + "ba" + "ab"
    assert [len(times) for times in seconds.values()] == [3, 3]


def test_the_machine_is_measured():
    found = machine(torch.device("cpu"), rounds=1)
    assert found["matmul_gflops"] > 0
    assert found["bandwidth_gbytes"] > 0


@pytest.fixture
def narrow(monkeypatch):
    monkeypatch.setattr(flows, "_WIDTH", 8)


def test_missing_libraries_are_listed_not_hidden(narrow, monkeypatch):
    for name in ("FrEIA", "FrEIA.framework", "normflows", "nflows", "nflows.transforms"):
        monkeypatch.setitem(sys.modules, name, None)
    found = flows.bench_flows(batch=3, rounds=1)
    assert set(found["skipped"]) == {"FrEIA", "normflows (without context)", "nflows"}
    assert set(found["samples_per_s"]) == {"ctinv", "ctinv, not prepared", "zuko", "published"}
    text = suite.markdown({"sampling": [], "flows": [found]})
    assert text.count("not installed") == 3
    assert "arithmetic bound" in text


@pytest.mark.parametrize("name", ["ctinv", "zuko", "published"])
def test_flows_to_compare_draw_codes(narrow, name):
    _, draw = flows.PEERS[name]()
    with torch.no_grad():
        code = draw(torch.randn(5, 256), torch.randn(1, 256).expand(5, -1))
    assert code.shape == (5, 256)
    assert math.isfinite(code.abs().max().item())


def test_prepared_and_plain_flow_agree(narrow):
    v, h = torch.randn(5, 256), torch.randn(1, 256).expand(5, -1)
    torch.manual_seed(0)
    _, prepared = flows.PEERS["ctinv"]()
    torch.manual_seed(0)
    _, plain = flows.PEERS["ctinv, not prepared"]()
    with torch.no_grad():
        torch.testing.assert_close(prepared(v, h).clone(), plain(v, h), rtol=1e-4, atol=1e-4)


def test_the_suite_writes_figures_table_and_picture(narrow, tmp_path, monkeypatch):
    def quick(name, **options):
        return bench_sampling(name, **{**options, "samples": 2, "loop": 1, "rounds": 1})

    monkeypatch.setattr(suite, "bench_sampling", quick)
    monkeypatch.setattr(
        suite, "bench_flows", lambda device: flows.bench_flows(device=device, batch=2, rounds=1)
    )
    found = suite.bench_suite(tmp_path, presets=("tiny",), commands=None)
    assert {path.name for path in tmp_path.iterdir()} == {"bench.json", "bench.md", "bench.png"}
    assert "| tiny | cpu, float32 |" in (tmp_path / "bench.md").read_text()
    assert found["sampling"][0]["equal"]
