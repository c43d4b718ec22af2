"""Archives of strangers: refused where they hold far more than they weigh, and unpacked only as far as they claim."""

import io
import zipfile
from typing import IO, Any

import numpy as np

__all__ = ["check_members", "read_header", "read_member", "refuse_bomb"]

_ROOM, _RATIO = 1 << 26, 50  # numbers shrink by a tenth, sparse ones to a fifth
_PIECE = 1 << 20
_HEADER = 1 << 16


def refuse_bomb(packed: int, unpacked: int) -> None:
    """Refuse what unpacks to over 64 MiB and to more than 50 times its size.

    Raises
    ------
    ValueError
        Saying both sizes.

    Examples
    --------
    >>> refuse_bomb(1_000_000, 50_000_000)
    >>> refuse_bomb(1_000_000, 9_000_000_000)
    Traceback (most recent call last):
    ...
    ValueError: 1,000,000 bytes that unpack to 9,000,000,000: a bomb
    """
    if unpacked > max(_ROOM, _RATIO * packed):
        raise ValueError(f"{packed:,} bytes that unpack to {unpacked:,}: a bomb")


def check_members(archive: zipfile.ZipFile, *names: str) -> None:
    """Refuse members of a zip, all by default, that are bombs, or packed so that their size shows only afterwards.

    Raises
    ------
    ValueError
        Saying which.
    """
    members = [archive.getinfo(name) for name in names] or archive.infolist()
    for member in members:
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"'{member.filename}' is packed in a way that cannot be unpacked piece by piece")
    refuse_bomb(sum(member.compress_size for member in members), sum(member.file_size for member in members))


def read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Return a member of a zip, read in pieces: at once, it is unpacked whole, however much more it holds than it says.

    Raises
    ------
    ValueError
        As `check_members`.
    """
    check_members(archive, name)
    with archive.open(name) as member:
        return b"".join(iter(lambda: member.read(_PIECE), b""))


def read_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return shape and number type that a ``.npy`` file says its array has, in a header of 64 kB at most.

    Version 3 is for field names, which no array of ours has.

    Raises
    ------
    ValueError
        If it says neither, or says it at more length.

    Examples
    --------
    >>> sink = io.BytesIO()
    >>> np.save(sink, np.ones((3, 2), np.float32))
    >>> read_header(io.BytesIO(sink.getvalue()))
    ((3, 2), dtype('float32'))
    """
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version}")
    size = file.read(2 if version == (1, 0) else 4)  # NumPy would ask for as much memory as is said here
    if int.from_bytes(size, "little") > _HEADER:
        raise ValueError("a header without end")
    header = io.BytesIO(size + file.read(int.from_bytes(size, "little")))
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(header)
    return shape, dtype
