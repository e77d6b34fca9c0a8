"""The measured values of an evaluation, and what could not be measured."""

from dataclasses import dataclass

from artist.evaluation.clip_score import TextMatch
from artist.evaluation.fid_kid_is import ImageMetrics
from artist.evaluation.likelihood import Likelihood
from artist.evaluation.reconstruction import Reconstruction


@dataclass(frozen=True, kw_only=True)
class NotMeasured:
    """A measurement that was left out, and the option that enables it."""

    what: str
    how: str


@dataclass(frozen=True, kw_only=True)
class Findings:
    """The measured values; None where something was not measured. Field names are JSON keys.

    Attributes:
        likelihood: See `artist.evaluation.likelihood`.
        reconstruction: Of the table's images by the model's image tokenizer.
        images: FID, KID and IS of the images against the reference.
        images_ceiling: The same of the table's images after reconstruction: an upper bound for any
            model that generates with this image tokenizer.
        match: Text-image match of the images.
        match_ceiling: The same of the table's own images.
    """

    likelihood: Likelihood | None = None
    reconstruction: Reconstruction | None = None
    images: ImageMetrics | None = None
    images_ceiling: ImageMetrics | None = None
    match: TextMatch | None = None
    match_ceiling: TextMatch | None = None
