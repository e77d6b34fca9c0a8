"""How long does `kg nearest` take in a large graph?

Compared with a plain version: the id file read line by line into a list and a dictionary, the
vectors loaded, lengths and cosines by numpy over the whole table, one full sort. Each in a new
process with the files in the page cache; CPU seconds of all threads, wall-clock seconds, peak
memory (of the plain version with the vectors; of ours with the touched pages of the map).

    bench_kg_nearest.py --entities 10000000 --only-ours     # 4.3 GB on the disk while it runs
"""

import argparse
import json
import os
import platform
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from measuring import add_options, in_child, measured, memory, processor

from data.kg_folder import ENTITY_NAMES, VECTORS, VECTORS_KEY, write_names
from data.runs import MANIFEST, Manifest, write_json

_BLOCK = 1 << 18


def make_folder(folder: Path, entities: int, dim: int) -> None:
    """Make a KG folder with random vectors and names of ideographs and a number."""
    generator = np.random.default_rng(0)
    parts = []
    for begin in range(0, entities, _BLOCK):
        size = min(_BLOCK, entities - begin)
        codes = generator.integers(0x4E00, 0x4E00 + 3000, (size, 4))
        letters = np.ascontiguousarray(codes.astype(np.uint32)).view("<U4").ravel()
        number = pa.array(range(begin, begin + size)).cast(pa.string())
        parts.append(pc.binary_join_element_wise(pa.array(letters.tolist()), number, ""))
    names = pa.chunked_array(parts).cast(pa.large_string()).combine_chunks()
    write_names(folder / ENTITY_NAMES, names)
    head = {VECTORS_KEY: {"dtype": "F32", "shape": [entities, dim]}}
    head[VECTORS_KEY]["data_offsets"] = [0, 4 * entities * dim]
    raw = json.dumps(head).encode()
    with (folder / VECTORS).open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        for begin in range(0, entities, _BLOCK):
            size = min(_BLOCK, entities - begin)
            file.write(generator.standard_normal((size, dim), np.float32).tobytes())
    # As the folder of a finished run, whose files are not checked again; nothing reads the hashes.
    manifest = Manifest(
        kind="kg", settings={}, inputs={}, counts={}, files={}, versions={}, created=""
    )
    write_json(folder / MANIFEST, asdict(manifest))


def _plain(folder: Path, name: str) -> list[str]:
    with (folder / ENTITY_NAMES).open(encoding="utf-8") as file:
        next(file)
        names = [line.split("\t", 1)[0] for line in file]
    ids = {n: i for i, n in enumerate(names)}
    with (folder / VECTORS).open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        file.read(length)
        table = np.fromfile(file, np.float32).reshape(len(names), -1)
    query = table[ids[name]]
    cosine = table @ query / (np.linalg.norm(table, axis=1) * np.linalg.norm(query))
    return [names[i] for i in np.argsort(-cosine)[1:11]]


def measure(how: str, folder: Path, name: str) -> dict[str, Any]:
    from data.errors import InputError
    from kg.tools.nearest import find_nearest

    def work() -> list[str]:
        if how == "plain":
            return _plain(folder, name)
        try:
            return [n.name for n in find_nearest(folder, name).found]
        except InputError as error:
            return [str(error)]

    return {**measured(work), "mb": memory("VmHWM") / 2**20}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser, entities=1_000_000, dim=100)
    parser.add_argument("--only-ours", action="store_true")
    parser.add_argument("--folder", type=Path, help="the parent of the temporary KG folder")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as place:
        folder = Path(place)
        make_folder(folder, args.entities, args.dim)
        from data.kg_folder import open_names

        name = open_names(folder / ENTITY_NAMES)[args.entities // 2]
        in_child(measure, "ours", folder, name)  # compiles, and fills the page cache
        result = {"entities": args.entities, "dim": args.dim}
        ours = [in_child(measure, "ours", folder, name) for _ in range(3)]
        result["ours"] = min(ours, key=lambda r: r["cpu_s"])
        wrong = name[:3] + "龘" + name[4:]
        result["unknown"] = [in_child(measure, "unknown", folder, wrong) for _ in range(2)][1]
        if not args.only_ours:
            result["plain"] = in_child(measure, "plain", folder, name)
            assert result["plain"]["found"] == result["ours"]["found"]
            result["ratio"] = result["plain"]["cpu_s"] / result["ours"]["cpu_s"]
    for how in ("ours", "unknown", "plain"):
        if how in result:
            r = result[how]
            print(f"{how:8} {r['cpu_s']:6.2f} CPU s {r['seconds']:6.2f} s {r['mb']:7.0f} MB")
    print(
        json.dumps(
            {**result, "processor": processor(), "python": platform.python_version()},
            ensure_ascii=False,
        )
    )


if __name__ == "__main__":
    main()
