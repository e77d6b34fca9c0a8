"""Vectors of other engines, from files written here as those engines write them."""

import json
import sys

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import cli
from data.errors import ConfigError, InputError
from data.kg_folder import read_names, read_vectors
from data.runs import verify
from kg.kg_store import load_vectors
from kg.tools.evaluate import eval_kg
from kg.tools.import_embeddings import import_vectors
from kg.tools.nearest import find_nearest
from kg.tools.stats import kg_stats

NAMES = ["北京", "中国", "东京", "日本", "Ｔ恤"]
RELATIONS = ["首都", "属于"]
# Capitals are their country less the relation.
ENTITIES = np.array([[1, 0], [1, 1], [5, 0], [5, 1], [-9, -9]], np.float32)
MOVES = np.array([[0, 1], [3, 3]], np.float32)


def dglke(folder, model="TransE_l2", dataset="CN_DBpedia", dtype=np.float32):
    """`dglke_train --save_path folder --data_path folder/data`, with names."""
    data = folder / "data"
    data.mkdir(parents=True)
    np.save(folder / f"{dataset}_{model}_entity.npy", ENTITIES.astype(dtype))
    np.save(folder / f"{dataset}_{model}_relation.npy", MOVES.astype(dtype))
    for file, names in (("entities.tsv", NAMES), ("relations.tsv", RELATIONS)):
        lines = [f"{i}\t{name}\n" for i, name in enumerate(names)]
        (data / file).write_text("".join(reversed(lines)), encoding="utf-8")
    settings = {"model": model, "dataset": dataset, "emb_size": 2, "gamma": 12.0}
    settings |= {"emap_file": str(data / "entities.tsv"), "rmap_file": str(data / "relations.tsv")}
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def biggraph(folder, partitions=2, version=7, shift=None):
    """`torchbiggraph_train` with one entity type, its checkpoint and the names of its importer."""
    names = folder / "entities"
    names.mkdir(parents=True)
    for part in range(partitions):
        mine = slice(part, None, partitions)
        for v in (version - 1, version):  # an older checkpoint that was preserved
            with h5py.File(folder / f"embeddings_all_{part}.v{v}.h5", "w") as file:
                file["embeddings"] = ENTITIES[mine] if v == version else -ENTITIES[mine]
                file.attrs["format_version"] = 1
        listed = names / f"entity_names_all_{part}.json"
        listed.write_text(json.dumps(NAMES[mine]), encoding="utf-8")
    (names / "dynamic_rel_names.json").write_text(json.dumps(RELATIONS), encoding="utf-8")
    (folder / "checkpoint_version.txt").write_text(f"{version}\n")
    with h5py.File(folder / f"model.v{version}.h5", "w") as file:
        file["model/relations/0/operator/rhs/translations"] = MOVES
        if shift is not None:
            file["model/entities/all/global_embedding"] = np.array(shift, np.float32)
    relations = [{"name": "all_edges", "lhs": "all", "rhs": "all", "operator": "translation"}]
    config = {"entity_path": str(names), "dynamic_relations": True, "relations": relations}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_training_of_dgl_ke_becomes_a_kg_folder(tmp_path, dtype):
    out = tmp_path / "kg"
    report = import_vectors(dglke(tmp_path / "ckpt", dtype=dtype), out)
    assert "5 entities of 2 dimensions, from DGL-KE" in str(report)
    manifest = verify(out)
    assert manifest.settings == {"engine": "DGL-KE", "model": "TransE_l2", "p_norm": 2}
    assert read_names(out / "entity2id.txt") == NAMES
    assert read_names(out / "relation2id.txt") == RELATIONS
    np.testing.assert_array_equal(read_vectors(out), ENTITIES)
    np.testing.assert_array_equal(load_vectors(out)[1].numpy(), MOVES)
    assert find_nearest(out, "东京", count=1).found[0].name == "北京"
    assert find_nearest(out, "Ｔ恤").name == "Ｔ恤"


def test_a_users_own_id_map_has_its_ids_behind_the_names(tmp_path):
    source = dglke(tmp_path / "ckpt")
    lines = [f"{name}\t{i}\n" for i, name in enumerate(NAMES)]
    (source / "data/entities.tsv").write_text("".join(lines), encoding="utf-8")
    import_vectors(source, tmp_path / "kg")
    assert read_names(tmp_path / "kg/entity2id.txt") == NAMES


def test_an_imported_graph_can_be_measured_and_described(tmp_path):
    dump = tmp_path / "d.tsv"
    dump.write_text("北京\t首都\t中国\n东京\t首都\t日本\nT恤\t属于\t外国\n", encoding="utf-8")
    out = tmp_path / "kg"
    import_vectors(dglke(tmp_path / "ckpt"), out, triples=dump)
    assert kg_stats(out).triples == 2
    metrics = eval_kg(out, triples=dump, device="cpu").metrics
    assert metrics["both"]["mrr"] == 1
    assert metrics["num_triples"] == 2
    with pytest.raises(InputError, match="--triples"):
        eval_kg(out, device="cpu")


def test_relations_that_do_not_translate_are_left_out(tmp_path):
    report = import_vectors(dglke(tmp_path / "ckpt", model="RotatE"), tmp_path / "kg")
    assert "cannot score" in str(report)
    with pytest.raises(InputError, match="has no relation_vectors"):
        load_vectors(tmp_path / "kg")


def test_the_newest_checkpoint_of_biggraph_becomes_a_kg_folder(tmp_path):
    out = tmp_path / "kg"
    import_vectors(biggraph(tmp_path / "model"), out)
    by_part = [*range(0, 5, 2), *range(1, 5, 2)]
    assert read_names(out / "entity2id.txt") == [NAMES[i] for i in by_part]
    np.testing.assert_array_equal(read_vectors(out), ENTITIES[by_part])
    assert read_names(out / "relation2id.txt") == RELATIONS
    assert verify(out).settings["model"] == "translation"


def test_biggraphs_global_embedding_is_added(tmp_path):
    import_vectors(biggraph(tmp_path / "model", 1, shift=[10, 20]), tmp_path / "kg")
    np.testing.assert_array_equal(read_vectors(tmp_path / "kg"), ENTITIES + np.array([10, 20]))


def test_without_h5py_the_message_names_what_to_install(tmp_path, monkeypatch):
    source = biggraph(tmp_path / "model")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ConfigError, match="pip install h5py"):
        import_vectors(source, tmp_path / "kg")


VECTORS = "CN_DBpedia_TransE_l2_entity.npy"
SAME_NAMES = "0\ta\n1\ta\n2\ta\n3\ta\n4\ta\n"


@pytest.mark.parametrize(
    ("make", "file", "content", "said"),
    [
        (dglke, "data/entities.tsv", None, "--names"),
        (dglke, "data/entities.tsv", "0\t北京\n1\t中国\n", "5 entity vectors but 2"),
        (dglke, "data/entities.tsv", "0\ta\n0\tb\n", r"ids 0\.\.1, each once"),
        (dglke, "data/entities.tsv", "0\ta\n5\tb\n", r"ids 0\.\.1, each once"),
        (dglke, "data/entities.tsv", "0 a\n", "wrong column count"),
        (dglke, "data/entities.tsv", SAME_NAMES, "'a' is given to several ids"),
        (dglke, "data/relations.tsv", "0\t首都\n", "2 relation vectors but 1"),
        (dglke, "config.json", "{", "cannot be read as JSON"),
        (dglke, VECTORS, ENTITIES * np.nan, "NaN or infinite"),
        (dglke, VECTORS, np.array(NAMES), "expected vectors"),
        (dglke, VECTORS, "x", "as a numpy array"),
        (dglke, "b_RotatE_entity.npy", ENTITIES, "several trainings"),
        (biggraph, "entities/entity_names_all_1.json", None, "--names"),
        (biggraph, "entities/entity_names_all_1.json", "[1]", "a list of names"),
        (biggraph, "entities/entity_names_all_1.json", '["a"]', "for the 1 names"),
        (biggraph, "embeddings_all_1.v7.h5", "x", "cannot be read as HDF5"),
        (biggraph, "embeddings_all_0.v7.h5", None, r"only the partitions \[1\]"),
        (biggraph, "checkpoint_version.txt", "9", "no embeddings of checkpoint 9"),
        (biggraph, "checkpoint_version.txt", "x", "expected a number"),
    ],
)
def test_a_damaged_training_is_refused(tmp_path, make, file, content, said):
    path = make(tmp_path / "source") / file
    if content is None:
        path.unlink()
    elif isinstance(content, str):
        path.write_text(content, encoding="utf-8")
    else:
        np.save(path, content)
    with pytest.raises(InputError, match=said):
        import_vectors(tmp_path / "source", tmp_path / "kg")
    assert not (tmp_path / "kg").exists()


def test_the_command_takes_either(tmp_path):
    for name, make in (("a", dglke), ("b", biggraph)):
        source = make(tmp_path / name)
        out = tmp_path / f"kg-{name}"
        result = CliRunner().invoke(cli.app, ["kg", "import", str(source), "--out", str(out)])
        assert result.exit_code == 0, result.exception
        assert "5 entities" in result.stdout
    result = CliRunner().invoke(cli.app, ["kg", "import", str(tmp_path), "--out", str(out)])
    assert "neither DGL-KE's" in str(result.exception)


def graphstorm(folder, types=("place", "thing"), list_type=None):
    """`save_embed_path` after `gconstruct.remap_result`, in files of two rows."""
    list_type = list_type or pa.list_(pa.float32())
    for n, kind in enumerate(types):
        (folder / kind).mkdir(parents=True)
        mine = range(n, len(NAMES), len(types))
        for begin in range(0, len(mine), 2):
            chosen = mine[begin : begin + 2]
            rows = {
                "nid": pa.array([NAMES[i] for i in chosen]),
                "emb": pa.array(ENTITIES[chosen].tolist(), list_type),
            }
            pq.write_table(pa.table(rows), folder / kind / f"embed-00000_{begin:05}.parquet")
    return folder


@pytest.mark.parametrize("list_type", [pa.list_(pa.float32()), pa.list_(pa.float64(), 2)])
def test_graphstorms_vectors_are_imported_by_name(tmp_path, list_type):
    report = import_vectors(graphstorm(tmp_path / "emb", list_type=list_type), tmp_path / "kg")
    names = read_names(tmp_path / "kg" / "entity2id.txt")
    assert sorted(names) == sorted(NAMES)
    order = [NAMES.index(name) for name in names]
    np.testing.assert_array_equal(read_vectors(tmp_path / "kg"), ENTITIES[order])
    assert "no relation vectors" in str(report)
    assert verify(tmp_path / "kg").settings["engine"] == "GraphStorm"
    assert find_nearest(tmp_path / "kg", "北京", count=1).found


def test_other_tables_and_unmapped_ids_of_graphstorm_are_refused(tmp_path):
    folder = graphstorm(tmp_path / "emb")
    pq.write_table(pa.table({"nid": ["x"]}), folder / "place" / "embed-1.parquet")
    with pytest.raises(InputError, match=r"embed-1\.parquet is not a table of `nid` and `emb`"):
        import_vectors(folder, tmp_path / "kg")
    rows = {"nid": ["x", "y"], "emb": [[1.0], [1.0, 2.0]]}
    pq.write_table(pa.table(rows), folder / "place" / "embed-1.parquet")
    with pytest.raises(InputError, match="a vector of one length"):
        import_vectors(folder, tmp_path / "kg")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "emb_info.json").write_text("{}")
    with pytest.raises(InputError, match=r"remap_result"):
        import_vectors(tmp_path / "raw", tmp_path / "kg")
