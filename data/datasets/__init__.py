"""Image-text datasets: convert them to the toolkit's TSV, and check tables before training."""

from typing import TYPE_CHECKING

from data.lazy import lazy_exports

if TYPE_CHECKING:
    from data.datasets.config import ImageOptions, SetOptions
    from data.datasets.convert import ConvertReport, convert_dataset
    from data.datasets.readers import open_dataset
    from data.datasets.samples import ImageTextDataset, Sample
    from data.datasets.validate import ValidateReport, validate_table

__all__ = [
    "ConvertReport",
    "ImageOptions",
    "ImageTextDataset",
    "Sample",
    "SetOptions",
    "ValidateReport",
    "convert_dataset",
    "open_dataset",
    "validate_table",
]
__getattr__ = lazy_exports(
    __name__,
    {
        "ConvertReport": "data.datasets.convert",
        "ImageOptions": "data.datasets.config",
        "ImageTextDataset": "data.datasets.samples",
        "Sample": "data.datasets.samples",
        "SetOptions": "data.datasets.config",
        "ValidateReport": "data.datasets.validate",
        "convert_dataset": "data.datasets.convert",
        "open_dataset": "data.datasets.readers",
        "validate_table": "data.datasets.validate",
    },
)
