"""Look at slides before a batch: does each open and decode everywhere, is its mpp plausible, what will it take."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pathopan.batch import describe_failure
from pathopan.config import Config
from pathopan.errors import ProcessDied
from pathopan.geometry import Window
from pathopan.inference.child import Answer, Child, Tell, unheard
from pathopan.manifest import SlideEntry
from pathopan.record import align, readable_time
from pathopan.slide import Slide, check_mpp, open_slide
from pathopan.tiler.grid import make_grid
from pathopan.tiler.select import select_tiles
from pathopan.tiler.tissue import find_tissue

PROBE_PX = 256
"""Side of the windows that are decoded."""

RANDOM_PROBES = 4
"""Windows decoded in each level, besides its first and its last."""

SPEED_TILES = 4
"""Tiles that the network looks at to measure this machine."""

BEYOND_PREDICTION = 1.25
"""Time of a slide over time in the network: stitching, scores and exports took a quarter on the demo slide."""

NUCLEI_PER_MM2 = 6_000.0
"""Of tissue, to estimate disk and memory: 5,600 per mm2 on the demo slide."""

DISK_PER_NUCLEUS = 1_200.0
"""Bytes, all of a slide's files together: measured on the demo slide."""

MEMORY_PER_NUCLEUS = 1_900.0
"""Bytes while a slide is scored: 1.9 GB for a million nuclei (tests/large_case.py)."""

HEAD = ["slide_id", "ok", "size px", "um/px", "levels", "tissue mm2", "tiles", "time", "disk", "checked in"]
"""Of the table of slides."""


@dataclass(frozen=True)
class SlideCheck:
    """What was found of one slide."""

    slide_id: str
    path: Path
    problem: str = ""  # why it cannot be scored; empty if it can
    remedy: str = ""
    warnings: tuple[str, ...] = ()
    size_l0: tuple[int, int] = (0, 0)
    mpp: float = math.nan  # um per level-0 pixel
    levels: int = 0
    tissue_mm2: float = 0.0
    tiles: int = 0
    seconds: float = 0.0  # that this check took

    @property
    def is_empty(self) -> bool:
        """Whether it can be run, and nothing is to be found on it."""
        return not self.problem and self.tiles == 0

    @property
    def nuclei(self) -> float:
        """Nuclei to be expected."""
        return self.tissue_mm2 * NUCLEI_PER_MM2

    @property
    def disk_bytes(self) -> float:
        """Disk that its results will take, about."""
        return self.nuclei * DISK_PER_NUCLEUS


@dataclass(frozen=True)
class Machine:
    """What this machine offers."""

    runtime: str
    seconds_per_tile: float  # reading, network and decoding, with the workers given
    memory_bytes: float  # that the process with the network takes before any large slide
    free_disk_bytes: float
    free_memory_bytes: float


@dataclass(frozen=True)
class CheckSettings:
    """With what slides are going to be run."""

    bundle: str | Path
    config: Config
    device: str = "auto"
    workers: int = 2


def check_slides(
    entries: Sequence[SlideEntry], settings: CheckSettings, out: Path, tell: Callable[[SlideCheck], None]
) -> tuple[list[SlideCheck], Machine | None]:
    """Look at every slide, in a child process that may die of one.

    Parameters
    ----------
    entries : sequence of SlideEntry
        With distinct names.
    settings : CheckSettings
        With what they are going to be run.
    out : Path
        Where results will go: its disk is measured.
    tell : callable
        Told of each slide when it has been looked at.

    Returns
    -------
    checks : list of SlideCheck
        In the order of the entries.
    machine : Machine or None
        What it can do; ``None`` if no slide could be read, or the network could not be run on the first that could.

    Raises
    ------
    BundleError
        If the bundle cannot be used.
    """
    checks = []
    with contextlib.closing(Child(partial(_start, settings), patience_s=600)) as child:
        child.greeting()
        for entry in entries:
            check = _ask(child, entry)
            checks.append(check)
            tell(check)
        sound = next((e for e, c in zip(entries, checks, strict=True) if not c.problem and c.tiles), None)
        measured = None
        if sound is not None:
            with contextlib.suppress(ProcessDied):
                measured = child.ask(("speed", sound), unheard)
    if measured is None:
        return checks, None
    disk = shutil.disk_usage(next(folder for folder in (out.resolve(), *out.resolve().parents) if folder.exists()))
    runtime, seconds, memory = measured
    return checks, Machine(runtime, seconds, memory, free_disk_bytes=disk.free, free_memory_bytes=free_memory())


def _ask(child: Child, entry: SlideEntry) -> SlideCheck:
    try:
        found: SlideCheck = child.ask(("check", entry), unheard)
    except ProcessDied as error:
        failure = describe_failure(entry, "check", error)
        return SlideCheck(entry.slide_id, entry.path, failure.message, failure.remedy)
    return found


def free_memory() -> float:
    """Give the bytes of memory that a new process could have; not a number where the system does not tell."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return 1024.0 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1])
    return math.nan


def _start(settings: CheckSettings) -> tuple[None, Answer]:
    """Be ready to look at slides, in the child."""
    from pathopan.stages import Engine

    engine = Engine(settings.bundle, settings.config, device=settings.device)

    def answer(request: tuple[str, SlideEntry], tell: Tell) -> Any:
        kind, entry = request
        return check_slide(entry, engine, settings, tell) if kind == "check" else _measure(entry, engine, settings)

    return None, answer


def check_slide(entry: SlideEntry, engine: Any, settings: CheckSettings, tell: Tell = unheard) -> SlideCheck:
    """Open a slide, decode windows of every level, find its tissue and count its tiles; tells of each window."""
    started = time.monotonic()
    found = SlideCheck(entry.slide_id, entry.path)
    try:
        with open_slide(entry.path, slide_id=entry.slide_id, slide_mpp=entry.mpp_to_give()) as slide:
            info = slide.info
            found = replace(found, size_l0=info.size_l0, mpp=info.mpp_l0[0], levels=len(info.downsamples))
            found = replace(found, warnings=info.warnings)
            for window, mpp in probes(slide):
                slide.read(window, mpp)
                tell("window")
            check_mpp(info, engine.bundle.mpp)
            tiler = settings.config.tiler
            tissue = find_tissue(slide, mpp=tiler.tissue_mpp, min_tissue_um2=tiler.min_tissue_um2)
            grid = make_grid(info, mpp=engine.bundle.mpp, step=engine.bundle.step, halo=engine.bundle.halo)
            tiles = select_tiles(grid, tissue, min_tissue_fraction=tiler.min_tissue_fraction)
    except Exception as error:  # noqa: BLE001 (one slide stops no check)
        failure = describe_failure(entry, "check", error)
        seconds = time.monotonic() - started
        return replace(found, problem=failure.message, remedy=failure.remedy, seconds=seconds)
    notes = (*found.warnings, *tissue.warnings, *([f"no tissue: {tissue.reason}"] if tissue.reason else []))
    seconds = time.monotonic() - started
    return replace(found, warnings=notes, tissue_mm2=tissue.area_mm2, tiles=len(tiles), seconds=seconds)


def probes(slide: Slide) -> Iterator[tuple[Window, float]]:
    """Choose windows to decode, with their mpp: in each level the first, the last, and some, always the same."""
    info, rng = slide.info, np.random.default_rng(0)
    for downsample in info.downsamples:
        mpp = max(info.mpp_l0) * downsample
        width, height = info.size_px(mpp)
        last = (max(0, width - PROBE_PX), max(0, height - PROBE_PX))
        chance = [(int(rng.integers(last[0] + 1)), int(rng.integers(last[1] + 1))) for _ in range(RANDOM_PROBES)]
        for x, y in dict.fromkeys([(0, 0), last, *chance]):
            yield Window(x, y, min(PROBE_PX, width), min(PROBE_PX, height)), mpp


def _measure(entry: SlideEntry, engine: Any, settings: CheckSettings) -> tuple[str, float, float]:
    """Run the network on some tiles of a slide: who runs it, seconds a tile, and the memory of the process."""
    from pathopan.inference.predict import DecodeTask, predict_tiles

    bundle, config = engine.bundle, settings.config
    opened = partial(
        open_slide,
        entry.path,
        slide_id=entry.slide_id,
        slide_mpp=entry.mpp_to_give(),
    )
    with opened() as slide:
        tissue = find_tissue(slide, mpp=config.tiler.tissue_mpp, min_tissue_um2=config.tiler.min_tissue_um2)
        grid = make_grid(slide.info, mpp=bundle.mpp, step=bundle.step, halo=bundle.halo)
    tiles = select_tiles(grid, tissue).sort_values("tissue_fraction", ascending=False)["tile_index"]
    chosen = [grid.tile(int(index)) for index in tiles.head(SPEED_TILES)]
    margin = config.stitcher.seam_margin_um / grid.mpp
    task = DecodeTask(grid, bundle.taxonomy, tissue, bundle.decode, seam_margin_px=margin)
    batch = config.inference.batch_size
    for _ in predict_tiles(opened, engine.runtime, chosen[:1], task=task, workers=0):  # what is slow only once
        pass
    started = time.monotonic()
    for _ in predict_tiles(opened, engine.runtime, chosen, task=task, workers=settings.workers, batch_size=batch):
        pass
    seconds = (time.monotonic() - started) / len(chosen)
    runtime = engine.runtime
    return f"{runtime.name} on {runtime.device}, {runtime.precision}", seconds, peak_memory()


def peak_memory() -> float:
    """Give the bytes that this process has held at most; not a number where the system does not tell."""
    if os.name != "posix":
        return math.nan
    import resource

    return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def describe_checks(checks: Sequence[SlideCheck], machine: Machine | None) -> list[str]:
    """Write the table of slides, why some cannot be scored and what to do, and what the batch will take."""
    lines = [*align([HEAD, *(_row(check, machine) for check in checks)]), *_remarks(checks), ""]
    bad, empty = sum(bool(check.problem) for check in checks), sum(check.is_empty for check in checks)
    told = [f"{len(checks) - bad - empty} ok", *([f"{empty} without tissue"] if empty else [])]
    seconds = sum(check.seconds for check in checks)
    lines.append(
        f"{len(checks)} slides: {', '.join([*told, f'{bad} cannot be scored'])}; "
        f"looked at in {seconds:.1f} s, {seconds / max(1, len(checks)):.1f} s a slide"
    )
    if machine is None:
        reason = "no slide with tissue can be read, or the network does not run: see `pathopan doctor`"
        return [*lines, f"what `pathopan run` will take was not measured: {reason}"]
    seconds = sum(_seconds(check, machine) for check in checks)
    disk = sum(check.disk_bytes for check in checks if not check.problem)
    memory = machine.memory_bytes + max((c.nuclei for c in checks if not c.problem), default=0) * MEMORY_PER_NUCLEUS
    lines.append("what `pathopan run` will take, by what this machine did just now:")
    lines.append(
        f"  time    about {readable_time(seconds)}: {machine.seconds_per_tile:.2f} s a tile, {machine.runtime}"
    )
    lines.append(f"  disk    about {_size(disk)}; {_size(machine.free_disk_bytes)} are free")
    lines.append(f"  memory  about {_size(memory)}; {_size(machine.free_memory_bytes)} are free")
    return lines


def _remarks(checks: Sequence[SlideCheck]) -> Iterator[str]:
    """Say below the table what does not fit into it."""
    noted = [check for check in checks if check.warnings and not check.problem]
    bad = [check for check in checks if check.problem]
    if noted:
        yield from ("", "worth a look:")
    for check in noted:
        yield f"  {check.slide_id}: {'; '.join(check.warnings)}"
    if bad:
        yield from ("", "cannot be scored:")
    for check in bad:
        yield f"  {check.slide_id}: {check.problem}"
        yield f"    -> {check.remedy}"


def shortages(checks: Sequence[SlideCheck], machine: Machine | None) -> list[str]:
    """Name what this machine has too little of for the batch."""
    if machine is None:
        return []
    disk = sum(check.disk_bytes for check in checks if not check.problem)
    memory = machine.memory_bytes + max((c.nuclei for c in checks if not c.problem), default=0) * MEMORY_PER_NUCLEUS
    found = ["disk: too little is free; choose another --out"] if disk > machine.free_disk_bytes else []
    if memory > machine.free_memory_bytes:
        found.append("memory: too little is free; use a machine with more, or fewer --workers")
    return found


def _seconds(check: SlideCheck, machine: Machine) -> float:
    return 0.0 if check.problem else check.tiles * machine.seconds_per_tile * BEYOND_PREDICTION


def _row(check: SlideCheck, machine: Machine | None) -> list[str]:
    size = "x".join(map(str, check.size_l0)) if check.levels else ""
    known = [size, f"{check.mpp:.4g}" if check.levels else "", str(check.levels or "")]
    looked = f"{check.seconds:.1f} s"
    if check.problem:
        return [check.slide_id, "NO", *known, "", "", "", "", looked]
    time_text = readable_time(_seconds(check, machine)) if machine else ""
    numbers = [f"{check.tissue_mm2:.2f}", str(check.tiles), time_text, _size(check.disk_bytes)]
    return [check.slide_id, "empty" if check.is_empty else "yes", *known, *numbers, looked]


def _size(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
