"""Snakemake as it is, but for how long it waits between two looks at the queue.

The Slurm executor looks 10 s later each time nothing has ended, up to three minutes, and no setting says otherwise. A
weekend has the time; a test, whose jobs take seconds, would spend most of its own on waiting.
"""

from __future__ import annotations

import sys

from snakemake.cli import main
from snakemake_executor_plugin_slurm import Executor

LOOK_EVERY_S = 1.0


def _pause(_executor: Executor) -> float:
    return LOOK_EVERY_S


def _keep(_executor: Executor, _seconds: float | None) -> None:
    """The executor would like to wait longer."""


if __name__ == "__main__":
    Executor.next_seconds_between_status_checks = property(_pause, _keep)
    sys.exit(main())
