"""The published denoisers that attend within windows or between patches; see ``public_networks``."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["CTformer", "SwinIR", "Uformer"]

_SIDE = 16  # of the images, which these networks take in one size


class Mlp(nn.Module):
    """Two linear layers."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2, self.drop = (
            nn.Linear(c, 2 * c),
            nn.GELU(),
            nn.Linear(2 * c, c),
            nn.Dropout(0.0),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Tokens, each alike."""
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))


def _split(x: Tensor, window: int) -> Tensor:
    """(N, H, W, C) -> (windows, window * window, C)."""
    n, h, w, c = x.shape
    x = x.view(n, h // window, window, w // window, window, c)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, window * window, c)


def _merge(x: Tensor, window: int, h: int, w: int) -> Tensor:
    """(windows, window * window, C) -> (N, H, W, C)."""
    x = x.view(-1, h // window, w // window, window, window, x.shape[-1])
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, h, w, x.shape[-1])


class WindowAttention(nn.Module):
    """Within windows, with a learned bias for each pair of places."""

    def __init__(self, c: int, window: int, heads: int) -> None:
        super().__init__()
        self.num_heads, self.scale = heads, (c // heads) ** -0.5
        self.relative_position_bias_table = nn.Parameter(torch.randn((2 * window - 1) ** 2, heads) * 0.2)
        places = torch.stack(
            torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
        ).flatten(1)
        apart = places[:, :, None] - places[:, None] + window - 1
        self.register_buffer("relative_position_index", apart[0] * (2 * window - 1) + apart[1])
        self.qkv, self.attn_drop, self.proj = nn.Linear(c, 3 * c), nn.Dropout(0.0), nn.Linear(c, c)
        self.proj_drop, self.softmax = nn.Dropout(0.0), nn.Softmax(dim=-1)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Windows (B, T, C); the mask (W, T, T) keeps what a shift brought together apart."""
        b, t, c = x.shape
        q, k, v = self.qkv(x).reshape(b, t, 3, self.num_heads, c // self.num_heads).permute(2, 0, 3, 1, 4)
        index = self.relative_position_index.view(-1)
        bias = self.relative_position_bias_table[index].view(t, t, -1).permute(2, 0, 1).contiguous()
        attention = (q * self.scale) @ k.transpose(-2, -1) + bias.unsqueeze(0)
        if mask is not None:
            windows = mask.shape[0]
            attention = attention.view(b // windows, windows, self.num_heads, t, t) + mask[None, :, None]
            attention = attention.view(-1, self.num_heads, t, t)
        attention = self.attn_drop(self.softmax(attention))
        return self.proj_drop(self.proj((attention @ v).transpose(1, 2).reshape(b, t, c)))


class SwinTransformerBlock(nn.Module):
    """Attention within windows, shifted or not, then two linear layers."""

    def __init__(self, c: int, shift: int, window: int = 4) -> None:
        super().__init__()
        self.window_size, self.shift_size = window, shift
        self.norm1, self.attn, self.drop_path = (
            nn.LayerNorm(c),
            WindowAttention(c, window, 2),
            nn.Identity(),
        )
        self.norm2, self.mlp = nn.LayerNorm(c), Mlp(c)
        self.register_buffer("attn_mask", self._mask() if shift else None)

    def _mask(self) -> Tensor:
        part, w, s = torch.zeros(1, _SIDE, _SIDE, 1), self.window_size, self.shift_size
        cuts = (slice(0, -w), slice(-w, -s), slice(-s, None))
        for number, (rows, columns) in enumerate((a, b) for a in cuts for b in cuts):
            part[:, rows, columns] = number
        places = _split(part, w).squeeze(-1)
        return ((places[:, None] - places[:, :, None]) != 0).float() * -100.0

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Tokens (N, H * W, C)."""
        h, w = size
        n, _, c = x.shape
        y = self.norm1(x).view(n, h, w, c)
        if self.shift_size:
            y = torch.roll(y, (-self.shift_size, -self.shift_size), (1, 2))
        y = _merge(self.attn(_split(y, self.window_size), self.attn_mask), self.window_size, h, w)
        if self.shift_size:
            y = torch.roll(y, (self.shift_size, self.shift_size), (1, 2))
        x = x + self.drop_path(y.reshape(n, h * w, c))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class BasicLayer(nn.Module):
    """Two blocks, the second one shifted."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([SwinTransformerBlock(c, 0), SwinTransformerBlock(c, 2)])

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Tokens after both."""
        for block in self.blocks:
            x = block(x, size)
        return x


class PatchEmbed(nn.Module):
    """An image as tokens, normalised where asked."""

    def __init__(self, c: int, normed: bool = False) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(c) if normed else None

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (N, H * W, C)."""
        x = x.flatten(2).transpose(1, 2)
        return x if self.norm is None else self.norm(x)


class PatchUnEmbed(nn.Module):
    """Tokens as an image."""

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """The image (N, C, H, W)."""
        return x.transpose(1, 2).view(x.shape[0], -1, *size)


class RSTB(nn.Module):
    """Blocks, a convolution, and what came in."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.residual_group, self.conv = BasicLayer(c), nn.Conv2d(c, c, 3, padding=1)
        self.patch_embed, self.patch_unembed = PatchEmbed(c), PatchUnEmbed()

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Tokens."""
        return self.patch_embed(self.conv(self.patch_unembed(self.residual_group(x, size), size))) + x


class SwinIR(nn.Module):
    """Its form for denoising, with a mean that is no parameter."""

    def __init__(self, c: int = 8) -> None:
        super().__init__()
        self.mean = torch.zeros(1, 1, 1, 1)
        self.conv_first, self.pos_drop = nn.Conv2d(1, c, 3, padding=1), nn.Dropout(0.0)
        self.patch_embed, self.patch_unembed = PatchEmbed(c, True), PatchUnEmbed()
        self.layers, self.norm = nn.ModuleList([RSTB(c), RSTB(c)]), nn.LayerNorm(c)
        self.conv_after_body = nn.Conv2d(c, c, 3, padding=1)
        self.conv_last = nn.Conv2d(c, 1, 3, padding=1)

    def forward_features(self, x: Tensor) -> Tensor:
        """The body, on an image (N, C, H, W)."""
        size = (x.shape[2], x.shape[3])
        x = self.pos_drop(self.patch_embed(x))
        for layer in self.layers:
            x = layer(x, size)
        return self.patch_unembed(self.norm(x), size)

    def forward(self, x: Tensor) -> Tensor:
        """The image (N, 1, 16, 16), denoised."""
        x = x - self.mean
        first = self.conv_first(x)
        return x + self.conv_last(self.conv_after_body(self.forward_features(first)) + first) + self.mean


class LinearProjection(nn.Module):
    """Queries apart from keys and values."""

    def __init__(self, c: int, heads: int) -> None:
        super().__init__()
        self.heads, self.to_q, self.to_kv = heads, nn.Linear(c, c), nn.Linear(c, 2 * c)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (B, heads, T, C / heads)."""
        b, t, c = x.shape
        q = self.to_q(x).reshape(b, t, 1, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        kv = self.to_kv(x).reshape(b, t, 2, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        return q[0], kv[0], kv[1]


class ProjectedAttention(nn.Module):
    """Within windows."""

    def __init__(self, c: int, heads: int) -> None:
        super().__init__()
        self.scale, self.qkv = (c // heads) ** -0.5, LinearProjection(c, heads)
        self.attn_drop, self.proj, self.proj_drop = nn.Dropout(0.0), nn.Linear(c, c), nn.Dropout(0.0)
        self.softmax = nn.Softmax(dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        """Windows (B, T, C)."""
        b, t, c = x.shape
        q, k, v = self.qkv(x)
        attention = self.attn_drop(self.softmax((q * self.scale) @ k.transpose(-2, -1)))
        return self.proj_drop(self.proj((attention @ v).transpose(1, 2).reshape(b, t, c)))


class LeFF(nn.Module):
    """Linear layers with a convolution between them."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.linear1 = nn.Sequential(nn.Linear(c, 2 * c), nn.GELU())
        self.dwconv = nn.Sequential(nn.Conv2d(2 * c, 2 * c, 3, padding=1, groups=2 * c), nn.GELU())
        self.linear2 = nn.Sequential(nn.Linear(2 * c, c))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens of a square image."""
        n, t, _ = x.shape
        side = int(t**0.5)
        x = self.linear1(x).transpose(1, 2).reshape(n, -1, side, side)
        return self.linear2(self.dwconv(x).flatten(2).transpose(1, 2))


class LeWinTransformerBlock(nn.Module):
    """Attention within windows that a learned modulator shifts, then linear layers."""

    def __init__(self, c: int, modulated: bool, window: int = 4) -> None:
        super().__init__()
        self.win_size = window
        self.modulator = nn.Embedding(window * window, c) if modulated else None
        self.norm1, self.attn, self.drop_path = nn.LayerNorm(c), ProjectedAttention(c, 2), nn.Identity()
        self.norm2, self.mlp = nn.LayerNorm(c), LeFF(c)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens of a square image."""
        n, t, c = x.shape
        side = int(t**0.5)
        windows = _split(self.norm1(x).view(n, side, side, c), self.win_size)
        if self.modulator is not None:
            windows = windows + self.modulator.weight
        y = _merge(self.attn(windows), self.win_size, side, side).reshape(n, t, c)
        x = x + self.drop_path(y)
        return x + self.drop_path(self.mlp(self.norm2(x)))


class BasicUformerLayer(nn.Module):
    """Blocks in a row."""

    def __init__(self, c: int, modulated: bool = False) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([LeWinTransformerBlock(c, modulated)])

    def forward(self, x: Tensor) -> Tensor:
        """Tokens after all of them."""
        for block in self.blocks:
            x = block(x)
        return x


class Between(nn.Module):
    """Tokens to an image, through convolutions, and to tokens again where asked."""

    def __init__(self, name: str, tokens: bool, *parts: nn.Module) -> None:
        super().__init__()
        self.name, self.tokens = name, tokens
        setattr(self, name, nn.Sequential(*parts))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens, or at the network's end an image."""
        if x.dim() == 3:
            side = int(x.shape[1] ** 0.5)
            x = x.transpose(1, 2).reshape(x.shape[0], -1, side, side)
        x = getattr(self, self.name)(x)
        return x.flatten(2).transpose(1, 2) if self.tokens else x


class Uformer(nn.Module):
    """Two of its levels."""

    def __init__(self, c: int = 8) -> None:
        super().__init__()
        self.input_proj = Between("proj", True, nn.Conv2d(1, c, 3, padding=1), nn.LeakyReLU())
        self.pos_drop = nn.Dropout(0.0)
        self.encoderlayer_0, self.conv = BasicUformerLayer(c), BasicUformerLayer(2 * c)
        self.dowsample_0 = Between("conv", True, nn.Conv2d(c, 2 * c, 4, stride=2, padding=1))
        self.upsample_0 = Between("deconv", True, nn.ConvTranspose2d(2 * c, c, 2, stride=2))
        self.decoderlayer_0 = BasicUformerLayer(2 * c, True)
        self.output_proj = Between("proj", False, nn.Conv2d(2 * c, 1, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """The image (N, 1, 16, 16), denoised."""
        first = self.encoderlayer_0(self.pos_drop(self.input_proj(x)))
        up = self.upsample_0(self.conv(self.dowsample_0(first)))
        return x + self.output_proj(self.decoderlayer_0(torch.cat([up, first], -1)))


class TokenAttention(nn.Module):
    """Between all patches, the values added once more."""

    def __init__(self, into: int, c: int) -> None:
        super().__init__()
        self.c, self.scale, self.qkv = c, c**-0.5, nn.Linear(into, 3 * c, bias=False)
        self.attn_drop, self.proj, self.proj_drop = nn.Dropout(0.0), nn.Linear(c, c), nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (N, T, C)."""
        b, t, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, t, 3, 1, self.c).permute(2, 0, 3, 1, 4)
        attention = self.attn_drop((q * self.scale @ k.transpose(-2, -1)).softmax(dim=-1))
        x = (attention @ v).transpose(1, 2).reshape(b, t, self.c)
        return v.squeeze(1) + self.proj_drop(self.proj(x))


class TokenTransformer(nn.Module):
    """Attention that changes the number of channels."""

    def __init__(self, into: int, c: int) -> None:
        super().__init__()
        self.norm1, self.attn, self.drop_path = nn.LayerNorm(into), TokenAttention(into, c), nn.Identity()
        self.norm2, self.mlp = nn.LayerNorm(c), Mlp(c)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (N, T, c)."""
        x = self.attn(self.norm1(x))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class ImageToTokens(nn.Module):
    """Overlapping patches as tokens, twice, with a shift between."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.soft_split0 = nn.Unfold(3, stride=2, padding=1)
        self.soft_split1 = nn.Unfold(3, stride=1, padding=1)
        self.attention1, self.project = TokenTransformer(9, c), nn.Linear(9 * c, 2 * c)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The last tokens and those before them."""
        first = self.attention1(self.soft_split0(x).transpose(1, 2))
        n, t, c = first.shape
        side = int(t**0.5)
        image = torch.roll(first.transpose(1, 2).reshape(n, c, side, side), (1, 1), (2, 3))
        return self.project(self.soft_split1(image).transpose(1, 2)), first


class Block(nn.Module):
    """Attention between tokens, then two linear layers."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.norm1, self.attn, self.drop_path = nn.LayerNorm(c), TokenAttention(c, c), nn.Identity()
        self.norm2, self.mlp = nn.LayerNorm(c), Mlp(c)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens."""
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class TokensToImage(nn.Module):
    """Tokens back to an image, by what the encoder knew."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.attention1, self.project = TokenTransformer(c, 9), nn.Linear(2 * c, c)

    def forward(self, x: Tensor, first: Tensor) -> Tensor:
        """The image (N, 1, 16, 16)."""
        tokens = self.attention1(self.project(x) + first)
        return F.fold(tokens.transpose(1, 2), (_SIDE, _SIDE), 3, stride=2, padding=1)


class CTformer(nn.Module):
    """Tokens of overlapping patches, which are laid over each other at the end."""

    def __init__(self, c: int = 6) -> None:
        super().__init__()
        self.tokens_to_token, self.pos_drop = ImageToTokens(c), nn.Dropout(0.0)
        self.pos_embed = nn.Parameter(torch.randn(1, (_SIDE // 2) ** 2, 2 * c) * 0.2, requires_grad=False)
        self.blocks = nn.ModuleList([Block(2 * c)])
        self.dtokens_to_token = TokensToImage(c)

    def forward(self, x: Tensor) -> Tensor:
        """The image (N, 1, 16, 16), denoised."""
        tokens, first = self.tokens_to_token(x)
        tokens = self.pos_drop(tokens + self.pos_embed)
        for block in self.blocks:
            tokens = block(tokens)
        return x - self.dtokens_to_token(tokens, first)
