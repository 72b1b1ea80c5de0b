"""Several devices for one slide: each has a process of its own, which keeps its network, and does its part."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from pathopan.inference.child import Child, Start
from pathopan.inference.ordered import ordered_map


class Devices:
    """A child process for each device.

    Parameters
    ----------
    starts : sequence of callable
        What each child runs first; see :class:`pathopan.inference.child.Child`.
    patience_s : float
        A child that says nothing for so long is given up.
    """

    def __init__(self, starts: Sequence[Start], *, patience_s: float) -> None:
        """Start the children; they load their networks when they are first asked."""
        self._children = [Child(start, patience_s=patience_s) for start in starts]

    def __len__(self) -> int:
        """Count the devices."""
        return len(self._children)

    def ask(self, requests: Sequence[Any], hear: Callable[[int], None]) -> list[Any]:
        """Have each device do its part, all at once; gives what each answers, in their order.

        Parameters
        ----------
        requests : sequence
            One for each device.
        hear : callable
            Told, one call at a time, how many tiles all devices together have done.

        Raises
        ------
        ProcessDied
            If a child died; what the others did is kept, and the next request starts it again. Whatever a child raises
            is raised here, once all have ended.
        """
        done, lock = [0] * len(self), threading.Lock()

        def ask_one(number: int) -> tuple[Any, BaseException | None]:
            def told(_stage: str, part_done: int, _part_total: int) -> None:
                with lock:
                    done[number] = part_done
                    hear(sum(done))

            try:
                return self._children[number].ask(requests[number], told), None
            except Exception as error:  # noqa: BLE001 (raised below, when the others have ended)
                return None, error

        answers = list(ordered_map(ask_one, range(len(self)), workers=len(self), abandon=self.close))
        for _, error in answers:
            if error is not None:
                raise error
        return [answer for answer, _ in answers]

    def close(self) -> None:
        """End the children."""
        for child in self._children:
            child.close()
