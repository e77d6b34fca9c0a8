"""Jacobi decoding: several codes of one image per pass, with the distribution of one per pass.

    W window   L image codes   V codebook_size

Sampling one image is bound by reading the weights, and a pass over a few positions reads them once.
If the random numbers of every position are fixed beforehand, a code is a function of those before
it. So a pass takes guesses for the next W - 1 codes and computes W codes from them; a code is final
as soon as all codes before it were guessed right, and the others are the guesses of the next pass
(Song et al. 2021, "Accelerating Feedforward Computation via Parallel Nonlinear Equation Solving";
Wiggers and Hoogeboom 2020, "Predictive Sampling with Forecasting Autoregressive Models"). The codes
are those of sampling one by one, for every W, up to rounding.

Codes are drawn with Gumbel noise. Inverting the cumulative distribution, as `sample_code` does, is
exact too, but a small change of the distribution then moves most codes, and guesses fail.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


class GumbelNoise:
    """Gumbel noise, generated position by position.

    Args:
        seeds: One per row; the noise of row i depends on seeds[i] only.
        codebook_size: V.
        device: Where the noise is used; it is generated on the CPU.
    """

    def __init__(self, seeds: Sequence[int], codebook_size: int, device: torch.device) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.codebook_size, self.device = codebook_size, device
        self.position = 0  # the next one to generate

    def at(self, position: int) -> Tensor:
        """Return the noise of a position, (B, V); positions must increase, and can be skipped."""
        for _ in range(self.position, position):
            self._uniform()
        self.position = position + 1
        return (-(-self._uniform().log()).log()).float().to(self.device)

    def _uniform(self) -> Tensor:
        # float64: from 24 random bits the noise of likely codes would be coarse.
        size = self.codebook_size
        return torch.stack(
            [torch.rand(size, generator=g, dtype=torch.float64) for g in self.generators]
        )


def jacobi(
    next_logits: Callable[[Tensor, int], Tensor],
    noise: GumbelNoise,
    codes: Tensor,
    first: int,
    window: int,
) -> None:
    """Sample the codes of one image from position `first`.

    Args:
        next_logits: Maps `(1, E)`, of which the first n codes are final and the others guesses, and
            n to the filtered logits of codes n to E: `(E + 1 - n, V)`.
        noise: Of one row.
        codes: `(1, L)`; those before `first` are kept, the others are written.
        first: Index of the first code to sample; below L.
        window: Codes per pass, W.
    """
    image_len = codes.shape[1]
    width = round(image_len**0.5)  # codes per row of the image
    n, end = first, first + 1  # the first pass computes the text and guesses nothing
    noises = noise.at(first)  # of positions n to end
    while True:
        new = (next_logits(codes[:, : end - 1], n) + noises).argmax(-1)  # (end - n,)
        right = int((new[:-1] == codes[0, n : end - 1]).int().cumprod(0).sum())
        codes[0, n:end] = new
        n += right + 1
        if n == image_len:
            return
        last, end = end, min(n + window, image_len)
        for position in range(last, end - 1):  # guess the code above; in the first row, the left
            codes[0, position] = codes[0, position - (width if position >= width else 1)]
        noises = torch.cat([noises[right + 1 :], *map(noise.at, range(last, end))])
