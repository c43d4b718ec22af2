"""Places in an object store (``s3://bucket/key``, ``gs://bucket/key``), with what stores ask of a path on a disk.

An object appears whole or not at all, and can be put only where none is: that is all the commit protocol needs beside
its order. There is no rename, so what appears in one step on a disk appears with its last object here. Addresses,
keys and endpoints come from the environment, as every program of that store reads them (``AWS_ACCESS_KEY_ID``,
``AWS_ENDPOINT_URL``, ``GOOGLE_APPLICATION_CREDENTIALS``).
"""

import io
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from fnmatch import fnmatchcase
from functools import cache
from itertools import groupby
from pathlib import Path, PurePosixPath
from textwrap import shorten
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from stores.errors import CannotWrite, EmbedctlError, NotHere

if TYPE_CHECKING:
    from obstore import UpdateVersion

__all__ = ["RemotePath", "is_remote", "locate", "on_disk", "read_ranges"]

_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_ADDRESS = re.compile(r"(s3|gs)://([^/]+)(?:/|$)")


def locate(place: Path | str) -> Path:
    """Return the path of a store: on a disk, or behind an address.

    Examples
    --------
    >>> locate("s3://bucket/embeddings.zarr") / "zarr.json", locate("embeddings.zarr").name
    (RemotePath('s3://bucket/embeddings.zarr/zarr.json'), 'embeddings.zarr')
    """
    if isinstance(place, RemotePath):
        return cast(Path, place)
    return cast(Path, RemotePath(place)) if _ADDRESS.match(str(place)) else Path(place)


def on_disk(place: Path | str) -> Path:
    """Return the path of what only a disk holds: anything but an embedding store.

    Raises
    ------
    EmbedctlError
        If it is an address.
    """
    if isinstance(place, RemotePath) or "://" in str(place):  # else a folder of that name would be made here
        raise EmbedctlError(f"'{place}' is not on a disk", "name a folder; a store is copied whole, by any program")
    return Path(place)


def is_remote(path: object) -> bool:
    """Say whether a path leads into an object store."""
    return isinstance(path, RemotePath)


def read_ranges(path: Path, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """Return parts of a file or object, each from a start to an end that is not included.

    Raises
    ------
    FileNotFoundError
        If it is not there.
    """
    if isinstance(path, RemotePath):
        return path.read_ranges(ranges)
    with open(path, "rb") as file:
        return [(file.seek(start), file.read(stop - start))[1] for start, stop in ranges]


class RemotePath(PurePosixPath):
    """A place in an object store; a folder is what other keys begin with."""

    __slots__ = ()

    def __str__(self) -> str:
        scheme, *rest = self.parts or ("",)
        return f"{scheme}//{'/'.join(rest)}" if scheme in ("s3:", "gs:") else "/".join(self.parts)

    def __repr__(self) -> str:
        return f"RemotePath('{self}')"

    def __fspath__(self) -> str:
        raise TypeError(f"'{self}' is not on a disk")

    @property
    def _key(self) -> str:
        return "/".join(self.parts[2:])

    @property
    def _bucket(self) -> Any:
        return _open_bucket(f"{self.parts[0]}//{self.parts[1]}")

    def _list(self) -> Iterator[tuple["RemotePath", Any]]:
        """Yield everything below, with what the listing says of it."""
        import obstore

        with _expected(self):
            for page in obstore.list(self._bucket, prefix=self._key):
                for found in page:
                    yield RemotePath(*self.parts[:2], found["path"]), found

    # What a path on a disk does

    def resolve(self) -> "RemotePath":
        """Return it: there are no links."""
        return self

    absolute = resolve

    def exists(self) -> bool:
        """Say whether an object is here, or below."""
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        """Say whether an object is here."""
        try:
            self.stat()
        except FileNotFoundError:
            return False
        return True

    def is_dir(self) -> bool:
        """Say whether an object is below."""
        return next(self._list(), None) is not None

    def is_symlink(self) -> bool:
        """Say no."""
        return False

    def iterdir(self) -> Iterator["RemotePath"]:
        """Yield what is directly below, folders and objects."""
        import obstore

        with _expected(self):
            found = obstore.list_with_delimiter(self._bucket, prefix=self._key)
        for key in (*found["common_prefixes"], *(one["path"] for one in found["objects"])):
            yield RemotePath(*self.parts[:2], key)

    def glob(self, pattern: str) -> Iterator["RemotePath"]:
        """Yield what is directly below and fits a pattern of names."""
        return (path for path in self.iterdir() if fnmatchcase(path.name, pattern))

    def rglob(self, pattern: str) -> Iterator["RemotePath"]:
        """Yield objects anywhere below that fit."""
        return (path for path, _ in self._list() if path.match(pattern))

    def stat(self) -> SimpleNamespace:
        """Return size and time; FileNotFoundError where nothing is."""
        import obstore

        with _expected(self):
            found = obstore.head(self._bucket, self._key)
        time: datetime = found["last_modified"]
        return SimpleNamespace(st_size=found["size"], st_mtime=time.timestamp())

    lstat = stat

    def read_bytes(self) -> bytes:
        """Return an object; FileNotFoundError where none is."""
        import obstore

        with _expected(self):
            return bytes(obstore.get(self._bucket, self._key).bytes())

    def open(self, mode: str = "rb") -> io.BytesIO:
        """Open an object for reading."""
        return io.BytesIO(self.read_bytes())

    def write_bytes(self, data: bytes) -> None:
        """Put an object in place of what is here."""
        import obstore

        with _expected(self):
            obstore.put(self._bucket, self._key, data)

    def touch(self) -> None:
        """Put an empty object."""
        self.write_bytes(b"")

    def unlink(self, missing_ok: bool = False) -> None:
        """Delete an object."""
        import obstore

        if missing_ok or self.stat():
            with _expected(self):
                obstore.delete(self._bucket, self._key)

    # What only an object store does

    def create(self, data: bytes) -> None:
        """Put an object where none is; FileExistsError where one is."""
        import obstore

        with _expected(self):
            obstore.put(self._bucket, self._key, data, mode="create")

    def renew(self, data: bytes) -> bool:
        """Put an object once more, so that its time is now; False if it is another one by now, or gone."""
        import obstore
        from obstore import exceptions

        try:
            with _expected(self):
                found = obstore.get(self._bucket, self._key)
                known = {name: said for name in ("e_tag", "version") if (said := found.meta.get(name))}
                version = cast("UpdateVersion", known)
                if bytes(found.bytes()) != data:
                    return False
                try:
                    obstore.put(self._bucket, self._key, data, mode=version)
                except (exceptions.PreconditionError, exceptions.NotFoundError):
                    return False
                except exceptions.BaseError:  # a server that puts under no such condition
                    obstore.put(self._bucket, self._key, data)
        except FileNotFoundError:
            return False
        return True

    def copy(self, target: "RemotePath", last: str) -> None:
        """Copy everything below to ``target``, the object called ``last`` after all others."""
        for path in sorted(self.rglob("*"), key=lambda path: str(path.relative_to(self)) == last):
            (target / path.relative_to(self)).write_bytes(path.read_bytes())

    def remove(self) -> None:
        """Delete an object, or everything below: receipts, then numbers, so that who was cut short can do it again."""
        import obstore

        def rank(path: RemotePath) -> tuple[bool, ...]:
            below = path.relative_to(self).parts
            return "receipts" not in below, "c" not in below, path.name != "metadata.json"

        found = sorted((path for path, _ in self._list()), key=rank) or [self]
        with _expected(self):
            for _, some in groupby(found, key=rank):
                obstore.delete(self._bucket, [path._key for path in some])

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return parts of an object, those that lie close together in one request."""
        import obstore

        starts, ends = zip(*ranges, strict=True)
        with _expected(self):
            return [bytes(part) for part in obstore.get_ranges(self._bucket, self._key, starts=starts, ends=ends)]


@cache
def _open_bucket(address: str) -> Any:
    try:
        from obstore.exceptions import BaseError
        from obstore.store import from_url
    except ImportError:
        raise NotHere("object stores need the package obstore", "pip install 'embedctl[objects]'") from None
    endpoint = next((said for name in _ENDPOINTS if (said := os.environ.get(name))), "")
    if not address.startswith("s3:"):
        endpoint = ""
    elif endpoint and not endpoint.startswith(("http://", "https://")):  # the library would panic
        raise EmbedctlError(f"the endpoint '{endpoint}' is no address", "AWS_ENDPOINT_URL is one as https://host:9000")
    # Who names an endpoint by http:// has said that requests may go there in the clear.
    in_clear = endpoint.startswith("http://") and "AWS_ALLOW_HTTP" not in os.environ
    try:
        return from_url(address, client_options={"allow_http": True} if in_clear else None)
    except BaseError as problem:
        raise _refusal(address, problem) from problem


@contextmanager
def _expected(path: RemotePath) -> Iterator[None]:
    """Turn what an object store refuses into the errors of a disk, or of embedctl."""
    _ = path._bucket
    from obstore import exceptions

    try:
        yield
    except exceptions.AlreadyExistsError as problem:
        raise FileExistsError(str(path)) from problem
    except (FileNotFoundError, exceptions.NotFoundError) as problem:
        raise FileNotFoundError(2, "No such object", str(path)) from problem
    except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as problem:
        raise CannotWrite(f"'{path}' may not be read or written", "give the keys of its bucket") from problem
    except exceptions.BaseError as problem:
        raise _refusal(str(path), problem) from problem


def _refusal(place: str, problem: Exception) -> EmbedctlError:
    """Return what a library said as a line, without its own structures."""
    what, _, _ = str(problem).partition("Debug source:")
    hint = "check the address, the keys and the endpoint"
    return EmbedctlError(f"'{place}': {shorten(what, 300, placeholder=' ...')}", hint)
