"""Stimuli drawn by rule: concepts that differ in shape, texture, colour and layout, exemplars that vary.

Each concept is one combination of a shape, the orientation and fineness of its stripes, a palette
and a layout, so encoders that look at different things disagree about which concepts are alike: a
colour histogram sees the palette, an energy model the stripes, gradients the outline, pixels the
layout. Exemplars of a concept differ in position, size, hue and background.
"""

import colorsys
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

__all__ = ["RenderedImages", "render_images"]

SIZE = 224
_COLOURS = ("red", "amber", "lime", "green", "teal", "azure", "indigo", "pink")  # hues 0, 1/8, 2/8, ...
_SHAPES = ("disc", "square", "star", "cross", "ring", "wedge", "bar", "petal")
_GRAINS = {"broad": 40.0, "medium": 22.0, "fine": 12.0}  # period of the stripes, pixels
_ORIENTATIONS = 8  # of the stripes, in steps of 22.5 degrees
_LAYOUTS: dict[str, tuple[tuple[float, float], ...]] = {
    "lone": ((0.5, 0.5),),
    "twin": ((0.3, 0.5), (0.7, 0.5)),
    "stack": ((0.5, 0.28), (0.5, 0.72)),
    "trio": ((0.5, 0.28), (0.28, 0.7), (0.72, 0.7)),
    "corner": ((0.32, 0.32),),
    "quad": ((0.28, 0.28), (0.72, 0.28), (0.28, 0.72), (0.72, 0.72)),
}
_SUPERSAMPLE = 2  # outlines are drawn larger and scaled down: smooth edges


@dataclass(frozen=True, slots=True)
class RenderedImages:
    """Image ids as THINGS-EEG2 gives them, below the folder that was rendered into.

    Parameters
    ----------
    training, test : tuple of str
        ``training_images/00001_red-broad-star-1/red-broad-star-1_01s.jpg``, in code order.
    """

    training: tuple[str, ...]
    test: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Concept:
    colour: int
    grain: str
    shape: str
    orientation: int
    layout: str

    @property
    def name(self) -> str:
        return f"{_COLOURS[self.colour]}-{self.grain}-{self.shape}-{self.layout}-{self.orientation}"


def render_images(
    folder: Path,
    n_train_concepts: int = 40,
    images_per_concept: int = 8,
    n_test_concepts: int = 40,
    seed: int = 0,
) -> RenderedImages:
    """Draw ``n_train_concepts * images_per_concept`` training images and one per test concept.

    Parameters
    ----------
    folder : Path
        Gets ``training_images/NNNNN_concept/`` and ``test_images/NNNNN_concept/``.
    n_train_concepts, images_per_concept, n_test_concepts : int
        No concept is in both splits.
    seed : int
        Decides the concepts and their exemplars.

    Raises
    ------
    ValueError
        If more concepts are asked for than can be combined.
    CannotWrite
        If the disk is full or read-only.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> images = render_images(folder, n_train_concepts=2, images_per_concept=2, n_test_concepts=1)
    >>> len(images.training), len(images.test), (folder / images.test[0]).exists()
    (4, 1, True)
    """
    rng = np.random.default_rng((seed, 0))
    concepts = _concepts(n_train_concepts + n_test_concepts, rng)
    training = _render_split(
        folder, "training_images", concepts[:n_train_concepts], images_per_concept, np.random.default_rng((seed, 1))
    )
    test = _render_split(folder, "test_images", concepts[n_train_concepts:], 1, np.random.default_rng((seed, 2)))
    return RenderedImages(training, test)


def _concepts(n: int, rng: np.random.Generator) -> list[_Concept]:
    """Draw ``n`` different combinations, every value of every property about equally often."""
    axes: list[list[Any]] = [
        list(range(len(_COLOURS))),
        list(_GRAINS),
        list(_SHAPES),
        list(range(_ORIENTATIONS)),
        list(_LAYOUTS),
    ]
    if n > math.prod(map(len, axes)) // 4:
        raise ValueError(f"{n} concepts asked for, at most {math.prod(map(len, axes)) // 4} can be drawn")
    found: dict[str, _Concept] = {}
    while len(found) < n:
        columns = [rng.permutation(np.resize(np.arange(len(axis)), n)) for axis in axes]
        for row in zip(*columns, strict=True):
            concept = _Concept(*(axis[i] for axis, i in zip(axes, row, strict=True)))
            found.setdefault(concept.name, concept)
    return list(found.values())[:n]


def _render_split(
    folder: Path, split: str, concepts: list[_Concept], per_concept: int, rng: np.random.Generator
) -> tuple[str, ...]:
    ids = []
    # Sorted by name, as the numbers of the real folders are.
    for number, concept in enumerate(sorted(concepts, key=lambda concept: concept.name), start=1):
        below = f"{split}/{number:05d}_{concept.name}"
        (folder / below).mkdir(parents=True, exist_ok=True)
        for exemplar in range(1, per_concept + 1):
            ids.append(f"{below}/{concept.name}_{exemplar:02d}s.jpg")
            _draw(concept, rng).save(folder / ids[-1], quality=90)
    return tuple(ids)


def _draw(concept: _Concept, rng: np.random.Generator) -> Image.Image:
    """Return one exemplar: striped shapes on a softly shaded background."""
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    hue = (concept.colour / len(_COLOURS) + rng.normal(0, 0.012)) % 1
    angle = np.pi * concept.orientation / _ORIENTATIONS + rng.normal(0, 0.05)
    period = _GRAINS[concept.grain] * rng.uniform(0.93, 1.07)
    wave = np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period + rng.uniform(0, 2 * np.pi))
    bright, dark = _rgb(hue, 0.75, 0.95), _rgb(hue, 0.85, 0.35)
    inside = dark + (bright - dark) * (0.5 + 0.5 * wave[..., None])

    tilt = rng.uniform(0, 2 * np.pi)
    shade = 0.5 + 0.12 * ((x - SIZE / 2) * np.cos(tilt) + (y - SIZE / 2) * np.sin(tilt)) / SIZE + rng.normal(0, 0.04)
    # The complement of the palette, pale: the background tells the colour as well.
    outside = _rgb((hue + 0.5) % 1, 0.25, 1.0) * shade[..., None]
    mask = _outline(concept, rng)[..., None]
    picture = mask * inside + (1 - mask) * outside + rng.normal(0, 0.015, (SIZE, SIZE, 1))
    return Image.fromarray((np.clip(picture, 0, 1) * 255).astype(np.uint8), "RGB")


def _rgb(hue: float, saturation: float, value: float) -> np.ndarray:
    return np.array(colorsys.hsv_to_rgb(hue, saturation, value), dtype=np.float32)


def _outline(concept: _Concept, rng: np.random.Generator) -> np.ndarray:
    """Return how much of each pixel is covered by the shapes, 0 to 1, ``(SIZE, SIZE)``."""
    places = _LAYOUTS[concept.layout]
    canvas = Image.new("L", (SIZE * _SUPERSAMPLE,) * 2)
    pen = ImageDraw.Draw(canvas)
    scale = SIZE * _SUPERSAMPLE
    radius = {1: 0.27, 2: 0.19, 3: 0.18, 4: 0.16}[len(places)] * rng.uniform(0.9, 1.1) * scale
    shift = rng.normal(0, 0.03, 2)
    for place in places:
        centre = (np.array(place) + shift) * scale
        _stamp(pen, concept.shape, centre, radius)
    return np.asarray(canvas.resize((SIZE, SIZE), Image.Resampling.BOX), dtype=np.float32) / 255


def _stamp(pen: ImageDraw.ImageDraw, shape: str, centre: np.ndarray, radius: float) -> None:
    """Draw one shape."""

    def polygon(points: list[tuple[float, float]]) -> None:
        pen.polygon([(float(centre[0] + radius * x), float(centre[1] + radius * y)) for x, y in points], fill=255)

    def around(radii: list[float]) -> list[tuple[float, float]]:
        angles = [2 * math.pi * i / len(radii) - math.pi / 2 for i in range(len(radii))]
        return [(r * math.cos(a), r * math.sin(a)) for r, a in zip(radii, angles, strict=True)]

    def disc(size: float, fill: int) -> None:
        low, high = centre - size * radius, centre + size * radius
        pen.ellipse((float(low[0]), float(low[1]), float(high[0]), float(high[1])), fill=fill)

    match shape:
        case "disc":
            disc(1.0, 255)
        case "ring":
            disc(1.1, 255)
            disc(0.55, 0)
        case "square":
            polygon([(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)])
        case "star":
            polygon(around([1.25, 0.5] * 5))
        case "cross":
            polygon([(-1.1, -0.35), (1.1, -0.35), (1.1, 0.35), (-1.1, 0.35)])
            polygon([(-0.35, -1.1), (0.35, -1.1), (0.35, 1.1), (-0.35, 1.1)])
        case "wedge":
            polygon(around([1.2] * 3))
        case "bar":
            polygon([(-1.3, -0.5), (1.3, -0.5), (1.3, 0.5), (-1.3, 0.5)])
        case "petal":
            polygon(around([0.75 + 0.45 * math.cos(4 * 2 * math.pi * i / 64) for i in range(64)]))
