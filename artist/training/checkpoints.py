"""Checkpoints of an unfinished training: the last few complete ones, and the best weights.

`checkpoints/step-00001000.pt` contains everything that a run needs to resume;
`checkpoints/best-00000800.pt` the weights with the lowest validation loss so far. Files are written
atomically and read with `weights_only=True`.
"""

import logging
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.runs import atomic

log = logging.getLogger(__name__)

FOLDER = "checkpoints"


class Checkpoints:
    """The checkpoints in a run's folder.

    Args:
        folder: Folder of the run.
        keep: Number of complete checkpoints that are kept.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder / FOLDER, keep

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write a complete checkpoint; remove the oldest above `keep`."""
        self._write("step", step, state)
        kept = self._steps("step")[-self.keep :]
        bests = self._steps("best")
        needed = {max((b for b in bests if b <= s), default=None) for s in kept}
        needed |= {b for b in bests if b > kept[-1]}
        for kind, wanted in (("step", set(kept)), ("best", needed)):
            for other in set(self._steps(kind)) - wanted:
                self._path(kind, other).unlink()

    def save_best(self, step: int, weights: dict[str, Tensor]) -> None:
        """Write the best weights so far."""
        self._write("best", step, weights)

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """Return the newest readable checkpoint, if any; remove newer files."""
        for step in reversed(self._steps("step")):
            path = self._path("step", step)
            try:
                state = self.read(step, device)
            except Exception as error:  # a damaged file can raise anything
                log.warning("%s cannot be read (%s); trying an earlier one.", path, error)
                path.unlink()
                continue
            for later in self._steps("best"):
                if later > step:  # of steps that will be repeated
                    self._path("best", later).unlink()
            return state
        return None

    def read(self, step: int, device: torch.device) -> dict[str, Any]:
        """Return the checkpoint of a step, which must exist."""
        return self._read("step", step, device)

    def load_best(self, step: int, device: torch.device) -> dict[str, Tensor]:
        """Return the best weights, those of `step`."""
        return self._read("best", step, device)

    def clear(self) -> None:
        """Remove all checkpoints."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self, kind: str, step: int, state: dict[str, Any]) -> None:
        self.folder.mkdir(exist_ok=True)
        with atomic(self._path(kind, step), "wb") as file:
            torch.save(state, file)

    def _read(self, kind: str, step: int, device: torch.device) -> dict[str, Any]:
        path = self._path(kind, step)
        content: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        return content

    def _path(self, kind: str, step: int) -> Path:
        return self.folder / f"{kind}-{step:08d}.pt"

    def _steps(self, kind: str) -> list[int]:
        """Return the steps of the files of a kind, in ascending order."""
        return sorted(int(p.stem.rpartition("-")[2]) for p in self.folder.glob(f"{kind}-*.pt"))
