"""Where images come from: a folder tree, a zip or a tar, read in place.

A source knows the id, size and time of every image without opening one, and reads the bytes of one by its id
from any thread. An id is the path below the root with ``/`` between its parts, on every system; ids are
sorted by their bytes, so that the order is the same everywhere. Hidden files (macOS leaves a ``._x.jpg``
beside every ``x.jpg`` on foreign disks) are no images, and nothing outside the root is ever read.
"""

import os
import stat
import tarfile
import threading
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Protocol

from stores.errors import EmbedctlError

__all__ = ["ImageSource", "Stamp", "open_images", "scan"]

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
MAX_BYTES = 1 << 30  # no picture of 50 million pixels is larger, and one file must not fill the memory


class Stamp(NamedTuple):
    """Size and time of a file: as long as both stay, its content is taken to be the same."""

    bytes: int
    mtime_ns: int


class ImageSource(Protocol):
    """Images by id."""

    stamps: dict[str, Stamp]

    def read(self, image_id: str) -> bytes:
        """Return the bytes of one image file, from any thread; OSError says why not."""


def open_images(path: Path) -> ImageSource:
    """Open a folder, zip or tar of images.

    Raises
    ------
    EmbedctlError
        If ``path`` is none of these, holds no image, or names one in a way that cannot be kept.
    """
    if not path.exists():
        raise EmbedctlError(f"no folder '{path}'", "put the images there, or name their folder with --images")
    try:
        source = _open(path)
    except OSError as problem:
        where = problem.filename or path
        raise EmbedctlError(
            f"'{where}' cannot be read: {problem.strerror or problem}", "check its permissions"
        ) from None
    if not source.stamps:
        known = " ".join(sorted(SUFFIXES))
        raise EmbedctlError(f"no images in '{path}'", f"files are images when their names end in {known}")
    try:
        source.stamps = dict(sorted(source.stamps.items(), key=lambda item: item[0].encode()))
    except UnicodeEncodeError as problem:
        name = str(problem.object).encode(errors="backslashreplace").decode()
        raise EmbedctlError(
            f"the file name '{name}' is not UTF-8", "rename the file: its name becomes its id"
        ) from None
    return source


def _open(path: Path) -> ImageSource:
    if path.is_dir():
        return _Folder(path)
    if zipfile.is_zipfile(path):
        return _Zip(path)
    if tarfile.is_tarfile(path):
        return _Tar(path)
    raise EmbedctlError(f"'{path}' is no folder, zip or tar", "--images takes a folder tree, a zip or a plain tar")


def scan(path: Path) -> list[str]:
    """Return the ids of all images of a folder, zip or tar, sorted by their bytes.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("b.JPG", "a.png", "._a.png", "notes.txt"):
    ...         _ = (Path(folder) / name).write_bytes(b"")
    ...     scan(Path(folder))
    ['a.png', 'b.JPG']
    """
    return list(open_images(path).stamps)


def _is_image(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES


class _Folder:
    """A folder tree; links are followed as long as they stay inside it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.stamps: dict[str, Stamp] = {}
        self._refused: dict[str, str] = {}
        real = os.path.realpath(root)
        self._real_prefix = os.path.join(real, "")
        self._walk(os.fspath(root), "", (real,))

    def _walk(self, folder: str, prefix: str, above: tuple[str, ...]) -> None:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                image_id = prefix + entry.name
                if entry.is_dir():
                    self._descend(entry, image_id, above)
                elif _is_image(entry.name):
                    self._add(entry, image_id)

    def _descend(self, entry: "os.DirEntry[str]", image_id: str, above: tuple[str, ...]) -> None:
        real = os.path.join(above[-1], entry.name)
        if entry.is_symlink():
            real = os.path.realpath(entry.path)
            if real in above:
                return  # a circle: everything below is listed already
            if not real.startswith(self._real_prefix):
                raise EmbedctlError(
                    f"'{image_id}' is a link that leads out of '{self.root}'",
                    "name the folder that holds the images with --images, or copy them here",
                )
        self._walk(entry.path, f"{image_id}/", (*above, real))

    def _add(self, entry: "os.DirEntry[str]", image_id: str) -> None:
        self.stamps[image_id] = Stamp(0, 0)
        if entry.is_symlink() and not os.path.realpath(entry.path).startswith(self._real_prefix):
            self._refused[image_id] = "a link that leads out of the image folder"
            return
        try:
            found = entry.stat()
        except OSError:
            return  # a link to nothing: reading it says so
        if not stat.S_ISREG(found.st_mode):
            self._refused[image_id] = "not a regular file"
        elif found.st_size > MAX_BYTES:
            self._refused[image_id] = "larger than 1 GiB"
        self.stamps[image_id] = Stamp(found.st_size, found.st_mtime_ns)

    def read(self, image_id: str) -> bytes:
        if image_id in self._refused:
            raise OSError(self._refused[image_id])
        with open(os.path.join(self.root, image_id), "rb") as file:
            return file.read()


class _Zip:
    """A zip file; its own time stands for the times of its members, which zip rounds to two seconds."""

    def __init__(self, path: Path) -> None:
        self._archive = zipfile.ZipFile(path)
        time = path.stat().st_mtime_ns
        self._members = {
            name: info for info in self._archive.infolist() if not info.is_dir() and (name := _member_id(info.filename))
        }
        self.stamps = {name: Stamp(info.file_size, time) for name, info in self._members.items()}

    def read(self, image_id: str) -> bytes:
        member = self._members[image_id]
        if member.file_size > MAX_BYTES:
            raise OSError("larger than 1 GiB")
        try:
            return self._archive.read(member)
        except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError) as problem:
            raise OSError(f"in the zip: {problem}") from problem


class _Tar:
    """A plain tar, whose members are read by their place in the file."""

    def __init__(self, path: Path) -> None:
        try:
            with tarfile.open(path, "r:") as archive:
                members = [member for member in archive if member.isreg() and not member.issparse()]
        except tarfile.ReadError as problem:
            raise EmbedctlError(
                f"'{path}' cannot be read in place: {problem}",
                "unpack it; only an uncompressed tar can be read in place",
            ) from None
        self._file = open(path, "rb")
        self._turn = threading.Lock()
        self._members = {name: member for member in members if (name := _member_id(member.name))}
        time = path.stat().st_mtime_ns
        self.stamps = {name: Stamp(member.size, time) for name, member in self._members.items()}

    def read(self, image_id: str) -> bytes:
        member = self._members[image_id]
        if member.size > MAX_BYTES:
            raise OSError("larger than 1 GiB")
        with self._turn:
            self._file.seek(member.offset_data)
            return self._file.read(member.size)


def _member_id(name: str) -> str:
    """Return the id of an archive member, empty for what is no image or points out of the archive."""
    parts = PurePosixPath(name.removeprefix("./")).parts
    inside = not name.startswith("/") and not any(part.startswith(".") for part in parts)
    return "/".join(parts) if inside and parts and _is_image(parts[-1]) else ""
