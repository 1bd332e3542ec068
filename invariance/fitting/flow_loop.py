"""The loop that maximises the likelihood of flow and embedder, and can be interrupted."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.infra.checkpoints import Checkpoint
from ctinv.invariance.infra.distributed import World
from ctinv.invariance.infra.training import (
    learning_rate,
    optimiser_tensors,
    restore_optimiser,
    set_rate,
    state_fits,
)
from ctinv.invariance.networks.embedder import Embedder
from ctinv.invariance.networks.fit_record import FitScores
from ctinv.invariance.networks.flow import ConditionalFlow
from ctinv.invariance.presets import FitConfig
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from .patches import Place
from .stores import RepresentationStore

__all__ = ["Material", "Objective", "contexts", "held_out_bits", "optimise"]

_CHUNK = 128
_LAST = 0.02  # share of the peak rate that is left in the end

State = dict[str, Tensor]


@dataclass(frozen=True)
class Material:
    """What one layer's flow learns from.

    Arguments:
        store: Gives the representation of any patch.
        train: Places of the patches to learn from.
        mean: Posterior mean of their codes, (N, code_dim).
        spread: Posterior standard deviation of their codes, (N, code_dim).
        test: Places of held-out patches.
        test_codes: One code of each, (M, code_dim).
    """

    store: RepresentationStore
    train: Sequence[Place]
    mean: Tensor
    spread: Tensor
    test: Sequence[Place]
    test_codes: Tensor


class Objective(nn.Module):
    """The negative log-likelihood of codes given representations.

    Arguments:
        flow: The conditional flow.
        embedder: The embedder.
    """

    def __init__(self, flow: ConditionalFlow, embedder: Embedder) -> None:
        super().__init__()
        self.flow = flow
        self.embedder = embedder

    def forward(self, code: Tensor, z: Tensor, where: Tensor, read: Tensor | None = None) -> Tensor:
        """Codes (N, code_dim), representations and places of N patches to nats per dimension, ()."""
        return -self.flow.log_prob(code, self.embedder(z, where, read)).mean() / self.flow.features


@dataclass
class _Standing:
    """How far the loop is, apart from weights: plain numbers; ``settled`` is the step since which the
    rate falls to its end."""

    step: int = 0
    stale: int = 0
    total: float = 0.0
    settled: int | None = None
    best: dict[str, Any] = field(default_factory=dict)
    curve: list[list[float]] = field(default_factory=list)


def optimise(
    objective: Objective,
    material: Material,
    config: FitConfig,
    generator: torch.Generator,
    world: World,
    checkpoint: Checkpoint | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> FitScores:
    """Adam on the negative log-likelihood; keeps the weights that did best on held-out slices.

    With a checkpoint the loop goes on where an interrupted one stood, and on the CPU ends with the
    same weights, bit by bit. Each of several processes takes ``config.batch`` patches a step: the
    losses are those of one process with as many times the batch.

    Arguments:
        objective: Flow and embedder, initialised, on the device to train on; changed in place.
        material: What to learn from.
        config: Steps and rates.
        generator: Draws order and noise.
        world: The processes.
        checkpoint: Where to keep the state every ``config.checkpoint`` steps; left there at the end.
        progress: Called with (done, total).

    Returns:
        Held-out likelihoods, steps and curve.

    Raises:
        CtinvError: The loss or its gradient is not finite.
    """
    loop = _Loop(objective, material, config, generator, world)
    if checkpoint is not None and (point := checkpoint.load(world)) is not None and not loop.resume(*point):
        checkpoint.ignore("its contents do not fit")
    at = loop.at
    while at.step < loop.end and at.stale < config.patience:
        trouble = loop.advance()
        if trouble:
            kept = checkpoint is not None and checkpoint.path.is_file()
            raise CtinvError(
                f"the fit diverged at step {at.step} ({trouble}); lower fit.rate or check the data"
                + (f" (the last good state is kept in {checkpoint.path})" if checkpoint and kept else "")
            )
        last = at.step == loop.end or at.stale >= config.patience
        due = config.checkpoint > 0 and (at.step % config.checkpoint == 0 or last)
        if checkpoint is not None and due and world.leads:
            checkpoint.save(*loop.state())
        if progress:
            progress(config.steps if last else at.step, config.steps)
    objective.load_state_dict(loop.best)
    return FitScores(**at.best, curve=tuple(tuple(row) for row in at.curve))


class _Loop:
    """One optimisation: everything that the next step depends on."""

    def __init__(
        self,
        objective: Objective,
        material: Material,
        config: FitConfig,
        generator: torch.Generator,
        world: World,
    ) -> None:
        self._objective, self._material, self._config = objective, material, config
        self._generator, self._world = generator, world
        self._device = next(objective.parameters()).device
        self._run: nn.Module = objective
        if not world.alone:
            ids = None if self._device.type == "cpu" else [self._device]
            self._run = DistributedDataParallel(objective, device_ids=ids, broadcast_buffers=False)
        self._optimiser = torch.optim.Adam(objective.parameters(), lr=config.rate, fused=True)
        self._order = torch.empty(0, dtype=torch.long)
        self.best = _copied(objective.state_dict())
        self.at = _Standing()

    # -- one step -------------------------------------------------------------------------------

    def advance(self) -> str | None:
        """One step; what is wrong where it cannot be made, and then nothing has changed."""
        config, at = self._config, self.at
        loss = self._loss()
        value = float(self._world.mean(loss.detach().cpu()))
        if not math.isfinite(value):
            return f"loss {value}"
        set_rate(self._optimiser, config.rate * self._rate())
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = float(nn.utils.clip_grad_norm_(self._objective.parameters(), config.clip))
        if not math.isfinite(norm):
            return f"loss {value}, gradient {norm}"
        self._optimiser.step()
        at.step += 1
        at.total += value
        if at.step % config.check == 0 or at.step == self.end:
            self._look()
        return None

    @property
    def end(self) -> int:
        """The last step, as far as is known."""
        at, config = self.at, self._config
        return config.steps if at.settled is None else min(config.steps, at.settled + config.check)

    def _rate(self) -> float:
        """Share of the peak rate: half a cosine over all steps, or what is left of it over the last ones."""
        at, config = self.at, self._config

        def planned(step: int) -> float:
            return learning_rate(step, config.steps, _LAST, config.warmup)

        if at.settled is None:
            return planned(at.step)
        start = planned(at.settled)
        return start * learning_rate(at.step - at.settled, self.end - at.settled, _LAST / start)

    def _loss(self) -> Tensor:
        material, world, batch_size = self._material, self._world, self._config.batch
        size = batch_size * world.size
        while len(self._order) < size:
            fresh = torch.randperm(len(material.train), generator=self._generator)
            self._order = torch.cat([self._order, fresh])
        # All processes draw the same numbers; each uses its share of them.
        noise = torch.randn((size, material.mean.shape[1]), generator=self._generator)
        share = slice(world.rank * batch_size, (world.rank + 1) * batch_size)
        batch, noise, self._order = self._order[share], noise[share], self._order[size:]
        code = material.mean[batch] + material.spread[batch] * noise
        inputs = self._inputs([material.train[k] for k in batch.tolist()])
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._device.type == "cuda"):
            loss: Tensor = self._run(code.to(self._device), *inputs)
        return loss

    def _inputs(self, places: Sequence[Place]) -> tuple[Tensor, ...]:
        return _inputs(self._objective, self._material.store, places)

    # -- held-out slices ------------------------------------------------------------------------

    def _look(self) -> None:
        """Hold the weights against slices they were not fitted on."""
        at, config = self.at, self._config
        bits = torch.zeros(2, dtype=torch.float64)
        if self._world.leads:
            bits = torch.tensor(held_out_bits(self._objective, self._material), dtype=torch.float64)
        self._world.shared([bits])
        right, wrong = bits.tolist()
        if config.settled and at.settled is None and at.curve and at.curve[-1][2] - right < config.settled:
            at.settled = at.step
        since = at.step - (int(at.curve[-1][0]) if at.curve else 0)
        at.curve.append([at.step, at.total / since / math.log(2), right])
        at.total = 0.0
        if right < at.best.get("nll", math.inf):
            at.best = {"nll": right, "nll_shuffled": wrong, "steps": at.step}
            self.best, at.stale = _copied(self._objective.state_dict()), 0
        elif at.step < self.end:
            at.stale += 1

    # -- to and from a checkpoint ---------------------------------------------------------------

    def state(self) -> tuple[State, dict[str, Any]]:
        """Tensors and plain numbers from which :meth:`resume` goes on."""
        tensors = {f"now.{name}": value for name, value in self._objective.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        tensors |= {f"adam.{name}": value for name, value in optimiser_tensors(self._optimiser).items()}
        tensors |= {"order": self._order, "generator": self._generator.get_state()}
        return tensors, asdict(self.at)

    def resume(self, tensors: State, facts: dict[str, Any]) -> bool:
        """Take over a state; False, and nothing has changed, where it is not one of this fit."""
        weights = self._objective.state_dict()
        expected = {f"{kind}.{name}": v.shape for kind in ("now", "best") for name, v in weights.items()}
        adam = {name.removeprefix("adam."): v for name, v in tensors.items() if name.startswith("adam.")}
        expected["generator"] = self._generator.get_state().shape
        rest = {n: v.shape for n, v in tensors.items() if n != "order" and not n.startswith("adam.")}
        if rest != expected or "order" not in tensors or set(facts) != set(asdict(self.at)):
            return False
        if not state_fits(self._optimiser, adam):
            return False
        self._objective.load_state_dict({name: tensors[f"now.{name}"] for name in weights})
        self.best = {name: tensors[f"best.{name}"] for name in weights}
        restore_optimiser(self._optimiser, adam)
        self._order = tensors["order"]
        self._generator.set_state(tensors["generator"])
        for name, value in facts.items():
            setattr(self.at, name, value)
        return True


def _inputs(objective: Objective, store: RepresentationStore, places: Sequence[Place]) -> tuple[Tensor, ...]:
    """What the embedder takes of patches, where the networks are."""
    device = objective.flow.mean.device
    return tuple(part.to(device) for part in store.inputs(places, objective.embedder.code_size))


@torch.no_grad()
def contexts(objective: Objective, store: RepresentationStore, places: Sequence[Place]) -> Tensor:
    """``h`` of patches, (N, context, height, width)."""
    parts = (places[k : k + _CHUNK] for k in range(0, len(places), _CHUNK))
    return torch.cat([objective.embedder(*_inputs(objective, store, part)) for part in parts])


@torch.no_grad()
def held_out_bits(objective: Objective, material: Material) -> tuple[float, float]:
    """Mean NLL (bits/dim) on held-out slices, with the right contexts and with those of others."""
    flow = objective.flow
    codes = material.test_codes.to(flow.mean.device)
    context = contexts(objective, material.store, material.test)
    unit = flow.features * math.log(2)
    right = -flow.log_prob(codes, context).mean().item() / unit
    wrong = -flow.log_prob(codes, context.roll(len(codes) // 2, 0)).mean().item() / unit
    return right, wrong


def _copied(state: State) -> State:
    return {name: value.detach().clone() for name, value in state.items()}
