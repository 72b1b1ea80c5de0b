"""Try every entry point with the corpus, and print what came of it.

``PYTHONPATH=tests:tests/hostile python -m hostile_table --full`` tries every damage at every 5 % and 200 bit flips a
format; without ``--full`` a few of each, as the tests do.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import corpus
import doors

from pathopan.errors import ProcessDied
from pathopan.inference.child import Child

CONTAINED = ("slide",)
"""Where a crash of native code is a failure of that slide: batches run it in a child process."""


def try_all(cases: Iterator[corpus.Case]) -> Iterator[doors.Tried]:
    """Try cases in one child process, which is started again when one kills it."""
    with Child(doors.start, patience_s=doors.WALL_S + 15) as child:
        for case in cases:
            started = time.monotonic()
            try:
                yield child.ask(case, lambda *_: None)
            except ProcessDied as error:
                end = "refused" if case.entry in CONTAINED and "crashed" in str(error) else "died"
                yield doors.Tried(case, end, str(error), time.monotonic() - started)


def build(folder: Path, amount: corpus.Amount, entries: set[str]) -> Iterator[corpus.Case]:
    """Make the corpus, case by case."""
    from make_trees import make_bundle, make_calibration, make_config, make_results, make_slide_file, recipe_file

    slide = make_slide_file(folder / "slide.tif")
    config = make_config(folder / "made.yaml")
    made = {
        "slide": lambda: corpus.slides(folder / "slides", slide, amount),
        "mask": lambda: corpus.masks(folder / "masks", amount),
        "geojson": lambda: corpus.geojsons(folder / "geojson", amount),
        "manifest": lambda: corpus.manifests(folder / "manifests", slide, amount),
        "config": lambda: corpus.yamls("config", folder / "configs", config, amount),
        "calibration": lambda: make_calibration(folder / "calibrations", amount),
        "recipe": lambda: corpus.yamls("recipe", folder / "recipes", recipe_file(), amount),
        "bundle": lambda: make_bundle(folder, amount),
        "results": lambda: make_results(folder, amount),
    }
    for entry, make in made.items():
        if entry in entries:
            yield from make()


def table(tried: list[doors.Tried]) -> list[str]:
    """Sum up: entry point, kind, tried, refused well, processed, anything else."""
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for one in tried:
        counts[one.case.entry, one.case.kind][one.end if one.well else "else"] += 1
    lines = [f"{'entry':12} {'kind':34} {'tried':>6} {'refused':>8} {'processed':>10} {'else':>5}"]
    for (entry, kind), row in counts.items():
        numbers = row["refused"], row["processed"], row["else"]
        lines.append(f"{entry:12} {kind:34} {sum(numbers):6} {numbers[0]:8} {numbers[1]:10} {numbers[2]:5}")
    ends = Counter(one.end if one.well else "else" for one in tried)
    lines.append(f"{'all':12} {'':34} {len(tried):6} {ends['refused']:8} {ends['processed']:10} {ends['else']:5}")
    slowest = max(tried, key=lambda one: one.seconds)
    largest = max(tried, key=lambda one: one.bytes)
    lines.append(f"slowest: {slowest.seconds:.1f} s of processor time ({slowest.case.entry} {slowest.case.name})")
    lines.append(f"largest: {largest.bytes / 2**30:.2f} GiB ({largest.case.entry} {largest.case.name})")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--only", nargs="*", default=list(doors.DOORS))
    parser.add_argument("--show", action="store_true", help="print every refusal")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        amount = corpus.FULL if options.full else corpus.SMALL
        tried = []
        try:
            for one in try_all(build(Path(folder), amount, set(options.only))):
                tried.append(one)
                if not one.well or options.show:
                    print(one.case.entry, one.case.kind, one.case.name, "->", one.end, one.text, flush=True)
        finally:
            print("\n".join(table(tried)))
    raise SystemExit(not all(one.well for one in tried))


if __name__ == "__main__":
    main()
