"""Build the slides, run each in a process of its own, and print one table. ``make bench BENCH="--sides 10000"``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np

from bench.slides import BenchSlide, cache_folder

STAGES = ("start", "tile", "predict", "stitch", "score", "export")


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    load = os.getloadavg()[0]
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}, load {load:.1f} when it began"


def _child(module: str, *words: str) -> dict:
    done = subprocess.run([sys.executable, "-m", module, *words], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def summary(found: dict) -> dict[str, float]:
    """Work out what the table shows of one slide."""
    stages, floor, tiles = found["stages"], found["floor"], found["tiles"]
    working = [stages[name] for name in STAGES if name != "start"]
    wall, cpu = (sum(stage[kind] for stage in working) for kind in ("wall_s", "cpu_s"))
    return {
        "mm2 of tissue / s": found["tissue_mm2"] / wall,
        "s / mm2 of tissue": wall / found["tissue_mm2"],
        "wall / floor": wall / (tiles * floor["network_wall_s"]),
        "CPU / network's CPU": cpu / (tiles * floor["network_cpu_s"]),
        "peak MiB": max(stage["peak_mib"] for stage in stages.values()),
    }


def print_slide(found: dict) -> None:
    """Print one slide: what it took, and where."""
    say, tiles, nuclei = sys.stdout.write, found["tiles"], found["nuclei"]
    name, precision = found["runtime"]
    say(
        f"\n{found['slide']}  {found['tissue_mm2']:.1f} mm2 of tissue, {tiles} tiles, {nuclei:,} nuclei, "
        f"{name} {precision}\n"
    )
    say("  " + "   ".join(f"{what} {value:.3g}" for what, value in summary(found).items()) + "\n")
    say(f"  {'stage':9s}{'wall s':>9s}{'CPU s':>9s}{'nuclei/s':>11s}{'peak MiB':>10s}\n")
    for stage, took in found["stages"].items():
        rate = f"{nuclei / took['wall_s']:11,.0f}" if stage in STAGES[2:] else f"{'':11s}"
        say(f"  {stage:9s}{took['wall_s']:9.1f}{took['cpu_s']:9.1f}{rate}{took['peak_mib']:10.0f}\n")
    floor = found["floor"]
    alone = {kind: floor[f"{kind}_cpu_s"] for kind in ("read", "network", "decode")}
    say("  CPU s a tile, each alone: " + ", ".join(f"{kind} {value:.3f}" for kind, value in alone.items()))
    say(f"; decoding {floor['nuclei_decoded_per_cpu_s']:,.0f} nuclei a second a core\n")


def linearity(all_found: list[dict]) -> float | None:
    """R2 of a straight line through CPU time over tissue area; None below three slides."""
    if len(all_found) < 3:
        return None
    area = np.array([found["tissue_mm2"] for found in all_found])
    cpu = np.array([sum(s["cpu_s"] for n, s in found["stages"].items() if n != "start") for found in all_found])
    return float(np.corrcoef(area, cpu)[0, 1] ** 2)


def main(arguments: list[str]) -> None:
    """Run the bench."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of brca_m2c and consep")
    parser.add_argument("--sides", type=int, nargs="+", default=[10_000, 20_000], help="level-0 pixels at 0.25 um/px")
    parser.add_argument("--tissue", type=float, nargs="+", default=[0.3, 1.0])
    parser.add_argument("--runtimes", nargs="+", default=["auto:auto"], help="NAME:PRECISION, compared in this run")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--sample", type=int, default=8, help="tiles that the floor is measured on")
    parser.add_argument("--peers", action="store_true", help="time the peers' networks too")
    parser.add_argument("--json", type=Path, help="where to keep everything that was measured")
    asked = parser.parse_args(arguments)
    sys.stdout.write(f"{_machine()}\n")
    slides = [BenchSlide(side, share) for side in asked.sides for share in asked.tissue]
    everything = []
    for runtime in asked.runtimes:
        name, precision = runtime.split(":")
        group = []
        for slide in slides:
            words = [
                str(slide.path(asked.data)),
                str(cache_folder() / "out"),
                "--runtime",
                name,
                "--precision",
                precision,
            ]
            words += ["--workers", str(asked.workers), "--sample", str(asked.sample)]
            group.append(_child("bench.one", *words))
            print_slide(group[-1])
            sys.stdout.flush()
        fit = linearity(group)
        if fit is not None:
            sys.stdout.write(f"\n{runtime}: CPU time over tissue area is a straight line with R2 = {fit:.4f}\n")
        everything += group
    peers = _child("bench.peers") if asked.peers else {}
    ours = np.median(
        [found["floor"]["network_cpu_s"] * found["tiles"] / found["looked_at_mm2"] for found in everything]
    )
    for peer, seconds in peers.items():
        told = f"{seconds:8.1f} s/mm2, {seconds / (ours / 2):6.1f} times ours" if seconds else "   not installed"
        sys.stdout.write(f"{peer:48s} {told}\n")
    if asked.json:
        asked.json.write_text(json.dumps({"slides": everything, "peers": peers}, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
