"""From a decoded image to the tensor a network sees: exactly as the library does it, or fast.

Both give (3, size, size). The exact way runs PIL and torchvision as the encoder's own library does and is equal to
it bit for bit. The fast way resizes uint8 pixels with torch's antialiasing kernel on channels-last memory (about
twice as fast, never more than 2 grey levels from PIL) and leaves the normalisation to the batch.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import PIL
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from pipelines.encoders.registry import Preprocessing

__all__ = ["exact_transform", "fast_transform", "normalise"]

# Algorithms that PIL does not have, and the module that brings each: its
# ``resize((height, width, 3) uint8, size) -> (size, size, 3) float32`` squashes, in the range 0 to 255.
RESIZES: dict[str, str] = {
    "opencv": "pipelines.encoders.opencv_resize",
    "tf-bicubic": "pipelines.encoders.harmonization_resize",
}

_PILLOW = int(PIL.__version__.split(".")[0])


def exact_transform(p: Preprocessing) -> Callable[[Image.Image], Tensor]:
    """Return the library's own transform: RGB image in, normalised (3, size, size) float32 out.

    Raises
    ------
    ValueError
        If ``p`` names an algorithm or fit nobody registered.

    Examples
    --------
    >>> from pipelines.encoders.registry import find
    >>> transform = exact_transform(find("resnet50-tv").preprocessing)
    >>> transform(Image.new("RGB", (400, 300))).shape
    torch.Size([3, 224, 224])
    """
    from pipelines.encoders.torchvision_import import torchvision

    v1: Any = torchvision.transforms
    if p.resize in RESIZES and p.fit == "squash":
        resize = import_module(RESIZES[p.resize]).resize
        normalise_one = v1.Normalize(p.mean, p.std)
        return lambda image: normalise_one(torch.from_numpy(resize(np.array(image), p.size)).permute(2, 0, 1) / 255)
    modes = {"bicubic": v1.InterpolationMode.BICUBIC, "bilinear": v1.InterpolationMode.BILINEAR}
    if p.resize not in modes or not p.antialias or p.fit not in ("shortest", "squash"):
        raise ValueError(f"no exact transform for {p.resize} {p.fit}, antialias {p.antialias}")
    squash = p.fit == "squash"
    steps = [v1.Resize((p.size, p.size) if squash else p.resize_to, interpolation=modes[p.resize], antialias=True)]
    if not squash:
        steps.append(v1.CenterCrop(p.size))
    transform: Callable[[Image.Image], Tensor] = v1.Compose([*steps, v1.ToTensor(), v1.Normalize(p.mean, p.std)])
    return transform


def fast_transform(p: Preprocessing) -> Callable[[np.ndarray], Tensor]:
    """Return the fast transform: (height, width, 3) uint8 RGB in, (3, size, size) uint8 out.

    Raises
    ------
    ValueError
        If there is none for ``p``: see `Preprocessing.has_fast`.

    Examples
    --------
    >>> from pipelines.encoders.registry import find
    >>> transform = fast_transform(find("resnet50-tv").preprocessing)
    >>> transform(np.zeros((300, 400, 3), np.uint8)).shape
    torch.Size([3, 224, 224])
    """
    if not p.has_fast:
        raise ValueError(f"no fast transform for {p.resize}, antialias {p.antialias}")

    def transform(rgb: np.ndarray) -> Tensor:
        # (height, width, 3) seen as (1, 3, height, width) is channels-last already: the fast kernel, no copy.
        # "W": torch warns about memory it could not write to, and PIL hands out such arrays.
        x = torch.from_numpy(np.require(rgb, requirements=["C", "W"])).permute(2, 0, 1)[None]
        height, width = _resized(p, *x.shape[-2:])
        if _vertical_first(x.shape[-2], x.shape[-1], height, width):
            x = interpolate(x, size=(height, x.shape[-1]), mode=p.resize, antialias=True)
        if (height, width) != tuple(x.shape[-2:]):
            x = interpolate(x, size=(height, width), mode=p.resize, antialias=True)
        # torchvision's rounding: half to even, as Python's round
        top, left = int(round((height - p.size) / 2.0)), int(round((width - p.size) / 2.0))
        return x[0, :, top : top + p.size, left : left + p.size]

    return transform


def _resized(p: Preprocessing, height: int, width: int) -> tuple[int, int]:
    """Size before the crop, with torchvision's rounding (down)."""
    if p.fit == "squash":
        return p.size, p.size
    short, long = sorted((height, width))
    longer = int(p.resize_to * long / short)
    return (p.resize_to, longer) if height <= width else (longer, p.resize_to)


def _vertical_first(height: int, width: int, to_height: int, to_width: int) -> bool:
    """Whether PIL resizes columns before rows; uint8 is rounded between the two passes, so the order shows.

    Measured on 300 random sizes: Pillow 13 does so for tall images, 11 and 12 never; torch never does.
    """
    return _PILLOW >= 13 and height > to_height and height - to_height > 2 * (width - to_width)


def normalise(batch: Tensor, p: Preprocessing) -> Tensor:
    """Turn (n, 3, size, size) uint8 into the network's float32 input, as ``ToTensor`` and ``Normalize`` do.

    Channels come last in the memory of what is returned.

    Examples
    --------
    >>> from pipelines.encoders.registry import find
    >>> normalise(torch.full((1, 3, 2, 2), 255, dtype=torch.uint8), find("pixels").preprocessing).unique().tolist()
    [1.0]
    """
    n, channels, height, width = batch.shape
    out = torch.empty(batch.shape, device=batch.device, memory_format=torch.channels_last)
    # Row by row of an image's memory: three channels at a time are too few for a processor's vectors.
    mean, std = (torch.tensor(of, device=batch.device).repeat(width) for of in (p.mean, p.std))
    rows = batch.permute(0, 2, 3, 1).reshape(n, height, width * channels)
    found = out.permute(0, 2, 3, 1).view(n, height, width * channels)
    # An image at a time stays in a cache over the four steps; a GPU wants all at once.
    for image, to in zip(rows, found, strict=True) if batch.device.type == "cpu" else [(rows, found)]:
        to.copy_(image).div_(255).sub_(mean).div_(std)
    return out
