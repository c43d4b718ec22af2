"""One embedding as a reader sees it: what it is, its committed rows, where it comes from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from stores.errors import EmbedctlError, UnknownName, suggest
from stores.layout import read_array
from stores.names import EmbeddingName, counted, split_key
from stores.receipts import Vouchers
from stores.rows import RawRows
from stores.sharded import ShardedRows

if TYPE_CHECKING:
    import dask.array
    import xarray

__all__ = ["IMPORTED", "Embedding", "Entry", "display_names", "resolve"]

IMPORTED = "imported, unverified"
"""The ``weights`` of an embedding that another program computed."""


@dataclass(frozen=True)
class Entry:
    """What the store knows about one embedding, without reading a number.

    Parameters
    ----------
    name : EmbeddingName
        What it is.
    key : str
        Which numbers: the hash of everything that changes them.
    dim : int
        Number of features.
    dtype : str
        ``float16`` or ``float32``.
    group : str
        Its Zarr group.
    provenance : dict
        Where the numbers come from.
    n_committed : int
        Number of images whose row is committed.
    n_absent : int
        Number of images that have no row for a reason.
    """

    name: EmbeddingName
    key: str
    dim: int
    dtype: str
    group: str
    provenance: dict[str, Any]
    n_committed: int
    n_absent: int

    @property
    def published(self) -> bool:
        """Whether the weights are the registry's own: not random, not a file, not an import."""
        return _is_published(self)

    @property
    def form(self) -> str:
        """Of the network: ``plain``, ``folded`` or ``winograd``; what was stored before it was recorded is plain."""
        return str(self.provenance.get("form", "plain"))


class Named(Protocol):
    """What has the name of an embedding: an entry, or the group it describes."""

    @property
    def name(self) -> EmbeddingName:
        """What it is."""

    @property
    def key(self) -> str:
        """Which numbers."""

    @property
    def dtype(self) -> str:
        """``float16`` or ``float32``."""

    @property
    def provenance(self) -> dict[str, Any]:
        """Where they come from."""


N = TypeVar("N", bound=Named)


def resolve(entries: Sequence[N], text: str) -> N:
    """Return the entry that ``NAME`` or ``NAME#KEY`` means.

    The bare name means the one from published weights, else the only one.

    Raises
    ------
    UnknownName
        If no such embedding is stored; suggests the closest.
    EmbedctlError
        If the name alone is not unique; lists the keys.
    """
    wanted, key = split_key(text)
    same_name = [entry for entry in entries if str(entry.name) == wanted]
    if not same_name:
        raise UnknownName(f"no embedding called '{wanted}' in the store", suggest(wanted, display_names(entries)))
    if key:
        chosen = [entry for entry in same_name if entry.key == key]
        if not chosen:
            known = [f"{entry.name}#{entry.key}" for entry in same_name]
            raise UnknownName(f"'{wanted}' is not stored under the key '{key}'", suggest(text, known))
        return chosen[0]
    unique = _meant_by_bare_name(same_name)
    if unique is None:
        listed = ", ".join(
            f"{entry.name}#{entry.key} ({said})" for entry, said in zip(same_name, _apart(same_name), strict=True)
        )
        raise EmbedctlError(f"'{wanted}' is stored with {len(same_name)} keys", f"choose one: {listed}")
    return unique


def _apart(entries: Sequence[Named]) -> list[str]:
    """Return in a few words what tells each of some embeddings of one name from the others."""
    facts = [
        {
            "weights": str(entry.provenance.get("weights", "?"))[:19],
            "dtype": entry.dtype,
            "batch size": f"batches of {entry.provenance.get('batch_size', '?')}",
            "exact": "exact" if entry.provenance.get("exact") else "not exact",
            "versions": ", ".join(f"{name} {value}" for name, value in entry.provenance.get("versions", {}).items()),
            "date": f"of {str(entry.provenance.get('date', '?'))[:19]}",
        }
        for entry in entries
    ]
    telling = [fact for fact in facts[0] if len({known[fact] for known in facts}) > 1]
    # A date differs whenever something does, and the versions of everything do by the way.
    telling = [fact for fact in telling if fact not in ("versions", "date")] or telling[:1] or ["weights"]
    return [", ".join(known[fact] for fact in telling) for known in facts]


def display_names(entries: Sequence[Named]) -> list[str]:
    """Return one name per entry: bare where the bare name means it, else with its key."""
    names = []
    for entry in entries:
        same_name = [other for other in entries if other.name == entry.name]
        names.append(str(entry.name) if _meant_by_bare_name(same_name) is entry else f"{entry.name}#{entry.key}")
    return names


def _is_published(entry: Named) -> bool:
    weights, source = (str(entry.provenance.get(key, "")) for key in ("weights", "weights_source"))
    return not (weights.startswith("random:") or source.startswith("file") or entry.provenance.get("imported"))


def _meant_by_bare_name(same_name: Sequence[N]) -> N | None:
    if len(same_name) == 1:
        return same_name[0]
    published = [entry for entry in same_name if _is_published(entry)]
    return published[0] if len(published) == 1 else None


class Embedding:
    """The committed rows of one embedding, memory-mapped.

    Obtained from a store: ``store["clip-rn50"]``.

    Parameters
    ----------
    folder : Path
        The embedding's group.
    entry : Entry
        Which embedding.
    ids : list of str
        Every image of the store, by row.
    rows : (n,)
        Rows that are committed, ascending.
    absent : dict
        From image id to the reason why it has no row.
    vouchers : dict
        What the receipts say about the chunk files.
    look_again : callable
        Reads the receipts again.
    """

    def __init__(
        self,
        folder: Path,
        entry: Entry,
        ids: list[str],
        rows: np.ndarray,
        absent: dict[str, str],
        vouchers: Vouchers,
        look_again: Callable[[], Vouchers],
    ) -> None:
        self.entry = entry
        self.name = str(entry.name)
        self.key = entry.key
        self.dim = entry.dim
        self.dtype = np.dtype(entry.dtype)
        self.provenance = entry.provenance
        self.absent = absent
        self.store_path = folder.parent
        self.image_ids = ids if len(rows) == len(ids) else [ids[row] for row in rows.tolist()]
        self._rows = rows
        self._is_whole = len(rows) == len(ids)
        reader = ShardedRows if read_array(folder / "values").inner else RawRows
        self._raw = reader(folder / "values", vouchers, look_again, n_rows=len(ids))

    def __len__(self) -> int:
        return len(self.image_ids)

    def __repr__(self) -> str:
        return f"<Embedding {self.name}: {counted(len(self), 'image')} x {counted(self.dim, 'feature')}, {self.dtype}>"

    @property
    def values(self) -> np.ndarray:
        """The numbers, ``(n_images, dim)``, one row per entry of ``image_ids``."""
        return self._raw.read(0, len(self)) if self._is_whole else self._raw.take(self._rows)

    def take(self, rows: Any) -> np.ndarray:
        """Return the rows at these positions of ``image_ids``, in this order.

        Raises
        ------
        IndexError
            If a position is out of range.
        DamagedStore
            If a chunk is missing, truncated or not the one that was committed.
        EmbedctlError
            If another process has dropped rows since the store was opened.
        """
        return self._raw.take(rows if self._is_whole else self._rows[np.asarray(rows, dtype=np.intp)])

    def to_dask(self) -> "dask.array.Array":
        """Return the numbers as a lazy dask array, one block per 1,024 images or chunk, whichever is larger."""
        import dask
        import dask.array as da

        size = max(1024, self._raw.chunk_rows)
        ranges = [range(start, min(start + size, len(self))) for start in range(0, len(self), size)]
        read: Any = dask.delayed(self.take)  # type: ignore[attr-defined]
        from_delayed: Any = da.from_delayed
        blocks = [from_delayed(read(here), (len(here), self.dim), self.dtype) for here in ranges]
        lazy: dask.array.Array = da.concatenate(blocks) if blocks else da.zeros((0, self.dim), self.dtype)  # type: ignore[no-untyped-call]
        return lazy

    def to_xarray(self) -> "xarray.DataArray":
        """Return the numbers as a lazy, labelled array with the coordinate ``image``."""
        import xarray

        coords = {"image": np.array(self.image_ids, dtype=object)}
        return xarray.DataArray(self.to_dask(), coords, ("image", "feature"), self.name, {"embedctl": self.provenance})
