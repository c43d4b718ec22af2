"""Which training images are held out to choose the checkpoint: pure tables in, tables out.

The unit is always the image, so the repetitions of an image never straddle training and validation.
Who is held out depends on names and the seed alone, through a hash: the same concepts are held out for
every subject, on every machine, whatever else the dataset holds.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stores.errors import EmbedctlError

__all__ = ["Split", "split_images"]

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Split:
    """Rows of the training images: what is trained on, and what the checkpoint is chosen on.

    Parameters
    ----------
    train : (n_train,)
        Rows to train on, ascending.
    rounds : tuple of (n_way,)
        Validation galleries. Each is scored as a retrieval task of its own, and the scores are averaged.
    """

    train: Rows
    rounds: tuple[Rows, ...]


def split_images(
    image_ids: Sequence[str],
    concepts: Sequence[str],
    kind: str,
    *,
    share: float,
    at_most: int,
    seed: int,
    round_of: int = 0,
) -> Split:
    """Hold out training images for validation.

    ``concept`` holds out whole concepts, so that validation asks what the test asks: images of concepts never
    trained on. Its first round takes one image of every held-out concept, its second round another, and so
    on: each is as hard as a test with one image per concept. Rounds end where fewer than half of the concepts have an
    image left.
    ``image`` holds out single images, in one round; their concepts are trained on through other images. Either way
    rounds of more than ``round_of`` are dealt into smaller ones.

    Parameters
    ----------
    image_ids, concepts : sequence of str
        The training images and their concepts, row by row.
    kind : str
        ``concept`` or ``image``.
    share : float
        Fraction of the concepts or images to hold out; never fewer than two.
    at_most : int
        Upper bound of the number held out.
    seed : int
        Which ones are held out.
    round_of : int
        Images per round, the last one what is left over; 0 for no bound.

    Returns
    -------
    Split
        Training rows and validation rounds.

    Raises
    ------
    EmbedctlError
        If there are too few images or concepts to hold any out and still train.

    Examples
    --------
    >>> ids = [f"{c}/{i}.jpg" for c in "abcd" for i in range(3)]
    >>> split = split_images(ids, [i[0] for i in ids], "concept", share=0.5, at_most=200, seed=0)
    >>> [sorted(ids[r] for r in rows) for rows in split.rounds]  # three rounds of two concepts
    [['c/2.jpg', 'd/0.jpg'], ['c/0.jpg', 'd/1.jpg'], ['c/1.jpg', 'd/2.jpg']]
    >>> sorted({ids[r][0] for r in split.train})
    ['a', 'b']
    """
    if kind == "concept":
        if not all(concepts):
            raise EmbedctlError("these images have no concepts to hold out", "split by image instead: --split image")
        groups = list(concepts)
    elif kind == "image":
        groups = list(image_ids)
    else:
        raise EmbedctlError(f"no split called '{kind}'", "there are: concept, image")
    names = sorted(set(groups), key=lambda name: _lot(seed, name))
    n_held = min(at_most, max(2, round(share * len(names))))
    if len(names) < n_held + 2:
        raise EmbedctlError(
            f"{len(names)} {kind}s are too few to hold {n_held} out and train on the rest",
            "use more images" if n_held == 2 else "lower held_out in a recipe of your own, or use more images",
        )
    held = set(names[:n_held])
    train = np.array([row for row, group in enumerate(groups) if group not in held], dtype=np.int64)
    if kind == "image":
        rows = np.array([row for row, g in enumerate(groups) if g in held], dtype=np.int64)
        return Split(train, _dealt(rows, image_ids, seed, round_of))
    rounds = _rounds(image_ids, groups, held, seed)
    return Split(train, tuple(part for rows in rounds for part in _dealt(rows, image_ids, seed, round_of)))


def _dealt(rows: Rows, image_ids: Sequence[str], seed: int, round_of: int) -> tuple[Rows, ...]:
    """Deal a round into rounds of so many, by lot: in their order images of one concept would meet."""
    if not round_of:
        return (rows,)
    dealt = np.array(sorted(rows.tolist(), key=lambda row: _lot(seed, image_ids[row])), dtype=np.int64)
    return tuple(np.sort(part) for part in np.split(dealt, range(round_of, len(dealt), round_of)))


def _rounds(image_ids: Sequence[str], concepts: Sequence[str], held: set[str], seed: int) -> tuple[Rows, ...]:
    """Deal the images of the held-out concepts into rounds with at most one image of each concept."""
    hands: dict[str, list[int]] = {}
    for row, concept in enumerate(concepts):
        if concept in held:
            hands.setdefault(concept, []).append(row)
    for rows in hands.values():
        rows.sort(key=lambda row: _lot(seed, image_ids[row]))
    deepest = max(len(rows) for rows in hands.values())
    rounds = ([rows[depth] for rows in hands.values() if depth < len(rows)] for depth in range(deepest))
    # Where few concepts have images left, a round would be far easier than the first: it is not used.
    return tuple(np.array(sorted(rows), dtype=np.int64) for rows in rounds if len(rows) >= max(2, len(hands) / 2))


def _lot(seed: int, name: str) -> bytes:
    return hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=8).digest()
