"""Generated photographs in the layout of `experiments.photos.photo_folder`."""

import numpy as np

from data.images import encode_png
from data.seeds import stream
from experiments.world import write_tsv

KINDS = {"动物": (200, 120, 60), "植物": (40, 160, 60), "车辆": (90, 90, 200)}


def write_photographs(folder, classes=12, train=8, val=4, size=32):
    """Write a folder: the colour of a class's photographs is that of its kind in the graph."""
    folder.mkdir()
    kinds = list(KINDS)
    rows, triples = [], []
    for n in range(classes):
        label, name, kind = f"class-{n:02d}", f"物{chr(0x4E8C + n)}", kinds[n % len(kinds)]
        rows.append((label, name, kind))
        triples += [(name, "属于", kind), (name, "属于", "东西")]
        for split, count in (("train", train), ("val", val)):
            (folder / split / label).mkdir(parents=True)
            for i in range(count):
                rng = np.random.default_rng(stream(0, label, split, i))
                pixels = np.clip(rng.normal(KINDS[kind], 20, (size, size, 3)), 0, 255)
                content = encode_png(pixels.astype(np.uint8))
                (folder / split / label / f"{i}.png").write_bytes(content)
    write_tsv(folder / "classes.tsv", rows)
    write_tsv(folder / "kg.tsv", triples)
    return folder
