"""Start the viewer as a user does, and end it."""

from __future__ import annotations

import signal
import subprocess
import sys


def start(folder, *words):
    """Run ``pathopan view`` as a user does; gives the process and the address that it printed."""
    code = "from pathopan.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "view", str(folder), "--no-browser", *words], stdout=subprocess.PIPE, text=True
    )
    return process, process.stdout.readline().strip()


def stop(process):
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    return process.returncode
