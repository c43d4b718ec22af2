"""Files that are not what their name says: pages, pointers and archives saved under it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from stores.errors import BadRecording
from stores.files import NotAFile, open_file

__all__ = ["opened", "read_head", "refuse_impostor"]


def read_head(path: Path, n: int = 512) -> bytes:
    """Return the first bytes of a file that is meant to hold numbers.

    Raises
    ------
    BadRecording
        If it is missing, may not be read, is empty, a web page, a Git LFS pointer or a zip archive.
    """
    with opened(path) as file:
        head = file.read(n)
    refuse_impostor(path, head)
    return head


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file that is meant to hold numbers.

    Raises
    ------
    BadRecording
        If it is missing, is no file, or may not be read.
    """
    try:
        with open_file(path) as file:
            yield file
    except FileNotFoundError:
        raise _no_file(path) from None
    except IsADirectoryError:
        raise BadRecording(f"{path} is a folder, not a file", "check how the archive was unpacked") from None
    except NotAFile:
        raise BadRecording(f"{path} is a pipe or a device, and no file", "put the recording in its place") from None
    except PermissionError:
        raise BadRecording(f"{path} may not be read", "check the permissions of the file") from None


def _no_file(path: Path) -> BadRecording:
    """Return what to say of a path at which no file is: a link without its file was never fetched."""
    if path.is_symlink():
        return BadRecording(
            f"{path} is a link that leads nowhere", "fetch the file it stands for: git annex get, or datalad get"
        )
    return BadRecording(f"no file {path}", "check the folder and the names of the files in it")


def refuse_impostor(path: Path, head: bytes) -> None:
    """Say what a file is instead, if its first bytes tell.

    Raises
    ------
    BadRecording
        If it is empty, a web page, a Git LFS pointer or a zip archive.
    """
    if not head:
        raise BadRecording(f"{path} is empty", "download it again")
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise BadRecording(f"{path} is a web page, not a recording", "the download was refused: fetch it again")
    if text.startswith(b"version https://git-lfs"):
        raise BadRecording(f"{path} is a Git LFS pointer, not the file itself", "run: git lfs pull")
    if head.startswith(b"PK\x03\x04"):
        raise BadRecording(f"{path} is a zip archive", "unpack it first")
