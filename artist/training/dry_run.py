"""Dry runs: load everything, take two steps, and report the memory and time of the whole run.

Only the rows of those steps are read (and encoded), into a temporary folder, so a dry run is quick
for tables of any size. Nothing else is written.
"""

import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import torch

from artist.formats.image_tokenizer_folder import FrozenTokenizer
from artist.formats.vgg import load_vgg
from artist.tables.encode import encode_table, encoded_path
from artist.tables.lattice_rows import open_lattice
from artist.training.config import TrainConfig, VQGANTrainConfig
from artist.training.gpt_task import GPTTask
from artist.training.memory import advice_on_memory, peak_bytes
from artist.training.process_group import process_group
from artist.training.trainer import Trainer, TrainerConfig
from artist.training.training_inputs import load_training_inputs
from artist.training.vqgan_task import VQGANTask
from artist.training.vqgan_training import load_images
from data.schema import CODES, table_writer
from data.tokenizer import tokenizer_folder

_STEPS = 2
_VALID_ROWS = 128  # at most
_STATES = 4  # numbers per parameter in a checkpoint: the weight, its average, and AdamW's two


@dataclass(frozen=True, kw_only=True)
class DryRunReport:
    """Memory and time of a training.

    Attributes:
        parameters: Of the model.
        vocabulary_parameters: Of them, the embeddings of the text tokens.
        vocabulary: Number of text tokens.
        rows: Rows of the table; None if counting them requires reading all of it.
        valid_rows: Rows of the validation table, likewise.
        steps_per_epoch: Of the whole table; None if rows are sampled with replacement.
        total_steps: Of the whole run.
        batch_size: Rows per step.
        step_seconds: Duration of the second step; the first one warms up.
        validation_seconds: Duration of one validation.
        encoding_seconds: Duration of encoding the images, if they are not encoded yet.
        whole_seconds: Duration of the run, encoding included.
        peak_bytes: Peak memory so far: of tensors on a GPU, of the process on a CPU.
        on_gpu: Whether it trains on a GPU.
        checkpoint_bytes: Size of a checkpoint.
        seconds: Duration of the dry run.
    """

    parameters: int
    vocabulary_parameters: int = 0
    vocabulary: int = 0
    rows: int | None = None
    valid_rows: int | None = None
    steps_per_epoch: int | None = None
    total_steps: int
    batch_size: int
    step_seconds: float
    validation_seconds: float
    encoding_seconds: float = 0.0
    whole_seconds: float
    peak_bytes: int
    on_gpu: bool
    checkpoint_bytes: int
    seconds: float

    def __str__(self) -> str:
        where = "on the GPU" if self.on_gpu else "resident"
        lines = [f"{self.parameters / 1e6:.1f} M parameters; "]
        if self.steps_per_epoch is not None:
            lines[0] += (
                f"{self.rows} rows, {self.valid_rows} for validation; {self.steps_per_epoch} steps "
                f"per epoch, {self.total_steps} in total."
            )
        else:
            lines[0] += f"{self.total_steps} steps."
        if self.vocabulary:
            share = self.vocabulary_parameters / self.parameters
            lines.append(
                f"{100 * share:.0f} % of the parameters are embeddings of the {self.vocabulary} "
                "tokens of the vocabulary; tokens that no caption contains stay untrained."
            )
        lines += [
            f"A step of {self.batch_size} images takes {duration(self.step_seconds)} "
            f"({self.batch_size / self.step_seconds:.1f} images/s), a validation "
            f"{duration(self.validation_seconds)}.",
            f"Peak memory {self.peak_bytes / 2**30:.2f} GiB {where}; a checkpoint takes "
            f"{self.checkpoint_bytes / 2**30:.2f} GiB of disk.",
        ]
        if self.encoding_seconds:
            lines.append(
                f"Encoding the images first takes {duration(self.encoding_seconds)}, once."
            )
        lines.append(f"The whole run will take about {duration(self.whole_seconds)}.")
        return "\n".join([*lines, "Nothing was written."])


def dry_run_finetune(
    table: Path,
    *,
    valid: Path,
    kg: Path,
    vqgan: Path,
    config: TrainConfig,
    init: Path | None = None,
    device: str = "auto",
) -> DryRunReport:
    """Load all inputs of `finetune`, take two steps, and report memory and time of the run.

    Args:
        table: As for `artist.training.gpt_training.finetune`; so are the others.
        valid: Validation table.
        kg: KG folder.
        vqgan: Folder of an image tokenizer, or a checkpoint.
        config: Training settings.
        init: Model folder to start from.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        ToolkitError: `finetune` would reject the inputs, or memory ran out.
    """
    began = time.monotonic()
    with process_group(device) as processes, tempfile.TemporaryDirectory() as temporary:
        tokenizer, folder = FrozenTokenizer.load(vqgan), Path(temporary)
        sample, valid_sample = (
            _sample(source, most, folder / name, tokenizer, device)
            for name, source, most in (
                ("train", table, _STEPS * config.batch_size),
                ("valid", valid, _VALID_ROWS),
            )
        )
        inputs = load_training_inputs(
            sample.path,
            valid_sample.path,
            kg=kg,
            image_tokenizer=tokenizer.model,
            config=config,
            init=init,
            called=(table, valid),
        )
        task = GPTTask(
            inputs.gpt.to(processes.device),
            inputs.train,
            inputs.valid,
            replace(config, epochs=1, max_steps=_STEPS),
            pad_id=inputs.tokenizer.pad_id,
            processes=processes,
        )
        steps_per_epoch = max(1, sample.rows_of_all // task.batch_size)
        return _measure(
            task,
            config,
            folder,
            began,
            total_steps=min(config.epochs * steps_per_epoch, config.max_steps or 1 << 62),
            validation_share=len(task.valid.rows) / valid_sample.rows_of_all,
            vocabulary_parameters=inputs.tokenizer.vocab_size * inputs.gpt.config.n_embd,
            vocabulary=inputs.tokenizer.vocab_size,
            rows=sample.rows_of_all,
            valid_rows=valid_sample.rows_of_all,
            steps_per_epoch=steps_per_epoch,
            encoding_seconds=sample.encoding_seconds + valid_sample.encoding_seconds,
        )


def dry_run_vqgan(
    table: Path,
    *,
    config: VQGANTrainConfig,
    valid: Path | None = None,
    vgg: Path | None = None,
    device: str = "auto",
) -> DryRunReport:
    """Load images for two steps of `train_vqgan`, take them, and report memory and time of the run.

    Args:
        table: As for `artist.training.vqgan_training.train_vqgan`; so are the others.
        config: Model and training settings.
        valid: Images to measure on.
        vgg: Weights of VGG16.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        ToolkitError: `train_vqgan` would reject these images, or memory ran out.
    """
    began = time.monotonic()
    with process_group(device) as processes, tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        limit = _STEPS * config.batch_size + _VALID_ROWS
        images = load_images(processes, table, valid, folder, config, limit)
        task = VQGANTask(
            images,
            replace(config, plain_share=0.0),  # steps with the codebook are slower
            processes=processes,
            perceptual=load_vgg(vgg) if vgg is not None else None,
        )
        return _measure(task, config, folder, began, total_steps=config.steps)


def _measure(
    task: GPTTask | VQGANTask,
    config: TrainConfig | VQGANTrainConfig,
    folder: Path,
    began: float,
    *,
    total_steps: int,
    validation_share: float = 1.0,
    encoding_seconds: float = 0.0,
    **counts: int,
) -> DryRunReport:
    """Take two steps and validate once.

    Args:
        task: The training.
        config: Its settings.
        folder: A temporary folder.
        began: When the dry run began.
        total_steps: Steps of the whole run.
        validation_share: Share of the whole validation that `task` does.
        encoding_seconds: Estimated duration of encoding the images.
        **counts: Further counts of the report.
    """
    device = task.processes.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    settings = replace(TrainerConfig.of(config, _STEPS), tensorboard=False)
    with advice_on_memory(task.memory_advice, "Nothing was written."):
        trainer = Trainer(task, settings, folder)
        step_seconds = trainer.take_steps(_STEPS)[-1]
        validating = time.monotonic()
        task.validate(_STEPS + 1, trainer.dtype)
    validation_seconds = (time.monotonic() - validating) / validation_share
    parameters = sum(p.numel() for p in task.model.parameters())
    validations = min(config.validations, total_steps)
    return DryRunReport(
        parameters=parameters,
        total_steps=total_steps,
        batch_size=task.batch_size,
        step_seconds=step_seconds,
        validation_seconds=validation_seconds,
        encoding_seconds=encoding_seconds,
        whole_seconds=encoding_seconds
        + total_steps * step_seconds
        + validations * validation_seconds,
        peak_bytes=peak_bytes(device),
        on_gpu=device.type == "cuda",
        checkpoint_bytes=4 * _STATES * parameters,
        seconds=time.monotonic() - began,
        **counts,
    )


class _Sample(NamedTuple):
    """A table of the first rows of another, and the number of rows and encoding time of all."""

    path: Path
    rows_of_all: int
    encoding_seconds: float


def _sample(
    source: Path, most: int, path: Path, tokenizer: FrozenTokenizer, device: str
) -> _Sample:
    """Write the first rows of a table as a table of its own, with codes."""
    already_encoded = encoded_path(source, tokenizer.fingerprint)
    shards = open_lattice(already_encoded if already_encoded.exists() else source)
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
    report = encode_table(path, encoded, vqgan=tokenizer, device=device)
    return _Sample(encoded, shards.num_rows, report.seconds / rows * shards.num_rows)


def duration(seconds: float) -> str:
    """Format seconds as `0.35 s`, `2 min`, `5 h 10 min`."""
    if seconds < 120:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    days, hours = divmod(minutes // 60, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"
