"""The hits of every run, read once: per image and per concept, and the intervals that rest on them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.train.cells import FEW, Cell, Runs
from pipelines.train.statistics import Interval, image_interval, interval
from stores.errors import EmbedctlError
from stores.results import RunReader

__all__ = ["RunHits", "concept_accuracy", "interval_of", "read_hits"]


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
            config, hits, target = run.config(), run.array("hits"), run.array("target").tolist()
            gallery, concepts = config["gallery_ids"], config.get("gallery_concepts") or config["gallery_ids"]
        except KeyError:
            continue
        except EmbedctlError as problem:
            if problem.exit_code != EmbedctlError.exit_code:  # damage
                raise
            continue
        images = [gallery[at] for at in target]
        found[row["run_id"]] = RunHits(images, [concepts[at] for at in target], hits, run.metrics())
    return found


def interval_of(
    sides: Sequence[tuple[Runs, int]], hits: Mapping[str, RunHits], per_subject: Sequence[float]
) -> Interval:
    """Return what `pipelines.train.cells.hits_interval` does, from hits that are read already.

    Parameters
    ----------
    sides : sequence of (Runs, int)
        The runs, and the sign with which they count.
    hits : mapping of str to RunHits
        By run id.
    per_subject : sequence of float
        What to take where the hits are missing.
    """
    tables = [(table, sign) for rows, sign in sides if (table := _by_image(rows, hits))]
    if len(tables) == len(sides):
        images = sorted(set.intersection(*(set(row) for table, _ in tables for row in table)))
        if images:
            signed = (sign * np.array([[row[i] for i in images] for row in table]) for table, sign in tables)
            values = np.asarray(sum(signed))
            if len(values) < FEW:
                return image_interval(values.mean(axis=0), differences=len(sides) > 1)
            return interval(values)
    return interval(per_subject, images=False)


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


def _by_image(rows: Runs, hits: Mapping[str, RunHits]) -> list[dict[str, float]]:
    """Return a table per subject from image to its mean hit over seeds; empty where a run kept no hits."""
    table = []
    for seeds in rows.values():
        mine = [hits.get(row["run_id"]) for row in seeds.values()]
        if any(run is None for run in mine):
            return []
        known = [run for run in mine if run is not None]
        if all(run.images == known[0].images for run in known) and len(set(known[0].images)) == len(known[0].images):
            mean = np.mean([run.hits for run in known], axis=0).tolist()
            table.append(dict(zip(known[0].images, mean, strict=True)))
            continue
        collected: dict[str, list[float]] = {}
        for run in known:
            for image, hit in zip(run.images, run.hits.tolist(), strict=True):
                collected.setdefault(image, []).append(hit)
        table.append({image: sum(values) / len(values) for image, values in collected.items()})
    return table
