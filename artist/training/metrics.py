"""The metrics of a training: progress bar, `metrics.jsonl`, TensorBoard, and the plot of losses.

`metrics.jsonl` has two kinds of lines. Those of validations contain `valid_loss` (GPT) or `psnr`
(VQGAN); their `train_loss` is the mean since the previous validation. The other lines, about 200
per run, are means over the steps since the previous one: `train_loss`, `learning_rate`,
`gradient_norm`, `images_per_second`.
"""

import json
import logging
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from data.errors import ConfigError
from data.plot import new_figure, save_svg, style
from data.runs import atomic

log = logging.getLogger(__name__)

METRICS = "metrics.jsonl"
PLOT = "loss.svg"
TENSORBOARD = "tensorboard"
_LINES = 200  # per run, without those of validations


class MetricsLogger:
    """Collect the metrics of the steps and write them at intervals.

    Args:
        folder: Folder of the run.
        total_steps: Steps of the whole run.
        images_per_step: Total of all processes.
        tensorboard: Write event files as well.
        quiet: Print and write nothing (all processes but the leader).

    Raises:
        ConfigError: TensorBoard is requested and not installed.
    """

    def __init__(
        self,
        folder: Path,
        *,
        total_steps: int,
        images_per_step: int,
        tensorboard: bool = False,
        quiet: bool = False,
    ) -> None:
        self.path, self.quiet = folder / METRICS, quiet
        self.images_per_step, self.total_steps = images_per_step, total_steps
        self.every = max(1, math.ceil(total_steps / _LINES))
        self.recent: list[tuple[float, float]] = []  # loss and gradient norm since the last line
        self.losses: list[float] = []  # since the last validation
        self.learning_rate = math.nan
        self.shown: dict[str, str] = {}  # further values in the progress bar
        self._timed, self._seconds = 0, 0.0  # steps since the last line, in this process
        self._open_board = _board_maker(folder / TENSORBOARD) if tensorboard and not quiet else None
        self._board: Any = None
        self._bar: Any = None

    def start(self, step: int) -> None:
        """Start at a step; remove lines of later steps, written by a killed run."""
        if not self.quiet and self.path.exists():
            lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
            with atomic(self.path) as file:
                file.writelines(line for line in lines if _step_of(line) <= step)
        size = self.images_per_step
        self._bar = tqdm(
            total=self.total_steps * size,
            initial=step * size,
            unit=" images",
            unit_scale=True,
            disable=True if self.quiet else None,
        )
        if self._open_board is not None:
            self._board = self._open_board(purge_step=step)

    def step(self, step: int, loss: float, norm: float, rate: float, seconds: float) -> None:
        """Record a step: loss, gradient norm, learning rate and duration in seconds."""
        self.losses.append(loss)
        self.learning_rate = rate
        self.recent.append((loss, norm))
        self._timed += 1
        self._seconds += seconds
        if self._bar is not None:
            shown = {"step": step, "loss": f"{loss:.3f}", "lr": f"{rate:.1e}", **self.shown}
            self._bar.set_postfix(shown, refresh=False)
            self._bar.update(self.images_per_step)
        if step % self.every == 0:
            loss, norm = (float(v) for v in np.mean(self.recent, axis=0))
            speed = self._timed * self.images_per_step / max(self._seconds, 1e-9)
            self.write(
                step=step,
                train_loss=loss,
                learning_rate=rate,
                gradient_norm=norm,
                images_per_second=round(speed, 1),
            )
            self.recent.clear()
            self._timed, self._seconds = 0, 0.0

    def write(self, **values: float) -> None:
        """Write a line of metrics; `step` is one of them."""
        if self.quiet:
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")
        if self._board is not None:
            for name in values.keys() - {"step", "epoch", "seconds"}:
                self._board.add_scalar(name, values[name], int(values["step"]))

    def validation(self, step: int, measured: dict[str, float], **more: float) -> None:
        """Write the line of a validation; log it if there is no progress bar."""
        name, value = next(iter(measured.items()))
        self.shown = {name: f"{value:.3f}"}
        self.write(step=step, **more, **measured)
        if self._bar is not None and self._bar.disable and not self.quiet:
            values = ", ".join(f"{name} {value:.4f}" for name, value in measured.items())
            log.info("Step %d of %d: %s.", step, self.total_steps, values)

    def image(self, step: int, pixels: NDArray[np.uint8]) -> None:
        """Write an image (H, W, 3) to TensorBoard."""
        if self._board is not None:
            self._board.add_image("previews", pixels, step, dataformats="HWC")

    def state(self) -> dict[str, Any]:
        """Return the state that a checkpoint stores."""
        return {"recent": self.recent, "losses": self.losses, "shown": self.shown}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore the result of `state()`."""
        self.recent = [(loss, norm) for loss, norm in state["recent"]]
        self.losses, self.shown = list(state["losses"]), dict(state["shown"])

    def __enter__(self) -> "MetricsLogger":
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()
        if self._board is not None:
            self._board.close()


def _board_maker(folder: Path) -> Callable[..., Any]:
    """Return a function that opens TensorBoard's event files when the run starts."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ConfigError(
            "--tensorboard needs a package that is not installed: "
            "pip install 'artist-toolkit[tensorboard]'."
        ) from None
    return partial(SummaryWriter, str(folder))


def _step_of(line: str) -> float:
    """Return the step of a line; infinity for an incomplete line of a killed run."""
    try:
        return int(json.loads(line)["step"])
    except ValueError:
        return math.inf


def plot_losses(folder: Path) -> None:
    """Write `loss.svg`: training and validation loss over the steps of `metrics.jsonl`."""
    lines = [json.loads(line) for line in (folder / METRICS).read_text("utf-8").splitlines()]
    steps = [line for line in lines if "valid_loss" not in line]
    validations = [line for line in lines if "valid_loss" in line]
    with style():
        figure = new_figure()
        axes = figure.add_subplot()
        axes.plot([p["step"] for p in steps], [p["train_loss"] for p in steps], label="training")
        axes.plot(
            [p["step"] for p in validations],
            [p["valid_loss"] for p in validations],
            marker="o",
            markersize=3,
            label="validation, averaged weights",
        )
        axes.set(xlabel="step", ylabel="nats per code", title="Loss")
        axes.legend()
        save_svg(figure, folder / PLOT)
