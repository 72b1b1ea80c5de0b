"""The one concurrency primitive: map in threads, with a bounded look-ahead and the order kept."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from pathopan.errors import PathopanError

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


def ordered_map(
    function: Callable[[ItemT], ResultT],
    items: Iterable[ItemT],
    *,
    workers: int,
    ahead: int | None = None,
    abandon: Callable[[], None] = lambda: None,
) -> Generator[ResultT, None, None]:
    """Apply a function to each item in threads; yield the results in the items' order.

    Parameters
    ----------
    function : callable
        Must not depend on the order of its calls. An exception surfaces when its item's turn comes.
        So does an error of pathopan's own while an item is drawn.
    items : iterable
        Drawn from the caller's thread, at most ``ahead`` items before they are needed: this bounds the memory.
    workers : int
        Threads; 0 is plain ``map``.
    ahead : int, optional
        Items in flight; one more than ``workers`` by default.
    abandon : callable
        Called when an error or an interruption ends the map early, before the threads at work are waited for.

    Examples
    --------
    >>> list(ordered_map(lambda x: x * x, range(4), workers=2))
    [0, 1, 4, 9]
    """
    if workers == 0:
        yield from map(function, items)
        return
    ahead = workers + 1 if ahead is None else ahead
    pending: deque[Future[ResultT]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for future in _submitted(pool, function, items):
                pending.append(future)
                if len(pending) > ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except BaseException:
            abandon()
            raise
        finally:
            for future in pending:
                future.cancel()


def in_turn(function: Callable[[ItemT], object], items: Iterable[ItemT], *, workers: int) -> None:
    """Call a function with each item for what it does, as :func:`ordered_map` does.

    Examples
    --------
    >>> seen = []
    >>> in_turn(seen.append, range(3), workers=1)
    >>> seen
    [0, 1, 2]
    """
    for _ in ordered_map(function, items, workers=workers):
        pass


def _submitted(
    pool: ThreadPoolExecutor, function: Callable[[ItemT], ResultT], items: Iterable[ItemT]
) -> Iterator[Future[ResultT]]:
    """Draw items and hand them to the threads; one that cannot be drawn takes its turn as a failed result."""
    try:
        for item in items:
            yield pool.submit(function, item)
    except PathopanError as error:
        failed: Future[ResultT] = Future()
        failed.set_exception(error)
        yield failed
