"""Whether a generated image shows the named thing: its nearest training image has the same name.

Images are reduced to 32x32 pixels and compared by squared distance. This measures the thing and its
scene together, so it applies to names in the training captions only.

    N training images   B images to judge   M names
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_SIDE = 32
Pixels = NDArray[np.uint8]  # (H, W, 3)


class NameJudge:
    """Training images by name.

    Args:
        images: N training images.
        names: The number of the name of each, (N,).
    """

    def __init__(self, images: Sequence[Pixels], names: NDArray[np.int64]) -> None:
        order = np.argsort(names, kind="stable")
        self._images = _reduced(images)[order]  # (N, F)
        self._names, self._first = np.unique(names[order], return_index=True)  # (M,)
        self._order = order

    def ranks(
        self,
        images: Sequence[Pixels],
        names: NDArray[np.int64],
        leave_out: NDArray[np.int64] | None = None,
    ) -> NDArray[np.int64]:
        """Return the rank of each image's own name among all names, by nearest image: (B,) from 1.

        Args:
            images: B images.
            names: The number of the name of each, (B,).
            leave_out: For each image the training image that is not compared with it, (B,).
        """
        judged = _reduced(images)  # (B, F)
        distance = (
            np.square(judged).sum(1)[:, None]
            + np.square(self._images).sum(1)
            - 2 * judged @ self._images.T
        )  # (B, N)
        if leave_out is not None:
            column = np.argsort(self._order)[leave_out]
            distance[np.arange(len(judged)), column] = np.inf
        nearest = np.minimum.reduceat(distance, self._first, axis=1)  # (B, M)
        own = nearest[np.arange(len(judged)), np.searchsorted(self._names, names)]
        ranks: NDArray[np.int64] = (nearest < own[:, None]).sum(1) + 1
        return ranks


def _reduced(images: Sequence[Pixels]) -> NDArray[np.float32]:
    """Return images at 32x32 as rows of numbers in [0, 1]: (B, F)."""
    size = (_SIDE, _SIDE)
    small = [Image.fromarray(pixels).resize(size, Image.Resampling.BOX) for pixels in images]
    reduced: NDArray[np.float32] = np.stack([np.asarray(i, np.float32).ravel() for i in small])
    return reduced / np.float32(255)
