"""Whole runs of one slide in this process, by the network that answers with the truth; and what they left behind."""

from __future__ import annotations

import hashlib
import sys
import time
from pathlib import Path

from oracle import OracleRuntime

from pathopan.attempt import run_slide
from pathopan.config import load_config
from pathopan.files import remove_leftovers
from pathopan.manifest import SlideEntry
from pathopan.record import SlideRecord
from pathopan.stages import Engine, Job

RECORDS = ("record.json",)
"""Files that hold times."""


class LoggingRuntime(OracleRuntime):
    """Notes every tile that it looks at, and takes its time over it."""

    def __init__(self, log: Path, seconds: float = 0.0) -> None:
        super().__init__()
        self._log, self._seconds = log, seconds

    def _look(self, image):
        time.sleep(self._seconds)
        with self._log.open("a") as log:
            log.write(hashlib.sha256(image.tobytes()).hexdigest() + "\n")
        return super()._look(image)


def run_one(slide: Path, bundle: Path, folder: Path, runtime: OracleRuntime, *, workers: int = 2, **inference: int):
    """Take a slide through all stages, as a batch does."""
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    config = load_config(overrides=[f"inference.{name}={value}" for name, value in inference.items()])
    engine = Engine(bundle, config, device="cpu", runtime=runtime)
    record = SlideRecord.open(folder / "record.json")
    record.entries |= {"slide_id": "S", "path": str(slide)}
    job = Job(SlideEntry("S", slide), config, engine, folder, workers=workers)
    return run_slide(job, record, lambda *_heard: None, run={"command": "as always"})


def fingerprints(folder: Path) -> dict[str, str]:
    """Give the checksum of every file but the records, which hold times."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in RECORDS
    }


if __name__ == "__main__":
    slide, bundle, folder, log = (Path(word) for word in sys.argv[1:5])
    run_one(slide, bundle, folder, LoggingRuntime(log, 0.02), workers=2, shard_tiles=3)
