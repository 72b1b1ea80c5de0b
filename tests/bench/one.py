"""One slide in a process of its own: what each stage takes, and the floor. ``python -m bench.one SLIDE OUT [...]``.

Prints one JSON object. The floor is the time of the network alone, or of reading and resampling alone, whichever is
larger: on a sample of the slide's own tiles, with as many threads as a run has, scaled to all of them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pathopan.config import load_config
from pathopan.inference.ordered import ordered_map
from pathopan.inference.predict import DecodeTask, decode_tile
from pathopan.manifest import SlideEntry
from pathopan.network.bundle import DEFAULT_BUNDLE
from pathopan.outputs import export_to_files, find_place
from pathopan.record import SlideRecord
from pathopan.scoring import score_to_files
from pathopan.stages import Engine, Job, Tiling, predict_shards, predict_slide, stitch_slide, tile_slide


def memory_mib(name: str = "VmHWM") -> float:
    """Read the peak (``VmHWM``) or the present (``VmRSS``) memory of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024


class Clock:
    """Wall time, CPU time and peak memory of what happens one after the other."""

    def __init__(self) -> None:
        self.stages: dict[str, dict[str, float]] = {}

    def time(self, name: str, work: Callable[[], object]) -> object:
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        wall, cpu = time.perf_counter(), time.process_time()
        found = work()
        self.stages[name] = {
            "wall_s": time.perf_counter() - wall,
            "cpu_s": time.process_time() - cpu,
            "peak_mib": memory_mib(),
            "left_mib": memory_mib("VmRSS"),
        }
        return found


def measure(path: Path, out: Path, *, workers: int, runtime: str, precision: str, sample: int) -> dict[str, object]:
    """Run a slide stage by stage, then measure the floor on some of its tiles."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    config = load_config(overrides=[f"inference.runtime={runtime}", f"inference.precision={precision}"])
    engine = Engine(DEFAULT_BUNDLE, config, device="cpu")
    job = Job(SlideEntry("bench", path), config, engine, out, workers=workers)
    record = SlideRecord.open(out / "record.json")
    record.entries |= {"slide_id": "bench", "path": str(path)}
    clock = Clock()
    clock.time("start", lambda: engine.runtime)
    tiling = clock.time("tile", lambda: tile_slide(job, record))
    plan = clock.time(
        "predict", lambda: predict_slide(job, tiling, record, lambda *_heard: None, predict=predict_shards)
    )
    clock.time("stitch", lambda: stitch_slide(job, tiling, plan, record))
    stitch_print = job.prints["stitch"]
    place = find_place("bench", out, record, taxonomy=job.taxonomy, config=config, stitch_print=stitch_print)
    clock.time("score", lambda: score_to_files(place, record))
    clock.time("export", lambda: export_to_files(place, record, run={}))
    return {
        "slide": path.stem,
        "tiles": len(tiling.tiles),
        "tissue_mm2": tiling.tissue.area_mm2,
        "looked_at_mm2": len(tiling.tiles) * (tiling.grid.step * tiling.grid.mpp / 1000) ** 2,
        "nuclei": record.notes("stitch")["nuclei"],
        "runtime": [engine.runtime.name, engine.runtime.precision],
        "stages": clock.stages,
        "floor": floor(job, tiling, sample=sample),
    }


def floor(job: Job, tiling: Tiling, *, sample: int) -> dict[str, float]:
    """Seconds a tile of reading, of the network, and of decoding: each alone."""
    chosen = tiling.tiles["tile_index"].to_numpy()
    chosen = chosen[np.linspace(0, len(chosen) - 1, min(sample, len(chosen))).astype(int)]
    tiles = [tiling.grid.tile(int(index)) for index in chosen]
    runtime, bundle = job.engine.runtime, job.engine.bundle
    margin = job.config.stitcher.seam_margin_um / tiling.grid.mpp
    task = DecodeTask(tiling.grid, job.taxonomy, tiling.tissue, bundle.decode, seam_margin_px=margin)
    with job.open() as slide:
        slide.read(tiles[0].read, bundle.mpp)
        read_cpu, images = _cpu(lambda: [slide.read(tile.read, bundle.mpp) for tile in tiles])
    _looked(runtime, images)  # so that no stream meets its memory for the first time
    wall, (network_cpu, maps) = time.perf_counter(), _cpu(lambda: _looked(runtime, images))
    wall = time.perf_counter() - wall
    decode_cpu, found = _cpu(lambda: [decode_tile(*item, task=task) for item in zip(tiles, images, maps, strict=True)])
    nuclei = sum(len(part.nuclei) for part in found)
    return {
        "tiles": len(tiles),
        "read_cpu_s": read_cpu / len(tiles),
        "network_wall_s": wall / len(tiles),
        "network_cpu_s": network_cpu / len(tiles),
        "decode_cpu_s": decode_cpu / len(tiles),
        "nuclei_decoded_per_cpu_s": nuclei / decode_cpu,
    }


def _looked(runtime, images):
    return [maps[0] for maps in ordered_map(lambda image: runtime.run(image[None]), images, workers=runtime.streams)]


def _cpu(work: Callable[[], object]) -> tuple[float, object]:
    start = time.process_time()
    found = work()
    return time.process_time() - start, found


def main(arguments: list[str]) -> None:
    """Measure one slide and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slide", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--sample", type=int, default=8)
    asked = parser.parse_args(arguments)
    found = measure(
        asked.slide,
        asked.out,
        workers=asked.workers,
        runtime=asked.runtime,
        precision=asked.precision,
        sample=asked.sample,
    )
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
