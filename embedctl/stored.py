"""What an embedding store holds, as tables: its embeddings, how alike they are, and what each finds nearest."""

from typing import TYPE_CHECKING

import numpy as np

from embedctl import render

if TYPE_CHECKING:
    from stores.embedding import Entry
    from stores.embeddings import EmbeddingStore

__all__ = ["COLUMNS", "called", "embedding_rows", "show_likeness"]

COLUMNS = ("embedding", "dim", "dtype", "images", "without a row", "weights", "computed")
_FEWEST = 8  # images, to say how alike embeddings are
_MOST_COLUMNS = 12  # of the table of likeness: a terminal is narrow
_NEAREST = 3


def called(store: "EmbeddingStore") -> dict[str, str]:
    """Return what tables and pictures call every embedding, by its name: marked where its weights are not published."""
    from pipelines.train.origin import marked, weights_column

    return {name: marked(name, weights_column(entry)) for name, entry in zip(store.names, store.entries(), strict=True)}


def embedding_rows(store: "EmbeddingStore") -> list[tuple[object, ...]]:
    """Return a row of `COLUMNS` for every embedding."""
    return [
        (
            *(name, entry.dim, entry.dtype, _of_all(entry, len(store.image_ids)), entry.n_absent),
            render.weights(str(entry.provenance.get("weights", ""))),
            str(entry.provenance.get("date", ""))[:19],
        )
        for name, entry in zip(store.names, store.entries(), strict=True)
    ]


def _of_all(entry: "Entry", n_images: int) -> int | str:
    """Return how many images have a row, and of how many where rows are still to be computed."""
    is_whole = entry.n_committed + entry.n_absent == n_images
    return entry.n_committed if is_whole else f"{entry.n_committed:,} of {n_images:,}"


def show_likeness(store: "EmbeddingStore") -> None:
    """Show how alike embeddings are over a few hundred images, and the nearest images of one of them."""
    from pipelines.findings.health import samples

    images, found = samples(store)
    told = called(store)
    values = {told[name]: rows for name, rows in found.items()}
    if len(images) < _FEWEST:
        return
    if 1 < len(values) <= _MOST_COLUMNS:
        _alike(values, len(images))
    render.line()
    render.line(f"nearest to {images[0]}, by cosine, of these images")
    rows = []
    for name, rows_of in values.items():
        length = np.linalg.norm(rows_of, axis=1, keepdims=True)
        unit = np.divide(rows_of, length, out=np.zeros_like(rows_of), where=length > 0)
        cosine = unit[1:] @ unit[0]
        order = np.argsort(-cosine, kind="stable")[:_NEAREST]
        rows.append((name, *(f"{cosine[at]:.2f} {images[at + 1].rpartition('/')[2]}" for at in order)))
    render.table(("embedding", *(f"{place}." for place in range(1, _NEAREST + 1))), rows)


def _alike(values: dict[str, np.ndarray], n_images: int) -> None:
    from pipelines.similarity import cka_matrix

    table = cka_matrix(list(values.values()))
    render.line()
    render.line(f"how alike they are: debiased linear CKA over {n_images:,} images; columns are numbered like rows")
    numbers = [str(place) for place in range(1, len(values) + 1)]
    rows = [
        (number, name, *("" if np.isnan(value) else f"{value:.2f}" for value in row))
        for number, name, row in zip(numbers, values, table.tolist(), strict=True)
    ]
    render.table(("", "embedding", *numbers), rows, right=("", *numbers))
