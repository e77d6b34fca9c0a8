"""Image-text datasets: convert them to the toolkit's TSV, and check tables before training.

`convert.convert_dataset` and `validate.validate_table` do this;
`unquote.unquote_tsv` removes the quotes of a TSV. `readers.open_dataset` reads a dataset as
`samples.ImageTextDataset`, as the options in `config` set.
"""

__all__ = ["config", "convert", "readers", "samples", "unquote", "validate"]
