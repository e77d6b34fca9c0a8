"""`kg import`: convert vectors trained by another engine to a KG folder.

DGL-KE writes `<dataset>_<model>_entity.npy`, `<dataset>_<model>_relation.npy` and `config.json`,
and next to its data `entities.tsv` and `relations.tsv` (`id<TAB>name`). PyTorch-BigGraph writes,
for each entity type and partition, `embeddings_<type>_<part>.v<N>.h5` and, next to its data,
`entity_names_<type>_<part>.json`. GraphStorm writes, after it has mapped its ids back to names,
`<node type>/embed-*.parquet` with the columns `nid` and `emb`; its relation vectors are in a
checkpoint that only its own code reads. None of the packages is needed to read these files.
"""

import json
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from data.errors import ConfigError, InputError
from data.kg_folder import ENTITY_NAMES, RELATION_NAMES, TRIPLES_FILE, not_finite, write_names
from data.runs import Run, StageReport, fingerprint
from data.tsv import Rejects, read_rows
from kg.arrays import Floats
from kg.kg_store import HELD_OUT_FILE, save_vectors, write_triples
from kg.reading.name_ids import read_named_triples

_RELATION_FILE = "dynamic_rel_names.json"
_BLOCK = 1 << 18
# DGL-KE's models with the distance of `kg eval`, and its norm.
_TRANSE = {"TransE": 2, "TransE_l2": 2, "TransE_l1": 1}


@dataclass(frozen=True)
class _Found:
    """The output of an engine."""

    engine: str
    model: str
    entities: list[str]
    relations: list[str]
    entity: Floats
    files: list[Path]
    relation: Floats | None = None  # of TransE models only
    p_norm: int | None = None


@dataclass(frozen=True, kw_only=True)
class ImportReport(StageReport):
    """The result of `import_vectors`."""

    engine: str
    counts: dict[str, Any]

    def __str__(self) -> str:
        c = self.counts
        lines = [
            f"{self.outcome()}: {c['entities']:,} entities of {c['dim']} dimensions, "
            f"from {self.engine}"
        ]
        if not c["relation_vectors"]:
            lines.append("no relation vectors (no TransE distance): `kg eval` cannot score with it")
        if c["triples"]:
            lines.append(f"{c['triples']:,} triples")
        return "\n".join(lines)


def import_vectors(
    source: Path,
    out: Path,
    *,
    names: Path | None = None,
    triples: Path | None = None,
    overwrite: bool = False,
) -> ImportReport:
    """Convert the output of DGL-KE, GraphStorm or PyTorch-BigGraph to a KG folder.

    Args:
        source: The folder of vectors: DGL-KE's save path, GraphStorm's `save_embed_path`, or
            BigGraph's checkpoint path.
        out: The KG folder.
        names: The folder of the engine's id maps; None: the one in its settings, or `source`.
        triples: The graph in names, for `kg stats` and `kg eval`.
        overwrite: Replace an existing `out`.

    Raises:
        InputError: A file is missing or malformed, or sizes do not match.
        ConfigError: HDF5 cannot be read because h5py is not installed.
    """
    if not source.is_dir():
        raise InputError(
            f"{source} is not a folder of DGL-KE's, GraphStorm's or PyTorch-BigGraph's output."
        )
    if list(source.glob("*_entity.npy")):
        find = _find_dglke
    elif list(source.glob("embeddings_*.h5")):
        find = _find_biggraph
    elif list(source.glob("*/embed-*.parquet")):
        find = _find_graphstorm
    elif (source / "emb_info.json").is_file():
        raise InputError(
            f"{source} has GraphStorm's vectors by internal ids. Map them to names with "
            "`python -m graphstorm.gconstruct.remap_result`, whose output is Parquet."
        )
    else:
        raise InputError(
            f"{source} has neither DGL-KE's *_entity.npy, nor PyTorch-BigGraph's embeddings_*.h5, "
            "nor GraphStorm's */embed-*.parquet."
        )
    found = find(source, names)
    _check(found, source)
    several = len({path.name for path in found.files}) < len(found.files)  # in several folders
    inputs = {
        f"{p.parent.name}/{p.name}" if several else p.name: fingerprint(p) for p in found.files
    }
    if triples is not None:
        inputs["triples"] = fingerprint(triples)
    settings = {"engine": found.engine, "model": found.model, "p_norm": found.p_norm}
    with Run.open(out, kind="kg", settings=settings, inputs=inputs, overwrite=overwrite) as run:
        already_finished = run.finished is not None
        if run.finished is None:
            run.finish(_write(run.work, found, triples))
        assert run.finished is not None
        return ImportReport(
            out=out,
            engine=found.engine,
            counts=run.finished.counts,
            already_finished=already_finished,
        )


def _input_name(path: Path, engine: str) -> str:
    """Return the name of an input; GraphStorm's files have equal names in several folders."""
    return f"{path.parent.name}/{path.name}" if engine == "GraphStorm" else path.name


def _write(work: Path, found: _Found, triples: Path | None) -> dict[str, Any]:
    write_names(work / ENTITY_NAMES, found.entities)
    if found.relations:
        write_names(work / RELATION_NAMES, found.relations)
    relation = None if found.relation is None else torch.from_numpy(found.relation)
    save_vectors(work, torch.from_numpy(found.entity), relation)
    counts = {
        "entities": len(found.entities),
        "relations": len(found.relations),
        "dim": found.entity.shape[1],
        "relation_vectors": relation is not None,
    }
    rows = np.empty((0, 3), np.int32) if triples is None else read_named_triples(work, triples)
    write_triples(work / TRIPLES_FILE, rows)
    write_triples(work / HELD_OUT_FILE, rows[:0])
    return counts | {"triples": len(rows)}


def _check(found: _Found, source: Path) -> None:
    """Check names and vectors.

    Raises:
        InputError: Their numbers differ, a vector is not finite, or a name is repeated or unusable.
    """
    if len(found.entities) != len(found.entity):
        raise InputError(
            f"{source}: {len(found.entity)} entity vectors but {len(found.entities)} names; they "
            "belong to different trainings."
        )
    for begin in range(0, len(found.entity), _BLOCK):
        if not np.isfinite(found.entity[begin : begin + _BLOCK]).all():
            raise not_finite(source)
    if found.relation is not None and len(found.relation) != len(found.relations):
        raise InputError(
            f"{source}: {len(found.relation)} relation vectors but {len(found.relations)} names."
        )
    for what, listed in (("entity", found.entities), ("relation", found.relations)):
        if len(set(listed)) < len(listed):
            name = next(name for name, count in Counter(listed).items() if count > 1)
            raise InputError(f"{source}: the {what} name {name!r} is given to several ids.")
        for name in listed:
            if not name or any(c in name for c in "\t\n\r\0"):
                raise InputError(
                    f"{source}: the {what} name {name!r} is empty or contains a tab or line break."
                )


# ---- DGL-KE


def _find_dglke(source: Path, names: Path | None) -> _Found:
    """Read the output of `dglke_train` or `dglke_dist_train`."""
    config = _settings(source)
    vectors = sorted(source.glob("*_entity.npy"))
    if len(vectors) > 1:
        raise InputError(
            f"{source} has several trainings: {', '.join(p.name for p in vectors)}. Keep one in "
            "the folder."
        )
    prefix = vectors[0].name.removesuffix("_entity.npy")
    model = config.get("model") or _model_of(prefix)
    entity_map = _map_file(source, names, config.get("emap_file"), "entities.tsv")
    relation_map = _map_file(source, names, config.get("rmap_file"), "relations.tsv")
    files = [vectors[0], entity_map, relation_map]
    found = _Found(
        "DGL-KE", str(model), _id_map(entity_map), _id_map(relation_map), _array(vectors[0]), files
    )
    path = source / f"{prefix}_relation.npy"
    if model in _TRANSE and path.is_file():
        found = replace(found, relation=_array(path), files=[*files, path])
    return replace(found, p_norm=_TRANSE.get(str(model)))


def _model_of(prefix: str) -> str:
    """Return the model of `<dataset>_<model>`; both may contain underscores."""
    ends = [model for model in _TRANSE if prefix.endswith(f"_{model}")]
    return max(ends, key=len) if ends else prefix.rpartition("_")[2]


def _map_file(source: Path, names: Path | None, configured: Any, usual: str) -> Path:
    """Find an id map under the name in the settings or the usual one."""
    wanted = [Path(str(configured)).name] if configured else []
    folders = [names] if names is not None else [source]
    if names is None and configured:
        folders.append(Path(str(configured)).parent)
    for folder in folders:
        for name in (*wanted, usual):
            if (folder / name).is_file():
                return folder / name
    raise InputError(
        f"{source}: no id map {' or '.join(dict.fromkeys((*wanted, usual)))} found. Give the "
        "folder of DGL-KE's data with --names."
    )


def _id_map(path: Path) -> list[str]:
    """Read the names by id from lines of `id<TAB>name`, or `name<TAB>id` (users' own maps).

    Raises:
        InputError: A row is malformed, or the ids are not 0..n-1, each once.
    """
    rejects = Rejects()
    rows = [row.fields for row in read_rows(path, (2,), rejects)]
    if rejects.count:
        raise InputError(f"{path}: {rejects.first}; expected `id<TAB>name`.")
    for number, name in ((0, 1), (1, 0)):
        found = {int(row[number]): row[name] for row in rows if row[number].isdecimal()}
        if len(found) == len(rows) == max(found) + 1:
            return [found[i] for i in range(len(rows))]
    raise InputError(f"{path}: expected `id<TAB>name` with the ids 0..{len(rows) - 1}, each once.")


def _array(path: Path) -> Floats:
    """Load a table of vectors; float32 files are memory-mapped."""
    try:
        # "c": torch requires writable memory.
        array = np.load(path, mmap_mode="c", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise InputError(f"{path} cannot be read as a numpy array: {error}") from None
    if array.ndim != 2 or array.dtype.kind != "f" or not array.size:
        raise InputError(
            f"{path}: expected vectors [n, dim], found {array.dtype} of shape {array.shape}."
        )
    vectors: Floats = np.asarray(array).astype(np.float32, copy=False)
    return vectors


# ---- GraphStorm


def _find_graphstorm(source: Path, names: Path | None) -> _Found:
    """Read the node embeddings of all node types, by name."""
    if names is not None:
        raise ConfigError("GraphStorm's files contain the names; --names does not apply.")
    files = sorted(source.glob("*/embed-*.parquet"))
    entities: list[str] = []
    tables: list[Floats] = []
    for path in files:
        try:
            rows = pq.read_table(path, columns=["nid", "emb"])
            listed = rows["nid"].cast(pa.string()).to_pylist()
            values = rows["emb"].combine_chunks().flatten().cast(pa.float32()).to_numpy()
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError, KeyError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{path} is not a table of `nid` and `emb`: {reason}") from None
        widths = set(pc.list_value_length(rows["emb"]).to_pylist())
        if len(widths) != 1 or None in widths or None in listed:
            raise InputError(f"{path}: expected a name and a vector of one length in each row.")
        entities += listed
        tables.append(values.reshape(len(listed), -1))
    if len({table.shape[1] for table in tables}) > 1:
        raise InputError(f"{source}: its node types have vectors of different lengths.")
    return _Found("GraphStorm", "unknown", entities, [], np.concatenate(tables), files)


# ---- PyTorch-BigGraph


def _find_biggraph(source: Path, names: Path | None) -> _Found:
    """Read the newest checkpoint of `torchbiggraph_train`."""
    config = _settings(source)
    version = _version(source)
    path = config.get("entity_path")
    folder = names or (Path(str(path)) if path and Path(str(path)).is_dir() else source)
    model = source / f"model.v{version}.h5"
    entities: list[str] = []
    tables: list[Floats] = []
    files: list[Path] = []
    for kind, part, path in _parts(source, version):
        listed = folder / f"entity_names_{kind}_{part}.json"
        if not listed.is_file():
            raise InputError(
                f"{listed} does not exist. Give the folder of BigGraph's entity_path with --names."
            )
        mine = _strings(listed)
        table = _dataset(path, "embeddings")
        if table is None or table.ndim != 2 or len(table) != len(mine):
            shape = None if table is None else table.shape
            raise InputError(
                f"{path}: expected `embeddings` for the {len(mine)} names of {listed.name}, found "
                f"shape {shape}."
            )
        shift = _dataset(model, f"model/entities/{kind}/global_embedding")
        tables.append(table if shift is None else table + shift)
        entities += mine
        files += [path, listed]
    if len({table.shape[1] for table in tables}) > 1:
        raise InputError(f"{source}: its entity types have vectors of different lengths.")
    configured = config.get("relations", [])
    relations = [str(r["name"]) for r in configured if "name" in r]
    if (folder / _RELATION_FILE).is_file():
        relations = _strings(folder / _RELATION_FILE)
    operators = sorted({str(r.get("operator", "none")) for r in configured})
    entity = tables[0] if len(tables) == 1 else np.concatenate(tables)
    model_name = "+".join(operators) or "unknown"
    return _Found("PyTorch-BigGraph", model_name, entities, relations, entity, files)


def _version(source: Path) -> int:
    """Return the number of the newest complete checkpoint."""
    path = source / "checkpoint_version.txt"
    if path.is_file():
        text = path.read_text(encoding="utf-8").strip()
        if text.isdigit():
            return int(text)
        raise InputError(f"{path}: expected a number, found {text[:40]!r}.")
    names = [path.name for path in source.glob("embeddings_*.h5")]
    found = [int(m[1]) for name in names if (m := re.search(r"\.v(\d+)\.h5$", name))]
    if not found:
        raise InputError(f"{source}: expected files such as embeddings_all_0.v10.h5.")
    return max(found)


def _parts(source: Path, version: int) -> list[tuple[str, int, Path]]:
    """Return type, partition and file of each table of a checkpoint, in order."""
    pattern = re.compile(rf"embeddings_(.+)_(\d+)\.v{version}\.h5")
    found = [
        (m[1], int(m[2]), path)
        for path in source.glob("embeddings_*.h5")
        if (m := pattern.fullmatch(path.name))
    ]
    if not found:
        raise InputError(f"{source} has no embeddings of checkpoint {version}.")
    for kind in {kind for kind, _, _ in found}:
        mine = sorted(part for other, part, _ in found if other == kind)
        if mine != list(range(len(mine))):
            raise InputError(f"{source}: only the partitions {mine} of type {kind} exist.")
    return sorted(found)


def _dataset(path: Path, name: str) -> Floats | None:
    """Read a dataset of an HDF5 file; None: the file or the dataset is missing."""
    try:
        import h5py
    except ModuleNotFoundError:
        raise ConfigError(
            "PyTorch-BigGraph's files are HDF5, and h5py is not installed. Install it: "
            "pip install h5py (or the toolkit's extra `biggraph`)."
        ) from None
    if not path.is_file():
        return None
    try:
        with h5py.File(path, "r") as file:
            return np.asarray(file[name][...], np.float32) if name in file else None
    except OSError as error:
        raise InputError(f"{path} cannot be read as HDF5: {error}") from None


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON: {error}.") from None


def _settings(source: Path) -> dict[str, Any]:
    """Read the settings of a training; empty without its file."""
    path = source / "config.json"
    value = _json(path) if path.is_file() else {}
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected an object of settings.")
    return value


def _strings(path: Path) -> list[str]:
    """Read a JSON list of strings."""
    value = _json(path)
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise InputError(f"{path}: expected a list of names.")
    return value
