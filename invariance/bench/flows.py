"""The flow alone, beside the same sizes in other libraries."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable
from typing import Any

import torch
from ctinv.invariance.infra.randomness import Purpose, generator, torch_seed
from ctinv.invariance.networks.flow import ConditionalFlow
from ctinv.invariance.presets import FlowConfig
from ctinv.invariance.sampling.inverse import FlowInverse
from torch import Tensor, nn

from .machine import machine
from .timing import in_turns, middle

__all__ = ["PEERS", "bench_flows"]

_CODE, _CONTEXT, _WIDTH, _COUPLINGS = 256, 256, 1024, 8
Draw = Callable[[Tensor, Tensor], Tensor]


def _net(inputs: int, outputs: int) -> nn.Sequential:
    """Three hidden layers: about the work of our two networks of two."""
    sizes = [inputs, _WIDTH, _WIDTH, _WIDTH]
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b), nn.SiLU()]
    return nn.Sequential(*layers, nn.Linear(_WIDTH, outputs))


class _WithContext(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.net = _net(inputs + _CONTEXT, outputs)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        return self.net(torch.cat([x, context], 1))


def _ours() -> tuple[nn.Module, Draw]:
    config = FlowConfig(blocks=_COUPLINGS // 2, width=_WIDTH, context=_CONTEXT, depth=1)
    flow = ConditionalFlow((_CODE, 1, 1), config, generator(0, Purpose.WORKLOAD)).eval()
    with torch.no_grad():
        for parameter in flow.parameters():
            if not parameter.any():
                parameter.normal_(std=0.01)
    inverse = FlowInverse(flow)
    return flow, lambda v, h: inverse.bind(h[:1, :, None, None])(v)


def _ours_plain() -> tuple[nn.Module, Draw]:
    flow, _ = _ours()
    return flow, lambda v, h: flow.inverse(v, h[:1, :, None, None])  # type: ignore[operator]


def _zuko() -> tuple[nn.Module, Draw]:
    coupling = importlib.import_module("zuko.flows.coupling").GeneralCouplingTransform
    compose = importlib.import_module("zuko.lazy").LazyComposedTransform
    half = torch.arange(_CODE) % 2 == 0
    flow = compose(
        *(
            coupling(
                _CODE,
                _CONTEXT,
                mask=half if k % 2 else ~half,
                hidden_features=(_WIDTH,) * 3,
                activation=nn.SiLU,
            )
            for k in range(_COUPLINGS)
        )
    )
    return flow, lambda v, h: flow(h).inv(v)


def _freia() -> tuple[nn.Module, Draw]:
    framework = importlib.import_module("FrEIA.framework")
    blocks = importlib.import_module("FrEIA.modules")
    flow = framework.SequenceINN(_CODE)
    for _ in range(_COUPLINGS):
        flow.append(
            blocks.AllInOneBlock, cond=0, cond_shape=(_CONTEXT,), subnet_constructor=_net, permute_soft=False
        )
    return flow, lambda v, h: flow(v, c=[h], rev=True)[0]


def _normflows() -> tuple[nn.Module, Draw]:
    library = importlib.import_module("normflows")
    steps: list[nn.Module] = []
    for _ in range(_COUPLINGS):
        steps += [library.flows.AffineCouplingBlock(_net(_CODE // 2, _CODE)), library.flows.Permute(_CODE)]
    flow = nn.ModuleList(steps)

    def draw(v: Tensor, h: Tensor) -> Tensor:
        for step in flow:
            v, _ = step(v)
        return v

    return flow, draw


def _nflows() -> tuple[nn.Module, Draw]:
    library = importlib.import_module("nflows.transforms")
    half = torch.arange(_CODE) % 2
    steps = [
        library.AffineCouplingTransform(half if k % 2 else 1 - half, _WithContext) for k in range(_COUPLINGS)
    ]
    flow = library.CompositeTransform(steps)
    return flow, lambda v, h: flow.inverse(v, h)[0]


class _PublishedCoupling(nn.Module):
    """Two networks, for log-scale and shift, on code and context side by side."""

    def __init__(self) -> None:
        super().__init__()
        inputs, outputs = _CODE // 2 + _CONTEXT, _CODE // 2
        self.nets = nn.ModuleList(
            nn.Sequential(
                nn.Linear(inputs, _WIDTH),
                nn.LeakyReLU(),
                nn.Linear(_WIDTH, _WIDTH),
                nn.LeakyReLU(),
                nn.Linear(_WIDTH, outputs),
            )
            for _ in range(2)
        )
        self.register_buffer("order", torch.randperm(_CODE))

    def forward(self, v: Tensor, h: Tensor) -> Tensor:
        stays, moves = v[:, self.order].chunk(2, 1)  # type: ignore[index]
        given = torch.cat([stays, h], 1)
        scale, shift = (net(given) for net in self.nets)
        return torch.cat([stays, (moves - shift) * (-torch.tanh(scale)).exp()], 1)


def _published() -> tuple[nn.Module, Draw]:
    flow = nn.ModuleList(_PublishedCoupling() for _ in range(_COUPLINGS))

    def draw(v: Tensor, h: Tensor) -> Tensor:
        for coupling in flow:
            v = coupling(v, h)
        return v

    return flow, draw


PEERS: dict[str, Callable[[], tuple[nn.Module, Draw]]] = {
    "ctinv": _ours,
    "ctinv, not prepared": _ours_plain,
    "FrEIA": _freia,
    "normflows (without context)": _normflows,
    "zuko": _zuko,
    "nflows": _nflows,
    "published": _published,
}
"""What is timed, and how it is built; each but the first is left out where it is not installed."""


def bench_flows(*, device: str = "cpu", batch: int = 250, rounds: int = 7) -> dict[str, Any]:
    """Samples a second of the inverse flow: codes and contexts of 256, 8 couplings of width 1024.

    Arguments:
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        batch: Samples at once.
        rounds: Rounds that count; all programs take turns.

    Returns:
        ``samples_per_s`` by program, ``skipped`` with the reason, ``ratio_to_fastest_peer`` and the
        arithmetic bound, ``bound_samples_per_s``, with our ``share_of_bound``.
    """
    where = torch.device(device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(0, Purpose.WORKLOAD))
        programs: dict[str, Callable[[], object]] = {}
        skipped: dict[str, str] = {}
        products: dict[str, int] = {}
        v, h = torch.randn(batch, _CODE, device=where), torch.randn(1, _CONTEXT, device=where)
        contexts = h.expand(batch, -1).contiguous()
        for name, build in PEERS.items():
            try:
                flow, draw = build()
            except ImportError as error:
                skipped[name] = f"{error}"
                continue
            if where.type != "cpu":
                flow.to(where)
            products[name] = sum(p.numel() for p in flow.parameters() if p.ndim > 1)
            programs[name] = _program(draw, v, contexts)
    seconds = in_turns(programs, rounds, where)
    about = machine(where)
    rates = {name: batch / middle(times) for name, times in seconds.items()}
    best = {name: batch / min(times) for name, times in seconds.items()}
    others = [n for n in rates if not n.startswith("ctinv")]
    ratios = sorted(min(seconds[n][k] for n in others) / seconds["ctinv"][k] for k in range(rounds))
    # What depends on the code: the context's share of each first layer and the first step are left out.
    work = 2 * _COUPLINGS * (_CODE // 2 * 2 * _WIDTH + 2 * _WIDTH**2 + 2 * _WIDTH * _CODE // 2)
    bound = about["matmul_gflops"] * 1e9 / work
    return {
        "batch": batch,
        "rounds": rounds,
        "machine": about,
        "samples_per_s": rates,
        "best_samples_per_s": best,
        "weights": products,
        "skipped": skipped,
        "ratio_to_fastest_peer": middle(ratios),
        "flop_per_sample": work,
        "bound_samples_per_s": bound,
        "share_of_bound": best["ctinv"] / bound,
    }


def _program(draw: Draw, v: Tensor, h: Tensor) -> Callable[[], object]:
    @torch.no_grad()
    def run() -> object:
        return draw(v, h)

    return run
