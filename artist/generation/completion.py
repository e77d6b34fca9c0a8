"""Completion of given images: keep the upper part, generate the rest."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from artist.generation.config import SamplingConfig
from artist.generation.pipeline_protocol import ImagePipeline, completing
from artist.tables.lattice_rows import Rows
from data.images import decode_image, square


class Completion:
    """Images to complete, one per row; decoded and encoded in batches.

    Args:
        pipeline: Generates the rest.
        images: Encoded images.
        keep_top: Share of each image to keep, from the top; rounded to whole rows of codes.

    Raises:
        ConfigError: The pipeline's model cannot complete images.
    """

    def __init__(self, pipeline: ImagePipeline, images: Sequence[bytes], keep_top: float) -> None:
        self.pipeline, self.images, self.keep_top = completing(pipeline), images, keep_top

    def pixels(self, n: int) -> NDArray[np.uint8]:
        """Return given image n at the model's resolution: pixels (H, W, 3)."""
        return square(decode_image(self.images[n]), self.pipeline.resolution)

    def draw(
        self, rows: Rows, chosen: Sequence[int], seeds: Sequence[int], sampling: SamplingConfig
    ) -> NDArray[np.uint8]:
        """Complete the images of the chosen rows: pixels (B, H, W, 3)."""
        given = self.pipeline.top_codes([self.pixels(n) for n in chosen], self.keep_top)
        return self.pipeline.draw(rows, chosen, seeds, sampling, given=given)
