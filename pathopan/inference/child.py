"""A process that may die: a decoder crashes, memory runs out, a read hangs, and whoever asked goes on.

One long-lived child answers requests in turn, so what it loads, such as a network, is loaded once. A child that died is
started again for the next request. Parent and child talk in pickles over the child's standard input and output; what
native code prints goes to a log that the parent shows when the child has died.
"""

from __future__ import annotations

import _thread
import contextlib
import faulthandler
import json
import os
import pickle
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from pathopan.errors import ProcessDied, ProcessStalled
from pathopan.inference.memory import give_back

Tell = Callable[..., None]
"""Told anything, as often as the child likes, while it works on a request."""

Answer = Callable[[Any, Tell], Any]
"""Turns a request into its answer."""

Start = Callable[[], tuple[Any, Answer]]
"""Called once in each child: gives a greeting, and what answers requests. Must be importable by name."""

_SCRIPT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); from pathopan.inference import child; child.serve()"
)
_START_S = 600.0  # to get ready, at least: the first import of large libraries from a network drive takes minutes
_GRACE_S = 3.0  # for a child to clean up once its parent is gone or has closed it
_TAIL_BYTES = 64_000  # of the log, that are read
_LOG_CHARS = 4_000  # of their end, that are kept
_DIED = object()


class Child:
    """The parent's side.

    Parameters
    ----------
    start : callable
        What the child runs first.
    patience_s : float
        A child that says nothing for so long is killed.
    keep_open : tuple of int
        File descriptors that the child shall hold too, such as that of a lock, which then ends with the last of both.
        Not on Windows.
    """

    def __init__(self, start: Start, *, patience_s: float, keep_open: tuple[int, ...] = ()) -> None:
        """Start the first child; it makes itself ready while the caller goes on."""
        self._start = start
        self._patience_s = patience_s
        self._keep_open = keep_open
        self._running = [_launch(start, keep_open)]
        self._closed = threading.Event()

    def greeting(self) -> Any:
        """Wait until the child is ready.

        Raises
        ------
        ProcessDied
            If it does not get so far. Whatever ``start`` raises is raised here.
        """
        if not self._running:
            self._running.append(_launch(self._start, self._keep_open))
        process = self._running[0]
        if not process.greetings:
            process.greetings.append(self._await(unheard, max(_START_S, self._patience_s)))
        return process.greetings[0]

    def ask(self, request: Any, hear: Tell) -> Any:
        """Have a request answered.

        Parameters
        ----------
        request : picklable
            What is asked.
        hear : callable
            Called with whatever the child tells in between.

        Raises
        ------
        ProcessDied
            If the child died of it. The next request starts another one.
        ProcessStalled
            If it said nothing for ``patience_s``, and was killed.
        KeyboardInterrupt
            If another thread closed it meanwhile.
        """
        self.greeting()
        process = self._running[0]
        process.clear_log()
        with contextlib.suppress(OSError):  # one that died since its last answer is found out by its silence
            pickle.dump(request, process.requests)
            process.requests.flush()
        return self._await(hear, self._patience_s)

    def _await(self, hear: Tell, patience_s: float) -> Any:
        process = self._running[0]
        while True:
            try:
                message = process.heard.get(timeout=patience_s)
            except queue.Empty:
                log = self._bury()
                msg = f"nothing happened for {patience_s:.0f} s, and its process was ended"
                raise ProcessStalled(msg, log=log) from None
            if message is _DIED and self._closed.is_set():
                raise KeyboardInterrupt
            if message is _DIED:
                code = process.popen.wait()
                raise ProcessDied(describe_exit(code), log=self._bury())
            kind, value = message
            if kind == "told":
                hear(*value)
            elif kind == "raised":
                raise value
            else:
                return value

    def _bury(self) -> str:
        """End the child if it lives, and give the end of its log."""
        process = self._running.pop()
        process.end(grace_s=0)
        return process.read_log()

    def close(self) -> None:
        """End the child: it may clean up, but not for long."""
        self._closed.set()
        while self._running:
            process = self._running.pop()
            process.end(grace_s=_GRACE_S + 1)
            process.log.close()

    def __enter__(self) -> Self:
        """End the child at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the child."""
        self.close()


def unheard(*_told: Any) -> None:
    """Take what is told while nobody listens."""


class _Process:
    """A running child, and what it says."""

    def __init__(self, popen: subprocess.Popen[bytes], log: IO[bytes]) -> None:
        assert popen.stdin is not None
        self.popen = popen
        self.requests: IO[bytes] = popen.stdin
        self.log = log
        self.heard: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.greetings: list[Any] = []
        self._listener = threading.Thread(target=_hear, args=(popen.stdout, self.heard), daemon=True)
        self._listener.start()

    def clear_log(self) -> None:
        """Forget what was printed for earlier requests."""
        self.log.seek(0)
        self.log.truncate()

    def read_log(self) -> str:
        """Give the end of what was printed, and let go of it.

        The list of all loaded extension modules, which Python prints after the stack of a crash, would fill it.
        """
        with self.log as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(0, size - _TAIL_BYTES))
            lines = log.read().decode(errors="replace").splitlines()
        return "\n".join(line for line in lines if not line.startswith("Extension modules:")).strip()[-_LOG_CHARS:]

    def end(self, *, grace_s: float) -> None:
        """Close the child's input, which tells it to end; kill it if it does not."""
        with contextlib.suppress(OSError):
            self.requests.close()
        try:
            self.popen.wait(grace_s)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        self._listener.join()
        assert self.popen.stdout is not None
        self.popen.stdout.close()


def _launch(start: Start, keep_open: tuple[int, ...]) -> _Process:
    """Start a child in a session of its own, so that Ctrl-C reaches the parent alone."""
    log = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the child)
    popen = subprocess.Popen(
        [sys.executable, "-c", _SCRIPT, json.dumps(sys.path), *sys.argv[1:]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        start_new_session=True,
        pass_fds=keep_open if os.name == "posix" else (),
    )
    process = _Process(popen, log)
    with contextlib.suppress(OSError):
        pickle.dump(start, process.requests)
        process.requests.flush()
    return process


def _hear(stream: IO[bytes], heard: queue.SimpleQueue[Any]) -> None:
    """Pass on what the child says, until it ends."""
    with contextlib.suppress(EOFError, OSError, ValueError, pickle.UnpicklingError):
        while True:
            heard.put(pickle.load(stream))
    heard.put(_DIED)


def describe_exit(code: int) -> str:
    """Say what a process died of.

    Examples
    --------
    >>> describe_exit(-9)
    'its process was killed (SIGKILL), most likely because memory ran out'
    >>> describe_exit(3)
    'its process ended with exit code 3'
    """
    if code >= 0:
        return f"its process ended with exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    if name == "SIGKILL":
        return f"its process was killed ({name}), most likely because memory ran out"
    return f"its process crashed in native code ({name})"


def serve() -> None:
    """Be the child: answer requests until the parent closes."""
    with os.fdopen(os.dup(1), "wb") as answers, os.fdopen(os.dup(0), "rb") as source:
        os.dup2(2, 1)  # what native code prints must not end up among the answers
        with open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), 0)
        faulthandler.enable()
        _volunteer()

        def say(kind: str, value: Any) -> None:
            pickle.dump((kind, value), answers)
            answers.flush()

        with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
            _serve(source, say)
    sys.stderr.flush()
    os._exit(0)  # everything is written and closed; taking torch down would hold the run's lock for seconds


def _serve(source: IO[bytes], say: Callable[[str, Any], None]) -> None:
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    start: Start = pickle.load(source)
    threading.Thread(target=_listen, args=(source, requests), daemon=True).start()
    try:
        greeting, answer = start()
    except Exception as error:  # noqa: BLE001 (the parent decides)
        say("raised", error)
        return
    say("greeting", greeting)
    while (request := requests.get()) is not None:
        try:
            found = answer(request[0], lambda *told: say("told", told))
        except Exception as error:  # noqa: BLE001
            say("raised", error)
        else:
            say("answer", found)
        give_back()


def _listen(source: IO[bytes], requests: queue.SimpleQueue[Any]) -> None:
    """Take requests in; when the parent is gone, interrupt the work, and end it if that does not."""
    with contextlib.suppress(EOFError, OSError, ValueError, pickle.UnpicklingError):
        while True:
            requests.put((pickle.load(source),))
    requests.put(None)
    _thread.interrupt_main()
    time.sleep(_GRACE_S)
    os._exit(1)


def _volunteer() -> None:
    """Where Linux runs out of memory, be the one that is killed: the parent lives, and goes on."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")
