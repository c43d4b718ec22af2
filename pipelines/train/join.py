"""Which stored image an epoch shows: names of a dataset joined to names of an image folder.

An epoch names its image by the path its dataset gives, a store by the path below ``images/``; the two
rarely start at the same folder. They are the same image when they end alike.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from stores.errors import EmbedctlError
from stores.names import counted

__all__ = ["namesakes", "resolve"]

SHOWN = 5  # unresolved names an error lists


def resolve(
    epoch_ids: Sequence[str],
    store_ids: Sequence[str],
    how: str = "suffix",
    content: Mapping[str, str] | None = None,
) -> NDArray[np.int64]:
    """Find the row of every epoch's image in a store.

    The longest suffix of the epoch's path, counted in whole path components, that any stored path ends in
    decides; it must belong to one stored image.

    Parameters
    ----------
    epoch_ids : sequence of str
        Paths by which the epochs name their images, '/'-separated.
    store_ids : sequence of str
        Image ids of the store.
    how : str
        ``suffix``, or ``stem`` to leave the file extension out of the comparison.
    content : mapping of str to str
        Content hash of each stored image. Several candidates with the same content are not ambiguous: the
        first one is taken.

    Returns
    -------
    (n_epochs,)
        Row in ``store_ids`` of each epoch's image.

    Raises
    ------
    EmbedctlError
        If an image is not in the store, several different ones fit, or one fits several; the first five are listed.

    Examples
    --------
    >>> store = ["aardvark/aardvark_01b.jpg", "bear/bear_02s.jpg"]
    >>> resolve(["training_images/00002_bear/bear_02s.jpg"], store).tolist()
    [1]
    >>> resolve(["bear_02s.png"], store, how="stem").tolist()
    [1]
    """
    if how not in ("suffix", "stem"):
        raise EmbedctlError(f"no way of joining called '{how}'", "there are: suffix, stem")
    ends: dict[str, list[int]] = {}
    for row, name in enumerate(store_ids):
        for end in _suffixes(name, how):
            ends.setdefault(end, []).append(row)
    rows = np.full(len(epoch_ids), -1, dtype=np.int64)
    missing: list[str] = []
    ambiguous: list[str] = []
    for i, name in enumerate(epoch_ids):
        found = next((ends[end] for end in _suffixes(name, how) if end in ends), [])
        if not found:
            missing.append(name)
        elif len(found) > 1 and not _alike([store_ids[row] for row in found], content):
            ambiguous.append(f"{name} ({', '.join(store_ids[row] for row in found[:3])})")
        else:
            rows[i] = found[0]
    if missing:
        raise EmbedctlError(
            f"{len(missing)} of {counted(len(epoch_ids), 'image is', 'images are')} not in the embedding store: "
            f"{_first(missing)}",
            "extract embeddings of these images, or let names differ in their extension with --join stem",
        )
    if ambiguous:
        raise EmbedctlError(
            f"{counted(len(ambiguous), 'image fits', 'images fit')} several in the embedding store: "
            f"{_first(ambiguous)}",
            "keep the folders that tell the images apart in the image folder, or leave one copy",
        )
    if shared := _shared(epoch_ids, rows.tolist(), store_ids):
        raise EmbedctlError(
            f"{counted(len(shared), 'image fits', 'images fit')} one of the embedding store that another image "
            f"fits as well: {_first(shared)}",
            "extract those that are missing, and keep the folders that tell images apart",
        )
    return rows


def _shared(epoch_ids: Sequence[str], rows: Sequence[int], store_ids: Sequence[str]) -> list[str]:
    """Return the images that are joined to the same row as another one: at most one of them is it."""
    joined: dict[int, str] = {}
    found: dict[str, str] = {}
    for name, row in zip(epoch_ids, rows, strict=True):
        if (first := joined.setdefault(row, name)) != name:
            found[name] = f"{first} and {name} ({store_ids[row]})"
    return list(found.values())


def namesakes(
    rows: Sequence[int] | NDArray[np.int64], store_ids: Sequence[str], content: Mapping[str, str], how: str = "suffix"
) -> list[tuple[str, str]]:
    """Return the images that were joined although another one has the same file name and other pixels.

    The longer path decided between them, which is right for ``bear/1.jpg`` and ``cat/1.jpg``, and a trap where a folder
    holds copies of the images that were cropped or scaled.

    Parameters
    ----------
    rows : sequence of int
        What `resolve` returned.
    store_ids : sequence of str
        Image ids of the store.
    content : mapping of str to str
        Content hash of each stored image; those without one are not compared.
    how : str
        As for `resolve`.

    Returns
    -------
    list of (str, str)
        The image that was joined, and the first of the others.

    Examples
    --------
    >>> namesakes([0], ["full/bear.jpg", "small/bear.jpg"], {"full/bear.jpg": "ab", "small/bear.jpg": "cd"})
    [('full/bear.jpg', 'small/bear.jpg')]
    """
    called: dict[str, dict[str, str]] = {}  # file name -> content -> first image of it
    for name in store_ids:
        if pixels := content.get(name):
            called.setdefault(_file_name(name, how), {}).setdefault(pixels, name)
    found = []
    for joined in (store_ids[row] for row in rows):
        alike = called.get(_file_name(joined, how), {})
        others = (name for pixels, name in alike.items() if pixels != content.get(joined))
        if content.get(joined) and (other := next(others, None)):
            found.append((joined, other))
    return found


def _file_name(path: str, how: str) -> str:
    *_, name = _suffixes(path, how)
    return name


def _suffixes(path: str, how: str) -> Iterator[str]:
    """Yield the ends of a path, longest first."""
    parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".")]
    if how == "stem" and parts:
        stem, dot, _ = parts[-1].rpartition(".")
        parts[-1] = stem if dot and stem else parts[-1]
    for start in range(len(parts)):
        yield "/".join(parts[start:])


def _alike(names: list[str], content: Mapping[str, str] | None) -> bool:
    hashes = {content.get(name) or name for name in names} if content else set(names)  # no hash: like nothing else
    return len(hashes) == 1


def _first(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
