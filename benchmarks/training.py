"""Training throughput of the paper2024 autoencoder against a plain loop of the published structure.

    python benchmarks/training.py --batch 4 --rounds 3
    python benchmarks/training.py --batch 32 --rounds 10 --device cuda

Contestants, run in turn so that load on the machine meets all alike:

published   eager, float32, NCHW: the generator runs twice a step and the critic's loss is propagated
            through it, upsampling before convolving, f(x) laid beside the features, spectral
            normalisation by hand, instance normalisation in the critic, Adam parameter by parameter
lean        the same, but the reconstructions are computed once and detached for the critic
ours        VAELoop in float32
ours-bf16   VAELoop with half=True

Both train the sizes of the preset paper2024 on random numbers, without a perceptual loss, which
would cost both the same.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from ctinv.invariance.fitting.vae_loop import VAELoop, VAETraining
from ctinv.invariance.infra.randomness import Purpose, generator, rng, torch_seed
from ctinv.invariance.networks.resnet import ResNetEncoder
from ctinv.invariance.networks.vae import VAE
from ctinv.invariance.presets import VAEConfig, preset
from torch import Tensor, nn
from torch.nn import functional as F


class HandNormalised(nn.Module):
    """A layer whose weight is divided by its largest singular value, estimated anew in every forward."""

    def __init__(self, layer: nn.Conv2d | nn.Linear) -> None:
        super().__init__()
        self.layer = layer
        self.register_buffer("left", F.normalize(torch.randn(layer.weight.shape[0]), dim=0))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.layer.weight
        flat = weight.flatten(1)
        right = F.normalize(flat.t() @ self.left, dim=0)
        left = F.normalize(flat @ right, dim=0)
        weight = weight / (left @ (flat @ right))
        if isinstance(self.layer, nn.Linear):
            return F.linear(x, weight, self.layer.bias)
        return F.conv2d(x, weight, self.layer.bias, padding=self.layer.padding)


def convolution(inputs: int, outputs: int, kernel: int) -> HandNormalised:
    return HandNormalised(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2))


class PlainNorm(nn.Module):
    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gain = HandNormalised(nn.Linear(condition, channels, bias=False))
        self.bias = HandNormalised(nn.Linear(condition, channels, bias=False))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        gain, bias = self.gain(condition) + 1, self.bias(condition)
        return gain[:, :, None, None] * self.norm(x) + bias[:, :, None, None]


class PlainBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, condition: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = PlainNorm(inputs, condition), PlainNorm(outputs, condition)
        self.conv1, self.conv2 = convolution(inputs, outputs, 3), convolution(outputs, outputs, 3)
        self.skip = convolution(inputs, outputs, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        hidden = F.interpolate(F.relu(self.norm1(x, condition)), scale_factor=2)
        hidden = self.conv2(F.relu(self.norm2(self.conv1(hidden), condition)))
        return hidden + self.skip(F.interpolate(x, scale_factor=2))


class PlainAttention(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query, self.key = (
            convolution(channels, channels // 8, 1),
            convolution(channels, channels // 8, 1),
        )
        self.value, self.out = (
            convolution(channels, channels // 2, 1),
            convolution(channels // 2, channels, 1),
        )
        self.gain = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        query = self.query(x).flatten(2)
        key = F.max_pool2d(self.key(x), 2).flatten(2)
        value = F.max_pool2d(self.value(x), 2).flatten(2)
        weights = torch.softmax(torch.bmm(query.transpose(1, 2), key), -1)
        seen = torch.bmm(value, weights.transpose(1, 2)).view(len(x), -1, *x.shape[2:])
        return self.gain * self.out(seen) + x


class PlainGenerator(nn.Module):
    """Encoder and decoder of the published structure and sizes."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.encoder = ResNetEncoder(config)
        widths = [w * config.channels for w in (16, 16, 8, 4, 2, 1)]
        sizes = (config.code_dim, *config.mapping)
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise(sizes):
            layers += [nn.Linear(a, b), nn.LeakyReLU()]
        self.mapping = nn.Sequential(*layers[:-1], nn.Softmax(1), nn.Linear(sizes[-1], 128, bias=False))
        self.split = [156, 20, 20, 20, 20, 20]
        self.stem = HandNormalised(nn.Linear(156, 16 * widths[0]))
        self.blocks = nn.ModuleList(PlainBlock(a + 1, b, 148) for a, b in itertools.pairwise(widths))
        self.attention = PlainAttention(widths[-2])
        self.norm = nn.BatchNorm2d(widths[-1])
        self.head = nn.Conv2d(widths[-1] + 1, 1, 3, padding=1)

    def forward(self, x: Tensor, guide: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_var = self.encoder(torch.cat([x, guide], 1))
        code = mean + torch.randn_like(mean) * (0.5 * log_var).exp()
        first, *parts = code.split(self.split, 1)
        shared = self.mapping(code)
        hidden = self.stem(first).view(len(x), 4, 4, -1).permute(0, 3, 1, 2)
        for k, (block, part) in enumerate(zip(self.blocks, parts, strict=True)):
            if k == 4:
                hidden = self.attention(hidden)
            small = F.interpolate(guide, scale_factor=1 / 2 ** (5 - k))
            hidden = block(torch.cat([hidden, small], 1), torch.cat([part, shared], 1))
        image = self.head(torch.cat([self.norm(hidden), guide], 1))
        divergence = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(1).mean()
        return image, divergence


def plain_critic() -> nn.Module:
    layers: list[nn.Module] = []
    widths = (2, 64, 128, 256, 512, 512)
    for a, b in itertools.pairwise(widths):
        layers += [nn.Conv2d(a, b, 4, 2, 1), nn.InstanceNorm2d(b), nn.LeakyReLU(0.2)]
    layers += [nn.Conv2d(512, 512, 3, padding=1), nn.InstanceNorm2d(512), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(512, 1, 1), nn.Flatten(), nn.Linear(16, 1))


class PlainLoop:
    """The published loop, or with ``lean`` the same without its needless work on the generator."""

    def __init__(self, config: VAEConfig, x: Tensor, guide: Tensor, lean: bool) -> None:
        self.x, self.guide, self.lean = x, guide, lean
        self.generator, self.critic = PlainGenerator(config).to(x.device), plain_critic().to(x.device)
        self.slow = torch.optim.Adam(self.generator.parameters(), 1e-5, (0.5, 0.999))
        self.fast = torch.optim.Adam(self.critic.parameters(), 4e-5, (0.5, 0.999))

    def advance(self) -> float:
        x, guide = self.x, self.guide
        fake, divergence = self.generator(x, guide)
        judged = torch.cat([fake.detach() if self.lean else fake, guide], 1)
        target = torch.cat([x, guide], 1)
        share = torch.rand(len(x), 1, 1, 1, device=x.device)
        between = (share * target + (1 - share) * judged).requires_grad_()
        verdict = self.critic(between)
        (slope,) = torch.autograd.grad(verdict, between, torch.ones_like(verdict), create_graph=True)
        penalty = (slope.flatten(1).norm(2, 1) - 1).square().mean() * 10
        loss = self.critic(judged).mean() - self.critic(target).mean() + penalty
        self.fast.zero_grad()
        loss.backward()
        self.fast.step()
        self.slow.zero_grad()
        if not self.lean:
            fake, divergence = self.generator(x, guide)
        error = (fake - x).abs().sum() / len(x)
        loss = 1e-3 * error + 0.5 * divergence - self.critic(torch.cat([fake, guide], 1)).mean()
        loss.backward()
        self.slow.step()
        return float(loss.item())


def our_loop(config: VAEConfig, batch: int, device: str, half: bool) -> Callable[[], object]:
    numbers = rng(0, Purpose.WORKLOAD)
    images = [numbers.normal(-300, 500, (160, 160)).astype(np.float32) for _ in range(4)]
    rate = preset("paper2024").fit.vae_rate
    training = VAETraining(batch=batch, rate=rate, device=device, half=half)
    return VAELoop(images, VAE(config), training, denoised=images).advance


def contestants(
    config: VAEConfig, names: list[str], batch: int, device: str
) -> dict[str, Callable[[], object]]:
    numbers = generator(0, Purpose.WORKLOAD)
    x, guide = torch.randn((2, batch, 1, config.patch, config.patch), generator=numbers).to(device)
    made: dict[str, Callable[[], object]] = {}
    for name in names:
        if name.startswith("ours"):
            made[name] = our_loop(config, batch, device, name == "ours-bf16")
        else:
            made[name] = PlainLoop(config, x, guide, name == "lean").advance
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--channels", type=int, default=96, help="fewer for a quick look")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--contestants", nargs="+", default=["published", "lean", "ours", "ours-bf16"])
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(torch_seed(0, Purpose.WORKLOAD))
    config = preset("paper2024", {"vae.channels": given.channels}).vae
    loops = contestants(config, given.contestants, given.batch, given.device)
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for turn in range(given.rounds + 1):
        for name, advance in loops.items():
            started = time.perf_counter()
            advance()
            if given.device != "cpu":
                torch.cuda.synchronize()
            took = time.perf_counter() - started
            print(f"{'warm-up' if turn == 0 else turn} {name} {took:.2f} s", file=sys.stderr, flush=True)
            if turn:
                seconds[name].append(took)
    first = seconds[given.contestants[0]]
    report = {
        "batch": given.batch,
        "channels": given.channels,
        "device": given.device,
        "threads": given.threads,
        "torch": torch.__version__,
        "seconds": {name: round(statistics.median(took), 3) for name, took in seconds.items()},
        "fastest": {name: round(min(took), 3) for name, took in seconds.items()},
        "patches_per_second": {
            name: round(given.batch / statistics.median(took), 3) for name, took in seconds.items()
        },
        # Round by round, so that a load that comes and goes meets both sides of a ratio.
        f"times_{given.contestants[0]}": {
            name: round(statistics.median([a / b for a, b in zip(first, took, strict=True)]), 2)
            for name, took in seconds.items()
        },
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
