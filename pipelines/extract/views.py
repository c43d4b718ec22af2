"""Views of an image: what is left of it when it is blurred, coarse, noisy or grey, made before any encoder sees it.

``ENCODER@VIEW`` embeds a view instead of the image. Blur, grain and the fovea are measured in pixels of the image at
224 pixels on its short side, so that a view shows the same whatever size the file has; ``lowres`` and ``mosaic``
count pixels along the short side themselves. A view is made of the decoded image, once for all encoders; its pixels
are 8 bits again, rounded to the nearest. Imports no torch until an image is blurred.

Mean embeddings of degraded copies help decoding: UBP (https://arxiv.org/abs/2503.04207) averages three foveated blurs,
NeuroBridge (https://arxiv.org/abs/2511.06836) blur, noise, low resolution and mosaic.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from pipelines.extract.images import DecodedImage
from stores.errors import EmbedctlError, UnknownName

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["VIEWS", "check_views", "describe_views", "see"]

REFERENCE = 224  # pixels of the short side in which lengths are measured
TRUNCATE = 4  # standard deviations at which a Gaussian ends; 6e-5 of it is beyond
WHOLE = 2048  # pixels of a side up to which a blur is one matrix: in bands a few sums would round otherwise
BAND = 256  # pixels of a longer side that are blurred at once
FOVEA_KERNELS = {"low": 45, "medium": 51, "high": 57}
FOVEA_DECAY = 3.0


@dataclass(frozen=True, slots=True)
class View:
    """A kind of view.

    Parameters
    ----------
    form : str
        How it is written.
    about : str
        What it does, in one sentence.
    example : str
        One that exists.
    level : str
        Pattern of what follows the hyphen; empty where nothing does.
    make : callable
        From a decoded image and the level to the pixels ``(height, width, 3)``, in grey levels, whole or not.
    """

    form: str
    about: str
    example: str
    level: str
    make: Callable[[DecodedImage, Any], np.ndarray]


def see(decoded: DecodedImage, view: str) -> DecodedImage:
    """Return an image as a view shows it; no view is the image as it is.

    Examples
    --------
    >>> red = DecodedImage(np.full((4, 4, 3), (255, 0, 0), np.uint8), sha256="00", mode="RGB")
    >>> see(red, "grey").rgb[0, 0].tolist(), see(red, "") is red
    ([76, 76, 76], True)
    """
    if not view:
        return decoded
    kind, _, level = view.partition("-")
    pixels = VIEWS[kind].make(decoded, level)
    if pixels.dtype != np.uint8:
        pixels = np.rint(pixels.clip(0, 255)).astype(np.uint8)
    return replace(decoded, rgb=pixels)


def check_views(text: str) -> None:
    """Refuse what is no view, nor several different ones joined by ``+``.

    Raises
    ------
    UnknownName
        If there is no such kind; suggests the closest, or lists them.
    EmbedctlError
        If its level is none, or not written the one way it is written: a view is part of a name. If one comes twice.

    Examples
    --------
    >>> check_views("blur-2.5+grey")
    >>> check_views("blur-2.50")
    Traceback (most recent call last):
    stores.errors.EmbedctlError: 'blur-2.50' is no view...
    """
    views = text.split("+")
    for view in views:
        _check(view)
    if twice := next((view for view in views if views.count(view) > 1), None):
        raise EmbedctlError(f"'{text}' has the view '{twice}' twice", "a mean over views names each once")


def _check(text: str) -> None:
    kind, _, level = text.partition("-")
    if kind not in VIEWS:
        close = get_close_matches(kind, VIEWS, n=1)
        forms = ", ".join(view.form for view in VIEWS.values())
        raise UnknownName(
            f"no view called '{text}'", f"did you mean '{VIEWS[close[0]].form}'?" if close else f"views are {forms}"
        )
    if not re.fullmatch(VIEWS[kind].level and f"{kind}-(?:{VIEWS[kind].level})" or kind, text):
        raise EmbedctlError(f"'{text}' is no view", f"write {VIEWS[kind].form}, for example {_nearest(kind, level)}")


def _nearest(kind: str, level: str) -> str:
    """Return the view that was probably meant, else an example."""
    view = VIEWS[kind]
    try:
        meant = f"{kind}-{float(level):.10g}"
    except ValueError:
        return view.example
    return meant if view.level and re.fullmatch(f"{kind}-(?:{view.level})", meant) else view.example


def describe_views(text: str) -> str:
    """Return what a view does, or what the views of a mean do, for those who have only their names.

    Examples
    --------
    >>> describe_views("grey")
    'grey: Rec. 601 luma in all three channels'
    """
    views = [VIEWS[view.partition("-")[0]] for view in text.split("+")]
    return ("mean over " if len(views) > 1 else "") + "; ".join(f"{view.form}: {view.about}" for view in views)


def _scale(decoded: DecodedImage) -> float:
    return min(decoded.size) / REFERENCE


def _blur(decoded: DecodedImage, sigma: str) -> np.ndarray:
    pixels = float(sigma) * _scale(decoded)
    return _gaussian(decoded.rgb, pixels, round(TRUNCATE * pixels))


def _fovea(decoded: DecodedImage, level: str) -> np.ndarray:
    """Blend image and blurred image as UBP does: half the image at the centre, next to nothing of it in the corners."""
    kernel, scale = FOVEA_KERNELS[level], _scale(decoded)
    sigma = 0.3 * ((kernel - 1) / 2 - 1) + 0.8  # OpenCV's rule for a kernel of so many pixels
    blurred = _gaussian(decoded.rgb, sigma * scale, round(kernel // 2 * scale))
    height, width = blurred.shape[:2]
    y, x = np.ogrid[:height, :width]
    distance = np.hypot(y - height // 2, x - width // 2)
    farthest = max(np.hypot(height - height // 2 - 1, width - width // 2 - 1), 1)
    sharp = 0.5 * np.exp(-FOVEA_DECAY * np.minimum(1, distance / farthest))[..., None]
    blended: np.ndarray = decoded.rgb * sharp + blurred * (1 - sharp)
    return blended


def _lowres(decoded: DecodedImage, n: str) -> np.ndarray:
    return _coarse(decoded, int(n), Image.Resampling.BILINEAR, Image.Resampling.BILINEAR)


def _mosaic(decoded: DecodedImage, n: str) -> np.ndarray:
    return _coarse(decoded, int(n), Image.Resampling.BOX, Image.Resampling.NEAREST)


def _coarse(decoded: DecodedImage, n: int, down: Image.Resampling, up: Image.Resampling) -> np.ndarray:
    size, short = decoded.size, min(decoded.size)
    if n >= short:
        return decoded.rgb
    small = decoded.image.resize((round(size[0] * n / short), round(size[1] * n / short)), down)
    return np.array(small.resize(size, up))


def _noise(decoded: DecodedImage, sigma: str) -> np.ndarray:
    """Add noise drawn from the digest of the file: the same in every run, order and folder, another in every image.

    Its grain is a pixel of the image at 224: finer noise would be averaged away when an encoder's input is made.
    """
    grain = max(1.0, _scale(decoded))
    width, height = decoded.size
    rows, columns = (np.arange(height) / grain).astype(int), (np.arange(width) / grain).astype(int)
    draw = np.random.default_rng(int(decoded.sha256, 16))
    field = draw.standard_normal((rows[-1] + 1, columns[-1] + 1, 3), dtype=np.float32)
    noisy: np.ndarray = decoded.rgb + float(sigma) * field[rows[:, None], columns]
    return noisy


def _grey(decoded: DecodedImage, _: str) -> np.ndarray:
    return np.array(decoded.image.convert("L").convert("RGB"))


def _gaussian(rgb: np.ndarray, sigma: float, radius: int) -> np.ndarray:
    """Blur ``(height, width, 3)`` with a Gaussian of ``sigma`` pixels cut off at ``radius``, mirrored at the edges.

    As matrix products, one along each side: for the wide Gaussians of views three times as fast as a convolution.
    """
    import torch

    planes = torch.from_numpy(rgb).permute(2, 0, 1).float()
    height, width = rgb.shape[:2]
    planes = _joined([planes[..., of] @ weights.T for of, weights in _blur_matrices(width, sigma, radius)], -1)
    planes = _joined([weights @ planes[:, of] for of, weights in _blur_matrices(height, sigma, radius)], 1)
    blurred: np.ndarray = planes.permute(1, 2, 0).numpy()
    return blurred


def _joined(parts: "list[Tensor]", dim: int) -> "Tensor":
    import torch

    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


def _blur_matrices(n: int, sigma: float, radius: int) -> Iterator[tuple[slice, "Tensor"]]:
    """Yield, for the pixels of a line in order, which ones the next are made of and their weights.

    A row of weights is the Gaussian around a pixel, what lies outside folded back at the edges. The matrix of a long
    line would be far larger than the image, and nearly all of it zeros: it is cut into bands.
    """
    import torch

    period = max(1, 2 * (n - 1))  # a mirrored line repeats, and so does its Gaussian
    offsets = np.arange(-radius, radius + 1)
    folded = np.bincount(offsets % period, np.exp(-(offsets**2) / (2 * sigma**2)), minlength=period)
    kernel = folded / folded.sum()
    whole = n <= WHOLE
    for start in range(0, n, n if whole else BAND):
        stop = n if whole else min(n, start + BAND)
        first, last = (0, n) if whole else (max(0, start - radius), min(n, stop + radius))
        i, j = np.arange(start, stop)[:, None], np.arange(first, last)
        weights = kernel[(j - i) % period]
        # the pixels at the edges have no mirror image
        mirrored = slice(1 if first == 0 else 0, -1 if last == n else None)
        weights[:, mirrored] += kernel[(i + j[mirrored]) % period]
        yield slice(first, last), torch.from_numpy(weights).float()


_COUNT = r"[1-9]\d{0,3}"
_DECIMAL = r"[1-9]\d{0,2}(?:\.\d{0,2}[1-9])?|0\.\d{0,2}[1-9]"

VIEWS = {
    "blur": View(
        "blur-SIGMA", "Gaussian blur of SIGMA pixels of the image at 224 on its short side", "blur-9", _DECIMAL, _blur
    ),
    "fovea": View(
        "fovea-LEVEL",
        "UBP's foveated blur, sharpest at the centre; LEVEL is low, medium or high: 45, 51 or 57 pixels at 224",
        "fovea-medium",
        "|".join(FOVEA_KERNELS),
        _fovea,
    ),
    "lowres": View(
        "lowres-N", "shrunk to N pixels on the short side and enlarged again, bilinear", "lowres-32", _COUNT, _lowres
    ),
    "noise": View(
        "noise-SIGMA",
        "Gaussian noise of SIGMA grey levels, its grain a pixel of the image at 224, drawn from the file's digest",
        "noise-25",
        _DECIMAL,
        _noise,
    ),
    "mosaic": View(
        "mosaic-N", "flat cells, N along the short side, each the mean of its pixels", "mosaic-16", _COUNT, _mosaic
    ),
    "grey": View("grey", "Rec. 601 luma in all three channels", "grey", "", _grey),
}
"""Every kind of view, by the word it begins with."""
