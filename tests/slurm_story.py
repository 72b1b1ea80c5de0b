"""What a cohort on Slurm has to survive, told once: the tests then ask what came of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import yaml
from slurm_cluster import end_strays, slurm_cluster, wait_until

from pathopan.datasets.synthetic import make_slide, write_pyramid

REPOSITORY = Path(__file__).resolve().parents[1]
SNAKEFILE = REPOSITORY / "workflows" / "cohort" / "workflow" / "Snakefile"
BIN = Path(sys.executable).parent
SNAKEMAKE = (sys.executable, Path(__file__).with_name("slurm_snakemake.py"), "-s", SNAKEFILE)
LONG, HUNGRY, BLOCKED = "long", "hungry", "blocked"
GOOD = ("blocked", "glass", "hungry", "long", "small", "stated")
REFUSED = ("broken", "unknown")
SHARDS = {LONG: 2, HUNGRY: 2}
SETTINGS = {"inference": {"shard_tiles": 1}, "scores": {"bootstrap": 200}}


@dataclass
class Story:
    """Where everything lies, and what was seen on the way."""

    folder: Path
    run: Path
    local: Path
    codes: dict[str, int] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    seen: dict[str, Any] = field(default_factory=dict)

    @property
    def out(self) -> Path:
        return self.run / "results"

    def state(self, slide: str, job: str) -> dict[str, Any]:
        return json.loads((self.out / "state" / slide / f"{job}.json").read_text())

    def states(self) -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in (self.out / "state").rglob("*.json")}


def write_slides(folder: Path, shared: Path | None) -> Path:
    """Six good slides, real ones among them where they can be had, a truncated one and one without mpp."""
    folder.mkdir(parents=True)
    make_slide(folder / "truth.tif", size_px=(1100, 800), discs_per_kind=1, seed=1)
    shutil.copy(folder / "truth.tif", folder / "blocked.tif")
    make_slide(folder / "hungry.tif", size_px=(2100, 800), discs_per_kind=1, seed=2)
    write_pyramid(folder / "glass.tif", np.full((600, 700, 3), 243, np.uint8), 0.5)
    pixels = tifffile.imread(folder / "truth.tif")
    for name in ("stated", "unknown"):  # a file that does not say its mpp
        tifffile.imwrite(folder / f"{name}.tif", pixels, photometric="rgb", tile=(256, 256))
    (folder / "broken.svs").write_bytes((folder / "truth.tif").read_bytes()[:5_000])
    if shared:
        long, small = shared / "slides" / "CMU-1-Small-Region.svs", shared / "slides" / "OS-1-detail.ome.tif"
    else:
        long, small = folder / "long.tif", folder / "truth.tif"
        make_slide(long, size_px=(3072, 3072), discs_per_kind=2, seed=3)
    files = {LONG: long, "small": small, "unknown": folder / "unknown.tif", "broken": folder / "broken.svs"}
    rows = []
    for name in sorted((*GOOD, *REFUSED)):
        path = files.get(name, folder / f"{name}.tif")
        rows.append(f"{name},{path},{0.5 if name == 'stated' else ''},{SHARDS.get(name, 1)}\n")
    manifest = folder / "slides.csv"
    manifest.write_text("slide_id,path,mpp,shards\n" + "".join(rows))
    return manifest


def write_profile(folder: Path) -> Path:
    """The profile that ships, with a test's patience: status by squeue, quick checks, little memory for one slide."""
    profile = yaml.safe_load((SNAKEFILE.parent / "profiles" / "slurm" / "config.yaml").read_text())
    profile |= {
        "retries": 1,
        "latency-wait": 20,
        "slurm-status-command": "squeue",
        "slurm-no-account": True,
        "slurm-init-seconds-before-status-checks": 1,
    }
    enough = profile["set-resources"]["predict"]["mem_mb"]
    profile["set-resources"]["predict"]["mem_mb"] = (
        f"(700 if wildcards.slide == {HUNGRY!r} and attempt == 1 else {enough})"
    )
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(profile))
    return folder


def tell(folder: Path, shared: Path | None) -> Story:
    """Run the cohort through everything; leaves no process behind."""
    try:
        return _tell(folder, shared)
    finally:
        end_strays(f"XDG_CACHE_HOME={folder}/cache")


def _tell(folder: Path, shared: Path | None) -> Story:
    story = Story(folder, folder / "run", folder / "local")
    manifest = write_slides(folder / "slides", shared)
    (story.run / "config").mkdir(parents=True)
    config = {"slides": str(manifest), "device": "cpu", "workers": 1, "settings": SETTINGS}
    (story.run / "config" / "config.yaml").write_text(yaml.safe_dump(config))
    (story.out / "slides").mkdir(parents=True)
    (story.out / "slides" / BLOCKED).write_text("a file where a folder must be: what no retry can mend")
    profile = write_profile(folder / "profile")
    with slurm_cluster(folder / "slurm"):
        _kill_the_driver(story, profile)
        _snakemake(story, "unlock", "--workflow-profile", profile, "--unlock")
        _snakemake(story, "second", "--workflow-profile", profile)
        story.seen["done early"] = sorted(path.parent.name for path in (story.out / "slides").glob("*/score.json"))
        _snakemake(story, "partial", "--workflow-profile", profile, "cohort_partial")
        story.seen["partial"] = {name: (story.out / name).read_text() for name in ("scores.csv", "failures.csv")}
        (story.out / "slides" / BLOCKED).unlink()
        before = story.states()
        _snakemake(story, "third", "--workflow-profile", profile)
        story.seen["touched"] = {p.parent.name for p, time_ in story.states().items() if before.get(p) != time_}
        story.seen["jobs"] = _jobs()
        noted = (folder / "slurm" / "log" / "gpus").read_text().splitlines()
        story.seen["gpus"] = dict(line.partition(" ")[::2] for line in noted)
    _snakemake(story, "dry", "--dry-run", "--quiet", "all")
    changed = {**config, "settings": {**SETTINGS, "scores": {"bootstrap": 100}}}
    (story.folder / "changed.yaml").write_text(yaml.safe_dump(changed))
    _snakemake(story, "changed", "--dry-run", "--configfile", story.folder / "changed.yaml")
    _snakemake(story, "report", "--report", story.folder / "report.html")
    words = ["run", manifest, "--out", story.local, "--device", "cpu", "--workers", "1"]
    settings = [f"--set={room}.{name}={value}" for room, values in SETTINGS.items() for name, value in values.items()]
    _call(story, "local", [BIN / "pathopan", *words, *settings])
    return story


def _kill_the_driver(story: Story, profile: Path) -> None:
    """Kill Snakemake while tiles are computed, and then the jobs that it has left behind, as its handbook tells."""
    started = time.monotonic()
    words = [*SNAKEMAKE, "-d", story.run, "--workflow-profile", profile]
    with (story.folder / "first.log").open("w") as log:
        driver = subprocess.Popen([*map(str, words)], stdout=log, stderr=log, env=_environment(story))
        try:
            shards = story.out / "slides" / LONG / "shards"
            wait_until(lambda: len(list(shards.glob("*/*.parquet"))) >= 2 or driver.poll() is not None, 600, "no tiles")
            story.seen["driver ended"] = driver.poll()
        finally:
            driver.kill()
            driver.wait()
    story.seen["orphans"] = len([job for job in _jobs() if job["JobState"] in ("RUNNING", "PENDING")])
    names = subprocess.run(["squeue", "-h", "-o", "%i %j"], capture_output=True, text=True, check=True, timeout=60)
    ours = [line.split()[0] for line in names.stdout.splitlines() if line.split()[1].startswith("pathopan")]
    if ours:
        subprocess.run(["scancel", *ours], check=True, timeout=60)
    queue = ["squeue", "-h", "-o", "%i"]
    wait_until(lambda: not subprocess.run(queue, capture_output=True, check=False).stdout.strip(), 60, "jobs live on")
    story.seen["kept"] = list(shards.glob("*/*.parquet"))
    story.seen["parts done"] = {path.stem for path in (story.out / "state" / LONG).glob("predict.*.json")}
    story.seconds["first"] = time.monotonic() - started


def _snakemake(story: Story, name: str, *words: object) -> None:
    _call(story, name, [*SNAKEMAKE, "-d", story.run, *words])


def _call(story: Story, name: str, words: list[Any]) -> None:
    started = time.monotonic()
    done = subprocess.run(
        [*map(str, words)], capture_output=True, text=True, timeout=900, check=False, env=_environment(story)
    )
    story.codes[name], story.outputs[name] = done.returncode, done.stdout + done.stderr
    story.seconds[name] = time.monotonic() - started
    (story.folder / f"{name}.log").write_text(story.outputs[name])


def _environment(story: Story) -> dict[str, str]:
    places = {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "XDG_CACHE_HOME": str(story.folder / "cache")}
    return os.environ | places | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def _jobs() -> list[dict[str, str]]:
    """Everything that Slurm knows of its jobs, also of those that ended."""
    told = subprocess.run(
        ["scontrol", "-d", "-o", "show", "jobs"], capture_output=True, text=True, timeout=60, check=True
    )
    return [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in told.stdout.splitlines() if line.startswith("JobId")]
