"""Closed-form initialisation of a VQGAN: principal components, k-means, least squares.

For models with one level (`patch_size` is the downsampling factor). While the residual branches are
zero, such a model is two linear maps with one activation each, which have closed forms: encode each
patch by its principal components, quantise by k-means, decode by the least-squares map from a code
and its neighbours. Training starts from the quality of vector quantisation of patches.

Shapes: n patches, P pixels x channels per patch, C ch, D codebook_embed_dim, N codebook_size.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from artist.models.vqgan import VQGAN, ResnetBlock, nearest_rows

_BATCH = 64
_CONSTANT = 2.0  # bias of the channels that keep a group's scale similar for all images
_SMALLEST = 0.02  # least deviation of a component, as a share of the largest
_RIDGE = 1e-3


def start_as_identity(model: VQGAN) -> None:
    """Set the last layer of every residual branch to zero."""
    for module in model.modules():
        last = getattr(module, "conv2" if isinstance(module, ResnetBlock) else "proj_out", None)
        if isinstance(last, nn.Conv2d):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(_bias(last))


@torch.no_grad()
def start_from_patches(model: VQGAN, images: Tensor, generator: torch.Generator) -> None:
    """Set the outer layers and the codebook from images (B, 3, H, W) in [-1, 1].

    The residual branches must be zero (`start_as_identity`), and there must be one level.
    """
    config = model.config
    assert len(config.ch_mult) == 1, "one level, that of the grid of codes"
    width = config.codebook_embed_dim
    patches = _patches(images, config.patch_size)  # (n, P)
    mean = patches.mean(0)
    centred = patches - mean
    values, vectors = torch.linalg.eigh((centred.T @ centred / len(centred)).double())
    vectors = vectors.flip(1).float()  # (P, P), the strongest component first
    deviation = values.flip(0).clamp(min=0).sqrt().float()
    deviation = deviation.clamp(min=_SMALLEST * float(deviation[0]))
    unit = deviation[:width].square().mean().sqrt()

    encoder, decoder = model.encoder, model.decoder
    pairs = config.norm_groups * _pairs(config.ch, config.norm_groups)
    _spread(encoder.conv_in, vectors.T[:pairs] / deviation[:pairs, None], config.norm_groups)
    _bias(encoder.conv_in).sub_(encoder.conv_in.weight[:, :, 1, 1] @ mean)
    features = torch.cat([_encoder_features(model, part) for part in _parts(images)])  # (n, C)
    latents = centred @ vectors[:, :width] / unit  # (n, D)
    weight, bias = _least_squares(features, latents)
    nn.init.zeros_(encoder.conv_out.weight)
    nn.init.zeros_(_bias(encoder.conv_out))
    encoder.conv_out.weight[:width, :, 1, 1] = weight.T
    _bias(encoder.conv_out)[:width] = bias
    for conv in (model.quant_conv, model.post_quant_conv):
        nn.init.dirac_(conv.weight)  # z_channels are at least as many as D
        nn.init.zeros_(_bias(conv))

    latents = features @ weight + bias
    model.quantize.embedding.weight.copy_(
        k_means(latents, config.codebook_size, rounds=8, generator=generator)
    )
    grid = (images.shape[2] // config.patch_size, images.shape[3] // config.patch_size)
    codes = model.quantize.nearest(latents).view(len(images), -1)  # (B, h*w)
    _spread(decoder.conv_in, torch.diag(unit / deviation[:width]), config.norm_groups)
    features = torch.cat(
        [_decoder_features(model, model.lookup(part, grid)) for part in _parts(codes)]
    )  # (n, 9C)
    weight, bias = _least_squares(features, patches)
    decoder.conv_out.weight.copy_(weight.T.reshape(decoder.conv_out.weight.shape))
    _bias(decoder.conv_out).copy_(bias)


@torch.no_grad()
def k_means(rows: Tensor, size: int, rounds: int, generator: torch.Generator) -> Tensor:
    """Return centres (size, D) of rows (n, D); empty clusters move to a random row."""
    centres = rows[torch.randint(len(rows), (size,), generator=generator).to(rows.device)]
    for _ in range(rounds):
        nearest = nearest_rows(rows, centres)
        counts = torch.bincount(nearest, minlength=size)[:, None]
        sums = torch.zeros_like(centres).index_add_(0, nearest, rows)
        drawn = rows[torch.randint(len(rows), (size,), generator=generator).to(rows.device)]
        centres = torch.where(counts == 0, drawn, sums / counts.clamp(min=1))
    return centres


def _patches(images: Tensor, size: int) -> Tensor:
    """Return (B*h*w, 3*size*size) patches of images (B, 3, H, W), the first convolution's input."""
    return F.pixel_unshuffle(images, size).permute(0, 2, 3, 1).flatten(0, 2)


def _parts(tensor: Tensor) -> tuple[Tensor, ...]:
    return torch.split(tensor, _BATCH)


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None
    return conv.bias


def _pairs(channels: int, groups: int) -> int:
    """Return the number of pairs of opposite channels per group, without the constant pair."""
    return channels // groups // 2 - 1


def _spread(conv: nn.Conv2d, rows: Tensor, groups: int) -> None:
    """Set a convolution to products with `rows` and their negatives, distributed over the groups.

    swish(x) - swish(-x) = x, so the activation loses no information. A pair of constants per group
    preserves a patch's contrast, which the group's normalisation would otherwise remove.
    """
    channels = conv.weight.shape[0]
    pairs, group_size = _pairs(channels, groups), channels // groups
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(_bias(conv))
    for group in range(groups):
        chosen = rows[[(group + groups * i) % len(rows) for i in range(pairs)]]
        start = group * group_size
        conv.weight[start : start + pairs, : rows.shape[1], 1, 1] = chosen
        conv.weight[start + pairs : start + 2 * pairs, : rows.shape[1], 1, 1] = -chosen
        _bias(conv)[start + 2 * pairs] = _CONSTANT
        _bias(conv)[start + 2 * pairs + 1] = -_CONSTANT


def _encoder_features(model: VQGAN, images: Tensor) -> Tensor:
    """Return the input of the encoder's last convolution at each position: (B*h*w, C)."""
    encoder = model.encoder
    x = encoder.conv_in(F.pixel_unshuffle(images, encoder.patch_size))
    return F.silu(encoder.norm_out(x)).permute(0, 2, 3, 1).flatten(0, 2)


def _decoder_features(model: VQGAN, quantised: Tensor) -> Tensor:
    """Return the input of the decoder's last convolution at each position: (B*h*w, 9C)."""
    decoder = model.decoder
    x = F.silu(decoder.norm_out(decoder.conv_in(model.post_quant_conv(quantised))))
    return F.unfold(x, 3, padding=1).mT.flatten(0, 1)


def _least_squares(features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return weight (F, T) and bias (T,) of a linear map to targets, by ridge regression."""
    ones = features.new_ones(len(features), 1)
    inputs = torch.cat([features, ones], dim=1).double()
    gram = inputs.T @ inputs / len(inputs)
    gram += _RIDGE * gram.diagonal().mean() * torch.eye(len(gram), device=gram.device)
    solution = torch.linalg.solve(gram, inputs.T @ targets.double() / len(inputs)).float()
    return solution[:-1], solution[-1]
