"""Golden rows: a few numbers of the embedding of a probe image, written down for the weights of ``random:0``.

They tell whether an encoder still computes what it computed when its row was written: a new version of a library may
draw, resize or compute otherwise, and says nothing. Random weights depend on the versions in the table; encoders that
need no weights do not.
"""

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from stores.versions import installed_version

if TYPE_CHECKING:
    from pipelines.encoders.build import Encoder

__all__ = ["TABLE", "WEIGHTS", "differs", "golden", "probe", "probe_row", "shortened", "versions"]

TABLE = Path(__file__).parent / "golden.json"
WEIGHTS = "random:0"
PACKAGES = ("torch", "torchvision", "timm", "open_clip_torch", "pillow")
N_NUMBERS = 8
TOLERANCE = 1e-3  # of the largest number: processors round differently, another network is off by 1


@cache
def golden() -> dict[str, Any]:
    """Return the table: the ``versions`` it was written with, and ``rows`` by encoder."""
    table: dict[str, Any] = json.loads(TABLE.read_text(encoding="utf-8"))
    return table


def versions() -> dict[str, str]:
    """Return the versions here of the packages that decide random weights and their rows."""
    return {package: installed_version(package).partition("+")[0] for package in PACKAGES}


def probe() -> Image.Image:
    """Return the probe image: smooth structure and sharp edges, not square, from a formula.

    Examples
    --------
    >>> probe().size
    (340, 260)
    """
    y, x = np.mgrid[:260, :340]
    red, green = 127 + 127 * np.sin(x / 9 + y / 23), 127 + 127 * np.cos(y / 7 - x / 31)
    blue = 255 * (((x // 20) + (y // 30)) % 2)
    return Image.fromarray(np.stack([red, green, blue], 2).astype(np.uint8))


def probe_row(encoder: "Encoder") -> np.ndarray:
    """Return the conventional embedding ``(dim,)`` of the probe image, by the library's own transform."""
    (rows,) = encoder(encoder.exact_transform()(probe())[None]).values()
    return np.asarray(rows[0].numpy())


def shortened(row: np.ndarray) -> list[float]:
    """Return the numbers of a row that are written down: from all over it, as the first bins of a histogram are empty.

    Examples
    --------
    >>> shortened(np.arange(16.0))
    [1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 13.0, 15.0]
    """
    step = len(row) // N_NUMBERS
    return [float(f"{value:.6g}") for value in row[step // 2 :: step][:N_NUMBERS]]


def differs(found: list[float], expected: list[float]) -> float:
    """Return the largest difference between two shortened rows, as a share of the largest number expected.

    Examples
    --------
    >>> differs([1.0, 2.5], [1.0, 2.0])
    0.25
    """
    return float(np.abs(np.subtract(found, expected)).max() / np.abs(expected).max())
