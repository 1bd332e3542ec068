"""The training loop: seeded, resumable to the last bit, and quiet."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from ctinv.adapters._types import Progress
from ctinv.adapters.errors import CtinvError, ModelError
from ctinv.adapters.intensity import Intensity, parse_intensity
from ctinv.invariance.infra.randomness import Purpose, generator, rng
from ctinv.invariance.infra.training import learning_rate, set_rate
from ctinv.zoo import registry
from ctinv.zoo.networks import Critic
from torch import Tensor, nn

from .checkpoints import read_checkpoint, restore, snapshot, write_checkpoint, write_weights
from .losses import critic_loss
from .natural import NaturalGradient, run_valid
from .pairs import TrainingSet
from .perceptual import FilterBankFeatures, Vgg19Features, read_tensors
from .recipes import RECIPES, Recipe
from .sources import DOSES, load_pairs

__all__ = ["train"]

_UNIT_HU = 100.0  # losses and the critic see images in units of 100 HU, where noise is neither tiny nor large
_SAVE_EVERY = 200  # steps between checkpoints; the natural gradient's metric is measured as often
_MEASURED = 8  # batches for that
_TYPICAL, _LEAST = 0.25, 0.03  # root mean squared error of low dose that balanced patches are held against
_DETAIL, _FAINT = 20.0, 0.02  # of the first and last layer's other channels at an identity start


def train(
    name: str,
    data: str | Path | TrainingSet,
    steps: int,
    out: str | Path,
    resume: bool = True,
    seed: int = 0,
    progress: Progress | None = None,
    *,
    recipe: Recipe | None = None,
    vgg: str | Path | None = None,
    doses: Mapping[str, float] | None = None,
    start: str | Path | None = None,
) -> Path:
    """Train a denoiser of the zoo.

    Every choice made in step ``k`` depends on ``seed`` and ``k`` alone, so a training that was
    interrupted and resumed ends with the same bits as one that was not (same machine, versions and
    number of threads).

    Arguments:
        name: Id or alias of a denoiser of the zoo.
        data: A folder of CT slices, whose low-dose twins are simulated; a folder in the layout of
            LDCT-and-Projection-data, which has real twins and whose training patients are used; or
            ready pairs.
        steps: Steps of the denoiser, at least 1.
        out: Folder for checkpoints and the result; made if missing.
        resume: Whether to go on from the checkpoint in ``out`` if there is one; otherwise it is replaced.
        seed: Decides the first weights, the patches and the simulated noise.
        progress: Told ("training", done, total) after each step, and of the stages before.
        recipe: Another recipe than the one in ``RECIPES``.
        vgg: File with VGG-19 weights for the perceptual loss, see :class:`Vgg19Features`; without it
            :class:`FilterBankFeatures` take their place.
        doses: Simulated fraction of the routine dose for ``abdomen`` and ``chest``.
        start: Weights to start from, such as ``weights.safetensors`` of an earlier training; drawn anew
            without it.

    Returns:
        The weights, ``out/weights.safetensors``, with the recipe in their metadata.

    Raises:
        CtinvError: Unknown name, unusable data, or a checkpoint of another training in ``out``.
    """
    entry = registry.find(name)
    if steps < 1:
        raise CtinvError(f"steps is {steps}; train for at least 1 step")
    chosen = recipe or RECIPES[entry.name]
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise CtinvError(f"cannot make the folder {folder}: {err.strerror}; choose another") from err
    if isinstance(data, TrainingSet):
        pairs = data
    else:
        pairs = load_pairs(data, doses or DOSES, seed=seed, progress=progress)
    with torch.random.fork_rng(devices=[]):  # modules draw from the global generator before ours does
        run = _Run(registry.network(entry.name, pretrained=False), chosen, steps, seed, vgg)
    about = {"name": entry.name, "steps": steps, "seed": seed, "data": pairs.fingerprint, **run.about}
    about["start"] = run.begin_with(Path(start)) if start is not None else "drawn"
    if pairs.division is not None:
        about["split"] = {part: list(patients) for part, patients in pairs.division.items()}
    about = json.loads(json.dumps(about))
    first = 0
    if resume and (point := read_checkpoint(folder)) is not None:
        first, tensors, before = point
        changed = sorted(key for key in about if before.get(key) != about[key])
        if changed:
            raise ModelError(
                f"{folder} holds the checkpoint of another training (other {', '.join(changed)});"
                " train into another folder or with resume=False"
            )
        restore(tensors, run.modules, run.optimisers)
    for step in range(first, steps):
        run.step(step, pairs)
        if (step + 1) % _SAVE_EVERY == 0 or step + 1 == steps:
            write_checkpoint(folder, step + 1, snapshot(run.modules, run.optimisers), about)
        if progress is not None:
            progress("training", step + 1, steps)
    metadata = {
        "ctinv.intensity": chosen.intensity,
        "ctinv.output": "image",
        "recipe": json.dumps(about, sort_keys=True),
    }
    path = folder / "weights.safetensors"
    write_weights(path, run.net.state_dict(), metadata)
    return path


class _Run:
    """The networks, optimisers and losses of one training."""

    def __init__(self, net: nn.Module, recipe: Recipe, steps: int, seed: int, vgg: str | Path | None) -> None:
        self.net, self.recipe, self.steps, self.seed = net.train(), recipe, steps, seed
        self.intensity: Intensity = parse_intensity(recipe.intensity)
        numbers = generator(seed, Purpose.DENOISER_WEIGHTS)
        convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
        self.margin = sum(m.kernel_size[0] // 2 for m in convolutions)
        initialise(net, numbers, recipe.identity)
        self.optimiser = _optimiser(net, recipe, 1.0 / self.intensity.scale)
        self.modules: dict[str, nn.Module] = {"denoiser": net}
        self.optimisers: dict[str, torch.optim.Optimizer] = {"denoiser-optimiser": self.optimiser}
        self.about: dict[str, Any] = {"recipe": asdict(recipe), "perceptual": "none"}
        self.features: nn.Module | None = None
        if recipe.perceptual:
            self.features = Vgg19Features(vgg, -10.24, 30.72) if vgg else FilterBankFeatures()
            self.about["perceptual"] = type(self.features).__name__
        self.critic: Critic | None = None
        if recipe.adversarial:
            self.critic = Critic(recipe.patch, recipe.critic_width, recipe.critic_hidden)
            initialise(self.critic, numbers, False)
            self.critic_optimiser = torch.optim.Adam(
                self.critic.parameters(), recipe.critic_rate, betas=recipe.critic_betas
            )
            self.modules["critic"] = self.critic
            self.optimisers["critic-optimiser"] = self.critic_optimiser

    def begin_with(self, weights: Path) -> str:
        """Load the denoiser's first weights; returns the file's SHA-256."""
        try:
            self.net.load_state_dict(read_tensors(weights))
        except RuntimeError as err:
            raise ModelError(
                f"{weights} does not fit {self.recipe.network}; give weights of the same network"
            ) from err
        return hashlib.sha256(weights.read_bytes()).hexdigest()

    def step(self, step: int, pairs: TrainingSet) -> None:
        """One step of the denoiser, and the critic's steps before it."""
        recipe = self.recipe
        numbers = generator(self.seed, Purpose.DENOISER_STEP, step)
        patches = rng(self.seed, Purpose.DENOISER_PATCHES, step)
        warm = step < recipe.warm_up * self.steps
        if self.critic is not None and not warm:
            for _ in range(recipe.critic_steps):
                low, full = pairs.batch(recipe.batch, recipe.patch, self.margin, patches)
                with torch.no_grad():
                    fake = self._denoise(low)
                loss = critic_loss(self.critic, full / _UNIT_HU, fake, recipe.penalty, numbers)
                self.critic_optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                self.critic_optimiser.step()
        if isinstance(self.optimiser, NaturalGradient) and step % _SAVE_EVERY == 0:
            drawn = (
                pairs.batch(recipe.batch, recipe.patch, self.margin, patches)[0] for _ in range(_MEASURED)
            )
            batches = (self.intensity.to_model(low) for low in drawn)
            self.optimiser.measure(self.net, batches, self.intensity.scale / _UNIT_HU, numbers)
        low, full = pairs.batch(recipe.batch, recipe.patch, self.margin, patches)
        loss = self._loss(self._denoise(low), full / _UNIT_HU, warm, self._weights(low, full))
        set_rate(self.optimiser, recipe.rate * learning_rate(step, self.steps, recipe.final_rate))
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if not isinstance(self.optimiser, NaturalGradient):
            nn.utils.clip_grad_norm_(self.net.parameters(), recipe.clip)
        self.optimiser.step()

    def _weights(self, low: Tensor, full: Tensor) -> Tensor:
        """How much each patch counts, (N, 1, 1, 1)."""
        inner = low[..., self.margin : low.shape[-2] - self.margin, self.margin : low.shape[-1] - self.margin]
        error = ((inner - full) / _UNIT_HU).square().mean((1, 2, 3), keepdim=True).sqrt()
        return (error.clamp_min(_LEAST) / _TYPICAL) ** (-2.0 * self.recipe.balance)

    def _loss(self, denoised: Tensor, full: Tensor, warm: bool, weights: Tensor) -> Tensor:
        recipe = self.recipe
        loss = (1.0 if warm else recipe.pixel) * (weights * (denoised - full).square()).mean()
        if warm:
            return loss
        if self.features is not None:
            apart = (self.features(denoised) - self.features(full)).square().flatten(1)
            loss = loss + recipe.perceptual * (weights.flatten(1) * apart).mean()
        if self.critic is not None:
            loss = loss - recipe.adversarial * self.critic(denoised).mean()
        return loss

    def _denoise(self, low: Tensor) -> Tensor:
        """Low-dose patches in HU to smaller denoised ones in units of 100 HU, without any padding."""
        x = run_valid(self.net, self.intensity.to_model(low))
        return cast(Tensor, self.intensity.to_hu(x)) / _UNIT_HU


def initialise(net: nn.Module, generator: torch.Generator, identity: bool) -> None:
    """Draw first weights, after He et al. 2015, with zero biases.

    Arguments:
        net: A chain of convolutions and dense layers with ReLU between.
        generator: Source of the weights.
        identity: Whether the network starts out by returning its (non-negative) input: channel 0 of
            every layer passes the image on unchanged, the other channels of the first layer see
            only its detail (their weights sum to zero, and are larger, as detail is faint), those of
            later layers see only each other, and hardly anything of them enters the result. Learning
            then starts from the image and is about the noise; without it most steps go into
            learning to copy, and grey values drift with every step.
    """
    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        for module in layers:
            module.weight.normal_(0.0, math.sqrt(2.0 / module.weight[0].numel()), generator=generator)
            if module.bias is not None:
                module.bias.zero_()
            if not identity or not isinstance(module, nn.Conv2d):
                continue
            if module is layers[0]:
                module.weight -= module.weight.mean((1, 2, 3), keepdim=True)
                module.weight *= _DETAIL
            else:
                module.weight[:, 0] = 0.0
            if module is layers[-1]:
                module.weight *= _FAINT
            else:
                module.weight[0] = 0.0
            centre = module.kernel_size[0] // 2
            module.weight[0, 0, centre, centre] = 1.0


def _optimiser(net: nn.Module, recipe: Recipe, unit: float) -> torch.optim.Optimizer:
    if recipe.optimiser == "natural":
        layers = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
        return NaturalGradient(layers, recipe.rate, recipe.momentum, recipe.clip, unit)
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(net.parameters(), recipe.rate, momentum=recipe.momentum)
    return torch.optim.Adam(net.parameters(), recipe.rate, betas=recipe.betas)
