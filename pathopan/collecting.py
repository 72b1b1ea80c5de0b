"""How often Python looks for cycles of dead objects while a slide's nuclei are objects by the hundred thousand."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_THRESHOLDS = (50_000, 20, 100)
"""New objects until the young are looked at, and rounds until the old are; Python's own are 700, 10, 10."""


@contextmanager
def collecting_rarely() -> Iterator[None]:
    """Look for cycles seldom: outlines and features hold none, and looking costs a fifth of an export.

    Examples
    --------
    >>> with collecting_rarely():
    ...     gc.get_threshold()
    (50000, 20, 100)
    >>> gc.get_threshold() == (50000, 20, 100)
    False
    """
    before = gc.get_threshold()
    gc.set_threshold(*_THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
