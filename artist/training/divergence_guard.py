"""Stop a training that has diverged."""

import math

from data.errors import ToolkitError

_MAX_STEPS = 20  # consecutive steps with a loss above the limit
_MIN_SCALE = 1.0  # of float16 gradients; at this scale an overflow is divergence


class DivergenceGuard:
    """Check the loss and the gradient norm of every step.

    Args:
        limit: A loss that stays above it is divergence.
        learning_rate: For the error message.
    """

    def __init__(self, limit: float, learning_rate: float) -> None:
        self.limit, self.learning_rate = limit, learning_rate
        self.steps_above = 0

    @property
    def calm(self) -> bool:
        """Whether the loss of the last step was below the limit."""
        return self.steps_above == 0

    def check(self, step: int, loss: float, norm: float, scale: float) -> None:
        """Check loss, gradient norm and (float16) loss scale before the optimizers step.

        Raises:
            ToolkitError: The loss is not a number, or was above the limit for many steps.
        """
        self.steps_above = self.steps_above + 1 if loss > self.limit else 0
        overflowing = not math.isfinite(norm) and scale <= _MIN_SCALE
        if math.isfinite(loss) and not overflowing and self.steps_above < _MAX_STEPS:
            return
        what = f"the loss at step {step} is {loss:g} (gradient norm {norm:g})"
        if self.steps_above >= _MAX_STEPS:
            what += f", for {_MAX_STEPS} consecutive steps above {self.limit:.1f}"
        raise ToolkitError(
            f"{what}: the training has diverged. The last checkpoint precedes it. Lower "
            f"--learning-rate (now {self.learning_rate:g}) and start again with --overwrite; if it "
            "happens in the first steps, try --precision fp32, or find broken rows with "
            "--batch-size 1."
        )
