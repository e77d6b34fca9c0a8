"""Imported EasyNLP directories sample the released code's codes; exports equal the originals.

The directory is built from the golden weights: a GPT of 2 layers and a VQGAN, both of 64 codes.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import load_file

from artist.formats.easynlp import WEIGHTS, export_easynlp, import_easynlp
from artist.formats.model_folder import load_model
from artist.formats.state_dict import to_easynlp
from artist.generation.config import SamplingConfig
from artist.generation.sampling import sample
from artist.models.config import EASYNLP_ENTITIES, GPTConfig, VQGANConfig
from artist.models.gpt import GPT
from artist.models.vqgan import VQGAN
from artist.training import config as settings
from data.errors import ConfigError, InputError
from data.kg_folder import ENTITY_NAMES, VECTORS, VECTORS_KEY, write_names
from tests.parity.test_gpt_parity import entities_of, released

pytestmark = pytest.mark.parity
SIZES = {"vocab_size": 164, "img_vocab_size": 64, "text_vocab_size": 100, "block_size": 288,
         "n_layer": 2, "n_head": 2, "n_embd": 32}  # fmt: skip
PIXELS = 32  # 16 x 16 codes at f2


def make_directory(golden: Path, folder: Path, name: str) -> dict[str, torch.Tensor]:
    """Write an EasyNLP directory and return its tensors."""
    folder.mkdir()
    gpt = released(load_file(golden / f"{name}.safetensors"))
    vqgan = load_file(golden / "vq_tiny_f2.safetensors")
    parts = ("encoder.", "decoder.", "quantize.", "quant_conv.", "post_quant_conv.")
    tensors = {f"transformer.{k}": v for k, v in gpt.items()}
    mask = torch.tril(torch.ones(288, 288))[None, None]
    tensors |= {f"transformer.blocks.{n}.attn.mask": mask.clone() for n in range(2)}
    tensors |= {f"first_stage_model.{k}": v for k, v in vqgan.items() if k.startswith(parts)}
    torch.save(tensors, folder / WEIGHTS)
    (folder / "config.json").write_text(json.dumps({"model_type": "artist", **SIZES}))
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map(chr, range(0x4E00, 0x4E00 + 95))]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    return tensors


def make_kg(folder: Path, vectors: torch.Tensor) -> Path:
    folder.mkdir()
    write_names(folder / ENTITY_NAMES, [f"实体{n}" for n in range(len(vectors))])
    save_file({VECTORS_KEY: np.ascontiguousarray(vectors.numpy())}, folder / VECTORS)
    return folder


def test_an_imported_painter_samples_the_codes_of_the_released_one(golden, tmp_path):
    make_directory(golden, tmp_path / "theirs", "painter_tiny")
    report = import_easynlp(tmp_path / "theirs", tmp_path / "ours", resolution=PIXELS)
    assert report.fusion == "none"
    model = load_model(tmp_path / "ours")
    vectors = load_file(golden / "painter_tiny.safetensors")
    codes = sample(model.gpt, vectors["ids"][:, :32], None, [0, 0, 0], SamplingConfig(top_k=1))
    assert torch.equal(codes, vectors["greedy_ids"])
    images = model.image_tokenizer.decode(codes)
    assert images.shape == (3, 3, PIXELS, PIXELS)


def test_an_imported_knowl_model_samples_the_codes_of_the_released_one(golden, tmp_path):
    make_directory(golden, tmp_path / "theirs", "knowl_tiny")
    vectors = load_file(golden / "knowl_tiny.safetensors")
    kg = make_kg(tmp_path / "kg", vectors["entity_table"])
    with pytest.raises(ConfigError, match="a model with entity embeddings"):
        import_easynlp(tmp_path / "theirs", tmp_path / "ours", resolution=PIXELS)
    import_easynlp(tmp_path / "theirs", tmp_path / "ours", kg=kg, resolution=PIXELS)
    model = load_model(tmp_path / "ours")
    assert model.gpt.config.max_entities == 10
    text, greedy = vectors["ids"][:, :32], SamplingConfig(top_k=1)
    codes = sample(model.gpt, text, entities_of(vectors), [0, 0, 0], greedy)
    assert torch.equal(codes, vectors["greedy_ids"])


def test_weights_in_the_older_torch_format_are_equal(golden, tmp_path):
    tensors = make_directory(golden, tmp_path / "theirs", "painter_tiny")
    torch.save(tensors, tmp_path / "theirs" / WEIGHTS, _use_new_zipfile_serialization=False)
    import_easynlp(tmp_path / "theirs", tmp_path / "ours", resolution=PIXELS)
    export_easynlp(tmp_path / "ours", tmp_path / "back")
    back = torch.load(tmp_path / "back" / WEIGHTS, weights_only=True)
    assert all(torch.equal(back[k], tensors[k]) for k in tensors)


@pytest.mark.parametrize("name", ["painter_tiny", "knowl_tiny"])
def test_an_exported_directory_equals_the_imported_one(golden, tmp_path, name):
    theirs = make_directory(golden, tmp_path / "theirs", name)
    kg = make_kg(tmp_path / "kg", torch.zeros(40, 100))
    import_easynlp(tmp_path / "theirs", tmp_path / "ours", kg=kg, resolution=PIXELS)
    export_easynlp(tmp_path / "ours", tmp_path / "back")
    back = torch.load(tmp_path / "back" / WEIGHTS, weights_only=True)
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[k], theirs[k]) for k in theirs)
    config = json.loads((tmp_path / "back" / "config.json").read_text())
    assert {k: config[k] for k in SIZES} == SIZES
    assert (tmp_path / "back" / "vocab.txt").read_text() == (
        tmp_path / "theirs" / "vocab.txt"
    ).read_text()


def test_errors_name_the_fault_of_a_directory(golden, tmp_path):
    theirs, out = tmp_path / "theirs", tmp_path / "ours"
    tensors = make_directory(golden, theirs, "painter_tiny")
    with pytest.raises(InputError, match=r"config\.json is missing"):
        import_easynlp(tmp_path, out)
    with pytest.raises(InputError, match="leaves no room for text"):
        import_easynlp(theirs, out, resolution=64)
    for change, message in [
        ({"transformer.ln_f.bias": None}, r"missing ln_f\.bias"),
        ({"transformer.blocks.0.attn.key.bias": None}, r"lacks blocks\.0\.attn\.key\.bias"),
        ({"transformer.surplus": torch.zeros(1)}, "unexpected surplus"),
        ({"optimizer.step": torch.zeros(1)}, "neither transformer"),
        ({"first_stage_model.quant_conv.bias": None}, r"missing quant_conv\.bias"),
    ]:
        shutil.rmtree(tmp_path / "changed", ignore_errors=True)
        shutil.copytree(theirs, tmp_path / "changed")
        changed = {k: v for k, v in (tensors | change).items() if v is not None}
        torch.save(changed, tmp_path / "changed" / WEIGHTS)
        with pytest.raises(InputError, match=message):
            import_easynlp(tmp_path / "changed", out, resolution=PIXELS, overwrite=True)
    torch.save([torch.zeros(1)], theirs / WEIGHTS)
    with pytest.raises(InputError, match="does not contain tensors by name"):
        import_easynlp(theirs, out, resolution=PIXELS, overwrite=True)
    (theirs / WEIGHTS).write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="cannot be loaded"):
        import_easynlp(theirs, out, resolution=PIXELS, overwrite=True)
    assert not out.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "fusion", "parameters"),
    [
        ("base", "none", 126_669_312),
        ("base", "easynlp", 126_669_312 + 77_568),
        ("large", "none", 357_795_840),
    ],
)
def test_exports_of_the_real_sizes_equal_the_imports(tmp_path, size, fusion, parameters):
    """Random weights; the numbers of parameters are those of the released models."""
    torch.manual_seed(0)
    config = GPTConfig(fusion=fusion, max_entities=EASYNLP_ENTITIES, **settings.SIZES[size])
    gpt = to_easynlp(GPT(config).state_dict(), config.block_size)
    tensors = {f"transformer.{name}": tensor for name, tensor in gpt.items()}
    vqgan = VQGAN(VQGANConfig())
    tensors |= {f"first_stage_model.{k}": v for k, v in vqgan.state_dict().items()}
    assert sum(k.startswith("first_stage_model.") for k in tensors) == 343
    assert len(gpt) == {"base": 209, "large": 413}[size] + (2 if fusion == "easynlp" else 0)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    torch.save(tensors, theirs / WEIGHTS)
    sizes = {
        "vocab_size": config.vocab_size,
        "img_vocab_size": config.image_vocab_size,
        "text_vocab_size": config.text_vocab_size,
        "block_size": config.block_size,
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_embd": config.n_embd,
    }
    (theirs / "config.json").write_text(json.dumps({"model_type": "artist", **sizes}))
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words += [f"[unused{n}]" for n in range(config.text_vocab_size - len(words))]
    (theirs / "vocab.txt").write_text("\n".join(words) + "\n")
    kg = make_kg(tmp_path / "kg", torch.zeros(4, config.entity_dim))

    report = import_easynlp(theirs, tmp_path / "ours", kg=kg if fusion == "easynlp" else None)
    assert report.fusion == fusion
    assert report.parameters == parameters
    assert report.vqgan_parameters == 76_073_859
    export_easynlp(tmp_path / "ours", tmp_path / "back")
    back = torch.load(tmp_path / "back" / WEIGHTS, weights_only=True, mmap=True)
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[k], tensors[k]) for k in tensors)
