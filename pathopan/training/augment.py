"""Augmentation: pure functions of an array and a seeded generator."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from pathopan.slide.stain import HED_FROM_RGB, STAINS_RGB, optical_density

Rgb = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]


def jitter_stain(
    image: Rgb,
    rng: np.random.Generator,
    *,
    strength: float = 0.25,
    density: tuple[float, float] = (1.0, 1.0),
    hue: float = 0.0,
) -> Rgb:
    """Scale and shift the hematoxylin and eosin densities, as another laboratory would (Tellez et al. 2018).

    Each stain alone by ``strength``, and all of them alike by a factor within ``density``: how long a slide was
    stained and how thick it was cut, so that a nucleus is not told by being dark. The color of each stain turns by up
    to ``hue`` in each of its three optical densities, mostly by less: other dyes, and other cameras.
    """
    stains = optical_density(image) @ HED_FROM_RGB
    scale = rng.uniform(1 - strength, 1 + strength, 3).astype(np.float32)
    if density != (1.0, 1.0):
        scale *= np.float32(np.exp(rng.uniform(*np.log(density))))
    shift = rng.uniform(-0.2 * strength, 0.2 * strength, 3).astype(np.float32)
    colors = _turn(STAINS_RGB, rng, hue) if hue else STAINS_RGB
    jittered = np.exp(-((stains * scale + shift) @ colors)) * 256 - 1
    return np.clip(jittered, 0, 255).astype(np.uint8)


def _turn(stains_rgb: FloatArray, rng: np.random.Generator, hue: float) -> FloatArray:
    """Give stains of other colors, as dense as they were."""
    turned = np.maximum(stains_rgb + rng.uniform(-hue, hue, stains_rgb.shape) * rng.random(), 0.02)
    length = np.linalg.norm(stains_rgb, axis=1, keepdims=True) / np.linalg.norm(turned, axis=1, keepdims=True)
    return (turned * length).astype(np.float32)


def jitter_light(image: Rgb, rng: np.random.Generator) -> Rgb:
    """Change brightness, contrast and saturation, as another scanner would."""
    pixels = image.astype(np.float32)
    gray = pixels.mean(axis=2, keepdims=True)
    pixels = gray + (pixels - gray) * np.float32(rng.uniform(0.75, 1.25))
    pixels = (pixels - 255) * np.float32(rng.uniform(0.85, 1.15)) + 255 + np.float32(rng.uniform(-12, 6))
    return np.clip(pixels, 0, 255).astype(np.uint8)


def jitter_focus(image: Rgb, rng: np.random.Generator) -> Rgb:
    """Blur, add noise, or compress: one of them, or none."""
    choice = rng.random()
    if choice < 0.15:
        return cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.4, 1.2)))
    if choice < 0.25:
        noise = rng.normal(0, rng.uniform(2, 8), image.shape)
        return np.clip(image + noise, 0, 255).astype(np.uint8)
    if choice < 0.40:
        _, coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 90))])
        return np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), dtype=np.uint8)
    return image


def paint_artefact(image: Rgb, rng: np.random.Generator) -> tuple[Rgb, npt.NDArray[np.bool_]]:
    """Paint ink, debris, keratin-like flakes or folds over part of an image.

    Returns
    -------
    image : (Y, X, 3) uint8
    covered : (Y, X) bool
        Where nothing of the tissue can be told any more.
    """
    cover = _artefact_shape(image.shape[:2], rng)
    kind = rng.random()
    if kind < 0.45:  # ink: black, blue, green, red or brown
        inks = np.array([[20, 20, 25], [25, 40, 120], [20, 90, 60], [150, 30, 40], [90, 55, 25], [60, 20, 70]])
        color = inks[rng.integers(len(inks))] + rng.uniform(-15, 15, 3)
    elif kind < 0.8:  # debris and keratin: eosin-pink to purple flakes
        color = np.array([[225, 120, 165], [190, 80, 130], [140, 60, 120], [230, 160, 190]])[
            rng.integers(4)
        ] + rng.uniform(-15, 15, 3)
    else:  # a fold or shadow: the image itself, darker
        color = image.reshape(-1, 3).mean(axis=0) * rng.uniform(0.3, 0.6)
    texture = cv2.GaussianBlur(rng.normal(0, 1, image.shape[:2]).astype(np.float32), (0, 0), float(rng.uniform(1, 6)))
    texture = texture / (np.abs(texture).max() + 1e-6) * rng.uniform(10, 50)
    opacity = (cover * rng.uniform(0.75, 1.0))[..., None]
    painted = image * (1 - opacity) + (np.clip(color, 0, 255) + texture[..., None]) * opacity
    return np.clip(painted, 0, 255).astype(np.uint8), cover > 0.5


def _artefact_shape(shape: tuple[int, int], rng: np.random.Generator) -> FloatArray:
    """Draw blobs, strokes or specks with a soft border: opacity 0..1."""
    canvas = np.zeros(shape, dtype=np.uint8)
    height, width = shape
    kind = rng.random()
    if kind < 0.35:  # a smooth blob that may cover half of the crop
        field = cv2.GaussianBlur(rng.normal(0, 1, shape).astype(np.float32), (0, 0), float(rng.uniform(15, 40)))
        canvas[field > np.quantile(field, rng.uniform(0.5, 0.9))] = 255
    elif kind < 0.7:  # strokes, such as pen lines, fibres and flakes of keratin
        for _ in range(rng.integers(1, 6)):
            points = np.cumsum(rng.normal(0, 25, (6, 2)), axis=0) + rng.uniform(0, min(shape), 2)
            cv2.polylines(canvas, [points.astype(np.int32)], False, 255, int(rng.integers(2, 24)))
    else:  # specks of the size of nuclei: what a network must not take for them
        for _ in range(rng.integers(3, 30)):
            centre = (int(rng.integers(width)), int(rng.integers(height)))
            axes = (int(rng.integers(1, 12)), int(rng.integers(1, 9)))
            cv2.ellipse(canvas, centre, axes, float(rng.uniform(0, 180)), 0, 360, 255, -1)
    return cv2.GaussianBlur(canvas, (0, 0), 1.0).astype(np.float32) / 255


def bare_glass(side: int, rng: np.random.Generator) -> Rgb:
    """Make a crop of empty glass with a little colour, gradient and noise."""
    level = rng.uniform(215, 252) + rng.uniform(-6, 6, 3)
    ramp = np.linspace(-1, 1, side, dtype=np.float32)[:, None, None] * rng.uniform(-5, 5)
    noise = rng.normal(0, rng.uniform(0.5, 3), (side, side, 1))
    return np.clip(level + ramp + noise, 0, 255).astype(np.uint8)
