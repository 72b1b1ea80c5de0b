"""Which slides to run: files, folders or a manifest, each slide with a name of its own."""

from __future__ import annotations

import csv
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pathopan.errors import ConfigError, ManifestError, MissingMpp, SlideError
from pathopan.files import check_regular, shown
from pathopan.slide.open import open_slide, slide_name

_DICOM_HEAD = 1_000_000
"""Bytes of a DICOM file that its description is looked for in."""

SLIDE_SUFFIXES = frozenset(
    [
        ".svs",
        ".ndpi",
        ".mrxs",
        ".scn",
        ".bif",
        ".tif",
        ".tiff",
        ".vms",
        ".vmu",
        ".svslide",
        ".dcm",
        ".png",
        ".jpg",
        ".jpeg",
        ".bmp",
        ".btf",
        ".qptiff",
    ]
)
"""Files in a folder with these endings are slides; a file named on the command line is tried whatever its ending."""

COLUMNS = ("slide_id", "path", "mpp")

MANIFEST_ID = "manifest_id"
"""Column of a planned run's own manifest: what the user's calls a slide, where that can be no name of a folder."""


@dataclass(frozen=True)
class SlideEntry:
    """One slide to run."""

    slide_id: str
    path: Path
    mpp: float | None = None  # um per level-0 pixel, in place of what the file says
    mpp_if_missing: float | None = None  # the same, if the file says nothing
    named: str = ""  # what the manifest calls it, where that can be no name of a folder

    @property
    def manifest_id(self) -> str:
        """What the manifest calls it; its name in a run where there is no manifest."""
        return self.named or self.slide_id

    def noted(self) -> dict[str, str]:
        """Give what a slide's record says of where it comes from."""
        return {"slide_id": self.slide_id, MANIFEST_ID: self.manifest_id, "path": shown(self.path)}

    def mpp_to_give(self) -> float | None:
        """Say which mpp to open the slide with: the one given, none if its file says it, else the one for then.

        Files that cannot be read need none: opening them tells what is wrong.
        """
        if self.mpp is not None or self.mpp_if_missing is None:
            return self.mpp
        try:
            open_slide(self.path).close()
        except MissingMpp:
            return self.mpp_if_missing
        except SlideError:
            pass
        return None


def find_slides(paths: Sequence[Path], *, recursive: bool = False, slide_mpp: float | None = None) -> list[SlideEntry]:
    """Turn files, folders and manifests into slides with distinct names.

    Parameters
    ----------
    paths : sequence of Path
        Slide files, folders of slides, and CSV manifests with the columns ``slide_id, path, mpp`` (only ``path``
        is needed; relative paths count from the manifest's folder).
    recursive : bool
        Look into sub-folders too.
    slide_mpp : float, optional
        For slides of which neither a manifest nor the file says one.

    Returns
    -------
    list of SlideEntry
        Sorted by name. Slides with equal file names are told apart by their folder, then by their ending.

    Raises
    ------
    ManifestError
        If a path does not exist, a manifest cannot be read, no slide is found, or two slides would share a name.
    ConfigError
        If the mpp is no positive number.
    """
    if slide_mpp is not None and not (math.isfinite(slide_mpp) and slide_mpp > 0):
        msg = f"--slide-mpp {slide_mpp} must be a positive number of micrometres per pixel, such as 0.25"
        raise ConfigError(msg)
    entries: list[SlideEntry] = []
    for path in paths:
        if path.is_dir():
            entries += [SlideEntry("", file) for file in _slides_in(path, recursive=recursive)]
        elif path.suffix.lower() == ".csv":
            entries += read_manifest(path)
        elif _exists(path):
            entries.append(SlideEntry("", path))
        else:
            msg = f"{path}: no such file or folder"
            raise ManifestError(msg)
    if not entries:
        hint = "" if recursive else "; use --recursive to look into sub-folders"
        msg = f"no slides found in {', '.join(map(str, paths))}{hint}"
        raise ManifestError(msg)
    given = {_real(entry.path) for entry in entries if entry.slide_id}
    kept = [entry for entry in entries if entry.slide_id or _real(entry.path) not in given]
    unique = {(_real(entry.path), entry.slide_id): entry for entry in kept}
    named = _name(list(unique.values()))
    return [replace(entry, mpp_if_missing=slide_mpp) if entry.mpp is None else entry for entry in named]


def _real(path: Path) -> Path:
    """Follow links; those that lead nowhere or in circles, and names that no system takes, stay as they are."""
    try:
        return Path(os.path.realpath(path))
    except (OSError, ValueError):
        return path


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # such as a name that is too long
        return False


def _slides_in(folder: Path, *, recursive: bool) -> list[Path]:
    found = folder.rglob("*") if recursive else folder.iterdir()
    slides = (path for path in found if path.suffix.lower() in SLIDE_SUFFIXES and not path.name.startswith("."))
    theirs = (path for path in slides if not (path.parent / "record.json").is_file())  # a run's own pictures are none
    return _one_a_series(sorted(theirs))


def _one_a_series(files: Sequence[Path]) -> list[Path]:
    """Keep one file of each DICOM slide, whose levels are files of their own: the first that holds a level."""
    chosen: dict[object, tuple[bool, Path]] = {}
    for file in files:
        series, has_level = _dicom_series(file) if file.suffix.lower() == ".dcm" else (None, True)
        key = (file.parent, series) if series else file
        if key not in chosen or (has_level and not chosen[key][0]):
            chosen[key] = has_level, file
    return sorted(file for _, file in chosen.values())


def _dicom_series(file: Path) -> tuple[bytes | None, bool]:
    """Find the SeriesInstanceUID in a DICOM file's head, and whether it says VOLUME: the image type of levels.

    Native code must not open a slide here, in the process that no slide may bring down. The tag is (0020,000E), with
    its type UI or without (DICOM PS3.5, section 7.1).
    """
    try:
        with file.open("rb") as stream:
            head = stream.read(_DICOM_HEAD)
    except OSError:
        return None, True
    found = re.search(rb"\x20\x00\x0e\x00(?:UI..|.{4})([0-9.]{5,64})", head, flags=re.DOTALL)
    return (found[1] if found else None), b"VOLUME" in head


def read_manifest(path: Path) -> list[SlideEntry]:
    """Read a CSV with the columns ``path`` and, optionally, ``slide_id`` and ``mpp``.

    Raises
    ------
    ManifestError
        If it cannot be read, has no ``path`` column, a row without a path, or an mpp that is no number.
    """
    try:
        check_regular(path)
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            header, rows = [name.strip() for name in reader.fieldnames or []], list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        msg = f"{path}: cannot be read as a manifest: {error}"
        raise ManifestError(msg) from error
    if "path" not in header or len(set(header)) < len(header):
        comma = "" if len(header) != 1 or ";" not in header[0] else "; save it with commas between the columns"
        msg = f"{path}: a manifest needs a column 'path', each once; it has {header}. Known: {COLUMNS}{comma}"
        raise ManifestError(msg)
    return [_row_entry(path, line, row) for line, row in enumerate(rows, start=2)]


def _row_entry(manifest: Path, line: int, row: dict[str, str | None]) -> SlideEntry:
    cells = {(key or "").strip(): (value or "").strip() if isinstance(value, str) else "" for key, value in row.items()}
    if not cells["path"] or "\0" in cells["path"]:
        msg = f"{manifest}, line {line}: no path"
        raise ManifestError(msg)
    name = cells.get("slide_id", "")
    if name and not safe_id(name):
        msg = f"{manifest}, line {line}: slide_id {name!r} has no letter or digit of A-Z, a-z, 0-9, which names need"
        raise ManifestError(msg)
    mpp = None
    if cells.get("mpp"):
        mpp = _positive(cells["mpp"])
        if mpp is None:
            msg = (
                f"{manifest}, line {line}: mpp {cells['mpp']!r} is not a number of micrometres per pixel, such as 0.25"
            )
            raise ManifestError(msg)
    slide_id = safe_id(name)
    named = cells.get(MANIFEST_ID) or (name if name != slide_id else "")
    return SlideEntry(slide_id, manifest.parent / cells["path"], mpp, named=named)


def _positive(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None


def safe_id(text: str) -> str:
    """Keep letters, digits, ``-._`` of a name, so that it can be a folder anywhere; at most 120 characters.

    Examples
    --------
    >>> safe_id("../my slide (1)")
    'my_slide_1'
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._")[:120]


def _name(entries: Iterable[SlideEntry]) -> list[SlideEntry]:
    """Name slides by file, then by folder and file, then by folder, file and ending, until all differ."""
    named = sorted(entries, key=lambda entry: (entry.slide_id, str(entry.path)))
    rules: list[Callable[[Path], str]] = [
        slide_name,
        lambda path: f"{_real(path).parent.name}_{slide_name(path)}",
        lambda path: f"{_real(path).parent.name}_{path.name}",
    ]
    for rule in rules:
        named = _apply(rule, named, given={entry.path for entry in entries if entry.slide_id})
        counts = Counter(entry.slide_id.lower() for entry in named)
        if max(counts.values()) == 1:
            return sorted(named, key=lambda entry: entry.slide_id)
    twice = next(name for name, count in counts.items() if count > 1)
    files = [str(entry.path) for entry in named if entry.slide_id.lower() == twice]
    msg = f"slides {files} would all be named {twice!r}; give each a slide_id of its own in a manifest"
    raise ManifestError(msg)


def _apply(rule: Callable[[Path], str], entries: list[SlideEntry], *, given: set[Path]) -> list[SlideEntry]:
    """Rename the slides whose name is empty or shared, except those that the user named."""
    counts = Counter(entry.slide_id.lower() for entry in entries)
    return [
        entry
        if entry.path in given or (entry.slide_id and counts[entry.slide_id.lower()] == 1)
        else replace(entry, slide_id=safe_id(rule(entry.path)) or "slide")
        for entry in entries
    ]
