"""Values that several stages share: the text length and the choices that have names.

Imports nothing, so that `--help` can list them.
"""

TEXT_LEN = 32  # text tokens per caption of a model, EasyNLP's length
DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "bf16", "fp16", "fp32")
IMAGE_CHECKS = ("full", "header")  # decode every image, or read its size only
POLICIES = ("first", "longest", "leftmost-longest")  # see `data.select`
