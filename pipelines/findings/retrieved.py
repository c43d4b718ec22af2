"""What was retrieved: for a recording its nearest images, and what is taken for what."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stores.results import RunReader

__all__ = ["Confusion", "Query", "confusions", "queries"]


@dataclass(frozen=True, slots=True)
class Query:
    """A test recording and the images nearest to it.

    Parameters
    ----------
    image : str
        What was shown.
    rank : int
        Place of the right image, 1 is best; among equal scores the last.
    nearest : tuple of str
        The images retrieved, best first.
    """

    image: str
    rank: int
    nearest: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Confusion:
    """An image, what was retrieved in its place, and in how many runs."""

    image: str
    taken_for: str
    runs: int


def queries(runs: Path, run_id: str, n: int = 6, k: int = 5) -> tuple[list[Query], list[Query]]:
    """Return the ``n`` clearest hits of a run, and its ``n`` worst misses.

    A hit is clear when the right image's score is far above the next; a miss is bad when the right image's rank is.

    Parameters
    ----------
    runs : Path
        Folder of all runs.
    run_id : str
        The run.
    n : int
        How many of each, at most.
    k : int
        Images retrieved for each.
    """
    run = RunReader(runs, run_id)
    scores, (gallery, _, target) = run.array("scores").astype(float), run.shown()
    rows = np.arange(len(target))
    own = scores[rows, target]
    rank = (scores >= own[:, None]).sum(axis=1)
    others = scores.copy()
    others[rows, target] = -np.inf
    margin = own - others.max(axis=1)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]

    def told(chosen: np.ndarray) -> list[Query]:
        return [Query(gallery[target[i]], int(rank[i]), tuple(gallery[at] for at in order[i])) for i in chosen]

    by_margin = np.argsort(-margin, kind="stable")
    hits, misses = by_margin[rank[by_margin] == 1], by_margin[rank[by_margin] > 1]
    return told(hits[:n]), told(misses[np.argsort(-rank[misses], kind="stable")][:n])


def confusions(runs: Path, rows: Sequence[Mapping[str, Any]], n: int = 8) -> list[Confusion]:
    """Return which wrong image comes first in place of which, the most frequent over runs first.

    Parameters
    ----------
    runs : Path
        Folder of all runs.
    rows : sequence of mapping
        Rows of the results.
    n : int
        How many, at most.
    """
    counts: dict[tuple[str, str], int] = {}
    for row in rows:
        run = RunReader(runs, row["run_id"])
        scores, (gallery, _, target) = run.array("scores"), run.shown()
        first_of, rows_of = scores.argmax(axis=1), np.arange(len(target))
        beaten = scores[rows_of, first_of] > scores[rows_of, target]  # a tie with the right image is half a hit
        for own, first, wrong in zip(target.tolist(), first_of.tolist(), beaten.tolist(), strict=True):
            if wrong:
                pair = (gallery[own], gallery[first])
                counts[pair] = counts.get(pair, 0) + 1
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [Confusion(*pair, number) for pair, number in ranked[:n]]
