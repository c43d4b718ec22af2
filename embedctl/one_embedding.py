"""One embedding in Python and notebooks: its rows, the nearest images, and pictures of what it finds alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedctl.html import definition, joined, page, rows_of, thumbnail
from stores.embedding import Embedding
from stores.errors import UnknownName, suggest

if TYPE_CHECKING:
    import dask.array
    import xarray
    from matplotlib.figure import Figure

__all__ = ["Neighbours", "OneEmbedding"]

_ROWS_AT_ONCE = 8192
_SHOWN = 8  # thumbnails


class OneEmbedding:
    """One embedding: only rows that are committed, in the order of the store.

    Parameters
    ----------
    embedding : Embedding
        As the store gives it.
    images : Path
        Where the images lie; need not exist.
    called : str
        What pictures call it: its name, marked where its weights are not the published ones.
    """

    def __init__(self, embedding: Embedding, images: Path, called: str) -> None:
        self._embedding = embedding
        self._called = called
        self._images = images
        self.name: str = embedding.name
        self.image_ids: list[str] = embedding.image_ids
        self.provenance: dict[str, Any] = embedding.provenance
        self.absent: dict[str, str] = embedding.absent
        self.dim: int = embedding.dim

    @property
    def values(self) -> np.ndarray:
        """The numbers, ``(n_images, dim)``, one row per entry of ``image_ids``."""
        return self._embedding.values

    def take(self, rows: Any) -> np.ndarray:
        """Return the rows at these positions of ``image_ids``, in this order."""
        return self._embedding.take(rows)

    def to_xarray(self) -> "xarray.DataArray":
        """Return the numbers as a lazy, labelled array ``(image, feature)``."""
        return self._embedding.to_xarray()

    def to_dask(self) -> "dask.array.Array":
        """Return the numbers as a lazy array, ``(n_images, dim)``."""
        return self._embedding.to_dask()

    def nearest(self, image_id: str, k: int = 5) -> "Neighbours":
        """Return the ``k`` images whose embeddings point most nearly the same way.

        Parameters
        ----------
        image_id : str
            The image to start from; it is not among its own neighbours.
        k : int
            How many.

        Raises
        ------
        UnknownName
            If the image has no row.
        TypeError
            If ``image_id`` is no text.
        ValueError
            If ``k`` is below 1.

        Returns
        -------
        Neighbours
            Ids and cosine similarities, the nearest first; equal ones in the order of the store.
        """
        if not isinstance(image_id, str):
            raise TypeError(f"image_id is {image_id!r}, expected the id of an image, such as {self.image_ids[0]!r}")
        if k < 1:
            raise ValueError(f"k is {k}, expected 1 or more")
        if image_id not in self.image_ids:
            reason = f": {self.absent[image_id]}" if image_id in self.absent else ""
            raise UnknownName(f"{self.name} has no row for '{image_id}'{reason}", suggest(image_id, self.image_ids))
        here = self.image_ids.index(image_id)
        cosines = self._cosines(_unit(self.take([here]))[0])
        cosines[here] = -np.inf
        order = np.argsort(-cosines, kind="stable")[: min(k, len(cosines) - 1)]
        found = tuple((self.image_ids[row], float(cosines[row])) for row in order)
        return Neighbours(image_id, found, self._images)

    def plot_rdm(self, n: int = 200) -> "Figure":
        """Draw how unlike images are: one minus the correlation of their rows, in the order of the store.

        Parameters
        ----------
        n : int
            At most so many images, spread evenly over the store.

        Raises
        ------
        ValueError
            If a row does not vary over its features, or ``n`` is below 1.
        """
        from embedctl.pictures import rdm_figure

        rows = self._spread(n)
        values = self.take(rows).astype(np.float64)
        centred = values - values.mean(axis=1, keepdims=True)
        length = np.linalg.norm(centred, axis=1, keepdims=True)
        if not length.all():
            raise ValueError(f"{self.image_ids[rows[int(length.argmin())]]} has the same number in every feature")
        unit = centred / length
        return rdm_figure(1 - unit @ unit.T, [self.image_ids[row] for row in rows], self._called)

    def plot_map(self, n: int = 60) -> "Figure":
        """Draw images on the first two principal components of their unit rows: near where they are alike.

        Parameters
        ----------
        n : int
            At most so many images, spread evenly over the store.

        Raises
        ------
        ValueError
            If ``n`` is below 1.
        """
        from embedctl.pictures import map_figure

        rows = self._spread(n)
        unit = _unit(self.take(rows))
        u, s, _ = np.linalg.svd(unit - unit.mean(axis=0), full_matrices=False)
        places, total = np.zeros((len(rows), 2)), float((s**2).sum()) or 1.0
        places[:, : min(2, len(s))] = u[:, :2] * s[:2]
        explained = [*(s[:2] ** 2 / total).tolist(), 0.0, 0.0][:2]
        return map_figure(places, explained, [self.image_ids[row] for row in rows], self._images, self._called)

    def _spread(self, n: int) -> list[int]:
        if n < 1:
            raise ValueError(f"n is {n}, expected 1 or more")
        return np.linspace(0, len(self) - 1, min(n, len(self))).round().astype(int).tolist()

    def _cosines(self, query: np.ndarray) -> np.ndarray:
        n = len(self.image_ids)
        pieces = (range(start, min(start + _ROWS_AT_ONCE, n)) for start in range(0, n, _ROWS_AT_ONCE))
        return np.concatenate([_unit(self.take(rows)) @ query for rows in pieces])

    def __len__(self) -> int:
        return len(self.image_ids)

    def __repr__(self) -> str:
        return repr(self._embedding)

    def _repr_html_(self) -> str:
        facts = {
            "images": f"{len(self):,}" + (f" ({len(self.absent):,} without a row)" if self.absent else ""),
            "features": f"{self.dim:,} x {self._embedding.dtype}",
            **{key: value for key, value in self.provenance.items() if isinstance(value, (str, int, float, bool))},
        }
        pictures = joined(thumbnail(self._images, self.image_ids[row]) for row in self._spread(_SHOWN))
        return page(self._called, joined([pictures, definition(facts)]))


@dataclass(frozen=True, slots=True)
class Neighbours(Sequence[tuple[str, float]]):
    """Images and their cosine similarity to one of them; in a notebook, their pictures.

    Parameters
    ----------
    image_id : str
        The image asked about.
    found : tuple of (str, float)
        Ids and similarities, the nearest first.
    images : Path
        Where the images lie; need not exist.
    """

    image_id: str
    found: tuple[tuple[str, float], ...]
    images: Path

    def __getitem__(self, index: Any) -> Any:
        return self.found[index]

    def __len__(self) -> int:
        return len(self.found)

    def __repr__(self) -> str:
        return "\n".join([self.image_id, *(f"  {cosine:.3f}  {name}" for name, cosine in self.found)])

    def _repr_html_(self) -> str:
        rows = [(thumbnail(self.images, self.image_id), self.image_id, "")]
        rows += [(thumbnail(self.images, name), name, f"{cosine:.3f}") for name, cosine in self.found]
        return page("", rows_of(("", "image", "cosine similarity"), rows))


def _unit(values: np.ndarray) -> np.ndarray:
    values = values.astype(np.float64)
    length = np.linalg.norm(values, axis=1, keepdims=True)
    unit: np.ndarray = np.divide(values, length, out=np.zeros_like(values), where=length > 0)
    return unit
