"""A long cohort, killed and resumed: every outcome as it must be, memory flat, and nothing left behind.

``PYTHONPATH=tests:tests/hostile python -m soak`` runs 200 small slides of which one in ten is bad, with two workers,
killed five times; the tests run a small one. The truth stands in the network's place, so that the network is not what
takes the time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent

BAD = {
    "crashes": "ProcessDied", "empty": "UnreadableSlide", "cut": "UnreadableSlide", "silent": "MissingMpp",
    "text": "UnreadableSlide",
}  # fmt: skip
"""What is wrong with a slide, and the error that its row in failures.csv must name."""


@dataclass(frozen=True)
class Soak:
    """How much."""

    slides: int = 200
    kills: int = 5
    workers: int = 2

    @property
    def bad(self) -> int:
        return self.slides // 10


def make_slides(folder: Path, soak: Soak) -> dict[str, str]:
    """Write the cohort; gives what must come of each slide: ``scored``, or the error's name.

    Slides that crash come first, so that one process runs most of the rest and its memory can be followed.
    """
    import numpy as np
    import tifffile

    from pathopan.datasets.synthetic import make_slide

    good = [
        make_slide(folder.parent / f"good-{seed}.tif", size_px=(640, 512), seed=seed, discs_per_kind=1).path
        for seed in (1, 2)
    ]
    tifffile.imwrite(folder.parent / "silent.tif", np.full((64, 64, 3), 200, np.uint8), photometric="rgb")
    raw = good[0].read_bytes()
    made = {"empty": b"", "cut": raw[: len(raw) // 3], "text": b"to be scanned", "crashes": raw}
    folder.mkdir()
    expected = {}
    kinds = itertools.chain(["crashes"], itertools.cycle([kind for kind in BAD if kind != "crashes"]))
    for number in range(soak.slides):
        if number % 10 == 3:
            kind = next(kinds)
            path = folder / f"{number:03d}-{kind}" / f"{kind}.tif"
            path.parent.mkdir()
            source = folder.parent / "silent.tif"
            path.write_bytes(source.read_bytes() if kind == "silent" else made[kind])
            expected[path.parent.name] = BAD[kind]
        else:
            path = folder / f"{number:03d}-good" / "slide.tif"
            path.parent.mkdir()
            shutil.copy(good[number % 2], path)
            expected[path.parent.name] = "scored"
    rows = "".join(f"{name},{name}/{file_name(name)}.tif\n" for name in expected)
    (folder / "slides.csv").write_text("slide_id,path\n" + rows)
    return expected


def file_name(name: str) -> str:
    kind = name.partition("-")[2]
    return "slide" if kind == "good" else kind


def leg(manifest: Path, out: Path, bundle: Path, log: Path, workers: int) -> None:
    """Run the cohort as far as one gets: one command of a user. Writes down memory and open files after each slide."""
    import dangers

    from pathopan import pipeline
    from pathopan.batch import RunSettings
    from pathopan.config import Config
    from pathopan.manifest import find_slides

    pipeline.open_worker = dangers.open_dangerous

    class Watch:
        def slide(self, slide_id, number, total):
            pass

        def progress(self, stage, done, total):
            pass

        def finished(self, slide_id, text):
            if text == "complete already":
                return
            row = {"slide": slide_id, "text": text, "parent": usage(os.getpid())}
            row["children"] = {pid: usage(pid) for pid in children(os.getpid())}
            with log.open("a") as stream:
                stream.write(json.dumps(row) + "\n")

    pipeline.run_cohort(find_slides([manifest]), RunSettings(out, bundle, Config(), workers=workers), Watch())


def usage(pid: int) -> dict[str, int]:
    """Resident bytes and open files of a process."""
    resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return {"bytes": resident, "files": len(list(Path(f"/proc/{pid}/fd").iterdir()))}


def children(pid: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def run(soak: Soak, folder: Path) -> list[str]:
    """Do it all; gives the table. Raises AssertionError where something is not as it must be."""
    import oracle

    from pathopan.network.bundle import save_bundle

    description = oracle.tiny_bundle(step=256, halo=64)
    save_bundle(folder / "bundle", description, oracle.tiny_net(description))
    expected = make_slides(folder / "slides", soak)
    out, log, scratch = folder / "out", folder / "log.jsonl", folder / "tmp"
    scratch.mkdir()
    began, seen = time.monotonic(), set()
    stops = [soak.slides // 5 * (number + 1) // (soak.kills + 1) for number in range(soak.kills)]
    for stop in [*stops, None]:
        process = start_leg(folder, soak, scratch)
        while stop is not None and process.poll() is None and finished(log) < stop:
            time.sleep(0.05)
        seen |= set(children(process.pid)) if process.poll() is None else set()
        if stop is not None:
            assert process.poll() is None, "it ended before it could be killed"
            process.send_signal(signal.SIGKILL)
        code = process.wait()
        assert code == (0 if stop is None else -9), code
    check_outcomes(out, expected)
    seconds = time.monotonic() - began
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    lines = check_memory(rows, soak)
    time.sleep(1)
    left = [str(path) for path in out.rglob("*") if path.name.endswith((".tmp", ".lock", ".progress.json"))]
    left += [str(path) for path in scratch.iterdir()]
    alive = [pid for pid in seen if Path(f"/proc/{pid}").exists()]
    assert not left, left
    assert not alive, alive
    counts = Counter(expected.values())
    return [
        f"{soak.slides} slides, {soak.workers} workers, killed and resumed {soak.kills} times: {seconds:.0f} s",
        *(f"{name}: {count} of {count} as expected" for name, count in sorted(counts.items())),
        *lines,
        "left behind: 0 temporary files, 0 locks, 0 processes",
    ]  # fmt: skip


def start_leg(folder: Path, soak: Soak, scratch: Path) -> subprocess.Popen[bytes]:
    """Start one command in a process of its own."""
    words = [folder / "slides" / "slides.csv", folder / "out", folder / "bundle", folder / "log.jsonl", soak.workers]
    command = [sys.executable, "-m", "soak", "--leg", *map(str, words)]
    paths = os.pathsep.join([str(HERE), str(HERE.parent)])
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths, "TMPDIR": str(scratch)})


def finished(log: Path) -> int:
    return len(log.read_text().splitlines()) if log.exists() else 0


def check_outcomes(out: Path, expected: dict[str, str]) -> None:
    """Compare every slide's row with what must have come of it; copies of one slide have one score."""
    import pandas as pd

    scores = pd.read_csv(out / "scores.csv", dtype={"slide_id": str}).set_index("slide_id")
    failures = pd.read_csv(out / "failures.csv", dtype=str).set_index("slide_id")["error"].to_dict()
    found = {name: failures.get(name, status) for name, status in scores["status"].items()}
    assert found == expected, {name: (found.get(name), end) for name, end in expected.items() if found.get(name) != end}
    good = scores[scores["status"] == "scored"]
    kinds = good.groupby([int(name[:3]) % 2 for name in good.index])["stil_density_per_mm2"].nunique()
    assert (kinds <= 1).all(), kinds


def check_memory(rows: list[dict[str, object]], soak: Soak) -> list[str]:
    """Compare the first and the last slides of the process that ran most of them."""
    by_child: dict[str, list[dict[str, int]]] = {}
    for row in rows:
        for pid, used in row["children"].items():  # type: ignore[attr-defined]
            by_child.setdefault(pid, []).append(used)
    longest = max(by_child.values(), key=len)
    parents = [row["parent"] for row in rows][-len(longest) :]
    span = min(20, len(longest) // 3)
    lines = []
    for name, used in (("child", longest), ("parent", parents)):
        first, last = used[:span], used[-span:]
        sizes = [sum(row["bytes"] for row in part) / span / 2**20 for part in (first, last)]
        files = [max(row["files"] for row in part) for part in (first, last)]
        lines.append(
            f"{name}: {sizes[0]:.0f} MiB in the first {span} of {len(longest)} slides, {sizes[1]:.0f} MiB in the last "
            f"({100 * (sizes[1] / sizes[0] - 1):+.1f} %); open files {files[0]} and {files[1]}"
        )
        assert sizes[1] < 1.1 * sizes[0] or soak.slides < 100, lines[-1]
        assert files[1] <= files[0], lines[-1]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--leg", nargs=5)
    parser.add_argument("--slides", type=int, default=200)
    parser.add_argument("--kills", type=int, default=5)
    options = parser.parse_args()
    if options.leg:
        manifest, out, bundle, log = map(Path, options.leg[:4])
        leg(manifest, out, bundle, log, int(options.leg[4]))
        return
    with tempfile.TemporaryDirectory() as folder:
        print("\n".join(run(Soak(options.slides, options.kills), Path(folder))))


if __name__ == "__main__":
    main()
