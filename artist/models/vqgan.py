"""VQGAN: images to a grid of codes and back (Esser et al. 2021, section 3.1).

Architecture and tensor names are those of taming-transformers' `VQModel`, so its checkpoints load
unchanged. Two settings go beyond it, for models that train on a CPU, and are off
by default: `patch_size` folds small patches of pixels into channels before the first convolution
(and unfolds them after the last), which avoids the costly full resolution; `norm_groups` sets the
groups of each normalisation, 32 there.

Tensors only: no file access, no environment, no choice of devices.

Shapes: B images, H x W pixels, h x w grid of codes (h = H / f), D codebook_embed_dim,
N codebook_size.
"""

import copy
import math
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from artist.models.config import VQGANConfig
from artist.models.groupnorm_silu import add_conv, norm_swish
from artist.models.image_tokenizer import ImageTokenizer, channels_last

_LOOKUP_ROWS = 4096  # latents compared at once: bounds the distance matrix to rows x N floats


class ResnetBlock(nn.Module):
    """Residual block: norm, swish, convolution, twice."""

    def __init__(self, in_channels: int, out_channels: int, groups: int) -> None:
        super().__init__()
        self.norm1 = _norm(in_channels, groups)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = _norm(out_channels, groups)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.nin_shortcut = (
            nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """Transform features (B, C, h, w) to (B, C_out, h, w)."""
        h: Tensor = self.conv1(norm_swish(x, self.norm1))
        h = norm_swish(h, self.norm2)
        shortcut: Tensor = x if self.nin_shortcut is None else self.nin_shortcut(x)
        return add_conv(shortcut, self.conv2, h)


class AttnBlock(nn.Module):
    """Residual single-head attention over all positions of the grid."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = _norm(channels, groups)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Transform features (B, C, h, w) to the same shape."""
        h = self.norm(x)
        q, k, v = (_to_sequence(layer(h)) for layer in (self.q, self.k, self.v))  # (B, 1, hw, C)
        mixed = F.scaled_dot_product_attention(q, k, v)
        change: Tensor = self.proj_out(mixed.squeeze(1).mT.reshape(x.shape))
        return x + change


class Downsample(nn.Module):
    """Halve the size by a strided convolution, padded on the right and below only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Transform features (B, C, h, w) to (B, C, h/2, w/2)."""
        half: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return half


class Upsample(nn.Module):
    """Double the size by nearest neighbours, then apply a convolution.

    Each output pixel depends on 2 x 2 input pixels, in one of four ways by its position. So four
    convolutions of the input, with weights folded once, compute it with 4/9 of the multiplications.
    """

    folded: Tensor | None

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.register_buffer("folded", None, persistent=False)

    def fold(self) -> None:
        """Use folded weights (4 C, C, 2, 2) from now on where gradients are off."""
        rows = _fold(self.conv.weight.detach(), 2)  # (2, C, C, 2, 3)
        self.folded = torch.cat([part for row in rows for part in _fold(row, 3)])

    def forward(self, x: Tensor) -> Tensor:
        """Transform features (B, C, h, w) to (B, C, 2h, 2w)."""
        if self.folded is not None and not torch.is_grad_enabled():
            return self._folded(x, self.folded)
        twice: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return twice

    def _folded(self, x: Tensor, weight: Tensor) -> Tensor:
        B, C, h, w = x.shape
        assert self.conv.bias is not None
        parts = F.conv2d(x, weight, self.conv.bias.repeat(4), padding=1)  # (B, 4 C, h + 1, w + 1)
        plain = x.is_contiguous()
        layout = torch.contiguous_format if plain else torch.channels_last
        twice = torch.empty(
            (B, C, 2 * h, 2 * w), dtype=x.dtype, device=x.device, memory_format=layout
        )
        for n, part in enumerate(torch.split(parts, C, 1)):
            down, right = divmod(n, 2)
            twice[:, :, down::2, right::2] = part[:, :, down : down + h, right : right + w]
        return twice


def _fold(weight: Tensor, dim: int) -> Tensor:
    """Fold three taps over doubled pixels into two over single ones, for even and odd positions."""
    first, middle, last = weight.unbind(dim)
    even = torch.stack([first, middle + last], dim)
    odd = torch.stack([first + middle, last], dim)
    return torch.stack([even, odd])


class _Level(nn.Module):
    """Blocks of one grid size; `attn` is empty or follows each block."""

    def __init__(
        self, in_channels: int, out_channels: int, blocks: int, attention: bool, groups: int
    ) -> None:
        super().__init__()
        widths = [in_channels] + [out_channels] * blocks
        self.block = nn.ModuleList(
            ResnetBlock(widths[i], out_channels, groups) for i in range(blocks)
        )
        self.attn = nn.ModuleList(
            AttnBlock(out_channels, groups) for _ in range(blocks if attention else 0)
        )
        self.downsample: nn.Module | None = None
        self.upsample: nn.Module | None = None

    def forward(self, x: Tensor) -> Tensor:
        for i, block in enumerate(self.block):
            x = block(x)
            if self.attn:
                x = self.attn[i](x)
        for resize in (self.downsample, self.upsample):
            if resize is not None:
                x = resize(x)
        return x


class _Middle(nn.Module):
    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(channels, channels, groups)
        self.attn_1 = AttnBlock(channels, groups)
        self.block_2 = ResnetBlock(channels, channels, groups)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.block_2(self.attn_1(self.block_1(x)))
        return mixed


class Encoder(nn.Module):
    """Convert images (B, 3, H, W) to features (B, z_channels, h, w)."""

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        groups, widths = config.norm_groups, [config.ch * m for m in config.ch_mult]
        side = config.resolution // config.patch_size
        self.patch_size = config.patch_size
        self.conv_in = nn.Conv2d(config.in_channels * config.patch_size**2, config.ch, 3, padding=1)
        self.down = nn.ModuleList()
        for i, (before, width) in enumerate(zip([config.ch, *widths], widths, strict=False)):
            attention = side >> i in config.attn_resolutions
            level = _Level(before, width, config.num_res_blocks, attention, groups)
            if i < len(widths) - 1:
                level.downsample = Downsample(width)
            self.down.append(level)
        self.mid = _Middle(widths[-1], groups)
        self.norm_out = _norm(widths[-1], groups)
        self.conv_out = nn.Conv2d(widths[-1], config.z_channels, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """Encode images."""
        x: Tensor = self.conv_in(F.pixel_unshuffle(images, self.patch_size))
        for level in self.down:
            x = level(x)
        features: Tensor = self.conv_out(norm_swish(self.mid(x), self.norm_out))
        return features


class Decoder(nn.Module):
    """Convert features (B, z_channels, h, w) to images (B, 3, H, W)."""

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        groups, widths = config.norm_groups, [config.ch * m for m in config.ch_mult]
        side = config.resolution // config.patch_size
        self.patch_size = config.patch_size
        self.conv_in = nn.Conv2d(config.z_channels, widths[-1], 3, padding=1)
        self.mid = _Middle(widths[-1], groups)
        self.up = nn.ModuleList()  # index 0 is the finest level, which runs last
        for i, (width, before) in enumerate(zip(widths, [*widths[1:], widths[-1]], strict=True)):
            attention = side >> i in config.attn_resolutions
            level = _Level(before, width, config.num_res_blocks + 1, attention, groups)
            if i > 0:
                level.upsample = Upsample(width)
            self.up.append(level)
        self.norm_out = _norm(widths[0], groups)
        self.conv_out = nn.Conv2d(
            widths[0], config.out_channels * config.patch_size**2, 3, padding=1
        )

    def forward(self, features: Tensor) -> Tensor:
        """Decode features."""
        x = self.mid(self.conv_in(features))
        for level in reversed(self.up):
            x = level(x)
        return F.pixel_shuffle(self.conv_out(norm_swish(x, self.norm_out)), self.patch_size)


def nearest_rows(latents: Tensor, table: Tensor) -> Tensor:
    """Return the row number (n,) of the vector in `table` (N, D) nearest to each latent (n, D)."""
    norms = table.square().sum(1)  # (N,); |z|^2 is equal for all rows and left out
    parts = torch.split(latents, _LOOKUP_ROWS)
    return torch.cat([torch.addmm(norms, z, table.T, alpha=-2).argmin(1) for z in parts])


class Quantizer(nn.Module):
    """Codebook with nearest-neighbour lookup."""

    def __init__(self, codebook_size: int, embed_dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(codebook_size, embed_dim)
        nn.init.uniform_(self.embedding.weight, -1 / codebook_size, 1 / codebook_size)

    def nearest(self, latents: Tensor) -> Tensor:
        """Return the code (rows,) nearest to each latent (rows, D); in float32, first of equals."""
        with torch.autocast(latents.device.type, enabled=False):
            return nearest_rows(latents.float(), self.embedding.weight.float())


class GumbelQuantizer(nn.Module):
    """Codebook of taming-transformers' GumbelVQ: a layer scores the codes, the highest is chosen.

    Its training adds Gumbel noise to the scores (Jang et al. 2017), and so does the released code
    when it encodes. Without the noise encoding is deterministic.
    """

    def __init__(self, codebook_size: int, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(embed_dim, codebook_size, 1)
        self.embed = nn.Embedding(codebook_size, embed_dim)

    @property
    def embedding(self) -> nn.Embedding:
        """Code vectors, under their name in `Quantizer`."""
        return self.embed

    def nearest(self, latents: Tensor) -> Tensor:
        """Return the code (rows,) with the highest score for each latent (rows, D); in float32."""
        with torch.autocast(latents.device.type, enabled=False):
            weight = self.proj.weight.float().flatten(1)  # (N, D)
            assert self.proj.bias is not None
            bias = self.proj.bias.float()
            return torch.cat(
                [
                    torch.addmm(bias, rows, weight.T).argmax(1)
                    for rows in torch.split(latents.float(), _LOOKUP_ROWS)
                ]
            )


class VQGAN(ImageTokenizer):
    """Encoder, codebook and decoder."""

    model_type = "vqgan"
    config_class = VQGANConfig
    config: VQGANConfig

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__(config)
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        kind = GumbelQuantizer if config.quantizer == "gumbel" else Quantizer
        self.quantize = kind(config.codebook_size, config.codebook_embed_dim)
        self.quant_conv = nn.Conv2d(config.z_channels, config.codebook_embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(config.codebook_embed_dim, config.z_channels, 1)

    def latents(self, images: Tensor) -> Tensor:
        """Return latents (B, D, h, w) of images (B, 3, H, W), in autocast's precision."""
        latents: Tensor = self.quant_conv(self.encoder(images))
        return latents

    def encode_latents(self, images: Tensor) -> Tensor:
        """Return latents in float32: in bfloat16 one code in thirty would change."""
        with torch.autocast(images.device.type, enabled=False):
            return self.latents(images.float())

    def quantise(self, latents: Tensor) -> Tensor:
        """Return the codes (B, h*w), row by row, of latents (B, D, h, w)."""
        rows = latents.permute(0, 2, 3, 1).reshape(-1, latents.shape[1])  # (B*h*w, D)
        return self.quantize.nearest(rows).view(latents.shape[0], -1)

    def encode(self, images: Tensor) -> Tensor:
        """Return the codes (B, h*w) of images (B, 3, H, W) in [-1, 1]."""
        # GPUs round float32 convolutions to TF32 by default, which changes codes too.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            return self.quantise(self.encode_latents(images))

    def lookup(self, codes: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """Return the code vectors (B, D, h, w) of codes (B, h*w); `grid` is square by default."""
        if grid is None:
            side = math.isqrt(codes.shape[1])
            assert side * side == codes.shape[1], "codes of a square image"
            grid = (side, side)
        vectors: Tensor = self.quantize.embedding(codes)  # (B, h*w, D)
        return vectors.mT.reshape(len(codes), -1, *grid)

    def decode_latents(self, quantised: Tensor) -> Tensor:
        """Return images (B, 3, H, W) of code vectors (B, D, h, w), in the decoder's precision."""
        quantised = quantised.to(self.post_quant_conv.weight.dtype)
        images: Tensor = self.decoder(self.post_quant_conv(quantised))
        return images

    def decode(self, codes: Tensor) -> Tensor:
        """Return images (B, 3, H, W), float32, about [-1, 1], of codes (B, h*w)."""
        return self.decode_latents(self.lookup(codes)).float()

    def decode_in(self, dtype: torch.dtype) -> Self:
        """Convert the decoder, not the encoder, to `dtype` and the fastest layout, in place.

        Call it after loading the weights: those of upsampling are folded, see `Upsample`.

        Returns:
            This model.
        """
        for module in self.decoder.modules():
            if isinstance(module, Upsample):
                module.fold()
        for part in (self.post_quant_conv, self.decoder):
            channels_last(part.to(dtype))
        return self

    def decoding_in(self, dtype: torch.dtype) -> Self:
        """Return a copy converted by `decode_in` that shares its encoder and codebook."""
        other = copy.copy(self)
        other._modules = dict(self._modules)
        for name in ("post_quant_conv", "decoder"):
            other._modules[name] = copy.deepcopy(self._modules[name])
        return other.decode_in(dtype)


def _norm(channels: int, groups: int) -> nn.GroupNorm:
    return nn.GroupNorm(groups, channels, eps=1e-6)


def _to_sequence(x: Tensor) -> Tensor:
    return x.flatten(2).mT.unsqueeze(1)  # (B, C, h, w) -> (B, 1, h*w, C)
