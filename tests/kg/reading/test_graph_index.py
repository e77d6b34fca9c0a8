"""String ids and triples from hashes, compared with slow computations."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import kg.reading.graph_index
from kg.reading.graph_index import StringIndex, distinct, gather, order_names


def test_a_hash_keeps_its_id_while_the_table_grows(monkeypatch):
    monkeypatch.setattr(kg.reading.graph_index, "_FIRST_CAPACITY", 8)
    generator = np.random.default_rng(0)
    # Few distinct hashes with equal low bits, so that slots collide; zero is one of them.
    values = generator.integers(0, 5000, (4000, 3)).astype(np.uint64) << np.uint64(40)
    strings = StringIndex()
    place = np.arange(len(values))
    blocks = [
        strings.add(values[i : i + 7], values[i : i + 7, ::2], place[i : i + 7])
        for i in range(0, len(values), 7)
    ]
    numbers = np.concatenate(blocks)
    known = dict(zip(values.ravel().tolist(), numbers.ravel().tolist(), strict=True))
    assert [known[v] for v in values.ravel().tolist()] == numbers.ravel().tolist()
    assert sorted(known.values()) == list(range(strings.count))
    first = {}
    for i, v in enumerate(values.ravel().tolist()):
        first.setdefault(v, i // 3 * 4 + i % 3)
    assert [first[v] for v in sorted(known, key=known.get)] == strings.position[
        : strings.count
    ].tolist()


def test_other_spellings_of_a_name_are_counted_once_each(monkeypatch):
    monkeypatch.setattr(kg.reading.graph_index, "_COMPACT", 3)
    strings = StringIndex()
    for spelled in ([7, 8, 7], [9, 8, 7], [8, 9, 9]):
        hashes = np.array([[5, 1, 6]] * 3, np.uint64)
        stood = np.stack([np.array(spelled, np.uint64), np.full(3, 6, np.uint64)], axis=1)
        strings.add(hashes, stood, np.arange(3))
    assert strings.finish().tolist() == [2, 0, 0]


def test_triples_are_sorted_and_each_is_kept_once():
    generator = np.random.default_rng(0)
    rows = generator.integers(0, 2**16, (3000, 3)).astype(np.int32)
    rows[:, 1] %= 2**12
    rows[: len(rows) // 2, 0] = 3  # a group too long for insertion sort
    rows = np.concatenate([rows, rows[:900]])
    np.testing.assert_array_equal(distinct(rows, 2**16, 2**12), np.unique(rows, axis=0))


@settings(max_examples=100, deadline=None)
@given(values=st.lists(st.integers(0, 40), max_size=300), falling=st.booleans())
def test_the_sort_permutes_the_values_as_the_keys(values, falling):
    keys = np.array(sorted(values, reverse=True) if falling else values, np.uint64)
    other = np.arange(len(keys))
    before = keys.copy()
    kg.reading.graph_index._sort(keys, other, 0, len(keys))
    np.testing.assert_array_equal(keys, np.sort(before))
    np.testing.assert_array_equal(before[other], keys)


@settings(max_examples=100, deadline=None)
@given(
    names=st.sets(st.text("ab甲é", max_size=20), max_size=200),
    stem=st.text("甲乙", max_size=20),
    limit=st.integers(1, 3),
)
def test_names_are_ordered_by_count_then_code_point(names, stem, limit):
    texts = [stem + name for name in names]
    counts = np.array([len(t) % limit for t in texts], np.int32)
    raw = [t.encode() for t in texts]
    end = np.cumsum([len(r) for r in raw], dtype=np.int64)
    span = np.stack([end - [len(r) for r in raw], end], axis=1).astype(np.int64).reshape(-1, 2)
    data = np.frombuffer(b"".join(raw) + b"\n", np.uint8)
    order = order_names(data, span, counts)
    wanted = sorted(range(len(texts)), key=lambda i: (-counts[i], texts[i]))
    assert order.tolist() == wanted
    joined, offsets = gather(data, span, order)
    assert joined.tobytes().decode() == "".join(texts[i] for i in wanted)
    assert offsets[-1] == len(joined)
