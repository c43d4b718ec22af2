"""Where images come from: a folder tree, a zip, a tar, a folder of tars or NSD's HDF5 file, read in place.

A source knows the id, size and time of every image without opening one, and reads the bytes of one by its id
from any thread. An id is the path below the root with ``/`` between its parts, on every system; ids are
sorted by their bytes, so that the order is the same everywhere. Hidden files (macOS leaves a ``._x.jpg``
beside every ``x.jpg`` on foreign disks) are no images, and nothing outside the root is ever read.
"""

import os
import stat
import tarfile
import zipfile
from pathlib import Path
from typing import Protocol

from pipelines.extract.archives import Shards, TarImages, ZipImages
from pipelines.extract.stamps import MAX_BYTES, SUFFIXES, Stamp, is_image
from stores.errors import EmbedctlError
from stores.files import NotAFile, open_file

__all__ = ["ImageSource", "open_images", "scan"]

_HDF5 = b"\x89HDF\r\n\x1a\n"
_LEADS_OUT, _NOT_REGULAR = "a link that leads out of the image folder", "not a regular file"


class ImageSource(Protocol):
    """Images by id."""

    stamps: dict[str, Stamp]

    def read(self, image_id: str) -> bytes:
        """Return the bytes of one image file, from any thread; OSError says why not."""


def open_images(path: Path) -> ImageSource:
    """Open a folder, zip, tar, folder of tars or HDF5 file of images.

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
        folder = _Folder(path)
        tars, refused = ([], {}) if folder.stamps else folder.tars()
        return Shards(tars, refused) if tars or refused else folder
    try:
        with open_file(path) as file:
            begins = file.read(len(_HDF5))
    except NotAFile:
        raise _no_source(path) from None
    if begins == _HDF5:
        from pipelines.extract.nsd_images import NsdImages  # h5py: only who has such a file needs it

        return NsdImages(path)
    if zipfile.is_zipfile(path):
        return ZipImages(path)
    if tarfile.is_tarfile(path):
        return TarImages(path)
    if path.suffix.lower() in (".zip", ".tar"):
        raise EmbedctlError(
            f"'{path}' is no whole {path.suffix[1:].lower()}", "fetch or pack it again: it is read in place"
        )
    raise _no_source(path)


def _no_source(path: Path) -> EmbedctlError:
    takes = "--images takes a folder tree, a zip, a plain tar, a folder of tars or nsd_stimuli.hdf5"
    return EmbedctlError(f"'{path}' is no folder, zip or tar", takes)


def scan(path: Path) -> list[str]:
    """Return the ids of all images of a source, sorted by their bytes.

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


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads in a circle
        return False


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
                if _is_folder(entry):
                    self._descend(entry, image_id, above)
                elif is_image(entry.name):
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
        if self._leads_out(entry):
            self._refused[image_id] = _LEADS_OUT
            return
        try:
            found = entry.stat()
        except OSError:
            return  # a link to nothing: reading it says so
        if not stat.S_ISREG(found.st_mode):
            self._refused[image_id] = _NOT_REGULAR
        elif found.st_size > MAX_BYTES:
            self._refused[image_id] = "larger than 512 MiB"
        self.stamps[image_id] = Stamp(found.st_size, found.st_mtime_ns)

    def _leads_out(self, entry: "os.DirEntry[str]") -> bool:
        return entry.is_symlink() and not os.path.realpath(entry.path).startswith(self._real_prefix)

    def tars(self) -> tuple[list[Path], dict[str, str]]:
        """Return the tars directly in the folder, and by name why others are not opened: the rules of images."""
        found, refused = [], {}
        with os.scandir(self.root) as entries:
            for entry in entries:
                if entry.name.startswith(".") or not entry.name.endswith(".tar") or _is_folder(entry):
                    continue
                try:
                    if self._leads_out(entry):
                        refused[entry.name] = _LEADS_OUT
                    elif not stat.S_ISREG(entry.stat().st_mode):
                        refused[entry.name] = _NOT_REGULAR
                    else:
                        found.append(self.root / entry.name)
                except OSError as problem:  # a link to nothing, or in a circle
                    refused[entry.name] = problem.strerror or str(problem)
        return found, refused

    def read(self, image_id: str) -> bytes:
        if image_id in self._refused:
            raise OSError(self._refused[image_id])
        with open_file(os.path.join(self.root, image_id)) as file:
            return file.read()
