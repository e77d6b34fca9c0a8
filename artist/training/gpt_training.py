"""`artist finetune`: train a GPT on a lattice table and write a model folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from artist.formats.image_tokenizer_folder import FrozenTokenizer
from artist.formats.model_folder import save_model, save_seen_tokens
from artist.tables.encode import with_codes
from artist.training.config import TrainConfig
from artist.training.gpt_task import GPTTask
from artist.training.metrics import plot_losses
from artist.training.process_group import open_shared_run, process_group
from artist.training.trainer import Trainer, TrainerConfig
from artist.training.training_inputs import load_training_inputs
from data.kg_folder import kg_fingerprint
from data.runs import StageReport, fingerprint


@dataclass(frozen=True, kw_only=True)
class FinetuneReport(StageReport):
    """Result of a training."""

    parameters: int
    steps: int
    rows: int
    valid_rows: int
    train_loss: float
    valid_loss: float
    best_loss: float
    best_step: int
    kept_step: int
    seconds: float

    def __str__(self) -> str:
        done = self.outcome(f"took {self.seconds:.0f} s")
        return (
            f"{done}: {self.parameters / 1e6:.1f} M parameters, {self.steps} steps on "
            f"{self.rows} rows.\n"
            f"Validation loss {self.valid_loss:.4f} nats per code on {self.valid_rows} rows "
            f"(weights of step {self.kept_step}; best {self.best_loss:.4f} at step "
            f"{self.best_step}; training loss at the end {self.train_loss:.4f})."
        )


def finetune(
    table: Path,
    *,
    valid: Path,
    kg: Path,
    vqgan: Path,
    out: Path,
    config: TrainConfig,
    init: Path | None = None,
    preview_prompts: pa.Table | None = None,
    device: str = "auto",
    overwrite: bool = False,
) -> FinetuneReport:
    """Train a model on a lattice table and write it as a folder.

    Tables with images instead of codes are encoded first, each image once: see `with_codes`.
    Under torchrun all processes call this; each returns the report.

    Args:
        table: Lattice table with images or codes.
        valid: The same, for validation.
        kg: KG folder that the tables were built with.
        vqgan: Folder of an image tokenizer, or a taming-transformers checkpoint.
        out: The model folder.
        config: Training settings.
        init: Model folder with the initial weights. From a model without knowledge, one with
            knowledge begins with the same outputs.
        preview_prompts: Matched prompts to sample every `config.preview_every` steps; rows of
            `valid` if left out.
        device: `auto`, `cpu` or `cuda`.
        overwrite: Replace the output of another run.

    Raises:
        ToolkitError: Inputs do not match, or another run's output exists.
        Interrupted: SIGINT or SIGTERM; the checkpoint is saved.
    """
    with process_group(device) as processes:
        tokenizer = FrozenTokenizer.load(vqgan)
        tables = processes.run_in_order(
            lambda: [with_codes(path, tokenizer, device) for path in (table, valid)]
        )
        inputs = {}
        if processes.local_rank == 0:
            inputs = {"table": fingerprint(tables[0]), "valid": fingerprint(tables[1])}
            inputs |= {"kg": kg_fingerprint(kg), "vqgan": tokenizer.fingerprint}
            inputs |= {"init": fingerprint(init)} if init else {}
        settings = {"train": config.learning, "device": processes.device.type}
        with open_shared_run(
            processes, out, kind="model", settings=settings, inputs=inputs, overwrite=overwrite
        ) as run:
            if run.finished:
                return FinetuneReport(out=out, **run.finished, already_finished=True)
            training = processes.run_in_order(  # large tables are written for memory-mapping, once
                lambda: load_training_inputs(
                    *tables, kg=kg, image_tokenizer=tokenizer.model, config=config, init=init
                )
            )
            task = GPTTask(
                training.gpt.to(processes.device),
                training.train,
                training.valid,
                config,
                pad_id=training.tokenizer.pad_id,
                processes=processes,
            )
            if config.preview_every and processes.is_leader:
                task.images = training.preview(preview_prompts, run.work, config, processes.device)
            trainer = Trainer(task, TrainerConfig.of(config, task.total_steps), run.work)
            trainer.run()
            counts = _counts(trainer, task)
            if processes.is_leader:
                save_model(run.work, training.model())
                rows, vocab_size = training.train.rows, training.tokenizer.vocab_size
                save_seen_tokens(run.work, rows.tokens(vocab_size))
                plot_losses(run.work)
                trainer.checkpoints.clear()
                run.finish(counts)
            processes.barrier()
    return FinetuneReport(out=out, **counts)


def _counts(trainer: Trainer, task: GPTTask) -> dict[str, Any]:
    """Return the counts of the manifest."""
    best = trainer.best
    return {
        "parameters": sum(p.numel() for p in task.model.parameters()),
        "steps": trainer.step,
        "rows": task.num_rows,
        "valid_rows": len(task.valid.rows),
        "train_loss": trainer.train_loss,
        "valid_loss": best["loss"] if trainer.config.keep == "best" else trainer.valid_loss,
        "best_loss": best["loss"],
        "best_step": best["step"],
        "kept_step": trainer.kept_step,
        "seconds": round(trainer.seconds, 1),
    }
