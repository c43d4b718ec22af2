"""The bicubic of ``tf.image.resize``, to the last bit and without TensorFlow.

The harmonised networks saw pixels made by ``tf.image.resize(image, (224, 224), "bicubic")``: Keys' cubic
(a = -1/2), half-pixel centres, four taps whatever the reduction (**no** antialias), taps outside the image
dropped and the rest renormalised, no clipping. Every other bicubic is another stimulus: for a photograph
of 500 pixels reduced to 224, torch (a = -3/4) differs by up to 5 of 255 grey levels, PIL (antialias) by 37.

TensorFlow reads the weights from a table of 1,024 steps (``resize_bicubic_op.cc``); so does this.
"""

from functools import lru_cache

import numpy as np

__all__ = ["resize", "taps"]

STEPS = 1024  # kTableSize
A = -0.5  # Keys (1981)


def _kernel() -> np.ndarray:
    """Return the weight at a distance of ``i / STEPS`` pixels, ``i`` from 0 to ``2 * STEPS``."""
    x = np.arange(2 * STEPS + 1) / STEPS
    near = ((A + 2) * x - (A + 3)) * x * x + 1
    far = ((A * x - 5 * A) * x + 8 * A) * x - 4 * A
    return np.where(x <= 1, near, far).astype(np.float32)


@lru_cache(maxsize=64)  # a stimulus set has a handful of image sizes
def taps(n_in: int, n_out: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which four pixels make each output pixel along one axis, and their weights.

    Parameters
    ----------
    n_in, n_out : int
        Pixels along the axis before and after.

    Returns
    -------
    (n_out, 4) int64, (n_out, 4) float32
        Pixel numbers inside the image, and weights that sum to one (0 where a tap fell outside).

    Examples
    --------
    >>> pixels, weights = taps(4, 2)
    >>> pixels[0].tolist(), (17 * weights[0]).round(3).tolist()
    ([0, 0, 1, 2], [0.0, 9.0, 9.0, -1.0])
    """
    # float32 throughout, as in TensorFlow: the position decides which of the 1,024 steps is read.
    scale = np.float32(n_in) / np.float32(n_out)
    position = (np.arange(n_out, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5)
    first = np.floor(position)
    step = np.rint((position - first) * np.float32(STEPS)).astype(np.int64)  # ties to even, like lrintf
    distance = np.stack([STEPS + step, step, STEPS - step, 2 * STEPS - step], axis=1)
    wanted = first.astype(np.int64)[:, None] + np.arange(-1, 3)
    pixels = wanted.clip(0, n_in - 1)
    weights = np.where(pixels == wanted, _kernel()[distance], np.float32(0))
    total = weights[:, 0] + weights[:, 1] + weights[:, 2] + weights[:, 3]
    return pixels, weights * (np.float32(1) / total)[:, None]


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Squash an image to ``size`` x ``size`` exactly as ``tf.image.resize(image, (size, size), "bicubic")``.

    Parameters
    ----------
    image : (height, width, 3) uint8 or float32
        Pixels, any range; the aspect ratio is not kept.
    size : int
        Pixels along both axes of the result.

    Returns
    -------
    (size, size, 3) float32
        In the range of ``image``, beyond it where the cubic overshoots: TensorFlow does not clip.

    Examples
    --------
    >>> resize(np.full((30, 20, 3), 7, np.uint8), 4)[0, 0].tolist()
    [7.0, 7.0, 7.0]
    """
    if image.shape[:2] == (size, size):
        return image.astype(np.float32)
    rows, row_weights = taps(image.shape[0], size)
    columns, column_weights = taps(image.shape[1], size)
    tall = sum_of_taps([image[rows[:, k]] for k in range(4)], row_weights[:, :, None, None])
    return sum_of_taps([tall[:, columns[:, k]] for k in range(4)], column_weights[:, :, None])


def sum_of_taps(parts: list[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """Add four weighted ``parts`` in TensorFlow's order: float32 addition is not associative."""
    total: np.ndarray = parts[0] * weights[:, 0]
    for part, weight in zip(parts[1:], weights.swapaxes(0, 1)[1:], strict=True):
        total += part * weight
    return total
