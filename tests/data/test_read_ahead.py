import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.read_ahead import lookahead, map_ahead


def noted(items, taken):
    """Yield the items; append each to `taken` first."""
    for item in items:
        taken.append(item)
        yield item


@given(items=st.lists(st.integers()), ahead=st.integers(0, 5))
def test_lookahead_yields_the_items_in_order_with_a_bounded_number_taken(items, ahead):
    taken = []
    for number, item in enumerate(lookahead(noted(items, taken), ahead), 1):
        assert item == items[number - 1]
        assert len(taken) == min(number + ahead, len(items))
    assert taken == items


@pytest.mark.parametrize("num_threads", [1, 3])
def test_map_ahead_keeps_the_order_and_the_bound(num_threads):
    taken = []

    def slow_at_first(item):
        time.sleep(0.01 if item < 3 else 0)
        return item * item

    for number, (item, result) in enumerate(
        map_ahead(slow_at_first, noted(range(30), taken), num_threads)
    ):
        assert (item, result) == (number, number * number)
        assert len(taken) <= number + num_threads + 1


@pytest.mark.parametrize("num_threads", [1, 3])
def test_errors_of_items_and_of_their_source_are_raised_in_order(num_threads):
    def source():
        yield from range(4)
        raise LookupError("source")

    def fails_at_two(item):
        if item == 2:
            raise ValueError(item)
        return item

    results = map_ahead(str, source(), num_threads)
    assert [next(results)[0] for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(LookupError, match="source"):
        next(results)
    results = map_ahead(fails_at_two, source(), num_threads)
    assert [next(results)[0] for _ in range(2)] == [0, 1]
    with pytest.raises(ValueError, match="2"):
        next(results)


def test_what_is_in_flight_is_dropped_when_the_consumer_stops():
    started = []
    release = threading.Event()

    def blocks(item):
        started.append(item)
        if item:
            release.wait(5)

    results = map_ahead(blocks, range(100), 2)
    next(results)
    release.set()
    results.close()
    assert len(started) <= 4
    assert not [t for t in threading.enumerate() if t.name.startswith("map_ahead")]
