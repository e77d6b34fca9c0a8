from pathlib import Path

import numpy as np
import pytest
import torch

from artist.formats.vgg import load_vgg
from artist.models.perceptual import VGGFeatures
from artist.training.config import VQGANTrainConfig
from artist.training.vqgan_training import train_vqgan
from data.errors import ConfigError, InputError
from data.runs import read_manifest
from tests.artist.training.test_vqgan_training import write_tsv


@pytest.fixture(scope="module")
def vgg(tmp_path_factory) -> Path:
    """Write random weights with the names of torchvision's file, classifier included."""
    torch.manual_seed(0)
    state = VGGFeatures().state_dict() | {"classifier.0.weight": torch.zeros(2, 2)}
    path = tmp_path_factory.mktemp("vgg") / "vgg16.pth"
    torch.save(state, path)
    return path


def test_the_network_has_the_tensors_of_vgg16():
    state = VGGFeatures().state_dict()
    convolutions = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)  # torchvision's numbers
    assert set(state) == {
        f"features.{n}.{leaf}" for n in convolutions for leaf in ("weight", "bias")
    }
    assert sum(t.numel() for t in state.values()) == 14_714_688


def test_the_distance_equals_its_formula(vgg):
    torch.manual_seed(1)
    model = load_vgg(vgg)
    a, b = (torch.rand(2, 3, 32, 32) * 2 - 1 for _ in range(2))
    mean = torch.tensor([0.485, 0.456, 0.406])[None, :, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[None, :, None, None]
    x, y = (((image + 1) / 2 - mean) / std for image in (a, b))
    parts = []
    for n, layer in enumerate(model.features):
        if n in (4, 9, 16, 23, 30):
            unit = [f / f.square().sum(1, keepdim=True).sqrt() for f in (x, y)]
            parts.append((unit[0] - unit[1]).square().sum(1).mean())
        x, y = (layer(x), layer(y)) if n < 30 else (x, y)
    torch.testing.assert_close(model.distance(a, b), sum(parts) / 5)
    assert model.distance(a, a) == 0


def test_only_the_generated_images_get_a_gradient(vgg):
    model = load_vgg(vgg)
    image, original = (torch.rand(1, 3, 16, 16).requires_grad_() for _ in range(2))
    model.distance(image, original).backward()
    assert image.grad is not None
    assert image.grad.abs().sum() > 0
    assert original.grad is None
    assert all(p.grad is None for p in model.parameters())


def test_other_weights_are_refused(tmp_path, vgg):
    state = torch.load(vgg, weights_only=True)
    del state["features.28.bias"]
    torch.save(state, tmp_path / "less.pth")
    with pytest.raises(InputError, match=r"missing features\.28\.bias"):
        load_vgg(tmp_path / "less.pth")
    (tmp_path / "noise.pth").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"vgg16-397923af\.pth"):
        load_vgg(tmp_path / "noise.pth")


def test_a_vqgan_trains_with_the_perceptual_loss(tmp_path, vgg):
    rng = np.random.default_rng(0)
    table = write_tsv(tmp_path / "t.tsv", rng.integers(0, 256, (6, 16, 16, 3), np.uint8))
    config = VQGANTrainConfig(
        resolution=16, downsample=8, codebook_size=8, ch=16, steps=3, batch_size=2, precision="fp32"
    )
    train_vqgan(table, tmp_path / "plain", config=config, device="cpu")
    train_vqgan(table, tmp_path / "seen", config=config, vgg=vgg, device="cpu")
    plain, seen = (read_manifest(tmp_path / name) for name in ("plain", "seen"))
    assert "vgg" in seen.inputs
    assert plain.files["model.safetensors"] != seen.files["model.safetensors"]
    small = VQGANTrainConfig(resolution=8, downsample=8, codebook_size=8, ch=16)
    with pytest.raises(ConfigError, match="16 pixels"):
        train_vqgan(table, tmp_path / "no", config=small, vgg=vgg, device="cpu")


def test_features_have_the_sizes_of_five_scales():
    torch.manual_seed(0)
    shapes = [tuple(f.shape[1:]) for f in VGGFeatures()(torch.zeros(1, 3, 64, 64))]
    assert shapes == [(64, 64, 64), (128, 32, 32), (256, 16, 16), (512, 8, 8), (512, 4, 4)]
