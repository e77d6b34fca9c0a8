"""A tiny complete set of artefacts: tokenizer, KG, VQGAN, tables with codes; and trainings on it.

The image of entity k consists of codes k, k, ..., and half of the names are missing from the
training table. So the loss shows whether a model uses its entities.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from safetensors.numpy import save_file

from artist.formats.image_tokenizer_folder import load_image_tokenizer, save_image_tokenizer
from artist.models.config import VQGANConfig
from artist.models.vqgan import VQGAN
from artist.training.config import TrainConfig
from artist.training.gpt_training import FinetuneReport, finetune
from data.kg_folder import ENTITY_NAMES, VECTORS, VECTORS_KEY, kg_fingerprint, write_names
from data.schema import CODES, LATTICE, table_writer, with_metadata
from data.tokenizer import Tokenizer
from tests.conftest import ROOT

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

    @property
    def inputs(self) -> dict[str, Path]:
        """Inputs of a training, without its table."""
        return {"valid": self.valid, "kg": self.kg, "vqgan": self.vqgan}

    def command(self, out: Path, *options: object) -> list[str]:
        """Return the words of `artist finetune`."""
        inputs = [word for name, path in self.inputs.items() for word in (f"--{name}", path)]
        words = ["artist", "finetune", self.train, *inputs, "--out", out, *options]
        return [str(ROOT / "cli.py"), *map(str, words)]


def train(world: World, out: Path, init: Path | None = None, **changes: object) -> FinetuneReport:
    """Train a nano model with QUICK, changed as given."""
    config = replace(QUICK, **changes)  # type: ignore[arg-type]
    return finetune(world.train, **world.inputs, out=out, init=init, config=config)


# The same training from a script, with slow steps, so that it can be interrupted.
SLOW_TRAINING = """
import json, os, sys, time
from pathlib import Path
from artist.training.config import TrainConfig
from artist.training.gpt_training import finetune
from artist.training.trainer import Trainer
from data.errors import Interrupted
table, inputs, out, config, wait = (json.loads(word) for word in sys.argv[1:])
step = Trainer._train_step
def slow(self, *rest):
    time.sleep(wait)
    return step(self, *rest)
Trainer._train_step = slow
paths = {name: Path(path) for name, path in inputs.items()}
try:
    report = finetune(Path(table), **paths, out=Path(out), config=TrainConfig(**config))
    os.write(1, f"finished {report.steps};".encode())  # unbuffered: two processes share the pipe
except Interrupted as stopped:
    print(stopped)
    sys.exit(130)
"""


def start_training(
    world: World, out: Path, config: dict, *, wait: float = 0.0, processes: int = 1
) -> subprocess.Popen[str]:
    """Start SLOW_TRAINING in a process, or in several under torchrun."""
    inputs = {name: str(path) for name, path in world.inputs.items()}
    return start_script(
        SLOW_TRAINING, out, (str(world.train), inputs, str(out), config, wait), processes
    )


def start_script(code: str, out: Path, arguments: tuple, processes: int) -> subprocess.Popen[str]:
    """Start a script with JSON arguments in a process, or in several under torchrun."""
    script = out.with_name("script.py")
    script.write_text(code, encoding="utf-8")
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    launcher = torchrun if processes > 1 else []
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    if processes > 1:
        environment |= {"OMP_NUM_THREADS": "1", "TMPDIR": str(out.parent)}  # for torchrun's logs
    return subprocess.Popen(
        [sys.executable, *launcher, str(script), *(json.dumps(value) for value in arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_checkpoint(out: Path, *processes: subprocess.Popen[str], step: int = 1) -> None:
    """Wait for a checkpoint of the step or of a later one."""
    folder = out.with_name(f"{out.name}.partial") / "checkpoints"
    while max((int(p.stem[-8:]) for p in folder.glob("step-*.pt")), default=0) < step:
        for process in processes:
            assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)


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
    """Write a lattice table with codes, whose captions are names."""
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
