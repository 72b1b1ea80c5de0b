"""Sound files and folders that the corpus starts from."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

import corpus
import numpy as np
from safetensors.numpy import load_file, save

CALIBRATION = {
    "format": "pathopan-calibration-1", "score": "stil_percent", "slope": 1.1, "intercept": 2.0, "residual_sd": 3.0,
    "mean": 20.0, "spread": 5.0, "slope_ci": [0.9, 1.3], "intercept_ci": [1.0, 3.0], "computed": [1.0, 60.0], "n": 12,
    "made": {"time": "2026"},
}  # fmt: skip


def make_slide_file(path: Path) -> Path:
    from pathopan.datasets.synthetic import make_slide

    return make_slide(path, size_px=(1024, 768), discs_per_kind=1).path


def make_config(path: Path) -> Path:
    from pathopan.config import Config

    path.write_text(json.dumps(Config().to_dict(), indent=1).replace('"', ""))
    return path


def recipe_file() -> Path:
    import pathopan

    return Path(pathopan.__file__).parent / "training" / "recipes" / "breast-he-1.yaml"


def make_calibration(folder: Path, amount: corpus.Amount) -> Iterator[corpus.Case]:
    folder.mkdir()
    source = folder / "made.json"
    source.write_text(json.dumps(CALIBRATION))
    for kind, path in (
        *corpus.damaged(source, folder, amount),
        *corpus.odd_files(folder, ".json", other=b"[" * 99_999),
    ):
        yield corpus.Case("calibration", kind, path.name, path)
    for key in CALIBRATION:
        for number, value in enumerate((None, "x", [], {}, -1e400, True)):
            path = folder / f"odd-{key}-{number}.json"
            path.write_text(json.dumps({**CALIBRATION, key: value}))
            yield corpus.Case("calibration", "odd value", path.name, path)


def make_bundle(folder: Path, amount: corpus.Amount) -> Iterator[corpus.Case]:
    import oracle

    from pathopan.network.bundle import save_bundle

    description = oracle.tiny_bundle(step=512, halo=64)
    tree = folder / "bundle"
    save_bundle(tree, description, oracle.tiny_net(description))
    yield from corpus.trees("bundle", folder / "bundles", tree, ["bundle.json", "weights.safetensors"], amount)
    sound = load_file(tree / "weights.safetensors")
    first = next(iter(sound))
    weights = {
        "extra tensor": save({**sound, "extra": np.zeros(3, np.float32)}),
        "missing tensor": save({key: value for key, value in sound.items() if key != first}),
        "wrong shape": save({**sound, first: np.zeros((2, 2), np.float32)}),
        "not numbers": save({**sound, first: np.full_like(sound[first], np.nan)}),
        "a pickle": pickle.dumps(sound),
        "header of a terabyte": (2**40).to_bytes(8, "little") + b"{}",
    }
    stored = json.loads((tree / "bundle.json").read_text())
    for kind, blob in weights.items():
        other = folder / f"bundle-{kind.replace(' ', '-')}"
        save_bundle(other, description, oracle.tiny_net(description))
        (other / "weights.safetensors").write_bytes(blob)
        yield _tree_case(other, "wrong hash")
        signed = folder / f"signed-{kind.replace(' ', '-')}"
        shutil.copytree(other, signed)
        (signed / "bundle.json").write_text(json.dumps({**stored, "sha256": _sha256(blob)}))
        yield _tree_case(signed, kind)
    for key in stored:
        for number, value in enumerate((None, "x", -1, [], {}, 1e400, "../../evil")):
            other = folder / f"odd-{key}-{number}"
            other.mkdir()
            (other / "weights.safetensors").hardlink_to(tree / "weights.safetensors")
            (other / "bundle.json").write_text(json.dumps({**stored, key: value}))
            yield _tree_case(other, "odd value")


def _tree_case(tree: Path, kind: str) -> corpus.Case:
    same = {"file": "bundle.json", "replacement": str(tree / "bundle.json")}
    return corpus.Case("bundle", kind, tree.name, tree, same)


def _sha256(blob: bytes) -> str:
    import hashlib

    return hashlib.sha256(blob).hexdigest()


RESULT_FILES = [
    "run.json", "config.yaml", "scores.csv", "scores.parquet", "regions.parquet", "failures.csv",
    *(f"slides/S-1/{name}" for name in (
        "record.json", "score.json", "nuclei.parquet", "regions.parquet", "tiles.parquet", "S-1.regions.geojson",
        "S-1.nuclei.geojson.gz", "panoptic.ome.zarr/.zattrs",
    )),
]  # fmt: skip


def make_results(folder: Path, amount: corpus.Amount) -> Iterator[corpus.Case]:
    """A finished run of a small slide; results take longest, so they have a tenth of the bit flips."""
    import oracle

    import pathopan.stages
    from pathopan import pipeline
    from pathopan.batch import RunSettings
    from pathopan.config import Config
    from pathopan.console import LineWatcher
    from pathopan.manifest import SlideEntry
    from pathopan.network.bundle import save_bundle

    tree = folder / "run"
    slide = folder / "slide.tif"
    description = oracle.tiny_bundle(step=512, halo=64)
    save_bundle(folder / "run-bundle", description, oracle.tiny_net(description))
    settings = RunSettings(tree, folder / "run-bundle", Config(), workers=0)
    start = pipeline.start_attempts
    with (
        patch.object(pathopan.stages, "open_runtime", lambda *_args, **_kwargs: oracle.OracleRuntime()),
        patch.object(pipeline, "open_worker", lambda settings, _keep: pipeline.InLine(partial(start, settings))),
        (folder / "log").open("w") as log,
    ):
        outcome = pipeline.run_cohort([SlideEntry("S-1", slide)], settings, LineWatcher(log))
    assert outcome.done == 1, outcome
    few = replace(amount, flips=max(2, amount.flips // 10))
    files = [file for file in RESULT_FILES if (tree / file).is_file()]
    yield from corpus.trees("results", folder / "results", tree, files, few)
