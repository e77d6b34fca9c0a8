import pytest
import torch
from torch import nn

from artist.models.packed_linear import can_pack, packed

DTYPES = [torch.float32, torch.bfloat16]


@pytest.fixture
def layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(40, 24), nn.GELU(), nn.Linear(24, 50, bias=False))


@pytest.mark.parametrize("dtype", DTYPES)
def test_this_build_of_torch_can_pack(dtype):
    """Elsewhere sampling still works, a third slower; then skip this test."""
    assert can_pack(torch.device("cpu"), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 2, 4])
@pytest.mark.parametrize("shape", [(1, 40), (4, 40), (3, 7, 40), (2, 200, 40)])
@torch.no_grad()
def test_packed_layers_equal_plain_ones(layers, dtype, shape, rows):
    x = torch.randn(shape)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        plain = layers(x)
        with packed(layers, rows, dtype):
            found = layers(x)
    assert found.dtype == dtype == plain.dtype
    torch.testing.assert_close(
        found, plain, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-5
    )


@torch.no_grad()
def test_layers_are_restored_afterwards(layers):
    x = torch.randn(2, 40)
    with pytest.raises(RuntimeError, match="stopped"), packed(layers, 4, torch.float32):
        raise RuntimeError("stopped")
    layers[0].weight.zero_()
    layers[0].bias.zero_()
    assert not layers(x).any()


def test_other_devices_and_precisions_are_not_packed(layers):
    assert not can_pack(torch.device("meta"), torch.float32)
    with packed(layers, 2, torch.float16):
        assert not any("forward" in vars(layer) for layer in layers)
