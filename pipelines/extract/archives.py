"""Images inside zips and tars, read in place; WebDataset shards are tars.

An archive is data of strangers. A name that leads out of it, or that comes twice, makes the whole archive ambiguous:
it is refused. A member that is a link, no regular file, or far larger than what it is packed into keeps its row,
absent with the reason.
"""

import stat
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import TypeVar

from pipelines.extract.stamps import MAX_BYTES, Stamp, is_image
from stores.errors import EmbedctlError
from stores.files import open_file

__all__ = ["Shards", "TarImages", "ZipImages"]

M = TypeVar("M")

# Deflate packs at most 1,032 to 1, and pictures of one colour reach that; only large ones can do harm.
_BOMB_BYTES, _BOMB_RATIO = 1 << 24, 200
_PIECE = 1 << 20


class ZipImages:
    """A zip file; its own time stands for the times of its members, which zip rounds to two seconds."""

    def __init__(self, path: Path) -> None:
        try:
            self._archive = zipfile.ZipFile(path)
            members = [(info.filename, info) for info in self._archive.infolist() if not info.is_dir()]
        except (zipfile.BadZipFile, NotImplementedError, ValueError) as problem:
            raise _unreadable(path, problem) from None
        time = path.stat().st_mtime_ns
        self._members = _by_id(path, members)
        self.stamps = {image_id: Stamp(info.file_size, time) for image_id, info in self._members.items()}

    def read(self, image_id: str) -> bytes:
        """Return the bytes of one member."""
        member = self._members[image_id]
        if stat.S_ISLNK(member.external_attr >> 16):
            raise OSError("a link in the zip")
        if member.file_size > MAX_BYTES:
            raise OSError("larger than 512 MiB")
        if member.file_size > max(_BOMB_BYTES, _BOMB_RATIO * member.compress_size):
            raise OSError(f"{member.compress_size:,} bytes of the zip that unpack to {member.file_size:,}: a bomb")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise OSError("in the zip: packed in a way that cannot be unpacked piece by piece")
        try:
            # Read at once, a member is unpacked whole, however much more it holds than it claims.
            with self._archive.open(member) as opened:
                return b"".join(iter(lambda: opened.read(_PIECE), b""))
        except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError) as problem:
            raise OSError(f"in the zip: {problem}") from problem


class TarImages:
    """A plain tar, whose members are read by their place in the file."""

    def __init__(self, path: Path) -> None:
        try:
            with open_file(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
                members = [(member.name, member) for member in archive if not member.isdir()]
        except (tarfile.TarError, EOFError, ValueError, OverflowError, MemoryError) as problem:
            raise _unreadable(path, problem) from None
        self._path = path
        self._members = _by_id(path, members)
        time = path.stat().st_mtime_ns
        self.stamps = {image_id: Stamp(member.size, time) for image_id, member in self._members.items()}

    def read(self, image_id: str) -> bytes:
        """Return the bytes of one member."""
        member = self._members[image_id]
        if member.issym() or member.islnk():
            raise OSError("a link in the tar")
        if not member.isreg() or member.issparse():
            raise OSError("not a plain file in the tar")
        if member.size > MAX_BYTES:
            raise OSError("larger than 512 MiB")
        # Opened each time: there may be more shards than files a process may hold open, and no thread waits.
        with open_file(self._path) as file:
            file.seek(member.offset_data)
            data = file.read(member.size)
        if len(data) < member.size:
            raise OSError("the tar ends inside it")
        return data


class Shards:
    """A folder of tars, as WebDataset writes them; an id begins with the name of its tar, without ``.tar``.

    A tar that is not opened has one row in place of its images: its name, absent with the reason.
    """

    def __init__(self, tars: list[Path], refused: dict[str, str]) -> None:
        self._refused = refused
        self._shards = {path.name.removesuffix(".tar"): TarImages(path) for path in tars}
        self.stamps = {
            f"{shard}/{image_id}": stamp
            for shard, images in self._shards.items()
            for image_id, stamp in images.stamps.items()
        } | dict.fromkeys(refused, Stamp(0, 0))

    def read(self, image_id: str) -> bytes:
        """Return the bytes of one member of one tar."""
        if image_id in self._refused:
            raise OSError(self._refused[image_id])
        shard, _, inside = image_id.partition("/")
        return self._shards[shard].read(inside)


def _by_id(path: Path, members: list[tuple[str, M]]) -> dict[str, M]:
    """Return the members that are images, by id.

    Raises
    ------
    EmbedctlError
        If a name leads out of the archive, or comes twice.
    """
    found: dict[str, M] = {}
    for name, member in members:
        parts = PurePosixPath(name).parts
        if not parts or not is_image(parts[-1]):
            continue
        if name.startswith("/") or ".." in parts:
            raise EmbedctlError(
                f"'{name}' leads out of '{path}'", "pack the images again, from inside the folder that holds them"
            )
        if any(part.startswith(".") for part in parts):
            continue
        image_id = "/".join(parts)
        if image_id in found:
            raise EmbedctlError(f"'{image_id}' is in '{path}' twice", "keep one of them: its name is its id")
        found[image_id] = member
    return found


def _unreadable(path: Path, problem: Exception) -> EmbedctlError:
    return EmbedctlError(
        f"'{path}' cannot be read in place: {' '.join(str(problem).split())}",
        "unpack it; a zip or an uncompressed tar can be read in place",
    )
