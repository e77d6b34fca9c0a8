import json
import os
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from artist.formats.image_tokenizer_folder import load_image_tokenizer, save_image_tokenizer
from artist.models.config import VQGANConfig
from artist.models.vqgan import VQGAN
from data.errors import ConfigError, InputError

TINY = VQGANConfig(
    resolution=16,
    ch=32,
    ch_mult=(1, 2),
    num_res_blocks=1,
    attn_resolutions=(8,),
    z_channels=8,
    codebook_size=16,
    codebook_embed_dim=4,
)


def tiny() -> VQGAN:
    torch.manual_seed(0)
    return VQGAN(TINY).eval()


def assert_same(one: VQGAN, other: VQGAN) -> None:
    assert one.config == other.config
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


def test_a_loaded_model_equals_the_saved_one(tmp_path: Path) -> None:
    save_image_tokenizer(tmp_path / "vqgan", tiny())
    assert_same(load_image_tokenizer(tmp_path / "vqgan"), tiny())


def test_a_model_that_decodes_in_bfloat16_is_saved_in_float32(tmp_path: Path) -> None:
    save_image_tokenizer(tmp_path, tiny().decode_in(torch.bfloat16))
    assert load_image_tokenizer(tmp_path).decoder.conv_in.weight.dtype == torch.float32


@pytest.mark.parametrize("shape", ["flat", "wrapped", "prefixed"])
def test_taming_checkpoints_of_all_layouts_load(tmp_path: Path, shape: str) -> None:
    state = dict(tiny().state_dict())
    if shape == "wrapped":
        losses = {"loss.discriminator.main.0.weight": torch.zeros(3)}
        content: dict[str, object] = {"state_dict": state | losses, "global_step": 7}
    elif shape == "prefixed":
        content = {f"first_stage_model.{k}": v for k, v in state.items()}
        content["transformer.head.weight"] = torch.zeros(2, 2)
    else:
        content = dict(state)
    torch.save(content, tmp_path / "last.ckpt")
    assert_same(load_image_tokenizer(tmp_path / "last.ckpt", resolution=16), tiny())


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    state = tiny().state_dict()
    del state["decoder.mid.attn_1.q.bias"]
    torch.save(state, tmp_path / "last.ckpt")
    with pytest.raises(InputError, match=r"missing decoder\.mid\.attn_1\.q\.bias"):
        load_image_tokenizer(tmp_path / "last.ckpt", resolution=16)


def test_an_unexpected_tensor_is_named(tmp_path: Path) -> None:
    torch.save(tiny().state_dict() | {"ema.decay": torch.ones(1)}, tmp_path / "last.ckpt")
    with pytest.raises(InputError, match=r"ema\.decay"):
        load_image_tokenizer(tmp_path / "last.ckpt", resolution=16)


def test_a_gumbel_checkpoint_loads_and_takes_the_code_with_the_highest_score(
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    model = VQGAN(replace(TINY, quantizer="gumbel")).eval()
    state = model.state_dict()
    assert {n for n in state if n.startswith("quantize.")} == {  # taming-transformers' names
        "quantize.proj.weight",
        "quantize.proj.bias",
        "quantize.embed.weight",
    }
    torch.save({"state_dict": state | {"loss.logvar": torch.zeros(1)}}, tmp_path / "last.ckpt")
    loaded = load_image_tokenizer(tmp_path / "last.ckpt", resolution=16)
    assert_same(loaded, model)

    images = torch.rand(2, 3, 16, 16) * 2 - 1
    latents = loaded.encode_latents(images)
    scores = torch.nn.functional.conv2d(
        latents, state["quantize.proj.weight"], state["quantize.proj.bias"]
    )  # as GumbelVQ computes them
    codes = loaded.encode(images)
    assert torch.equal(codes, scores.argmax(1).flatten(1))
    pictures = loaded.decode_latents(state["quantize.embed.weight"][codes].mT.reshape(2, 4, 8, 8))
    assert torch.equal(loaded.decode(codes), pictures)
    save_image_tokenizer(tmp_path / "folder", loaded)
    assert_same(load_image_tokenizer(tmp_path / "folder"), model)


@pytest.mark.parametrize(("size", "width"), [(1024, 256), (300, 7)])
def test_codebooks_of_other_sizes_load(tmp_path: Path, size: int, width: int) -> None:
    model = VQGAN(replace(TINY, codebook_size=size, codebook_embed_dim=width)).eval()
    torch.save(model.state_dict(), tmp_path / "last.ckpt")
    assert_same(load_image_tokenizer(tmp_path / "last.ckpt", resolution=16), model)


def test_files_without_a_vqgan_are_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(2)}, tmp_path / "other.pt")
    (tmp_path / "noise.pt").write_bytes(b"no checkpoint at all")
    with pytest.raises(InputError, match="not a VQGAN checkpoint"):
        load_image_tokenizer(tmp_path / "other.pt")
    with pytest.raises(InputError, match="cannot be loaded"):
        load_image_tokenizer(tmp_path / "noise.pt")
    with pytest.raises(InputError, match="does not exist"):
        load_image_tokenizer(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"config\.json is missing"):
        load_image_tokenizer(tmp_path)


def test_an_unknown_setting_is_an_error_that_offers_the_nearest(tmp_path: Path) -> None:
    save_image_tokenizer(tmp_path, tiny())
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"z_chanels": 3}))
    with pytest.raises(ConfigError, match='did you mean "z_channels"'):
        load_image_tokenizer(tmp_path)


def test_a_truncated_weight_file_is_an_error(tmp_path: Path) -> None:
    save_image_tokenizer(tmp_path, tiny())
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="cannot be read"):
        load_image_tokenizer(tmp_path)


def save_like_lightning(path: Path, content: dict[str, object]) -> None:
    """Save a checkpoint that names classes which are not installed here."""
    module = types.ModuleType("pytorch_lightning.callbacks.model_checkpoint")
    callback = type("ModelCheckpoint", (), {"__module__": module.__name__})
    module.ModelCheckpoint = callback
    with pytest.MonkeyPatch.context() as patch:
        for name in ("pytorch_lightning", "pytorch_lightning.callbacks", module.__name__):
            patch.setitem(sys.modules, name, module)
        instance = callback()
        instance.best_model_path = "epoch=3.ckpt"
        torch.save({**content, "callbacks": {callback: {"best": 0.5}}, "object": instance}, path)


def test_a_checkpoint_as_lightning_writes_it_loads_without_running_code(tmp_path: Path) -> None:
    save_like_lightning(tmp_path / "last.ckpt", {"state_dict": tiny().state_dict(), "epoch": 3})
    assert_same(load_image_tokenizer(tmp_path / "last.ckpt", resolution=16), tiny())


@pytest.mark.parametrize("wrapper", ["model", "ema", "generator", "model_state_dict"])
def test_wrapped_weights_are_recognised(tmp_path: Path, wrapper: str) -> None:
    torch.save({wrapper: tiny().state_dict(), "step": 7}, tmp_path / "last.ckpt")
    assert_same(load_image_tokenizer(tmp_path / "last.ckpt", resolution=16), tiny())


class Evil:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> object:
        return os.mkdir, ("ran",)


def test_a_checkpoint_with_code_is_refused_by_name_and_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": tiny().state_dict(), "x": Evil()}, tmp_path / "evil.ckpt")
    with pytest.raises(InputError, match=r"mkdir, which is not loaded\)") as caught:
        load_image_tokenizer(tmp_path / "evil.ckpt")
    assert "\x1b" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<!DOCTYPE html><html><body>404</body></html>", "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"", "it is empty"),
    ],
)
def test_files_that_are_no_checkpoint_are_named(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    (tmp_path / "last.ckpt").write_bytes(content)
    with pytest.raises(InputError, match=reason):
        load_image_tokenizer(tmp_path / "last.ckpt")


def test_a_truncated_checkpoint_is_called_so(tmp_path: Path) -> None:
    torch.save({"state_dict": tiny().state_dict()}, tmp_path / "last.ckpt")
    content = (tmp_path / "last.ckpt").read_bytes()
    (tmp_path / "last.ckpt").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="it is truncated"):
        load_image_tokenizer(tmp_path / "last.ckpt")
