"""Text-image match by a Chinese CLIP: a tiny random one, really saved and loaded."""

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from artist.evaluation.clip_score import match
from artist.generation.text_image_scorer import load_text_image_scorer
from data.errors import InputError

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"红蓝狗猫在草上跑的一只"]


def save_clip(folder: Path, words: list[str] = WORDS) -> Path:
    """A Chinese CLIP of width 8 with random weights, as transformers writes it."""
    from transformers import (
        ChineseCLIPConfig,
        ChineseCLIPModel,
        ChineseCLIPTextConfig,
        ChineseCLIPVisionConfig,
    )

    small = {
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 16,
    }
    text = ChineseCLIPTextConfig(vocab_size=len(WORDS), max_position_embeddings=64, **small)
    vision = ChineseCLIPVisionConfig(image_size=16, patch_size=8, **small)
    torch.manual_seed(0)
    config = ChineseCLIPConfig(
        text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=6
    )
    model = ChineseCLIPModel(config)
    for p in model.parameters():  # the library's small weights would make all vectors alike
        torch.nn.init.normal_(p, std=0.3)
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip"))


def noise(n: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (12 + k, 20, 3)).astype(np.uint8) for k in range(n)]


def test_vectors_are_those_of_transformers_own_model(clip):
    from transformers import BertTokenizer, ChineseCLIPModel

    scorer = load_text_image_scorer(clip)
    texts = ["一只狗在草上跑", "红的猫"]
    model = ChineseCLIPModel.from_pretrained(clip)
    tokens = BertTokenizer.from_pretrained(clip)(texts, padding=True, return_tensors="pt")
    assert tokens["input_ids"][0, 0] == WORDS.index("[CLS]")
    pixels = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        both = model(**tokens, pixel_values=pixels)
    torch.testing.assert_close(scorer.texts(texts), both.text_embeds, rtol=1e-4, atol=1e-5)
    seen = scorer._image_features(list(pixels))
    seen = seen / seen.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(seen, both.image_embeds, rtol=1e-4, atol=1e-5)


def test_images_are_resized_and_normalised_as_clip_expects(clip):
    white = np.full((30, 50, 3), 255, dtype=np.uint8)
    x = load_text_image_scorer(clip)._prepare(white)
    assert x.shape == (3, 16, 16)
    want = [(1 - 0.48145466) / 0.26862954, (1 - 0.4578275) / 0.26130258]
    assert x[:2, 3, 3].tolist() == pytest.approx(want, abs=1e-5)


def test_neither_batches_nor_padding_change_a_vector(clip):
    scorer = load_text_image_scorer(clip)
    texts = ["狗", "一只红的狗在草上跑", "猫"]
    torch.testing.assert_close(
        scorer.texts(texts, batch_size=1), scorer.texts(texts), rtol=1e-4, atol=1e-5
    )
    images = noise(5)
    torch.testing.assert_close(
        scorer.images(images, batch_size=2), scorer.images(images), rtol=1e-4, atol=1e-5
    )
    long = "红" * 100
    torch.testing.assert_close(scorer.texts([long]), scorer.texts([long[:50]]))


def test_r_precision_is_the_mean_over_all_choices_of_candidates():
    torch.manual_seed(0)
    images, texts = (torch.nn.functional.normalize(torch.randn(7, 3), dim=-1) for _ in range(2))
    captions = ["a", "b", "c", "d", "e", "e", "f"]
    found, own = match(images, texts, captions, clip="", candidates=4)
    scores = (images @ texts.T).numpy()
    want = []
    for n in range(7):
        others = [m for m in range(7) if captions[m] != captions[n]]
        wins = [all(scores[n, m] < scores[n, n] for m in some) for some in combinations(others, 3)]
        want.append(np.mean(wins))
    assert found.r_precision.mean == pytest.approx(np.mean(want))
    assert found.candidates == 4
    assert found.chance == 0.25
    assert found.score.mean == pytest.approx(100 * np.diag(scores).mean(), rel=1e-5)
    np.testing.assert_allclose(own, 100 * np.diag(scores), rtol=1e-5)


def test_perfect_images_have_r_precision_one_and_random_ones_chance():
    unit = torch.nn.functional.normalize(torch.randn(300, 64), dim=-1)
    captions = [str(n) for n in range(300)]
    perfect, _ = match(unit, unit, captions, clip="")
    assert perfect.r_precision.mean == 1
    assert perfect.candidates == 100
    assert perfect.score.mean == pytest.approx(100, rel=1e-4)
    assert abs(perfect.score_of_others.mean) < 2
    random, _ = match(torch.roll(unit, 1, 0), unit, captions, clip="")
    assert random.r_precision.mean < 0.05


def test_a_tie_is_not_a_win():
    same = torch.ones(5, 2) / 2**0.5
    found, _ = match(same, same, list("abcde"), clip="")
    assert found.r_precision.mean == 0


def test_equal_captions_are_never_candidates_for_each_other():
    unit = torch.eye(3)
    found, _ = match(unit, unit, ["a", "a", "a"], clip="")
    assert found.candidates == 1
    assert np.isnan(found.score_of_others.mean)


def test_another_model_or_a_broken_folder_is_refused_by_name(clip, tmp_path):
    with pytest.raises(InputError, match=r"config\.json is missing"):
        load_text_image_scorer(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(InputError, match="is a 'bert' model; a Chinese CLIP is required"):
        load_text_image_scorer(tmp_path)
    (tmp_path / "config.json").write_bytes((clip / "config.json").read_bytes())
    with pytest.raises(InputError, match="cannot be loaded as a Chinese CLIP"):
        load_text_image_scorer(tmp_path)


def test_missing_tensors_are_refused(clip, tmp_path):
    from safetensors.torch import load_file, save_file

    for file in clip.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    state = load_file(clip / "model.safetensors")
    del state["text_projection.weight"]
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="lacks 1 of a Chinese CLIP's tensors, the first is text_"):
        load_text_image_scorer(tmp_path)


def test_another_vocabulary_is_refused(tmp_path):
    with pytest.raises(InputError, match="the tokenizer has"):
        load_text_image_scorer(save_clip(tmp_path, WORDS[:-3]))
