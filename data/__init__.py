"""What all stages share. Import from its modules; none of them imports torch at import time.

`errors`; `runs`: atomic outputs and their manifests; `schema`, `tsv`, `quoted_rows`: tables;
`encoding`, `folders`: text and folders of others; `kg_folder`, `names`, `shuffled_kg`: entity names
and vectors; `tokenizer`; `images`, `opencv_resize`, `plot`; `seeds`, `select`, `constants`;
`device`, `jit`, `malloc`, `read_ahead`, `signals`: computing; `lazy`: exports of packages.
`datasets` is a stage of its own on top: image-text datasets.
"""

__all__ = [
    "constants", "datasets", "device", "encoding", "errors", "folders", "images", "jit",
    "kg_folder", "lazy", "malloc", "names", "opencv_resize", "options", "plot", "quoted_rows",
    "read_ahead", "runs", "schema", "seeds", "select", "shuffled_kg", "signals", "tokenizer", "tsv",
]  # fmt: skip
