"""The stimuli of the Natural Scenes Dataset, read from ``nsd_stimuli.hdf5`` as it is distributed.

Its dataset ``imgBrick`` is (73000, 425, 425, 3) uint8. Image ``n`` (NSD's 73k id minus one) has the id ``nsd-0000n``;
its bytes are the pixels as a binary PPM file, so that it is hashed and decoded like every other image.
"""

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines.extract.stamps import Stamp
from pipelines.hdf5 import not_plain
from stores.errors import EmbedctlError, NotHere

if TYPE_CHECKING:
    import h5py

__all__ = ["NsdImages"]

_BRICK = "imgBrick"
_MOST_CACHED = 1 << 30


class NsdImages:
    """The images of ``imgBrick``.

    Parameters
    ----------
    path : Path
        The HDF5 file.

    Raises
    ------
    NotHere
        If h5py is not installed.
    EmbedctlError
        If the file holds no such dataset or cannot be read.
    """

    def __init__(self, path: Path) -> None:
        try:
            import h5py
        except ImportError:
            raise NotHere(f"h5py is not installed, and '{path}' is HDF5", 'pip install "embedctl[extract]"') from None
        try:
            with h5py.File(path, "r") as file:
                n_bytes = _cache_bytes(path, file)
            # A cache that holds every chunk an image touches: no chunk is then read or unpacked twice in a row.
            self._file = h5py.File(path, "r", rdcc_nbytes=n_bytes, rdcc_nslots=100_003)
            self._brick = self._file[_BRICK]
        except OSError as problem:
            raise EmbedctlError(
                f"'{path}' cannot be read: {' '.join(str(problem).split())}", "download it again"
            ) from None
        self._turn = threading.Lock()
        n_images, height, width, _ = self._brick.shape
        self._head = b"P6 %d %d 255\n" % (width, height)
        stamp = Stamp(height * width * 3, path.stat().st_mtime_ns)
        self.stamps = {f"nsd-{number:05d}": stamp for number in range(n_images)}

    def read(self, image_id: str) -> bytes:
        """Return one image as a PPM file."""
        try:
            with self._turn:
                pixels = self._brick[int(image_id.removeprefix("nsd-"))]
        except MemoryError:  # what the shape claims need not be in the file
            raise OSError("larger than the memory") from None
        return self._head + pixels.tobytes()


def _cache_bytes(path: Path, file: "h5py.File") -> int:
    """Return the bytes of all chunks that one image touches, at least HDF5's own megabyte."""
    try:
        brick = file.get(_BRICK)
    except (OSError, KeyError):  # a link to another file that is not there
        brick = None
    shape: tuple[int, ...] = getattr(brick, "shape", ())
    if len(shape) != 4 or shape[3] != 3 or brick.dtype != np.uint8:
        raise EmbedctlError(
            f"'{path}' holds no images named {_BRICK}", "of HDF5 files, --images takes NSD's nsd_stimuli.hdf5"
        )
    if why := not_plain(brick, file):
        raise EmbedctlError(f"'{path}': {why}", "download nsd_stimuli.hdf5 again: it is plain where it is published")
    if brick.chunks is None:
        return 1 << 20
    per_image = [-(-size // chunk) for size, chunk in zip(shape[1:], brick.chunks[1:], strict=True)]
    return int(min(max(1 << 20, np.prod(per_image) * np.prod(brick.chunks)), _MOST_CACHED))
