"""Large slides for the bench: pyramidal JPEG TIFFs, mosaics of real H&E patches, built in seconds a gigapixel.

Every patch is encoded once in each of its eight orientations, and its JPEG tiles are written wherever it is laid, so
that a slide of 80,000 pixels a side takes minutes. OpenSlide reads them as generic TIFF.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import tifffile

from pathopan.files import atomic_path

MPP = 0.25
PATCH, TILE = 1024, 512  # level-0 pixels; a patch is four TIFF tiles
GLASS = (243, 242, 244)
QUALITY = 85
SHRINK = 4  # from level to level, as scanners do
_COARSEST = 1024
_PALE = 215  # a patch with a brighter mean is mostly glass, and would make the tissue share untrue


def cache_folder() -> Path:
    """Where slides are kept: $PATHOPAN_BENCH_CACHE, or the user's cache."""
    return Path(os.environ.get("PATHOPAN_BENCH_CACHE", Path.home() / ".cache" / "pathopan-bench"))


@dataclass(frozen=True)
class BenchSlide:
    """One slide of the bench."""

    side_px: int  # level-0 pixels
    tissue_share: float

    @property
    def name(self) -> str:
        return f"{self.side_px // 1000}k-{round(self.tissue_share * 100)}"

    @property
    def area_mm2(self) -> float:
        """Area of the whole slide."""
        return (self.side_px * MPP / 1000) ** 2

    def path(self, data: Path) -> Path:
        """The file, built if it is not in the cache yet."""
        target = cache_folder() / f"mosaic-{self.name}.tif"
        if not target.is_file():
            with atomic_path(target) as temporary:
                write_mosaic(temporary, read_patches(data), self)
        return target


@cache
def read_patches(data: Path) -> tuple[np.ndarray, ...]:
    """Read patches of breast (0.5 um/px, doubled) and colon (0.25 um/px), reflected up to a square of PATCH pixels."""
    patches = []
    for path in sorted((data / "brca_m2c").rglob("*.png")) + sorted((data / "consep").rglob("*.png")):
        image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
        if image is None or min(image.shape[:2]) < 400 or "inst" in path.parts or "type" in path.parts:
            continue
        if "brca_m2c" in path.parts:
            image = cv2.resize(image, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
        rows, columns = (max(0, PATCH - side) for side in image.shape[:2])
        image = np.pad(image, ((0, rows), (0, columns), (0, 0)), mode="symmetric")[:PATCH, :PATCH]
        if image.mean() < _PALE:
            patches.append(image)
    return tuple(patches)


def layout(slide: BenchSlide, patches: int, *, seed: int = 0) -> np.ndarray:
    """Say which patch, in which orientation, lies where: (rows, columns) int; 0 is glass.

    Tissue is one blob with a wavy border, as large as asked to within a patch.
    """
    rng = np.random.default_rng(seed)
    cells = -(-slide.side_px // PATCH)
    chosen = rng.integers(1, 8 * patches + 1, (cells, cells))
    if slide.tissue_share >= 1:
        return chosen
    y, x = np.mgrid[:cells, :cells] - (cells - 1) / 2
    wave = 1 + 0.15 * np.sin(3 * np.arctan2(y, x)) + 0.08 * np.sin(7 * np.arctan2(y, x) + 1)
    far = np.hypot(x, 1.3 * y) / wave
    order = np.argsort(far, axis=None)
    inside = np.zeros(cells * cells, bool)
    inside[order[: round(slide.tissue_share * cells * cells)]] = True
    return np.where(inside.reshape(cells, cells), chosen, 0)


def write_mosaic(path: Path, patches: tuple[np.ndarray, ...], slide: BenchSlide) -> None:
    """Write a slide, level by level."""
    laid = layout(slide, len(patches))
    library = _Library(patches)
    side, scale, level = slide.side_px, 1, 0
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        while level == 0 or side // scale >= _COARSEST // SHRINK:
            size = -(-side // scale)
            tiles = _tiles(library, laid, size, scale)
            writer.write(
                tiles,
                shape=(size, size, 3),
                dtype=np.uint8,
                photometric="ycbcr",
                subsampling=(2, 2),
                tile=(TILE, TILE),
                compression="jpeg",
                resolution=(1e4 / (MPP * scale), 1e4 / (MPP * scale)),
                resolutionunit="CENTIMETER",
                subfiletype=int(level > 0),
                metadata=None,
            )
            level, scale = level + 1, scale * SHRINK


def _tiles(library: _Library, laid: np.ndarray, size: int, scale: int) -> Iterator[bytes]:
    """Yield the encoded tiles of a level, row by row."""
    count = -(-size // TILE)
    if scale == 1:
        for row in range(count):
            for column in range(count):
                yield library.tile(int(laid[row // 2, column // 2]), row % 2, column % 2)
        return
    reach = TILE * scale // PATCH  # patches that a tile spans, a side
    for row in range(count):
        for column in range(count):
            part = laid[row * reach : (row + 1) * reach, column * reach : (column + 1) * reach]
            yield _encode(library.thumbnail(part, scale, reach))


class _Library:
    """The patches in eight orientations: encoded, and shrunk."""

    def __init__(self, patches: tuple[np.ndarray, ...]) -> None:
        self._patches = patches
        self._encoded: dict[tuple[int, int, int], bytes] = {}
        self._small: dict[tuple[int, int], np.ndarray] = {}

    def patch(self, number: int) -> np.ndarray:
        """Give a patch by its number in the layout; 0 is glass."""
        if number == 0:
            return np.full((PATCH, PATCH, 3), GLASS, np.uint8)
        which, turn = divmod(number - 1, 8)
        turned = np.rot90(self._patches[which], turn % 4)
        return np.ascontiguousarray(turned[:, ::-1] if turn >= 4 else turned)

    def tile(self, number: int, row: int, column: int) -> bytes:
        """Give one of the four tiles of a patch, as JPEG."""
        if (number, 0, 0) not in self._encoded:
            image = self.patch(number)
            for y in range(2):
                for x in range(2):
                    part = image[y * TILE : (y + 1) * TILE, x * TILE : (x + 1) * TILE]
                    self._encoded[number, y, x] = _encode(np.ascontiguousarray(part))
        return self._encoded[number, row, column]

    def thumbnail(self, part: np.ndarray, scale: int, reach: int) -> np.ndarray:
        """Put shrunk patches together to a tile of a coarse level; glass where the layout ends."""
        side = PATCH // scale
        canvas = np.full((reach * side, reach * side, 3), GLASS, np.uint8)
        for (row, column), number in np.ndenumerate(part):
            if number:
                canvas[row * side : (row + 1) * side, column * side : (column + 1) * side] = self._shrunk(
                    int(number), side
                )
        return canvas

    def _shrunk(self, number: int, side: int) -> np.ndarray:
        if (number, side) not in self._small:
            self._small[number, side] = cv2.resize(self.patch(number), (side, side), interpolation=cv2.INTER_AREA)
        return self._small[number, side]


def _encode(image: np.ndarray) -> bytes:
    return imagecodecs.jpeg8_encode(image, level=QUALITY, colorspace="RGB", outcolorspace="YCBCR", subsampling="420")
