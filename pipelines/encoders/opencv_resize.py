"""OpenCV's bicubic resize of uint8 images, without OpenCV: what AligNet was trained with.

``cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC)``: Keys' kernel with a = -0.75, half-pixel centres,
borders repeated, no antialiasing, rounded to uint8. That is torch's own bicubic kernel. Measured against OpenCV
4.10 and 5.0 on noise and blurred noise of six sizes: at most 0.2 % of the values differ, all of them by one grey level.
"""

import numpy as np
import torch
from torch.nn.functional import interpolate

__all__ = ["resize"]


def resize(rgb: np.ndarray, size: int) -> np.ndarray:
    """Squash an image.

    Parameters
    ----------
    rgb : (height, width, 3)
        uint8.
    size : int
        Pixels of each side wanted.

    Returns
    -------
    (size, size, 3)
        float32, whole numbers from 0 to 255.

    Examples
    --------
    >>> resize(np.full((3, 5, 3), 255, np.uint8), 2).max()
    np.float32(255.0)
    """
    pixels = torch.from_numpy(np.require(rgb, requirements=["C", "W"])).permute(2, 0, 1)[None].float()
    squashed = interpolate(pixels, size=(size, size), mode="bicubic", align_corners=False, antialias=False)
    whole: np.ndarray = squashed.round_().clamp_(0, 255)[0].permute(1, 2, 0).contiguous().numpy()
    return whole
