"""The root of a store: made in one step, its files vouched for, its drafts and locks where Zarr does not look.

A root is a Zarr group with one array of strings (``image`` in an embedding store, ``subject`` in an epoch store).
Everything of ours that is not Zarr lies in that array's ``.embedctl`` folder.
"""

import struct
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any

from stores.codecs import decode_strings, encode_strings
from stores.commits import draft_name, drop, is_vacant, json_bytes, make_folder, place, sweep
from stores.consolidation import consolidated
from stores.errors import CannotWrite, DamagedStore
from stores.files import read_file
from stores.inside import refuse_links
from stores.layout import (
    FORMAT,
    Node,
    array_node,
    group_node,
    private,
    read_array,
    read_node,
    read_ours,
    read_root,
)
from stores.locks import lock, of_dead
from stores.receipts import change, finish, is_announced, read_vouched
from stores.remote import is_remote

__all__ = ["Root", "count_strings", "node_bytes", "read_strings", "string_files"]


class Root:
    """The root group of a store.

    Parameters
    ----------
    path : Path
        The store's folder.
    kind : {"embeddings", "epochs"}
        What it holds.
    array : str
        Name of its array of strings, and of that array's axis.
    """

    def __init__(self, path: Path, kind: str, array: str) -> None:
        self.path, self.kind, self.array = path, kind, array
        self.private = private(path / array)
        self.drafts, self.locks = self.private / "drafts", self.private / "locks"
        self._is_plain = False

    def open(self, made_by: str, create: bool) -> None:
        """Make sure that the store is there and can be read; with ``create``, make it where nothing is.

        Raises
        ------
        EmbedctlError
            If nothing is there, or something else.
        StoreMismatch
            If a newer embedctl wrote it.
        CannotWrite
            If it cannot be made.
        """
        if create and is_vacant(self.path):
            # On a disk a store appears in one step; objects are copied one by one.
            with self.lock("create", wait=60.0) if is_remote(self.path) else nullcontext():
                if is_vacant(self.path):
                    self._create()
        read_root(self.path, self.kind, made_by)

    def _create(self) -> None:
        make_folder(self.path.parent)
        sweep(self.path.parent, of=self.path.name)  # the user's folder: nothing else in it is ours
        draft = self.path.parent / draft_name(self.path.name)
        attributes = {"embedctl": {"kind": self.kind, "format": FORMAT}}
        files = {**string_files(self.array, [], 1024), "zarr.json": node_bytes(group_node(attributes))}
        try:
            change(private(draft / self.array) / "metadata.json", draft, files)
            Root(draft, self.kind, self.array).consolidate()
            place(draft, self.path)
        except FileExistsError:  # another process made it in the meantime: all the better
            drop(draft)
        except BaseException:  # the user's folder: half a store in it would stay there as long as this process lives
            with suppress(OSError, CannotWrite):
                drop(draft)
            raise

    def lock(self, what: str, wait: float = 0.0) -> AbstractContextManager[None]:
        """Hold the lock called ``what`` of this store (see `stores.locks.lock`).

        Raises
        ------
        EmbedctlError
            If a folder of the store is a link.
        """
        if not self._is_plain:
            self.refuse_links()
        return lock(self.locks, what, wait, shown=self.path)

    def refuse_links(self, but: Collection[Path] = ()) -> None:
        """Refuse to write where a folder of the store is a link, but for those that are about to be removed."""
        refuse_links(self.path, but)
        self._is_plain = True

    def attributes(self) -> dict[str, Any]:
        """Return what embedctl wrote into the root's attributes.

        Raises
        ------
        DamagedStore
            If it is not what was written.
        """
        read_vouched(self.path, self.private / "metadata.json", "zarr.json")
        return read_ours(self.path)

    def with_attributes(self, **more: Any) -> bytes:
        """Return the root's ``zarr.json`` with more attributes of ours."""
        node = read_node(self.path)
        node["attributes"]["embedctl"].update(more)
        return node_bytes(node)

    def change(self, files: Mapping[str, bytes], gone: Collection[str] = ()) -> None:
        """Replace files of the root group and of its array, together with their receipt (see `receipts.change`)."""
        change(self.private / "metadata.json", self.path, files, drafts=self.drafts, gone=gone)

    def consolidate(self, without: str = "") -> None:
        """Write the metadata of every node, but for a group that is about to go, into the root's ``zarr.json``."""
        self.change({"zarr.json": node_bytes(consolidated(self.path, without))})

    def is_consolidated(self) -> bool:
        """Say whether the root lists every node as it is, and no writer was killed before its end."""
        if of_dead(self.locks) or is_announced(self.private / "metadata.json"):
            return False
        return (self.path / "zarr.json").read_bytes() == node_bytes(consolidated(self.path))

    def finish(self) -> None:
        """Clear away what dead writers left, and write down how their announced changes ended."""
        sweep(self.drafts)
        finish(self.private / "metadata.json", self.path, self.drafts)


def node_bytes(node: Node) -> bytes:
    """Return a ``zarr.json`` as a file."""
    return json_bytes(node)


def string_files(name: str, texts: Sequence[str], chunk_rows: int) -> dict[str, bytes]:
    """Return the files of a one-dimensional array of strings: the chunks, then the metadata that counts them.

    Examples
    --------
    >>> list(string_files("image", ["a.jpg", "b.jpg", "c.jpg"], chunk_rows=2))
    ['image/c/0', 'image/c/1', 'image/zarr.json']
    """
    starts = range(0, len(texts), chunk_rows)
    chunks = {
        f"{name}/c/{number}": encode_strings(list(texts[start : start + chunk_rows]), chunk_rows)
        for number, start in enumerate(starts)
    }
    node = array_node((len(texts),), "string", (chunk_rows,), (name,))
    return {**chunks, f"{name}/zarr.json": node_bytes(node)}


def count_strings(folder: Path) -> int:
    """Return how many strings an array holds, without reading them.

    Raises
    ------
    DamagedStore
        If its metadata claims more than its files can hold: a string takes four bytes at least.
    """
    n_strings, chunks = read_array(folder).shape[0], folder / "c"
    try:
        held = sum(file.stat().st_size for file in chunks.iterdir()) // 4 if n_strings and chunks.is_dir() else 0
    except OSError as error:  # a link that leads nowhere, or in a circle
        raise DamagedStore(f"'{error.filename}' cannot be read") from error
    if n_strings > held:
        raise DamagedStore(f"'{folder}' says it holds {n_strings:,} names, and its files have no room for them")
    return n_strings


def read_strings(folder: Path, receipt: Path | None = None) -> list[str]:
    """Read an array of strings whole.

    Parameters
    ----------
    folder : Path
        The array's folder.
    receipt : Path, optional
        What vouches for it. A chunk in another's place has a checksum that fits.

    Raises
    ------
    DamagedStore
        If a chunk is missing, its checksum does not fit, or it is not what the receipt says.
    """
    if receipt:
        read_vouched(folder.parent, receipt, f"{folder.name}/zarr.json")
    node = read_array(folder)
    count_strings(folder)
    texts: list[str] = []
    for number in range(node.n_chunks):
        name = f"{folder.name}/{node.file(number)}"
        try:
            data = read_vouched(folder.parent, receipt, name) if receipt else read_file(folder.parent / name)
            texts += decode_strings(data, node.shape[0] - len(texts))
        except (OSError, ValueError, struct.error) as error:
            raise DamagedStore(f"'{folder / node.file(number)}' cannot be read") from error
    return texts
