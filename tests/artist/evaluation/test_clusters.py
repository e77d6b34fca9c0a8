"""Clusters: intervals that cover although captions share a class, an entity or an image."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artist.evaluation.clusters import find_clusters
from artist.evaluation.confidence_intervals import interval
from artist.tables.lattice_rows import Rows
from data.errors import InputError, SchemaError
from data.schema import LATTICE


def make_rows(spans: list[list[tuple[int, int, int]]], codes: list[int]) -> Rows:
    """Captions with entities `(id, start, end)` and an image of one code."""
    flat = np.array([span for row in spans for span in row], dtype=np.int64).reshape(-1, 3)
    return Rows(
        idx=[f"c{n}" for n in range(len(codes))],
        texts=[""] * len(codes),
        bert_ids=np.zeros((len(codes), 4), dtype=np.int64),
        codes=np.array(codes, dtype=np.uint16)[:, None],
        first_entity=np.cumsum([0, *map(len, spans)]),
        entity_ids=flat[:, 0],
        starts=flat[:, 1],
        ends=flat[:, 2],
        metadata={},
    )


def make_table(path: Path, **columns: list) -> Path:
    """A lattice table with these columns; the others are empty."""
    N = len(next(iter(columns.values())))
    empty = {"idx": [f"c{n}" for n in range(N)], "text": [""] * N, "seq_len": [0] * N}
    values = [pa.array(empty.get(f.name, [[]] * N), f.type) for f in LATTICE]
    table = pa.table(values, schema=LATTICE)
    for name, column in columns.items():
        table = table.append_column(name, pa.array(column))
    pq.write_table(table, path)
    return path


def share_covered(effects: list[float], by: str, *, sizes: tuple[int, int] = (5, 40)) -> float:
    """Return how often an interval covers the true mean of 0.

    The loss of a caption is the sum of an effect of its class (34), an effect of its image, and its
    own, with these standard deviations; an image has captions of several classes.
    """
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        classes = np.repeat(np.arange(34), rng.integers(*sizes, size=34))
        images = rng.permutation(len(classes)) // 3
        parts = [rng.normal(size=34)[classes], rng.normal(size=len(classes))[images]]
        parts.append(rng.normal(size=len(classes)))
        values = sum(scale * part for scale, part in zip(effects, parts, strict=True))
        ways = {"class": classes, "image": images, "both": np.stack([classes, images], axis=1)}
        found = interval(values, ways.get(by))
        held += abs(found.mean) < found.half_width
    return held / 400


def test_captions_of_a_class_need_an_interval_that_is_clustered_by_class():
    effects = [0.5, 0.0, 1.0]
    assert 0.91 < share_covered(effects, "class") < 0.98
    assert share_covered(effects, "image") < 0.75
    assert share_covered(effects, "none") < 0.75


def test_captions_that_share_images_and_classes_need_both_ways_of_clustering():
    effects = [0.4, 1.5, 0.5]
    assert 0.91 < share_covered(effects, "both") < 0.985
    assert share_covered(effects, "class") < 0.9
    assert share_covered(effects, "image") < 0.9


@given(st.lists(st.integers(0, 9), min_size=2, max_size=30), st.integers(2, 4))
def test_a_second_way_that_divides_the_clusters_of_the_first_can_only_widen(images, classes):
    values = np.sin(np.arange(len(images), dtype=np.float64))
    images = np.array(images)
    coarse = images % classes
    found = interval(values, np.stack([coarse, images], axis=1))
    alone = interval(values, coarse)
    assert np.isnan(found.half_width) == np.isnan(alone.half_width)
    assert not found.half_width < alone.half_width * (1 - 1e-9)


def test_captions_with_the_same_longest_entity_are_one_cluster_and_images_count_too(tmp_path):
    spans = [
        [(0, 0, 1), (1, 0, 2)],  # 棕熊 contains 熊
        [(1, 1, 3)],
        [(2, 0, 1), (0, 2, 3)],  # equally long: the first
        [],
        [],
    ]
    rows = make_rows(spans, [0, 1, 2, 3, 3])
    found = find_clusters(rows, "entity", table=tmp_path, names=["熊", "棕熊", "车"])
    assert found.labels == ["棕熊", "棕熊", "车", "image 3", "image 3"]
    assert found.groups[:, 1].tolist() == [0, 1, 2, 3, 3]
    assert str(found) == "clustered by entity (3) and image (4)"
    assert find_clusters(rows, "entity", table=tmp_path).labels[2] == "entity 2"
    assert str(find_clusters(rows, "image", table=tmp_path)) == "clustered by image (4)"


def test_a_column_of_the_table_or_a_file_of_classes_can_be_the_cluster(tmp_path):
    rows = make_rows([[], [], []], [0, 1, 2])
    table = make_table(tmp_path / "t.parquet", kind=["动物", "动物", None], year=[1, 2, 1])
    assert find_clusters(rows, "kind", table=table).labels == ["动物", "动物", "image 2"]
    assert find_clusters(rows, "year", table=table).labels == ["1", "2", "1"]
    classes = tmp_path / "classes.tsv"
    classes.write_text("c1\t车\nc0\t车\nc2\t花\nc9\t花\n", encoding="utf-8")
    found = find_clusters(rows, str(classes), table=table)
    assert found.labels == ["车", "车", "花"]
    assert str(found) == "clustered by classes (2) and image (3)"


@pytest.mark.parametrize(
    ("by", "message"),
    [
        ("kin", "did you mean 'kind'|kind"),
        ("input_ids", "column 'input_ids' has lists or bytes"),
    ],
)
def test_a_column_that_cannot_be_used_is_refused(tmp_path, by, message):
    table = make_table(tmp_path / "t.parquet", kind=["a"])
    with pytest.raises(SchemaError, match=message):
        find_clusters(make_rows([[]], [0]), by, table=table)


@pytest.mark.parametrize(
    ("content", "message"),
    [("c0\n", r"classes.tsv: line 1.*expected `idx<TAB>class`"), ("c1\ta\n", "no class.* 'c0'")],
)
def test_a_file_of_classes_must_be_complete(tmp_path, content, message):
    (tmp_path / "classes.tsv").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        find_clusters(make_rows([[]], [0]), str(tmp_path / "classes.tsv"), table=tmp_path)
