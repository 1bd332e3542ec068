"""The build of six published denoisers, narrow and with random weights, their layers named as in public.

EDCNN (Liang et al., 2020), NAFNet (Chen et al., 2022), Restormer (Zamir et al., 2022), SwinIR (Liang et
al., 2021), Uformer (Wang et al., 2022) and CTformer (Wang et al., 2023): what exporters and optimisers
meet in them, not what they can do.
"""

from __future__ import annotations

import torch
from ctinv.invariance.infra.randomness import Purpose, torch_seed
from public_windows import CTformer, SwinIR, Uformer
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["FREE", "NETWORKS", "public_network"]


class SobelConv2d(nn.Module):
    """Fixed edge filters, each with a learned factor."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.sobel_factor = nn.Parameter(torch.rand(channels, 1, 1, 1))
        self.bias = nn.Parameter(torch.rand(channels))
        edge = torch.tensor([[-1.0, -2.0, -1.0], [0.0, 0.0, 0.0], [1.0, 2.0, 1.0]])
        turns = [torch.rot90(edge, k) for k in range(4)]
        filters = torch.stack([turns[k % 4] for k in range(channels)])[:, None]
        self.sobel_weight = nn.Parameter(filters, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Edges of the image."""
        return F.conv2d(x, self.sobel_weight * self.sobel_factor, self.bias, padding=1)


class EDCNN(nn.Module):
    """Edges beside the image, then blocks that all see them, one activation for all."""

    def __init__(self, width: int = 6, sobel: int = 8) -> None:
        super().__init__()
        self.conv_sobel, self.relu = SobelConv2d(sobel), nn.LeakyReLU()
        for k in range(1, 9):
            into = 1 + sobel + (width if k > 1 else 0)
            setattr(self, f"conv_p{k}", nn.Conv2d(into, width, 1))
            setattr(self, f"conv_f{k}", nn.Conv2d(width, width if k < 8 else 1, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """The image (N, 1, H, W), denoised."""
        edges = torch.cat((x, self.conv_sobel(x)), dim=1)
        h = edges
        for k in range(1, 8):
            h = self.relu(getattr(self, f"conv_p{k}")(h))
            h = torch.cat((edges, self.relu(getattr(self, f"conv_f{k}")(h))), dim=1)
        return self.relu(x + self.conv_f8(self.conv_p8(h)))


class LayerNorm2d(nn.Module):
    """Over channels, written out, as NAFNet has it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.rand(channels)), nn.Parameter(torch.rand(channels))

    def forward(self, x: Tensor) -> Tensor:
        """The image, normalised."""
        mean = x.mean(1, keepdim=True)
        var = (x - mean).pow(2).mean(1, keepdim=True)
        y = (x - mean) / (var + 1e-6).sqrt()
        return self.weight.view(1, -1, 1, 1) * y + self.bias.view(1, -1, 1, 1)


class SimpleGate(nn.Module):
    """Half of the channels times the other half."""

    def forward(self, x: Tensor) -> Tensor:
        """Half as many channels."""
        a, b = x.chunk(2, dim=1)
        return a * b


class NAFBlock(nn.Module):
    """Gates and channel attention, each with a learned scale."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c, 2 * c, 1)
        self.conv2 = nn.Conv2d(2 * c, 2 * c, 3, padding=1, groups=2 * c)
        self.conv3, self.conv4, self.conv5 = (
            nn.Conv2d(c, c, 1),
            nn.Conv2d(c, 2 * c, 1),
            nn.Conv2d(c, c, 1),
        )
        self.sca, self.sg = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(c, c, 1)), SimpleGate()
        self.norm1, self.norm2 = LayerNorm2d(c), LayerNorm2d(c)
        self.dropout1, self.dropout2 = nn.Identity(), nn.Identity()
        self.beta, self.gamma = nn.Parameter(torch.rand(1, c, 1, 1)), nn.Parameter(torch.rand(1, c, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """The image and what both halves of the block add."""
        y = self.sg(self.conv2(self.conv1(self.norm1(x))))
        y = x + self.dropout1(self.conv3(y * self.sca(y))) * self.beta
        return y + self.dropout2(self.conv5(self.sg(self.conv4(self.norm2(y))))) * self.gamma


class NAFNet(nn.Module):
    """A U of gated blocks."""

    def __init__(self, c: int = 4) -> None:
        super().__init__()
        self.intro, self.ending = nn.Conv2d(1, c, 3, padding=1), nn.Conv2d(c, 1, 3, padding=1)
        self.encoders = nn.ModuleList(nn.Sequential(NAFBlock(c << k)) for k in range(2))
        self.downs = nn.ModuleList(nn.Conv2d(c << k, c << (k + 1), 2, 2) for k in range(2))
        self.middle_blks = nn.Sequential(NAFBlock(4 * c))
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c << k, c << (k + 1), 1, bias=False), nn.PixelShuffle(2)) for k in (2, 1)
        )
        self.decoders = nn.ModuleList(nn.Sequential(NAFBlock(c << k)) for k in (1, 0))

    def forward(self, x: Tensor) -> Tensor:
        """The image (N, 1, H, W), H and W multiples of four, denoised."""
        h, skips = self.intro(x), []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            h = encoder(h)
            skips.append(h)
            h = down(h)
        h = self.middle_blks(h)
        for decoder, up, skip in zip(self.decoders, self.ups, reversed(skips), strict=True):
            h = decoder(up(h) + skip)
        return self.ending(h) + x


class WithBiasLayerNorm(nn.Module):
    """Over the last axis, written out."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.rand(c)), nn.Parameter(torch.rand(c))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens, normalised."""
        mean, var = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
        return (x - mean) / torch.sqrt(var + 1e-5) * self.weight + self.bias


class LayerNorm(nn.Module):
    """Over channels, by way of tokens."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.body = WithBiasLayerNorm(c)

    def forward(self, x: Tensor) -> Tensor:
        """The image, normalised."""
        n, c, h, w = x.shape
        return self.body(x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(n, c, h, w)


class Attention(nn.Module):
    """Between channels."""

    def __init__(self, c: int, heads: int) -> None:
        super().__init__()
        self.num_heads, self.temperature = heads, nn.Parameter(torch.rand(heads, 1, 1))
        self.qkv = nn.Conv2d(c, 3 * c, 1, bias=False)
        self.qkv_dwconv = nn.Conv2d(3 * c, 3 * c, 3, padding=1, groups=3 * c, bias=False)
        self.project_out = nn.Conv2d(c, c, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The image, each channel a mixture of all."""
        n, c, h, w = x.shape
        q, k, v = (
            part.reshape(n, self.num_heads, c // self.num_heads, h * w)
            for part in self.qkv_dwconv(self.qkv(x)).chunk(3, dim=1)
        )
        weights = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * self.temperature
        return self.project_out((weights.softmax(dim=-1) @ v).reshape(n, c, h, w))


class FeedForward(nn.Module):
    """Two branches, one gates the other."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.project_in = nn.Conv2d(c, 4 * c, 1, bias=False)
        self.dwconv = nn.Conv2d(4 * c, 4 * c, 3, padding=1, groups=4 * c, bias=False)
        self.project_out = nn.Conv2d(2 * c, c, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """As many channels as came."""
        a, b = self.dwconv(self.project_in(x)).chunk(2, dim=1)
        return self.project_out(F.gelu(a) * b)


class TransformerBlock(nn.Module):
    """Attention between channels, then gates."""

    def __init__(self, c: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attn, self.norm2, self.ffn = (
            LayerNorm(c),
            Attention(c, heads),
            LayerNorm(c),
            FeedForward(c),
        )

    def forward(self, x: Tensor) -> Tensor:
        """The image and what both add."""
        x = x + self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))


class Body(nn.Module):
    """A convolution and a shuffle."""

    def __init__(self, conv: nn.Conv2d, shuffle: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(conv, shuffle)

    def forward(self, x: Tensor) -> Tensor:
        """Another size."""
        return self.body(x)


class Embedding(nn.Module):
    """The first convolution."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(1, c, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Its output."""
        return self.proj(x)


class Restormer(nn.Module):
    """Two of its levels."""

    def __init__(self, c: int = 4) -> None:
        super().__init__()
        self.patch_embed = Embedding(c)
        self.encoder_level1 = nn.Sequential(TransformerBlock(c, 1), TransformerBlock(c, 1))
        self.down1_2 = Body(nn.Conv2d(c, c // 2, 3, padding=1, bias=False), nn.PixelUnshuffle(2))
        self.latent = nn.Sequential(TransformerBlock(2 * c, 2))
        self.up2_1 = Body(nn.Conv2d(2 * c, 4 * c, 3, padding=1, bias=False), nn.PixelShuffle(2))
        self.reduce_chan_level1 = nn.Conv2d(2 * c, c, 1, bias=False)
        self.refinement = nn.Sequential(TransformerBlock(c, 1))
        self.output = nn.Conv2d(c, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The image (N, 1, H, W), H and W even, denoised."""
        first = self.encoder_level1(self.patch_embed(x))
        h = self.up2_1(self.latent(self.down1_2(first)))
        return self.output(self.refinement(self.reduce_chan_level1(torch.cat([h, first], 1)))) + x


NETWORKS = {kind.__name__: kind for kind in (EDCNN, NAFNet, Restormer, SwinIR, Uformer, CTformer)}
FREE = ("EDCNN", "NAFNet", "Restormer")
"""Those that are exported for any image size."""


def public_network(name: str) -> nn.Module:
    """One of the six in eval mode, with the same random weights each time."""
    with torch.random.fork_rng():
        torch.manual_seed(torch_seed(0, Purpose.WORKLOAD))
        network: nn.Module = NETWORKS[name]()
        for module in network.modules():
            if isinstance(module, nn.LayerNorm):
                module.weight.data.uniform_(0.5, 2.0)
                module.bias.data.uniform_(-0.5, 0.5)
    return network.eval()
