"""Files as they come from scanners, students and strangers: what each entry point is tried with."""

from __future__ import annotations

import json
import os
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

NAMES = (
    "with space.tif", "quote's.tif", 'double".tif', "a;b&c|d.tif", "$(touch x).tif", "<img src=x onerror=alert(1)>.tif",
    "new\nline.tif", "tab\there.tif", "-rf.tif", "=cmd.tif", "..tif", "emoji \U0001f9ec.tif", "e" * 251 + ".tif",
    "\u202egnp.tif", "%2e%2e%2f.tif", "nul.tif", "a\\b.tif", ".hidden.tif", "cafe\u0301.tif", "bytes \udcff\udcfe.tif",
)  # fmt: skip
"""File names that have broken programs before; a slash cannot be part of one."""


@dataclass(frozen=True)
class Case:
    """One thing to try."""

    entry: str  # entry point: slide, mask, geojson, manifest, config, recipe, bundle, results, calibration
    kind: str  # what was done to it
    name: str
    path: Path
    more: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Amount:
    """How many of each damage."""

    cuts: tuple[float, ...]
    flips: int
    every: int = 1  # 3: of each file in a folder every third damage, beginning with another one from file to file


FULL = Amount(tuple(step / 20 for step in range(20)), 200)
SMALL = Amount((0.1, 0.95), 3, every=3)


def damaged(source: Path, folder: Path, amount: Amount) -> Iterator[tuple[str, Path]]:
    """Cut a file short, and flip bits in it: half anywhere, half in its first kilobyte, where headers are."""
    raw = source.read_bytes()
    suffix = "".join(source.suffixes)
    for share in amount.cuts:
        path = folder / f"cut-{round(share * 100):02d}{suffix}"
        path.write_bytes(raw[: int(len(raw) * share)])
        yield "truncated", path
    rng = np.random.default_rng(7)
    for number in range(amount.flips):
        flipped = bytearray(raw)
        end = min(len(raw), 1024) if number % 2 else len(raw)
        for bit in rng.integers(0, end * 8, size=1 + number % 4):
            flipped[bit // 8] ^= 1 << (bit % 8)
        path = folder / f"flip-{number:03d}{suffix}"
        path.write_bytes(flipped)
        yield "bit flips", path


def odd_files(folder: Path, suffix: str, *, other: bytes) -> Iterator[tuple[str, Path]]:
    """Make what any entry point may be given: nothing, a folder, a link, something else under its ending."""
    made: dict[str, Callable[[Path], object]] = {
        "empty": lambda path: path.write_bytes(b""),
        "zeros": lambda path: path.write_bytes(bytes(100_000)),
        "noise": lambda path: path.write_bytes(np.random.default_rng(0).bytes(50_000)),
        "wrong extension": lambda path: path.write_bytes(other),
        "text": lambda path: path.write_text("to be scanned on Monday\n"),
        "directory": lambda path: path.mkdir(),
        "dangling link": lambda path: path.symlink_to(folder / "gone"),
        "circular link": lambda path: path.symlink_to(path),
        "unreadable": lambda path: (path.write_bytes(other), path.chmod(0)),
        "missing": lambda path: None,
        "named pipe": os.mkfifo,
    }
    for kind, make in made.items():
        path = folder / f"{kind.replace(' ', '-')}{suffix}"
        make(path)
        yield kind, path


def slides(folder: Path, slide: Path, amount: Amount) -> Iterator[Case]:
    """Slides of several formats, damaged and made up."""
    folder.mkdir()
    for form, source in slide_formats(folder, slide).items():
        place = folder / form
        place.mkdir()
        for kind, path in damaged(source, place, amount):
            yield Case("slide", kind, f"{form} {path.name}", path)
    for kind, path in odd_files(folder, ".svs", other=b"%PDF-1.4 not a slide"):
        yield Case("slide", kind, path.name, path)
    for form in ("ome", "png"):
        wrong = folder / f"wrong-{form}.svs"
        shutil.copy(folder / {"ome": "made.ome.tif", "png": "made.png"}[form], wrong)
        yield Case("slide", "wrong extension", wrong.name, wrong)
    for kind, path in absurd_tiffs(folder):
        yield Case("slide", kind, path.name, path)
    for kind, path in bombs(folder):
        yield Case("slide", kind, path.name, path)
    for name in NAMES:
        place = folder / "names"
        place.mkdir(exist_ok=True)
        shutil.copy(slide, place / name)
        yield Case("slide", "name", repr(name)[:40], place / name)


def slide_formats(folder: Path, slide: Path) -> dict[str, Path]:
    """Write a slide in the forms that pathopan reads by different ways."""
    pixels = tifffile.imread(slide, key=0)[:640, :640]
    made = {form: folder / f"made.{form}" for form in ("ome.tif", "png", "jpg", "svs")}
    written = {"photometric": "rgb", "tile": (256, 256), "resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}
    um = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    tifffile.imwrite(
        made["ome.tif"], pixels, compression="deflate", ome=True, metadata=um, photometric="rgb", tile=(256, 256)
    )
    tifffile.imwrite(
        made["svs"], pixels, compression="jpeg", metadata=None,
        description="Aperio Image Library v11\r\n640x640 (256x256) JPEG/RGB Q=70|AppMag = 20|MPP = 0.5", **written,
    )  # fmt: skip
    Image.fromarray(pixels).save(made["png"])
    Image.fromarray(pixels).save(made["jpg"])
    small = folder / "made.tif"
    tifffile.imwrite(small, pixels, compression="deflate", metadata=None, **written)
    return {
        "generic.tiff": small,
        "ome": made["ome.tif"],
        "png": made["png"],
        "jpeg": made["jpg"],
        "aperio": made["svs"],
    }


def tiff(tags: dict[int, tuple[int, int]], data: bytes = b"") -> bytes:
    """Write a little-endian TIFF with one directory of single LONG values, and data at byte 8."""
    entries = b"".join(struct.pack("<HHII", tag, 4, count, value) for tag, (count, value) in sorted(tags.items()))
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory


def absurd_tiffs(folder: Path) -> Iterator[tuple[str, Path]]:
    """TIFFs whose headers promise what no file holds."""
    data = zlib.compress(bytes(3_000)) + b"\0"
    base = {258: (1, 8), 259: (1, 8), 262: (1, 2), 277: (1, 3), 282: (1, 20_000), 283: (1, 20_000), 296: (1, 3)}

    def tiled(width: int, height: int, side: int, tiles: int) -> bytes:
        place = {
            256: (1, width),
            257: (1, height),
            322: (1, side),
            323: (1, side),
            324: (tiles, 8),
            325: (tiles, len(data)),
        }
        return tiff({**base, **place}, data)

    huge = 2**31 - 16
    made = {
        "absurd dimensions": tiled(huge, huge, 256, 1),
        "a billion tiles": tiled(512 * 32_000, 512 * 32_000, 512, 1_024_000_000),
        "tiles of 1 px": tiled(100_000, 100_000, 1, 4),
        "a tile of 60,000 px": tiled(60_000, 60_000, 60_000, 1),
        "no pixels": tiled(0, 0, 256, 1),
        "one strip of 3 GB": tiff(
            {**base, 259: (1, 1), 256: (1, 30_000), 257: (1, 35_000), 278: (1, 35_000), 273: (1, 8), 279: (1, 2**31)},
            data,
        ),
        "directory that is its own next": b"II*\0\x08\0\0\0\0\0\x08\0\0\0",
        "directory beyond the end": b"II*\0\xff\xff\xff\x7f",
        "a million directories": b"II*\0\x08\0\0\0" + b"".join(
            struct.pack("<HHHIII", 1, 256, 4, 1, 1, 8 + 18 * (number + 1)) for number in range(60_000)
        ),
    }  # fmt: skip
    for kind, raw in made.items():
        path = folder / f"absurd-{kind.replace(' ', '-').replace(',', '')}.tif"
        path.write_bytes(raw)
        yield "absurd TIFF", path


def bombs(folder: Path) -> Iterator[tuple[str, Path]]:
    """Small files that grow without end when they are read."""
    chunk = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)

    def block(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    zeros = zlib.compress(bytes(10_000_000), 9)
    png = folder / "bomb.png"
    png.write_bytes(b"\x89PNG\r\n\x1a\n" + block(b"IHDR", chunk) + block(b"IDAT", zeros) + block(b"IEND", b""))
    yield "decompression bomb", png
    white = np.full((256, 256, 3), 230, np.uint8)
    path = folder / "bomb.tif"
    written = {"photometric": "rgb", "tile": (256, 256), "resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path) as writer:
        shape = (20_480, 20_480, 3)
        writer.write(
            (white for _ in range(80 * 80)),
            shape=shape,
            dtype=np.uint8,
            compression="deflate",
            metadata=None,
            **written,
        )
    yield "decompression bomb", path
    wide = folder / "bomb-tile.tif"
    huge = {**written, "tile": (4096, 4096)}
    tifffile.imwrite(wide, np.zeros((4096, 4096, 3), np.uint8), compression="deflate", metadata=None, **huge)
    yield "decompression bomb", wide


def masks(folder: Path, amount: Amount) -> Iterator[Case]:
    """Mask images that say where the tissue is."""
    folder.mkdir()
    source = folder / "made.png"
    picture = np.zeros((192, 256), np.uint8)
    picture[40:150, 30:200] = 255
    Image.fromarray(picture).save(source)
    for kind, path in (*damaged(source, folder, amount), *odd_files(folder, ".png", other=b"GIF89a nothing")):
        yield Case("mask", kind, path.name, path)
    yield from (Case("mask", kind, path.name, path) for kind, path in bombs(folder) if path.suffix == ".png")
    Image.fromarray(picture.T).save(folder / "turned.png")
    yield Case("mask", "other proportions", "turned.png", folder / "turned.png")


def feature(coordinates: object, kind: str = "Polygon", **properties: object) -> dict[str, object]:
    """One annotation as QuPath writes it."""
    told = {"objectType": "annotation", "classification": {"name": "Tumor"}, **properties}
    return {"type": "Feature", "id": "x", "geometry": {"type": kind, "coordinates": coordinates}, "properties": told}


SQUARE = [[[10, 10], [900, 10], [900, 900], [10, 900], [10, 10]]]


def geojsons(folder: Path, amount: Amount) -> Iterator[Case]:
    """Annotations, damaged and odd."""
    folder.mkdir()
    source = folder / "made.geojson"
    source.write_text(
        json.dumps({"type": "FeatureCollection", "features": [feature(SQUARE), feature(SQUARE, name="Exclude")]})
    )
    for kind, path in (*damaged(source, folder, amount), *odd_files(folder, ".geojson", other=b"\x1f\x8bnot gzip")):
        yield Case("geojson", kind, path.name, path)
    for kind, text in odd_geojsons().items():
        path = folder / f"{kind.replace(' ', '-')}.geojson"
        path.write_text(text, encoding="utf-8")
        yield Case("geojson", kind, path.name, path)


def odd_geojsons() -> dict[str, str]:
    """Geometries that are none, or are too much."""
    angles = np.linspace(0, 2 * np.pi, 1_000_001)
    ring = np.stack([2_000 + 1_000 * np.cos(angles), 2_000 + 1_000 * np.sin(angles)], axis=1)
    ring[-1] = ring[0]
    bow = [[[0, 0], [900, 900], [900, 0], [0, 900], [0, 0]]]
    star = [[[0, 0], [900, 500], [0, 500], [900, 0], [450, 900], [0, 0]]]

    def file(*features: object) -> str:
        return json.dumps({"type": "FeatureCollection", "features": list(features)})

    return {
        "deep JSON": "[" * 200_000 + "]" * 200_000,
        "deep children": _nested(3_000),
        "NaN": file(feature([[[float("nan"), 0], [1, 1], [2, 0], [0, 0]]])),
        "infinity": file(feature([[[float("inf"), 0], [1, 1], [2, 0], [float("inf"), 0]]])),
        "huge numbers": file(feature([[[1e308, 0], [1e308, 1e308], [0, 1e308], [1e308, 0]]])),
        "self-crossing": file(feature(bow)),
        "star": file(feature(star)),
        "million vertices": file(feature([ring.tolist()])),
        "two points": file(feature([[[0, 0], [1, 1]]])),
        "no coordinates": file(feature([])),
        "text coordinates": file(feature([[["a", "b"], ["c", "d"], ["e", "f"], ["a", "b"]]])),
        "null geometry": file({"type": "Feature", "geometry": None, "properties": {}}),
        "no geometry": file({"type": "Feature", "properties": {}}),
        "features is a number": json.dumps({"type": "FeatureCollection", "features": 5}),
        "a feature is a number": file(5),
        "properties is a list": file(
            {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": SQUARE}, "properties": []}
        ),
        "classification is a number": file(feature(SQUARE, classification=7)),
        "names is a number": file(feature(SQUARE, classification={"names": 7})),
        "unknown class": file(feature(SQUARE, classification={"name": "<script>alert(1)</script>"})),
        "children is a number": file(feature(SQUARE, childObjects=5)),
        "null": "null",
        "a number": "5",
        "duplicate keys": '{"type": "FeatureCollection", "features": [], "features": 5}',
        "BOM": "\ufeff" + file(feature(SQUARE)),
        "unknown kind": file(feature(SQUARE, kind="Blob")),
        "half a character": file(feature(SQUARE, name="\ud800")),
        "multi": file(feature([SQUARE, SQUARE], kind="MultiPolygon")),
    }


def _nested(depth: int) -> str:
    inner = json.dumps(feature(SQUARE))
    start, end = inner[:-2] + ', "childObjects": [', "]}}"
    return '{"type": "FeatureCollection", "features": [' + start * depth + inner + end * depth + "]}"


MANIFESTS = {
    "BOM": "\ufeffslide_id,path,mpp\nS-1,made.tif,0.5\n",
    "quotes": 'slide_id,path,mpp\n"S ""1""","made.tif","0.5"\n',
    "open quote": 'slide_id,path,mpp\n"S-1,made.tif,0.5\n',
    "formulas": "slide_id,path,mpp\n=cmd|' /C calc'!A0,made.tif,0.5\n",
    "duplicate columns": "slide_id,path,path\nS-1,made.tif,made.tif\n",
    "missing column": "slide_id,file\nS-1,made.tif\n",
    "duplicate names": "slide_id,path\nS-1,made.tif\ns-1,other.tif\n",
    "duplicate rows": "slide_id,path\nS-1,made.tif\nS-1,made.tif\n",
    "too many cells": "slide_id,path,mpp\nS-1,made.tif,0.5,6,7\n",
    "too few cells": "slide_id,path,mpp\nS-1\n",
    "mpp is text": "slide_id,path,mpp\nS-1,made.tif,forty\n",
    "mpp is NaN": "slide_id,path,mpp\nS-1,made.tif,nan\n",
    "mpp is infinite": "slide_id,path,mpp\nS-1,made.tif,inf\n",
    "mpp is negative": "slide_id,path,mpp\nS-1,made.tif,-0.5\n",
    "mpp with a comma": 'slide_id,path,mpp\nS-1,made.tif,"0,5"\n',
    "semicolons": "slide_id;path;mpp\nS-1;made.tif;0.5\n",
    "header only": "slide_id,path,mpp\n",
    "climbing": "slide_id,path\n../../../evil,made.tif\n..,made.tif\n",
    "climbing path": "slide_id,path\nS-1,../../../../../../etc/passwd\n",
    "a NUL": "slide_id,path\nS-1,made\0.tif\n",
    "newline in a name": 'slide_id,path\n"S\n1",made.tif\n',
    "HTML": "slide_id,path\n<script>alert(1)</script>,made.tif\n",
    "emoji": "slide_id,path\n\U0001f9ec,made.tif\n",
    "only emoji, twice": "slide_id,path\n\U0001f9ec,made.tif\n\U0001f52c,other.tif\n",
    "255 bytes": f"slide_id,path\n{'n' * 255},made.tif\n",
    "a cell of a megabyte": f"slide_id,path\nS-1,{'x' * 1_000_000}\n",
    "a path of 5,000 bytes": f"slide_id,path\nS-1,{'x' * 5_000}\n",
    "reserved names": "slide_id,path\nCON,made.tif\n",
}


def manifests(folder: Path, slide: Path, amount: Amount) -> Iterator[Case]:
    """Lists of slides."""
    folder.mkdir()
    for name in ("made.tif", "other.tif"):
        shutil.copy(slide, folder / name)
    source = folder / "made.csv"
    source.write_text("slide_id,path,mpp\nS-1,made.tif,0.5\nS-2,other.tif,\n")
    for kind, path in (*damaged(source, folder, amount), *odd_files(folder, ".csv", other=b"PK\3\4 a workbook")):
        yield Case("manifest", kind, path.name, path)
    for kind, text in MANIFESTS.items():
        path = folder / f"odd-{kind.replace(' ', '-').replace(',', '')}.csv"
        path.write_text(text, encoding="utf-8")
        yield Case("manifest", kind, path.name, path)


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)

YAMLS = {
    "deep": "[" * 20_000,
    "deep mapping": "".join(" " * depth + "a:\n" for depth in range(2_000)),
    "billion laughs": LAUGHS,
    "python object": "!!python/object/apply:os.system ['touch evil']",
    "a list": "- 1\n- 2\n",
    "a number": "5",
    "null": "null",
    "room is a number": "scores: 5\n",
    "room is null": "scores:\n",
    "unknown key": "scores:\n  field: 500\n",
    "NaN": "scores:\n  field_um: .nan\n",
    "infinity": "scores:\n  field_um: .inf\n",
    "text for a number": "scores:\n  field_um: wide\n",
    "list for a number": "scores:\n  field_um: [1]\n",
    "number for a name": "inference:\n  runtime: 5\n",
    "negative": "scores:\n  field_um: -1\n",
    "huge": "scores:\n  bootstrap: 99999999999999999999\n",
    "number as key": "5: 6\n",
    "list as key": "? [a, b]\n: 6\n",
    "tabs": "scores:\n\tfield_um: 5\n",
    "two documents": "scores:\n  field_um: 500\n---\nscores: 5\n",
    "control characters": "scores: \x01\n",
    "a date": "2020-13-45: 1\n",
    "merge key": "<<: 5\n",
}  # fmt: skip


def yamls(entry: str, folder: Path, source: Path, amount: Amount) -> Iterator[Case]:
    """Settings and recipes."""
    folder.mkdir()
    for kind, path in (*damaged(source, folder, amount), *odd_files(folder, ".yaml", other=b"\xff\xfe\0\0")):
        yield Case(entry, kind, path.name, path)
    for kind, text in YAMLS.items():
        path = folder / f"odd-{kind.replace(' ', '-')}.yaml"
        path.write_bytes(text.encode())
        yield Case(entry, kind, path.name, path)


def trees(entry: str, folder: Path, tree: Path, files: list[str], amount: Amount) -> Iterator[Case]:
    """Folders of which one file is damaged: bundles and results."""
    folder.mkdir()
    for first, file in enumerate(files):
        scratch = folder / "scratch"
        scratch.mkdir()
        made = [*damaged(tree / file, scratch, amount), *odd_files(scratch, Path(file).suffix, other=b"[" * 100_000)]
        for kind, path in made[first % amount.every :: amount.every]:
            yield Case(entry, kind, f"{file} {path.name}", tree, {"file": file, "replacement": str(path)})
        shutil.move(scratch, folder / f"files-{first}")
