"""Which images are new, which only look touched, and which are no longer the image their rows were computed from.

An image with the size and time it had is taken to be unchanged, so that a run with nothing to do opens no image.
One whose size or time differ is hashed: a copied folder has new times and old content.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from pipelines.cores import in_order
from pipelines.extract.sources import ImageSource
from stores.errors import EmbedctlError

if TYPE_CHECKING:
    from stores.images import ImageRecord

__all__ = ["Changes", "find_changes", "refuse_changed"]

_HASHING_THREADS = 8


@dataclass(frozen=True)
class Changes:
    """How the images of a source differ from what the store knows of them.

    Attributes
    ----------
    new : list of str
        Ids the store has no row for, in the order of the source.
    touched : list of ImageRecord
        Records with the size and time of now: same content.
    changed : list of ImageRecord
        Records with size, time and hash of now: other content under the same id.
    """

    new: list[str] = field(default_factory=list)
    touched: list["ImageRecord"] = field(default_factory=list)
    changed: list["ImageRecord"] = field(default_factory=list)


def find_changes(
    source: ImageSource,
    records: Mapping[str, "ImageRecord"],
    hash_all: bool = False,
    hashes: dict[str, str] | None = None,
) -> Changes:
    """Compare the images of ``source`` with the ``records`` of a store; nothing is written.

    Parameters
    ----------
    source : ImageSource
        Images of now.
    records : mapping of str to ImageRecord
        What the store knows, by id. A record without hash is of an image that was never read: nothing to compare.
    hash_all : bool
        Distrust size and time.
    hashes : dict of str to str, optional
        Hashes of images of ``source`` that are known already; those found here are added.
    """
    found = Changes()
    hashes = {} if hashes is None else hashes
    suspects = []
    for image_id, stamp in source.stamps.items():
        record = records.get(image_id)
        if record is None:
            found.new.append(image_id)
        elif record.sha256 and (hash_all or stamp != (record.bytes, record.mtime_ns)):
            suspects.append(replace(record, bytes=stamp.bytes, mtime_ns=stamp.mtime_ns))
    unknown = [record.id for record in suspects if record.id not in hashes]
    hashes.update(zip(unknown, in_order(partial(_sha256, source), unknown, _HASHING_THREADS), strict=True))
    for record in suspects:
        sha256 = hashes[record.id]
        if sha256 and sha256 != record.sha256:
            found.changed.append(replace(record, sha256=sha256))
        elif sha256 and record != records[record.id]:
            found.touched.append(record)
    return found


def refuse_changed(names: list[str]) -> EmbedctlError:
    """Return the problem of images that are no longer what their rows were computed from.

    Examples
    --------
    >>> print(refuse_changed(["a.jpg"]))
    'a.jpg' is not the image it was when its row was computed
    """
    shown = ", ".join(f"'{name}'" for name in names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    verb = (
        "are not the images they were when their rows were"
        if len(names) > 1
        else "is not the image it was when its row was"
    )
    return EmbedctlError(f"{shown} {verb} computed", "--refresh computes changed images again")


def _sha256(source: ImageSource, image_id: str) -> str:
    """Return the hash of an image now, empty where it cannot be read: its rows are still those of the image it was."""
    try:
        return hashlib.sha256(source.read(image_id)).hexdigest()
    except OSError:
        return ""
