"""The VQGAN against golden vectors of the reference implementation (see golden/README.md)."""

import json
from binascii import crc32
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from artist.models.config import VQGANConfig
from artist.models.image_tokenizer import to_uint8
from artist.models.vqgan import VQGAN
from tests.artist.codebook import codebook_loss, through_codebook

GOLDEN = Path(__file__).parents[2].parent / "shared" / "golden"

pytestmark = [
    pytest.mark.parity,
    pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"golden vectors are not at {GOLDEN}"),
]


def fill(key: str, shape: tuple[int, ...], offset: float, scale: float) -> torch.Tensor:
    """Return values by the integer-hash formula of the golden README."""
    i = np.arange(int(np.prod(shape)), dtype=np.uint64)
    h = (i * 2654435761 + crc32(key.encode())) % 2**32
    h ^= h >> np.uint64(16)
    h = h * 0x45D9F3B % 2**32
    h ^= h >> np.uint64(16)
    value = offset + scale * (2.0 * h.astype(np.float64) / 2**32 - 1.0)
    return torch.from_numpy(value.astype(np.float32).reshape(shape))


def fill_weights(model: VQGAN, codebook_scale: float) -> None:
    state = {}
    for key, tensor in model.state_dict().items():
        shape = tuple(tensor.shape)
        if key == "quantize.embedding.weight":
            state[key] = fill(key, shape, 0.0, 1.0) * codebook_scale
        elif key.endswith("bias"):
            state[key] = fill(key, shape, 0.0, 0.05)
        elif len(shape) == 1:
            state[key] = fill(key, shape, 1.0, 0.1)
        else:
            state[key] = fill(key, shape, 0.0, float(np.sqrt(3 / np.prod(shape[1:]))))
    model.load_state_dict(state)


def golden_config(meta: dict[str, object]) -> VQGANConfig:
    sizes = dict(meta["config"])  # type: ignore[call-overload]
    names = {"n_embed": "codebook_size", "embed_dim": "codebook_embed_dim"}
    return VQGANConfig.from_dict({names.get(k, k): v for k, v in sizes.items()})


@pytest.mark.parametrize("name", ["vq_tiny_f2", "vq_small_f16"])
def test_latents_codes_and_images_match_the_reference(name: str) -> None:
    meta = json.loads((GOLDEN / "meta.json").read_text())[name]
    golden = load_file(GOLDEN / f"{name}.safetensors")
    model = VQGAN(golden_config(meta)).eval()
    assert sum(p.numel() for p in model.parameters()) == meta["n_params"]
    fill_weights(model, meta["codebook_scale"])
    stored = {k: v for k, v in golden.items() if k in model.state_dict()}
    for key, tensor in stored.items():  # the formula yields the stored weights
        torch.testing.assert_close(model.state_dict()[key], tensor, rtol=0, atol=1e-7)

    with torch.inference_mode():
        latents = model.encode_latents(golden["image"])
        codes = model.quantise(latents)
        quantised = model.lookup(golden["indices"].flatten(1))
        image = model.decode(golden["indices"].flatten(1))
        output = through_codebook(model, golden["image"])
    torch.testing.assert_close(latents, golden["latent"], rtol=2e-4, atol=2e-5)
    sure = golden["index_margin"].view_as(codes) > 1e-3
    assert sure.any()
    assert torch.equal(codes[sure], golden["indices"].view_as(codes)[sure])
    torch.testing.assert_close(quantised, golden["quant"], rtol=2e-4, atol=2e-5)
    torch.testing.assert_close(image, golden["reconstruction"], rtol=2e-4, atol=2e-5)
    torch.testing.assert_close(output.reconstruction, image, rtol=2e-4, atol=2e-5)
    loss = codebook_loss(output.latents, output.quantised, commitment=0.25)
    torch.testing.assert_close(loss, golden["emb_loss"].squeeze(), rtol=2e-4, atol=2e-5)


def test_the_tiny_model_has_exactly_the_names_of_the_reference() -> None:
    golden = load_file(GOLDEN / "vq_tiny_f2.safetensors")
    meta = json.loads((GOLDEN / "meta.json").read_text())["vq_tiny_f2"]
    keys = VQGAN(golden_config(meta)).state_dict().keys()
    assert set(keys) == {k for k in golden if "." in k}


def test_pixels_are_truncated_as_the_reference_saves_them() -> None:
    golden = json.loads((GOLDEN / "save_image_quantisation.json").read_text())
    pixels = to_uint8(torch.tensor(golden["x"], dtype=torch.float32))
    assert pixels.tolist() == golden["uint8"]
