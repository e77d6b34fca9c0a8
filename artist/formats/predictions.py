"""The files of a predictions folder."""

PREDICTIONS = "predictions.tsv"  # idx, text, gen_imgbase64
