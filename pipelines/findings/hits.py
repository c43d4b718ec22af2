"""The hits of every run, read once: per image and per concept."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.train.cells import Cell, Runs
from stores.errors import EmbedctlError
from stores.results import RunReader

__all__ = ["RunHits", "concept_accuracy", "read_hits"]


@dataclass(frozen=True)
class RunHits:
    """What one run retrieved, and how it came there.

    Parameters
    ----------
    images, concepts : list of str
        What each test recording showed.
    hits : (n_queries,)
        Whether the right image came first; a tie counts in part.
    curve : list of dict
        A row per pass.
    """

    images: list[str]
    concepts: list[str]
    hits: np.ndarray
    curve: list[dict[str, float]]

    @property
    def by_image(self) -> tuple[list[str], list[float]]:
        """The image of every query and its hit, as `pipelines.train.cells.hits_interval` asks for them."""
        return self.images, self.hits.tolist()


def read_hits(runs: Path, cells: Iterable[Cell]) -> dict[str, RunHits]:
    """Read the hits of all runs of these cells by run id; runs that kept none are left out.

    Raises
    ------
    DamagedStore
        If a file is not the one that was written.
    """
    found = {}
    for row in (row for cell in cells for seeds in cell.runs.values() for row in seeds.values()):
        run = RunReader(runs, row["run_id"])
        try:
            hits, (gallery, concepts, target) = run.array("hits"), run.shown()
        except EmbedctlError as problem:
            if problem.exit_code != EmbedctlError.exit_code:  # damage
                raise
            continue
        images = [gallery[at] for at in target]
        found[row["run_id"]] = RunHits(images, [concepts[at] for at in target], hits, run.metrics())
    return found


def concept_accuracy(rows: Runs, hits: Mapping[str, RunHits]) -> dict[str, float]:
    """Return the share of hits of each concept: over its images, then seeds, then subjects."""
    collected: dict[str, list[float]] = {}
    for seeds in rows.values():
        mine: dict[str, list[float]] = {}
        for row in seeds.values():
            run = hits.get(row["run_id"])
            for concept, hit in zip(run.concepts, run.hits.tolist(), strict=True) if run else ():
                mine.setdefault(concept, []).append(hit)
        for concept, values in mine.items():
            collected.setdefault(concept, []).append(sum(values) / len(values))
    return {concept: sum(values) / len(values) for concept, values in collected.items()}
