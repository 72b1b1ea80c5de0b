"""Fuzz the readers of our own formats, led by what their code has run through, for as long as is wanted.

``pip install atheris`` and ``PYTHONPATH=tests:tests/hostile python -m fuzz_atheris geojson --seconds 300``. Prints each
new end that is neither a value nor an error of pathopan's own, and keeps its input; exits 1 if there was one.
"""

from __future__ import annotations

import argparse
import importlib
import io
import json
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path

import corpus
import yaml
from make_trees import CALIBRATION, make_results, make_slide_file, recipe_file

ODD = (None, True, -1, 0, 1e400, float("nan"), 2**70, "", "x", "\ud800", "../x", [], [[]], {}, {"": None})
"""Put in place of a part of a JSON file."""

SLOW_S = 30
READERS = (
    "geojson", "qupath", "manifest", "config", "recipe", "calibration", "bundle", "run", "record", "score", "progress",
)  # fmt: skip


def mutate_json(data: bytes, seed: int, size: int) -> bytes | None:
    """Put something odd, or another part of the file, in place of a part; ``None`` if it is no JSON."""
    chance = random.Random(seed)
    try:
        stored = json.loads(data)
    except (ValueError, RecursionError):
        return None
    places: list[tuple[object, object]] = []
    queue = [stored]
    while queue and len(places) < 5_000:
        holder = queue.pop()
        keys = list(holder) if isinstance(holder, dict) else range(len(holder)) if isinstance(holder, list) else ()
        places += [(holder, key) for key in keys]
        queue += [holder[key] for key in keys]
    if not places:
        return None
    for _ in range(chance.randint(1, 3)):
        holder, key = chance.choice(places)
        other, name = chance.choice(places)
        try:
            holder[key] = json.loads(json.dumps(other[name])) if chance.random() < 0.2 else chance.choice(ODD)
            if chance.random() < 0.1:
                del holder[key]
        except (LookupError, TypeError):  # an earlier change took it away
            continue
    return json.dumps(stored).encode()[:size]


Target = tuple[bytes, Callable[[Path], object]]
"""A sound file to begin with, and who reads it."""


def target(name: str, folder: Path) -> Target:
    """Make a reader ready."""
    from pathopan.calibration import read_calibration
    from pathopan.classes import BREAST
    from pathopan.config import Config, load_config
    from pathopan.edits import read_edit
    from pathopan.export.qupath import check_geojson
    from pathopan.manifest import find_slides
    from pathopan.training.recipe import read_recipe

    if name in ("run", "record", "score", "progress"):
        return _result_target(name, folder)
    if name == "bundle":
        return _bundle_target(folder)
    square = corpus.feature(corpus.SQUARE, childObjects=[corpus.feature(corpus.SQUARE, name="Exclude")])
    annotations = {"type": "FeatureCollection", "features": [square, corpus.feature([corpus.SQUARE], "MultiPolygon")]}
    recipe = yaml.safe_load(recipe_file().read_text(encoding="utf-8"))
    rows = b'slide_id,path,mpp\nS-1,a.tif,0.5\n"S ""2""",b.tif,\n'
    return {
        "geojson": (json.dumps(annotations).encode(), lambda path: read_edit(path, BREAST)),
        "qupath": (json.dumps(annotations).encode(), check_geojson),
        "manifest": (rows, lambda path: find_slides([path])),
        "config": (json.dumps(Config().to_dict()).encode(), load_config),
        "recipe": (json.dumps(recipe, default=str).encode(), read_recipe),
        "calibration": (json.dumps(CALIBRATION).encode(), read_calibration),
    }[name]


def _bundle_target(folder: Path) -> Target:
    import oracle

    from pathopan.network.bundle import read_bundle, save_bundle

    description = oracle.tiny_bundle(step=512, halo=64)
    save_bundle(folder / "bundle", description, oracle.tiny_net(description))

    def read(path: Path) -> None:
        shutil.copy(path, folder / "bundle" / "bundle.json")
        read_bundle(folder / "bundle")

    return (folder / "bundle" / "bundle.json").read_bytes(), read


def _result_target(name: str, folder: Path) -> Target:
    from pathopan.classes import BREAST
    from pathopan.cohort import write_cohort_tables
    from pathopan.result import open_result
    from pathopan.status import describe_status, read_status

    make_slide_file(folder / "slide.tif")
    next(make_results(folder, corpus.Amount((), 0)))
    out = folder / "run"
    places = {"run": "run.json", "progress": ".pathopan.progress.json"}
    place = out / places.get(name, f"slides/S-1/{name}.json")
    told = {"slides": ["S-1"], "current": "S-1", "stage": "predict", "tiles": 2, "finished": 0, "seconds": 1}

    def read(path: Path) -> None:
        shutil.copy(path, place)
        describe_status(read_status(out))
        if name != "progress":
            write_cohort_tables(out, taxonomy=BREAST)
            result = open_result(out)
            assert result.taxonomy
            assert all(slide.mpp_l0 and slide.score and slide.record for slide in result)

    return place.read_bytes() if place.is_file() else json.dumps(told).encode(), read


class Fuzzed:
    """Tries inputs on a reader until the time is over, and keeps those that end oddly."""

    def __init__(self, reader: str, folder: Path, keep: Path, seconds: float) -> None:
        with redirect_stderr(io.StringIO()):
            self.seed, self._read = target(reader, folder)
        suffix = {"geojson": ".geojson", "qupath": ".geojson", "manifest": ".csv"}.get(reader, ".json")
        self._reader, self._folder, self._keep, self._path = reader, folder, keep, folder / f"file{suffix}"
        self._stop_at = time.monotonic() + seconds
        self._tried, self._known = 0, set[str]()

    def __call__(self, data: bytes) -> None:
        self._tried += 1
        self._path.write_bytes(data)
        odd = self._try()
        known = odd.partition(": ")[0]
        if odd and known not in self._known:
            self._known.add(known)
            self._keep.mkdir(exist_ok=True)
            kept = self._keep / f"{self._reader}-{len(self._known)}{self._path.suffix}"
            kept.write_bytes(data)
            print(f"{self._reader}: {odd} ({kept})", flush=True)
        if time.monotonic() > self._stop_at:
            self.end()

    def _try(self) -> str:
        """Say what was odd about how it ended; nothing if it ended well."""
        from pathopan.errors import PathopanError

        started = time.process_time()
        try:
            self._read(self._path)
        except PathopanError as error:
            return "" if len(str(error)) > 10 else f"an empty message: {type(error).__name__}"
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            return f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}: {error}"[:200]
        return f"more than {SLOW_S} s" if time.process_time() - started > SLOW_S else ""

    def end(self) -> None:
        print(f"{self._reader}: {self._tried} inputs, {len(self._known)} odd ends", flush=True)
        shutil.rmtree(self._folder, ignore_errors=True)
        os._exit(bool(self._known))  # libFuzzer has no other end that leaves the exit code to us


def main() -> None:
    import atheris

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reader", choices=READERS)
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-found"), help="folder for inputs that ended oddly")
    options = parser.parse_args()
    with atheris.instrument_imports(include=["pathopan"]):
        importlib.import_module("pathopan.api")
        importlib.import_module("pathopan.training.recipe")
    folder = Path(tempfile.mkdtemp())
    fuzzed = Fuzzed(options.reader, folder, options.keep, options.seconds)
    (folder / "seeds").mkdir()
    (folder / "seeds" / "sound").write_bytes(fuzzed.seed)

    def mutate(data: bytes, size: int, chance: int) -> bytes:
        changed = mutate_json(data, chance, size) if chance % 3 else None
        return atheris.Mutate(data, size) if changed is None else changed

    warnings.simplefilter("ignore")
    words = [sys.argv[0], "-max_len=20000", "-timeout=120", "-verbosity=0", str(folder / "seeds")]
    atheris.Setup(words, fuzzed, custom_mutator=mutate)
    atheris.Fuzz()
    fuzzed.end()


if __name__ == "__main__":
    main()
