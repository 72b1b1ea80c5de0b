"""Each entry point, tried with a case in a child process: refused well, processed, or anything else."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

from corpus import Case

LIMIT_S = 60
"""Of processor time for a case; waiting may take longer on a busy machine."""

WALL_S = 300
LIMIT_BYTES = 4 * 2**30
_WALL_BYTES = 12 * 2**30  # of addresses, so that a bomb harms this process alone
_NOBODY = 65534


@dataclass(frozen=True)
class Tried:
    """What came of a case."""

    case: Case
    end: str  # refused | processed | anything else, in words
    text: str = ""
    seconds: float = 0.0  # of processor time
    bytes: int = 0

    @property
    def well(self) -> bool:
        return self.end in ("refused", "processed")


def start():
    """Be ready to try cases, in the child."""
    resource.setrlimit(resource.RLIMIT_AS, (_WALL_BYTES, _WALL_BYTES))
    warnings.simplefilter("ignore")
    return None, lambda case, _tell: attempt(case)


def attempt(case: Case) -> Tried:
    """Try a case; what is no error of pathopan's own is told by its class."""
    from pathopan.errors import PathopanError

    Path("/proc/self/clear_refs").write_text("5")  # begin to measure the peak anew
    base, started = peak(), time.process_time()
    try:
        with time_limit(), contextlib.nullcontext() if case.more else as_somebody(case):
            DOORS[case.entry](case)
    except PathopanError as error:
        text = " ".join(str(error).split())
        end = "refused" if len(text) > 10 else "an empty message"
    except TimeoutError:
        end, text = "a hang", ""
    except MemoryError as error:
        end, text = "refused" if case.entry == "slide" else "MemoryError", str(error)
    except Exception as error:
        end, text = type(error).__name__, " ".join(str(error).split())
    else:
        end, text = "processed", ""
    used = peak()
    if used > LIMIT_BYTES and used > 1.2 * base:
        end = f"{used / 2**30:.1f} GiB"
    return Tried(case, end, text[:300], time.process_time() - started, used)


def peak() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


@contextlib.contextmanager
def time_limit():
    def late(*_):
        raise TimeoutError

    timers = ((signal.SIGALRM, signal.ITIMER_REAL, WALL_S), (signal.SIGPROF, signal.ITIMER_PROF, LIMIT_S))
    for number, timer, seconds in timers:
        signal.signal(number, late)
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for _, timer, _ in timers:
            signal.setitimer(timer, 0)


@contextlib.contextmanager
def as_somebody(case: Case):
    """Try unreadable files as somebody who may not read them; root may read everything."""
    if case.kind != "unreadable" or os.geteuid() != 0:
        yield
        return
    os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def try_slide(case: Case) -> None:
    from pathopan.check import probes
    from pathopan.slide import open_slide
    from pathopan.slide.base import check_mpp
    from pathopan.tiler.tissue import find_tissue

    with open_slide(case.path, slide_mpp=0.5 if case.path.suffix in (".png", ".jpg") else None) as slide:
        check_mpp(slide.info, 0.5)
        for window, mpp in probes(slide):
            slide.read(window, mpp)
        find_tissue(slide, mpp=8.0)


def slide_info():
    from pathopan.slide import SlideInfo

    return SlideInfo("S-1", Path("S-1.tif"), (2048, 1536), (0.5, 0.5), (1.0,), (0, 0, 2048, 1536), "tiff")


def try_mask(case: Case) -> None:
    from pathopan.tiler.drawn import tissue_from_image

    tissue_from_image(case.path, slide_info(), 8.0)


def try_geojson(case: Case) -> None:
    """As edited regions, and as tissue: both must end well."""
    from pathopan.classes import BREAST
    from pathopan.edits import read_edit
    from pathopan.errors import PathopanError
    from pathopan.tiler.drawn import tissue_from_geojson

    refused = None
    try:
        edit = read_edit(case.path, BREAST)
        assert all(annotation.geometry.is_valid for annotation in edit.annotations)
    except PathopanError as error:
        refused = error
    tissue_from_geojson(case.path, slide_info(), 8.0)
    if refused:
        raise refused


def try_manifest(case: Case) -> None:
    from pathopan.manifest import find_slides

    for entry in find_slides([case.path]):
        name = entry.slide_id
        assert name, "an empty name"
        assert Path(name).name == name, f"{name!r} leaves the folder"
        assert name not in (".", ".."), name
        assert not name.startswith("."), name
        assert len(name.encode()) <= 255, name


def try_config(case: Case) -> None:
    from pathopan.config import load_config

    load_config(case.path)


def try_recipe(case: Case) -> None:
    from pathopan.training.recipe import read_recipe

    read_recipe(case.path)


def try_calibration(case: Case) -> None:
    from pathopan.calibration import read_calibration

    read_calibration(case.path)


def try_bundle(case: Case) -> None:
    from pathopan.network.bundle import load_bundle

    with replaced(case) as folder, as_somebody(case):
        load_bundle(folder)


def try_results(case: Case) -> None:
    """Open everything; a change that goes unnoticed by opening must be found by verify, or change no value."""
    from pathopan.errors import ResultError
    from pathopan.result import open_result
    from pathopan.status import read_status
    from pathopan.verify import verify_run

    with replaced(case) as folder, as_somebody(case):
        read_status(folder)
        violations = verify_run(folder)
        if violations:
            raise ResultError(violations[0])
        result = open_result(folder)
        assert len(result.scores), "no scores"
        for slide in result:
            assert len(slide.nuclei) >= 0
            assert len(slide.regions) >= 0
            assert slide.score
            slide.panoptic.region[:]
        json.dumps(result.run)


@contextlib.contextmanager
def replaced(case: Case):
    """A copy of a folder, one file of which is another; made once for a process, and mended after each case."""
    copy = Path(str(case.path) + f".tried-{os.getpid()}")
    if not copy.exists():
        shutil.copytree(case.path, copy, copy_function=os.link)
    file, other = copy / str(case.more["file"]), Path(str(case.more["replacement"]))
    file.unlink()
    try:
        if other.is_dir():
            file.mkdir()
        elif os.path.lexists(other):
            other.rename(file) if other.is_fifo() or other.is_symlink() else os.link(other, file)
        yield copy
    finally:
        file.rmdir() if file.is_dir() and not file.is_symlink() else file.unlink(missing_ok=True)
        os.link(case.path / str(case.more["file"]), file)


DOORS = {
    "slide": try_slide,
    "mask": try_mask,
    "geojson": try_geojson,
    "manifest": try_manifest,
    "config": try_config,
    "recipe": try_recipe,
    "calibration": try_calibration,
    "bundle": try_bundle,
    "results": try_results,
}
