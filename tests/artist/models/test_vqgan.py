import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from artist.models.config import VQGANConfig
from artist.models.image_tokenizer import from_uint8, to_uint8
from artist.models.vqgan import VQGAN
from data.errors import ConfigError
from tests.artist.codebook import codebook_loss, through_codebook

TINY = VQGANConfig(
    resolution=16,
    ch=8,
    ch_mult=(1, 2),
    num_res_blocks=1,
    attn_resolutions=(8,),
    z_channels=8,
    codebook_size=32,
    codebook_embed_dim=4,
    norm_groups=4,
)


def tiny(config: VQGANConfig = TINY) -> VQGAN:
    torch.manual_seed(0)
    return VQGAN(config).eval()


def some_images(count: int = 3, size: int = 16) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_sizes_follow_from_the_levels_and_the_patches() -> None:
    config = VQGANConfig(resolution=128, ch_mult=(1, 2, 2), patch_size=2)
    assert (config.downsampling, config.grid_size, config.image_len) == (8, 16, 256)
    assert VQGANConfig().downsampling == 16
    assert VQGANConfig().image_len == 256


def test_a_config_is_restored_from_its_dict() -> None:
    assert VQGANConfig.from_dict(TINY.to_dict()) == TINY


@pytest.mark.parametrize(
    ("values", "advice"),
    [
        ({"resolution": 100, "ch_mult": (1, 2, 2, 4)}, "the nearest are 96 and 104"),
        ({"ch": 48}, "norm_groups=16"),
        ({"ch_mult": ()}, "at least one level"),
        ({"ch_mult": (1, 0)}, "at least 1"),
        ({"codebook_size": 70_000}, "65536"),
        ({"codebok_size": 512}, 'did you mean "codebook_size"'),
    ],
)
def test_invalid_configs_are_refused_with_advice(values: dict[str, object], advice: str) -> None:
    with pytest.raises(ConfigError, match=advice):
        VQGANConfig.from_dict(values)


@pytest.mark.parametrize("patch_size", [1, 2])
def test_images_are_encoded_and_decoded(patch_size: int) -> None:
    values = TINY.to_dict() | {"patch_size": patch_size}
    model = tiny(VQGANConfig.from_dict(values))
    codes = model.encode(some_images())
    assert codes.shape == (3, model.config.image_len)
    assert 0 <= codes.min() <= codes.max() < model.config.codebook_size
    images = model.decode(codes)
    assert images.shape == (3, 3, 16, 16)
    assert images.dtype == torch.float32


def test_codes_are_the_nearest_by_euclidean_distance() -> None:
    model = tiny()
    latents = model.encode_latents(some_images())
    rows = latents.permute(0, 2, 3, 1).reshape(-1, 4)
    plain = torch.cdist(rows, model.quantize.embedding.weight).argmin(1)
    assert torch.equal(model.quantise(latents).flatten(), plain)


def test_codes_are_ordered_row_by_row() -> None:
    model = tiny()
    latents = model.encode_latents(some_images(1))
    codes = model.quantise(latents)
    right = model.quantise(latents[:, :, :, 1:])
    assert torch.equal(codes.view(8, 8)[:, 1:], right.view(8, 7))


def test_a_code_vector_is_nearest_to_itself() -> None:
    model = tiny()
    codes = torch.arange(32).repeat(2).view(1, 64)
    assert torch.equal(model.quantise(model.lookup(codes)), codes)


def test_codes_do_not_depend_on_the_batch_nor_on_autocast() -> None:
    model = tiny()
    images = some_images(4)
    together = model.encode(images)
    alone = torch.cat([model.encode(image[None]) for image in images])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = model.encode(images)
    assert torch.equal(together, alone)
    assert torch.equal(together, under_autocast)


def test_decoding_in_bfloat16_is_close_and_keeps_the_encoder() -> None:
    model = tiny()
    codes = model.encode(some_images())
    exact = model.decode(codes)
    near = model.decode_in(torch.bfloat16).decode(codes)
    assert near.dtype == torch.float32
    torch.testing.assert_close(near, exact, atol=0.05, rtol=0.05)
    assert torch.equal(model.encode(some_images()), codes)


def test_encoder_codebook_and_decoder_get_gradients() -> None:
    model = tiny()
    output = through_codebook(model, some_images())
    loss = output.reconstruction.square().mean() + codebook_loss(output.latents, output.quantised)
    loss.backward()
    for name, parameter in model.named_parameters():
        # the gradient of a key's bias is 0: it shifts all scores of a query equally
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@given(st.integers(0, 255))
@settings(max_examples=50)
def test_pixels_are_restored_up_to_one_step(value: int) -> None:
    pixel = torch.tensor([value], dtype=torch.uint8)
    # truncation, as in the reference, may lose one step by rounding
    assert abs(int(to_uint8(from_uint8(pixel))) - value) <= 1


def test_a_training_step_accepts_oblong_images() -> None:
    output = through_codebook(tiny(), some_images()[:, :, :, :8])
    assert output.reconstruction.shape == (3, 3, 16, 8)
