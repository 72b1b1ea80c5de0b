import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pathopan.errors import UnreadableSlide
from pathopan.inference.ordered import ordered_map


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_the_order_is_kept_although_the_first_are_slowest(workers):
    def slow(item: int) -> int:
        time.sleep(0.004 * (8 - item))
        return item * item

    assert list(ordered_map(slow, range(8), workers=workers)) == [i * i for i in range(8)]


@given(st.lists(st.integers(), max_size=20), st.integers(0, 4), st.integers(0, 6))
def test_any_number_of_workers_gives_what_map_gives(items, workers, ahead):
    assert list(ordered_map(lambda x: -x, items, workers=workers, ahead=ahead)) == [-x for x in items]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_an_error_surfaces_at_its_item(workers):
    def fragile(item: int) -> int:
        if item == 5:
            raise ValueError("five")
        return item

    results = ordered_map(fragile, range(10), workers=workers)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="five"):
        next(results)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_an_error_while_drawing_lets_the_items_before_it_through(workers):
    def broken():
        yield from range(5)
        raise UnreadableSlide("the sixth")

    results = ordered_map(lambda x: x, broken(), workers=workers)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(UnreadableSlide, match="the sixth"):
        next(results)


@pytest.mark.parametrize(("workers", "ahead"), [(1, 0), (1, 3), (3, None), (3, 6)])
def test_no_more_items_are_drawn_than_allowed(workers, ahead):
    drawn = []

    def source():
        for item in range(30):
            drawn.append(item)
            yield item

    allowed = workers + 1 if ahead is None else ahead
    for count, _ in enumerate(ordered_map(lambda x: x, source(), workers=workers, ahead=ahead), start=1):
        assert len(drawn) <= count + allowed


def test_no_worker_means_the_callers_thread_and_nothing_in_advance():
    seen = []
    results = ordered_map(lambda item: seen.append((item, threading.get_ident())), range(3), workers=0)
    next(results)
    assert seen == [(0, threading.get_ident())]


def test_workers_really_run_at_once():
    meeting = threading.Barrier(3, timeout=5)
    assert len(list(ordered_map(lambda _: meeting.wait(), range(3), workers=3))) == 3


def test_leaving_early_stops_the_threads():
    before = threading.active_count()
    results = ordered_map(lambda item: item, range(1000), workers=3)
    next(results)
    results.close()
    assert threading.active_count() == before


def test_no_items():
    assert list(ordered_map(lambda x: x, [], workers=2)) == []
