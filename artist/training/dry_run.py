"""A dry run: everything is loaded and two steps are taken, to see whether and how long it will go.

Of the tables only the rows of those steps are read (and encoded), into a temporary folder, so that
it is quick whatever their size; nothing else is written.
"""

import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import torch

from artist.formats.image_tokenizer_folder import load_image_tokenizer
from artist.models.image_tokenizer import ImageTokenizer
from artist.tables.encode import codes_beside, encode_table
from artist.tables.lattice_rows import open_lattice
from artist.training.config import TrainConfig
from artist.training.finetune import Trainer
from artist.training.memory import advice_on_memory, peak_bytes
from artist.training.process_group import join
from artist.training.training_inputs import load_materials
from artist.training.validation import row_losses
from data.schema import CODES, table_writer
from data.tokenizer import tokenizer_folder

_STEPS = 2
_VALID_ROWS = 128  # at most
_STATES = 4  # numbers a checkpoint holds for each parameter: it, its average, and AdamW's two


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """What a training will take.

    Attributes:
        parameters: Of the model.
        rows: Of the table.
        valid_rows: Of the validation table.
        steps_per_epoch: Of the whole table.
        total_steps: Of the whole run.
        batch_size: Captions a step.
        step_seconds: Of the second step; the first one warms up.
        validation_seconds: Of one validation.
        encoding_seconds: Of the images that are not encoded yet.
        whole_seconds: Of the run, encoding included.
        peak_bytes: The most memory so far: tensors on a GPU, the process on a CPU.
        on_gpu: Which of the two.
        checkpoint_bytes: Of one checkpoint.
        seconds: Of the rehearsal.
    """

    parameters: int
    rows: int
    valid_rows: int
    steps_per_epoch: int
    total_steps: int
    batch_size: int
    step_seconds: float
    validation_seconds: float
    encoding_seconds: float
    whole_seconds: float
    peak_bytes: int
    on_gpu: bool
    checkpoint_bytes: int
    seconds: float

    def __str__(self) -> str:
        where = "on the GPU" if self.on_gpu else "resident"
        lines = [
            f"{self.parameters / 1e6:.1f} M parameters; {self.rows} rows, {self.valid_rows} for "
            f"validation; {self.steps_per_epoch} steps an epoch, {self.total_steps} in all.",
            f"A step of {self.batch_size} captions takes {_time(self.step_seconds)} "
            f"({self.batch_size / self.step_seconds:.1f} images/s), a validation "
            f"{_time(self.validation_seconds)}.",
            f"Peak memory {self.peak_bytes / 2**30:.2f} GiB {where}; a checkpoint takes "
            f"{self.checkpoint_bytes / 2**30:.2f} GiB of disk.",
        ]
        if self.encoding_seconds:
            lines.append(f"Encoding the images comes first: {_time(self.encoding_seconds)}, once.")
        lines.append(f"The whole run will take about {_time(self.whole_seconds)}.")
        return "\n".join([*lines, "Nothing was written."])


def rehearse(
    table: Path,
    *,
    valid: Path,
    kg: Path,
    vqgan: Path,
    config: TrainConfig,
    init: Path | None = None,
    device: str = "auto",
) -> Rehearsal:
    """Load everything that `finetune` would, take two steps, and say what the run will take.

    Args:
        table: As for `artist.training.finetune.finetune`; so are the others.
        valid: Validation table.
        kg: KG folder.
        vqgan: VQGAN folder or checkpoint.
        config: How to train.
        init: A model folder to begin with.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        ToolkitError: What `finetune` would say of its inputs; or memory ran out.
    """
    began = time.monotonic()
    with join(device) as team, tempfile.TemporaryDirectory() as temporary:
        image_tokenizer, folder = load_image_tokenizer(vqgan), Path(temporary)
        sample, valid_sample = (
            _sample(source, most, folder / name, image_tokenizer, vqgan, device)
            for name, source, most in (
                ("train", table, _STEPS * config.batch_size),
                ("valid", valid, _VALID_ROWS),
            )
        )
        tables = (sample.path, valid_sample.path)
        materials = load_materials(
            *tables,
            kg=kg,
            image_tokenizer=image_tokenizer,
            config=config,
            init=init,
            called=(table, valid),
        )
        if team.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(team.device)
        with advice_on_memory(config, team.size, "Nothing was written."):
            trainer = Trainer(
                materials.gpt.to(team.device),
                materials.train,
                materials.valid,
                replace(config, epochs=1, max_steps=_STEPS, tensorboard=False),
                folder=folder,
                pad_id=materials.tokenizer.pad_id,
                team=team,
            )
            step_seconds = trainer.take_steps(_STEPS)[-1]
            validation = _seconds_a_row(trainer) * valid_sample.rows_of_all / team.size
        size = trainer.feed.size
        steps_per_epoch = max(1, sample.rows_of_all // size)
        total = min(config.epochs * steps_per_epoch, config.max_steps or 1 << 62)
        parameters = sum(p.numel() for p in materials.gpt.parameters())
        encoding = sample.encoding_seconds + valid_sample.encoding_seconds
        training = total * step_seconds + min(config.validations, total) * validation
        return Rehearsal(
            parameters=parameters,
            rows=sample.rows_of_all,
            valid_rows=valid_sample.rows_of_all,
            steps_per_epoch=steps_per_epoch,
            total_steps=total,
            batch_size=size,
            step_seconds=step_seconds,
            validation_seconds=validation,
            encoding_seconds=encoding,
            whole_seconds=encoding + training,
            peak_bytes=peak_bytes(team.device),
            on_gpu=team.device.type == "cuda",
            checkpoint_bytes=4 * _STATES * parameters,
            seconds=time.monotonic() - began,
        )


class _Sample(NamedTuple):
    """A table of the first rows of another: how many that has, how long its encoding will take."""

    path: Path
    rows_of_all: int
    encoding_seconds: float


def _sample(
    source: Path, most: int, path: Path, image_tokenizer: ImageTokenizer, vqgan: Path, device: str
) -> _Sample:
    """The first rows of a table as one of its own, with codes."""
    beside = codes_beside(source, image_tokenizer.fingerprint())
    shards = open_lattice(beside if beside.exists() else source)
    rows = min(most, shards.num_rows)
    with table_writer(path, shards.schema_arrow) as writer:
        left = rows
        for batch in shards.iter_batches(rows):
            writer.write_table(pa.Table.from_batches([batch[:left]]).cast(shards.schema_arrow))
            left -= min(left, batch.num_rows)
            if not left:
                break
    if tokenizer_folder(source).is_dir():
        shutil.copytree(tokenizer_folder(source), tokenizer_folder(path))
    if CODES.name in shards.schema_arrow.names:
        return _Sample(path, shards.num_rows, 0.0)
    encoded = path.with_name(f"{path.name}.codes")
    report = encode_table(path, encoded, vqgan=vqgan, device=device)
    return _Sample(encoded, shards.num_rows, report.seconds / rows * shards.num_rows)


def _seconds_a_row(trainer: Trainer) -> float:
    """For one validation row."""
    began = time.monotonic()
    row_losses(trainer.gpt, trainer.valid, dtype=trainer.dtype)
    return (time.monotonic() - began) / len(trainer.valid.rows)


def _time(seconds: float) -> str:
    """Seconds for a person: `0.35 s`, `2 min`, `5 h 10 min`."""
    if seconds < 120:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    days, hours = divmod(minutes // 60, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"
