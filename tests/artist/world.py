"""A tiny but whole set of artefacts, all really written: tokenizer, KG, VQGAN, tables with codes.

Codes follow from the entity alone: entity k is drawn as codes k, k, ..., and half of the names are
missing from the training table. So a model can be seen to learn what its entities say.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from safetensors.numpy import save_file

from artist.formats.image_tokenizer_folder import load_image_tokenizer, save_image_tokenizer
from artist.models.config import VQGANConfig
from artist.models.vqgan import VQGAN
from artist.training.config import TrainConfig
from data.kg_folder import ENTITY_NAMES, VECTORS, VECTORS_KEY, kg_fingerprint, write_names
from data.schema import CODES, LATTICE, table_writer, with_metadata
from data.tokenizer import Tokenizer

NAMES = ["花椰菜", "西兰花", "大象", "老虎", "火车", "飞机", "小狗", "玫瑰"]
VQ = VQGANConfig(
    resolution=8,
    ch=8,
    ch_mult=(1, 2),
    num_res_blocks=1,
    attn_resolutions=(),
    z_channels=8,
    codebook_size=8,
    codebook_embed_dim=4,
    norm_groups=4,
)  # codes 4 x 4
QUICK = TrainConfig(
    size="nano",
    text_len=6,
    batch_size=4,
    epochs=3,
    learning_rate=1e-3,
    validations=3,
    precision="fp32",
)


@dataclass(frozen=True)
class World:
    """Paths of the artefacts."""

    kg: Path
    vqgan: Path
    train: Path
    valid: Path
    tokenizer: Path


def make_world(folder: Path, rows: int = 16) -> World:
    """Write everything that `finetune` reads."""
    kg, vqgan = folder / "kg", folder / "vqgan"
    kg.mkdir(parents=True)
    write_names(kg / ENTITY_NAMES, NAMES)
    vectors = np.eye(len(NAMES), 100, dtype=np.float32)
    save_file({VECTORS_KEY: vectors}, kg / VECTORS)
    torch.manual_seed(0)
    save_image_tokenizer(vqgan, VQGAN(VQ))
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(set("".join(NAMES)) | {"##a"})]
    (folder / "vocab.txt").write_text("\n".join(vocab) + "\n", encoding="utf-8")
    tokenizer = Tokenizer.load(folder / "vocab.txt")
    tables = {}
    for name, seed in (("train", 1), ("valid", 2)):
        path = folder / f"{name}.parquet"
        tables[name] = path
        write_table(path, kg, vqgan, tokenizer, rows, seed)
        (folder / f"{name}.parquet.tokenizer").mkdir()
        tokenizer.save(folder / f"{name}.parquet.tokenizer")
    return World(kg, vqgan, tables["train"], tables["valid"], folder / "vocab.txt")


def write_table(
    path: Path, kg: Path, vqgan: Path, tokenizer: Tokenizer, rows: int, seed: int
) -> None:
    """A lattice table with codes, whose captions are names."""
    rng = np.random.default_rng(seed)
    entities = rng.integers(0, len(NAMES), rows)
    records = []
    for n, (entity, tokens) in enumerate(
        zip(entities, tokenizer.encode([NAMES[e] for e in entities]), strict=True)
    ):
        length = len(tokens.ids)
        records.append(
            {
                "idx": str(n),
                "text": NAMES[entity],
                "input_ids": tokens.ids,
                "seq_len": length,
                "lex_ids": [entity],
                "pos_s": [*range(length), 0],
                "pos_e": [*range(length), length - 1],
                "codes": [entity] * VQ.image_len,
            }
        )
    schema = with_metadata(
        LATTICE.append(CODES),
        {
            "tokenizer_fingerprint": tokenizer.fingerprint,
            "kg_fingerprint": kg_fingerprint(kg),
            "vqgan_fingerprint": load_image_tokenizer(vqgan).fingerprint(),
            "settings": {},
        },
    )
    with table_writer(path, schema) as writer:
        writer.write_table(pa.Table.from_pylist(records, schema=schema))
