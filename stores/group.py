"""One embedding on the disk: a Zarr group ``NAME-KEY`` with the arrays ``values`` and ``image``.

Its receipts lie in ``values/.embedctl``: ``metadata.json`` vouches for all ``zarr.json`` and the image ids,
``receipts/BLOCK.json`` for the rows.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np

from stores.blocks import are_announced, chunk_rows_for, commit_rows, finish_receipts, read_vouchers, rows_in
from stores.commits import draft_name, place
from stores.embedding import Embedding, Entry
from stores.errors import DamagedStore, EmbedctlError
from stores.layout import array_node, group_node, private, read_array, read_ours
from stores.names import EmbeddingName
from stores.receipts import Vouchers, change, check_vouched, finish, is_announced
from stores.remote import is_remote
from stores.roots import node_bytes, string_files
from stores.whose import is_of_embedding

__all__ = ["Group", "string_chunk"]

INNER_ROWS = 256
"""Rows of a chunk inside a shard, which is fetched at once: some hundred kilobytes, what a request costs anyway."""


class Group:
    """The group of one embedding. Its receipts are read when its rows are first asked for.

    Parameters
    ----------
    folder : Path
        The group's folder.
    drafts : Path
        Folder for temporary files.
    n_images : int
        Rows that the reader knows of; a writer may have added more.

    Raises
    ------
    DamagedStore
        If its metadata cannot be trusted.
    """

    def __init__(self, folder: Path, drafts: Path, n_images: int) -> None:
        self.folder, self._drafts, self.n_images = folder, drafts, n_images
        self._length = 0  # that the arrays are known to have; they never become shorter
        self._values = folder / "values"
        name, _, self.key = folder.name.rpartition("-")
        self.name = EmbeddingName.parse(name.replace("~", ":"))
        self.provenance: dict[str, Any] = read_ours(folder)
        if not all(isinstance(self.provenance.get(name, {}), dict) for name in ("registry", "versions")):
            raise DamagedStore(f"'{folder}' does not say where its numbers come from as embedctl does")
        if not is_of_embedding(folder.name, self.provenance):
            raise DamagedStore(f"'{folder}' holds another embedding than its name says")
        node = read_array(self._values)
        if len(node.shape) != 2 or node.dtype not in ("float16", "float32"):
            raise DamagedStore(f"'{self._values}' holds {node.dtype} of shape {node.shape}, and no embedding")
        self.dim, self.dtype = node.shape[1], node.dtype

    @cached_property
    def _vouchers(self) -> Vouchers:
        self.check_metadata()
        return read_vouchers(self._values)

    def again(self) -> "Group":
        """Return it with its rows to be looked up again: other processes may have committed some."""
        self.__dict__.pop("_vouchers", None)
        return self

    def check_metadata(self) -> None:
        """Raise `DamagedStore` if what the group says of itself is not what was written."""
        check_vouched(self.folder, _metadata(self.folder), "zarr.json", "values/zarr.json")

    @staticmethod
    def is_one(folder: Path) -> bool:
        """Say whether ``folder`` is the group of an embedding, and not something that others put into the store."""
        name, _, key = folder.name.rpartition("-")
        try:
            EmbeddingName.parse(name.replace("~", ":"))
        except EmbedctlError:
            return False
        return bool(key) and (folder / "values" / ".embedctl").is_dir()

    @classmethod
    def create(
        cls,
        folder: Path,
        drafts: Path,
        *,
        image_ids: Sequence[str],
        block_rows: int,
        dim: int,
        dtype: str,
        provenance: Mapping[str, Any],
    ) -> "Group":
        """Make an empty group; it appears in one step."""
        draft = drafts / draft_name(folder.name)
        files = {"zarr.json": node_bytes(group_node({"embedctl": dict(provenance)}))}
        sized = _sized_files(image_ids, block_rows, dim, dtype, is_remote(folder))
        change(_metadata(draft), draft, {**files, **sized})
        place(draft, folder, last=_metadata(folder).relative_to(folder).as_posix())
        return cls(folder, drafts, len(image_ids))

    @property
    def entry(self) -> Entry:
        """What the store tells about it."""
        counts = len(self.committed_rows()), len(self.absent())
        return Entry(self.name, self.key, self.dim, self.dtype, self.folder.name, self.provenance, *counts)

    def committed_rows(self) -> np.ndarray:
        """Return the rows that are committed, ascending."""
        return rows_in(self._vouchers, self.n_images)

    def absent(self) -> dict[int, str]:
        """Return the rows that have no numbers for a reason, with the reason."""
        reasons = [(int(row), why) for voucher in self._vouchers.values() for row, why in voucher["absent"].items()]
        return dict(sorted((row, why) for row, why in reasons if row < self.n_images))

    def embedding(self, image_ids: list[str]) -> Embedding:
        """Return the committed rows for reading; ``image_ids`` are those of all rows."""
        absent = {image_ids[row]: why for row, why in self.absent().items()}
        look_again = partial(read_vouchers, self._values)
        return Embedding(
            self.folder, self.entry, image_ids, self.committed_rows(), absent, dict(self._vouchers), look_again
        )

    def check(self, rows: np.ndarray, values: np.ndarray) -> None:
        """Raise ValueError if these cannot be the values of ``rows``."""
        if values.shape != (len(rows), self.dim) or values.dtype != self.dtype:
            found, wanted = f"{values.shape} {values.dtype}", f"({len(rows)}, {self.dim}) {self.dtype}"
            raise ValueError(f"values of {self.folder.name} are {found}, not {wanted}")
        broken = ~np.isfinite(values).all(axis=1)
        if broken.any():
            raise ValueError(f"values of {self.folder.name} are not finite in rows {rows[broken][:5].tolist()}")

    def commit(self, block: range, rows: np.ndarray, values: np.ndarray, absent: Mapping[int, str]) -> None:
        """Commit rows of one block (see `stores.blocks.commit_rows`)."""
        self._learn(commit_rows(self._values, block, rows, values, absent, self._drafts))

    def forget(self, rows: Sequence[int], block_rows: int) -> None:
        """Make rows count as never computed: what they were computed from has changed."""
        if not rows:  # as after nearly every block: what is learnt of an image changes nothing
            return
        known = {*self.committed_rows().tolist(), *self.absent()} & set(rows)
        for number in sorted({row // block_rows for row in known}):
            block = range(number * block_rows, (number + 1) * block_rows)
            nothing = np.arange(0), np.empty((0, self.dim), self.dtype)
            here = [row for row in known if row in block]
            self._learn(commit_rows(self._values, block, *nothing, {}, self._drafts, forget=here))

    def _learn(self, vouchers: Vouchers) -> None:
        """Know of rows just committed; where nobody has asked yet, all receipts are read when somebody does."""
        if "_vouchers" in self.__dict__:
            self._vouchers |= vouchers

    def grow(self, image_ids: Sequence[str], block_rows: int) -> None:
        """Give the arrays as many rows as there are images, if they have fewer."""
        self.n_images = len(image_ids)
        if self._length == self.n_images:
            return
        lengths = {read_array(self.folder / name).shape[0] for name in ("image", "values")}
        if lengths != {len(image_ids)}:
            self.check_metadata()  # what is written is made from what it says
            is_sharded = bool(read_array(self._values).inner)
            files = _sized_files(image_ids, block_rows, self.dim, self.dtype, is_sharded)
            change(_metadata(self.folder), self.folder, files, drafts=self._drafts)
        self._length = self.n_images

    @property
    def is_finished(self) -> bool:
        """Whether no change of it was announced and then cut short."""
        return not (is_announced(_metadata(self.folder)) or are_announced(self._values))

    def finish(self, mine: Callable[[int], bool]) -> None:
        """Write down how announced changes that were cut short ended: of the group, and of blocks that are ``mine``."""
        finish(_metadata(self.folder), self.folder, self._drafts)
        finish_receipts(self._values, self._drafts, mine)


def string_chunk(block_rows: int) -> int:
    """Return the ids per chunk: a chunk of strings is small, so it spans several blocks."""
    return 16 * block_rows


def _sized_files(image_ids: Sequence[str], block_rows: int, dim: int, dtype: str, is_sharded: bool) -> dict[str, bytes]:
    """Return the files that depend on the number of images."""
    chunk = chunk_rows_for(block_rows, dim * np.dtype(dtype).itemsize)
    inner = gcd(chunk, INNER_ROWS) if is_sharded else 0
    values = array_node((len(image_ids), dim), dtype, (chunk, dim), ("image", "feature"), inner)
    return {**string_files("image", image_ids, string_chunk(block_rows)), "values/zarr.json": node_bytes(values)}


def _metadata(group: Path) -> Path:
    return private(group / "values") / "metadata.json"
