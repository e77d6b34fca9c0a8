import pytest
import torch

from artist.models.config import VQGANConfig
from artist.models.image_tokenizer import to_uint8
from artist.models.psnr_ssim import psnr
from artist.models.vqgan import VQGAN
from artist.training.vqgan_init import k_means, start_as_identity, start_from_patches

CONFIG = VQGANConfig(
    resolution=16,
    ch=64,
    ch_mult=(1,),
    num_res_blocks=1,
    attn_resolutions=(),
    z_channels=32,
    codebook_size=32,
    codebook_embed_dim=16,
    norm_groups=4,
    patch_size=4,
)


def tiles(count: int, kinds: int = 6) -> torch.Tensor:
    """Return images (B, 3, 16, 16) composed of a few different tiles of 4 x 4 pixels."""
    generator = torch.Generator().manual_seed(0)
    known = torch.rand(kinds, 3, 4, 4, generator=generator) * 2 - 1
    chosen = torch.randint(kinds, (count, 4, 4), generator=generator)
    grid = known[chosen]  # (B, 4, 4, 3, 4, 4)
    return grid.permute(0, 3, 1, 4, 2, 5).reshape(count, 3, 16, 16)


def started() -> VQGAN:
    torch.manual_seed(0)
    model = VQGAN(CONFIG).eval()
    start_as_identity(model)
    start_from_patches(model, tiles(64), torch.Generator().manual_seed(1))
    return model


def test_images_of_few_tiles_are_reconstructed_without_training() -> None:
    model, images = started(), tiles(16)
    with torch.inference_mode():
        decoded = to_uint8(model.decode(model.encode(images)))
    assert psnr(decoded, to_uint8(images)).min() > 25


def test_initial_weights_are_finite_and_reproducible() -> None:
    one, other = started().state_dict(), started().state_dict()
    for name, tensor in one.items():
        assert tensor.isfinite().all(), name
        assert torch.equal(tensor, other[name]), name


def test_initial_blocks_are_the_identity() -> None:
    model = VQGAN(CONFIG)
    start_as_identity(model)
    x = torch.randn(2, 64, 4, 4)
    torch.testing.assert_close(model.encoder.mid(x), x)


@pytest.mark.parametrize("size", [2, 9])
def test_k_means_returns_the_requested_number_of_centres(size: int) -> None:
    rows = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    centres = k_means(rows, size, 4, torch.Generator().manual_seed(0))
    assert centres.shape == (size, 2)
    assert centres.isfinite().all()
