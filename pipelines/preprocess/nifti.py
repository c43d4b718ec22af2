"""Read a NIfTI-1 file (``.nii``, ``.nii.gz``) a volume at a time: a header of 348 bytes, then numbers, x fastest."""

import gzip
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.preprocess.impostors import read_head
from pipelines.unpack import refuse_bomb
from stores.errors import BadRecording

__all__ = ["Nifti", "open_nifti"]

_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4"}


@dataclass(frozen=True, slots=True)
class Nifti:
    """The header of a file.

    Parameters
    ----------
    path : Path
        The file.
    shape : (int, int, int)
        Of a volume, ``(x, y, z)``.
    n_volumes : int
        How many there are.
    dtype : numpy.dtype
        As stored.
    offset : int
        Bytes before the first volume.
    slope, inter : float
        The value is ``stored * slope + inter``; 1 and 0 where the header does not scale.
    """

    path: Path
    shape: tuple[int, int, int]
    n_volumes: int
    dtype: np.dtype
    offset: int
    slope: float
    inter: float

    def volumes(self) -> Iterator[np.ndarray]:
        """Yield the volumes as they are stored, ``(x, y, z)``.

        Raises
        ------
        BadRecording
            If the file ends early.
        """
        size = int(np.prod(self.shape)) * self.dtype.itemsize
        with _open(self.path) as file:
            file.seek(self.offset)
            for number in range(self.n_volumes):
                try:
                    data = file.read(size)
                except (EOFError, OSError, zlib.error):
                    data = b""
                if len(data) < size:
                    raise BadRecording(
                        f"{self.path} is truncated in volume {number + 1} of {self.n_volumes}",
                        "download it again",
                    )
                yield np.frombuffer(data, self.dtype).reshape(self.shape, order="F")


def open_nifti(path: Path) -> Nifti:
    """Read the header of a NIfTI file.

    Raises
    ------
    BadRecording
        If it is missing, not NIfTI-1, holds something else than whole or real numbers, or is shorter than it says.
    """
    packed = read_head(path).startswith(b"\x1f\x8b")
    try:
        with _open(path) as file:
            head = file.read(348)
    except (EOFError, OSError, zlib.error):
        head = b""
    if packed and len(head) < 348:
        raise BadRecording(f"{path} is truncated or damaged", "download it again")
    order = "<" if head[:4] == struct.pack("<i", 348) else ">"
    if len(head) < 348 or struct.unpack(order + "i", head[:4])[0] != 348 or head[344:347] != b"n+1":
        raise BadRecording(f"{path} is not a NIfTI file", "expected .nii or .nii.gz")
    dim = struct.unpack(order + "8h", head[40:56])
    code, offset = struct.unpack(order + "h", head[70:72])[0], struct.unpack(order + "f", head[108:112])[0]
    slope, inter = struct.unpack(order + "2f", head[112:120])
    if code not in _TYPES or not 3 <= dim[0] <= 4 or min(dim[1 : dim[0] + 1]) < 1 or not 348 <= offset < 2**31:
        raise BadRecording(
            f"{path} holds NIfTI type {code} with sizes {dim[1 : dim[0] + 1]}", "expected 3-D or 4-D numbers"
        )
    dtype = np.dtype(order + _TYPES[code])
    n_volumes = dim[4] if dim[0] == 4 else 1
    need = int(offset) + dim[1] * dim[2] * dim[3] * n_volumes * dtype.itemsize
    have = path.stat().st_size
    if packed:
        with open(path, "rb") as file:
            file.seek(-4, 2)
            have = struct.unpack("<I", file.read(4))[0]  # gzip ends in the size of what it holds, modulo 4 GB
        try:
            refuse_bomb(path.stat().st_size, need)
        except ValueError as bomb:
            raise BadRecording(f"{path}: {bomb}", "download it again") from None
        need %= 2**32
    if have < need or (packed and have != need):
        raise BadRecording(f"{path} is truncated: {need:,} bytes are expected in it", "download it again")
    scaled = bool(np.isfinite(slope) and np.isfinite(inter) and slope != 0.0)  # a slope of 0: no scaling
    return Nifti(path, dim[1:4], n_volumes, dtype, int(offset), slope if scaled else 1.0, inter if scaled else 0.0)


def _open(path: Path) -> gzip.GzipFile:
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if packed else open(path, "rb")  # type: ignore[return-value]
