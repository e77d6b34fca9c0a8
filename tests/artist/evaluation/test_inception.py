"""The FID network: its tensors are the published file's, its poolings TensorFlow's."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from artist.evaluation.inception import Inception, Mixed8, average, load_inception, maximum
from data.errors import InputError

BLOCKS = {  # the branches of each block of Inception-v3, and the channels that leave the block
    "Mixed_5b": ("1x1 5x5_1 5x5_2 3x3dbl_1 3x3dbl_2 3x3dbl_3 _pool", 256),
    "Mixed_5c": ("1x1 5x5_1 5x5_2 3x3dbl_1 3x3dbl_2 3x3dbl_3 _pool", 288),
    "Mixed_5d": ("1x1 5x5_1 5x5_2 3x3dbl_1 3x3dbl_2 3x3dbl_3 _pool", 288),
    "Mixed_6a": ("3x3 3x3dbl_1 3x3dbl_2 3x3dbl_3", 768),
    **{
        f"Mixed_6{x}": (
            "1x1 7x7_1 7x7_2 7x7_3 7x7dbl_1 7x7dbl_2 7x7dbl_3 7x7dbl_4 7x7dbl_5 _pool",
            768,
        )
        for x in "bcde"
    },
    "Mixed_7a": ("3x3_1 3x3_2 7x7x3_1 7x7x3_2 7x7x3_3 7x7x3_4", 1280),
    **{
        f"Mixed_7{x}": (
            "1x1 3x3_1 3x3_2a 3x3_2b 3x3dbl_1 3x3dbl_2 3x3dbl_3a 3x3dbl_3b _pool",
            2048,
        )
        for x in "bc"
    },
}
STEM = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3")


def random_inception() -> Inception:
    """The network with weights that keep features of the order of one through all its layers."""
    torch.manual_seed(0)
    network = Inception().eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return network


@pytest.fixture(scope="module")
def network() -> Inception:
    return random_inception()


def published(network: Inception) -> dict[str, torch.Tensor]:
    state = network.state_dict()
    return {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}


def test_names_and_number_of_values_are_the_published_files(network):
    layers = {*STEM, *(f"{b}.branch{n}" for b, (names, _) in BLOCKS.items() for n in names.split())}
    parts = ("conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")
    state = published(network)
    assert set(state) == {f"{x}.{p}" for x in layers for p in parts} | {"fc.weight", "fc.bias"}
    assert len(layers) == 94
    assert sum(t.numel() for t in state.values()) == 23_885_392
    # Of the same architecture without its head, Keras counts these; it has no scale in its norms.
    scales = sum(t.numel() for k, t in state.items() if k.endswith("bn.weight"))
    head = state["fc.weight"].numel() + state["fc.bias"].numel()
    assert 23_885_392 - head - scales == 21_802_784


def test_shapes_are_those_of_the_architecture(network):
    state = published(network)
    for name, shape in {
        "Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3),
        "Conv2d_4a_3x3.conv.weight": (192, 80, 3, 3),
        "Mixed_5b.branch5x5_2.conv.weight": (64, 48, 5, 5),
        "Mixed_5b.branch_pool.conv.weight": (32, 192, 1, 1),
        "Mixed_6a.branch3x3.conv.weight": (384, 288, 3, 3),
        "Mixed_6b.branch7x7_2.conv.weight": (128, 128, 1, 7),
        "Mixed_6c.branch7x7dbl_2.conv.weight": (160, 160, 7, 1),
        "Mixed_6e.branch7x7_3.conv.weight": (192, 192, 7, 1),
        "Mixed_7a.branch3x3_2.conv.weight": (320, 192, 3, 3),
        "Mixed_7b.branch3x3dbl_1.conv.weight": (448, 1280, 1, 1),
        "Mixed_7c.branch3x3_2a.conv.weight": (384, 384, 1, 3),
        "Mixed_7c.branch3x3dbl_3b.conv.weight": (384, 384, 3, 1),
        "fc.weight": (1008, 2048),
    }.items():
        assert state[name].shape == shape, name
    assert {m.eps for m in network.modules() if isinstance(m, nn.BatchNorm2d)} == {0.001}
    assert {m.bias for m in network.modules() if isinstance(m, nn.Conv2d)} == {None}


def test_the_blocks_return_maps_of_the_published_sizes(network):
    sides = {"5": 35, "6": 17, "7": 8}
    seen = {}
    hooks = [
        getattr(network, name).register_forward_hook(
            lambda _, __, out, name=name: seen.__setitem__(name, tuple(out.shape))
        )
        for name in BLOCKS
    ]
    with torch.inference_mode():
        found = network(torch.zeros(2, 3, 299, 299))
    for hook in hooks:
        hook.remove()
    assert found.pooled.shape == (2, 2048)
    assert found.logits.shape == (2, 1008)
    for name, (_, channels) in BLOCKS.items():
        side = sides[name[6]]
        assert seen[name] == (2, channels, side, side)


def slowly(x: np.ndarray, how) -> np.ndarray:
    """Pooling over 3x3 within the image."""
    out = np.empty_like(x)
    for (b, c, h, w), _ in np.ndenumerate(x):
        out[b, c, h, w] = how(x[b, c, max(h - 1, 0) : h + 2, max(w - 1, 0) : w + 2])
    return out


def test_pooling_excludes_the_padding():
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 4)).astype(np.float32) - 5
    np.testing.assert_allclose(average(torch.from_numpy(x)), slowly(x, np.mean), rtol=1e-5)
    np.testing.assert_allclose(maximum(torch.from_numpy(x)), slowly(x, np.max), rtol=1e-6)


def test_only_the_last_block_pools_by_maximum(network):
    pools = {n: m.pool for n, m in network.named_modules() if isinstance(m, Mixed8)}
    assert pools == {"Mixed_7b": average, "Mixed_7c": maximum}


def test_the_logits_exclude_the_bias(network):
    x = torch.rand(1, 3, 299, 299)
    with torch.no_grad():
        found = network(x)
        network.fc.bias.add_(100)
        again = network(x)
        network.fc.bias.sub_(100)
        torch.testing.assert_close(found.logits, found.pooled @ network.fc.weight.T)
    assert torch.equal(found.logits, again.logits)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_are_loaded_and_marked_as_not_the_published_file(network, tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    state = {k: v.contiguous() for k, v in published(network).items()}
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    found = load_inception(path)
    assert not found.published
    assert not found.network.training
    x = torch.rand(1, 3, 299, 299)
    with torch.inference_mode():
        want = network(x).pooled
        assert 0.1 < want.std() < 100
        torch.testing.assert_close(found.network(x).pooled, want)


def test_another_network_is_refused_with_what_is_missing(network, tmp_path):
    path = tmp_path / "weights.pth"
    state = dict(published(network))
    state["AuxLogits.fc.weight"] = state.pop("Mixed_7c.branch_pool.conv.weight")
    state["fc.weight"] = torch.zeros(1000, 2048)
    torch.save(state, path)
    with pytest.raises(InputError) as error:
        load_inception(path)
    message = str(error.value)
    assert "missing Mixed_7c.branch_pool.conv.weight" in message
    assert "unexpected AuxLogits.fc.weight" in message
    assert "fc.weight is (1000, 2048), expected (1008, 2048)" in message
    assert "use pt_inception-2015-12-05-6726825d.pth" in message


@pytest.mark.parametrize("content", [b"", b"no weights", None])
def test_an_unreadable_file_is_refused_by_name(tmp_path, content):
    path = tmp_path / "weights.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"weights\.pth"):
        load_inception(path)
