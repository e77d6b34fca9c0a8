"""The decoder's fused operations equal those of torch."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from artist.models.groupnorm_silu import _PART, _can_add, add_conv, norm_swish
from artist.models.image_tokenizer import to_uint8
from artist.models.vqgan import ResnetBlock, Upsample
from tests.artist.models.test_vqgan import some_images, tiny

BF16 = torch.bfloat16
ROUNDING = 2.0**-8  # of bfloat16, relative


def features(*shape: int, seed: int = 0, mean: float = 0.5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(shape, generator=generator) * 2 + mean
    return drawn.to(BF16).contiguous(memory_format=torch.channels_last)


def a_norm(channels: int, groups: int) -> nn.GroupNorm:
    norm = nn.GroupNorm(groups, channels, eps=1e-6)
    torch.manual_seed(1)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm.to(BF16)


def exactly(x: Tensor, norm: nn.GroupNorm) -> Tensor:
    """Return the swish of the normalised features in float64."""
    return F.silu(copy.deepcopy(norm).double()(x.double()))


def assert_near(found: Tensor, exact: Tensor) -> None:
    torch.testing.assert_close(found.double(), exact, rtol=ROUNDING, atol=ROUNDING / 4)


@given(
    st.integers(1, 3), st.sampled_from([1, 2, 4]), st.integers(1, 9), st.integers(2, 40),
    st.integers(1, 40), st.sampled_from([0.0, 3.0, -40.0]),
)  # fmt: skip
@settings(max_examples=40)
def test_norm_and_swish_equal_torch_in_double_precision(images, groups, width, h, w, mean):
    x, norm = features(images, groups * width, h, w, mean=mean), a_norm(groups * width, groups)
    before = x.clone()
    with torch.no_grad():
        assert_near(norm_swish(x, norm), exactly(x, norm))
    assert torch.equal(x, before)


@pytest.mark.parametrize("threads", [1, 3])
def test_large_maps_are_summed_in_parts_by_all_threads(threads):
    x, norm = features(2, 8, 90, 70), a_norm(8, 4)
    assert x[0, 0].numel() > 3 * _PART
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            found = norm_swish(x, norm)
    finally:
        torch.set_num_threads(before)
    assert_near(found, exactly(x, norm))
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_the_swish_of_large_numbers_is_the_number_or_zero():
    norm = nn.GroupNorm(1, 2, eps=1e-6).to(BF16)
    with torch.no_grad():
        norm.weight.fill_(1e4)
        x = torch.tensor([[-1.0, 1.0]]).view(1, 2, 1, 1).to(BF16)
        found = norm_swish(x.contiguous(memory_format=torch.channels_last), norm).flatten()
    assert found[0].abs() < 1e-30
    assert found[1] == 9984


def test_a_flat_map_becomes_the_swish_of_the_bias():
    norm = a_norm(4, 2)
    x = torch.full((1, 4, 3, 3), 7.0, dtype=BF16).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        found = norm_swish(x, norm)
    assert_near(found, F.silu(norm.bias.double()).view(1, 4, 1, 1).expand(x.shape))


@pytest.mark.skipif(not _can_add(), reason="this CPU has no convolutions in bfloat16")
@pytest.mark.parametrize("kernel", [1, 3])
def test_a_convolution_adds_to_the_shortcut(kernel):
    conv = nn.Conv2d(8, 16, kernel, padding=kernel // 2).to(BF16)
    x, shortcut = features(2, 8, 7, 9), features(2, 16, 7, 9, seed=3)
    exact = shortcut.double() + copy.deepcopy(conv).double()(x.double())
    with torch.no_grad():
        found = add_conv(shortcut, conv, x)
    assert found.data_ptr() == shortcut.data_ptr()
    assert_near(found, exact)


def test_with_gradients_torch_computes_everything():
    block = ResnetBlock(8, 8, 4).to(BF16)
    x = features(1, 8, 5, 5).requires_grad_()
    before = x.detach().clone()
    block(x).sum().backward()
    assert torch.equal(x, before)
    assert x.grad is not None
    assert all(parameter.grad is not None for parameter in block.parameters())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_folded_upsampling_is_upsampling_and_a_convolution(layout):
    torch.manual_seed(0)
    upsample = Upsample(6)
    x = torch.randn(2, 6, 5, 3).contiguous(memory_format=layout)
    with torch.no_grad():
        plain = upsample(x)
        upsample.fold()
        folded = upsample(x)
    assert folded.is_contiguous(memory_format=layout)
    torch.testing.assert_close(folded, plain, rtol=0, atol=1e-6)
    upsample(x).sum().backward()  # gradients use the original weights
    assert upsample.conv.weight.grad is not None
    assert list(upsample.state_dict()) == ["conv.weight", "conv.bias"]


def test_a_converted_decoder_is_equal_in_float32_and_close_in_bfloat16():
    model = tiny()
    codes = model.encode(some_images())
    with torch.inference_mode():
        exact = model.decode(codes)
        fast = model.decoding_in(torch.float32).decode(codes)
        half = model.decoding_in(BF16).decode(codes)
        after = model.decode(codes)
    torch.testing.assert_close(fast, exact, rtol=0, atol=1e-5)
    assert (to_uint8(half).int() - to_uint8(exact).int()).abs().float().mean() < 1
    assert torch.equal(after, exact)  # they are copies


def test_a_converted_copy_shares_encoder_and_codebook():
    model = tiny()
    copied = model.decoding_in(BF16)
    assert copied.encoder is model.encoder
    assert copied.quantize is model.quantize
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert {p.dtype for p in copied.decoder.parameters()} == {BF16}
