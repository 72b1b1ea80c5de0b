"""Keep OpenVINO from telling of its use: it sends a message to Google Analytics for every network that it converts.

Slides are patients' data on machines that often must not talk to the outside at all, and each of some forty messages
comes with a process of its own. Where its package for that, ``openvino_telemetry``, cannot be imported, OpenVINO takes
a stub of its own that sends nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

_PACKAGE = "openvino_telemetry"


@contextmanager
def without_telemetry() -> Iterator[None]:
    """Import OpenVINO and convert networks within this block; a session that imported it before keeps its choice.

    Examples
    --------
    >>> with without_telemetry():
    ...     import openvino_telemetry
    Traceback (most recent call last):
    ModuleNotFoundError: import of openvino_telemetry halted; None in sys.modules
    """
    known = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == _PACKAGE}
    sys.modules.update(dict.fromkeys({_PACKAGE, *known}))  # type: ignore[arg-type]
    try:
        yield
    finally:
        del sys.modules[_PACKAGE]
        sys.modules.update(known)
