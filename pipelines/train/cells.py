"""Runs grouped for comparison: what ran under the same conditions, by embedding, subject and seed."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.train.statistics import Interval, interval
from stores.errors import EmbedctlError
from stores.results import read_array, read_config

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Cell", "Runs", "conditions", "hits_interval"]

CONDITION = (
    "dataset",
    "modality",
    "protocol",
    "brain_encoder",
    "recipe",
    "image_head",
    "gallery",
    "n_way",
    "config_key",
)

Runs = Mapping[int, Mapping[int, Mapping[str, Any]]]  # subject -> seed -> row of the results


class Cell:
    """All runs of one embedding under one condition.

    Of a run that was done again on other recordings, the newer one counts.

    Parameters
    ----------
    rows : sequence of mapping
        Rows of the results.
    label : str
        What to call the embedding: its name, with its key where one name has several.

    Attributes
    ----------
    runs : Runs
        The rows by subject and seed.
    per_subject : dict
        Top-1 of every subject, seeds averaged.
    top1 : float
        Its mean over subjects.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]], label: str) -> None:
        self.label, self.first = label, rows[0]
        self.runs: dict[int, dict[int, Mapping[str, Any]]] = {}
        for row in sorted(rows, key=lambda row: (row["subject"], row["seed"], row["started"])):
            self.runs.setdefault(row["subject"], {})[row["seed"]] = row
        self.per_subject = {
            subject: float(np.mean([row["top1"] for row in seeds.values()])) for subject, seeds in self.runs.items()
        }
        self.top1 = float(np.mean(list(self.per_subject.values())))

    def mean(self, name: str) -> float | None:
        """Return the mean of a column over subjects, seeds averaged first; None where a run has none."""
        values = [[row[name] for row in seeds.values()] for seeds in self.runs.values()]
        if any(value is None for seeds in values for value in seeds):
            return None
        return float(np.mean([np.mean(seeds) for seeds in values]))


def conditions(results: "pa.Table") -> Iterable[tuple[dict[str, Any], list[Cell]]]:
    """Group the runs by condition, and within by embedding."""
    grouped: dict[tuple[Any, ...], dict[tuple[str, str], list[dict[str, Any]]]] = {}
    for row in results.to_pylist():
        cells = grouped.setdefault(tuple(row[name] for name in CONDITION), {})
        cells.setdefault((row["embedding"], row["embedding_key"]), []).append(row)
    for values, cells in sorted(grouped.items(), key=lambda item: tuple(map(str, item[0]))):
        keys_of: dict[str, int] = {}
        for name, _ in cells:
            keys_of[name] = keys_of.get(name, 0) + 1
        yield (
            dict(zip(CONDITION, values, strict=True)),
            [Cell(rows, name if keys_of[name] == 1 else f"{name}#{key}") for (name, key), rows in cells.items()],
        )


def hits_interval(sides: Sequence[tuple[Runs, int]], runs: Path | None, per_subject: Sequence[float]) -> Interval:
    """Return the interval of a mean, or with two sides of a difference, over subjects and images.

    Parameters
    ----------
    sides : sequence of (Runs, int)
        The runs, and the sign with which they count.
    runs : Path or None
        Folder of the runs with the hits of every test image.
    per_subject : sequence of float
        What to take, over subjects alone, where the hits are missing.
    """
    tables = [(table, sign) for rows, sign in sides if runs and (table := _hits(rows, runs))]
    if len(tables) == len(sides):
        images = sorted(set.intersection(*(set(hits) for table, _ in tables for hits in table.values())))
        if images:
            signed = (sign * np.array([[hits[i] for i in images] for hits in t.values()]) for t, sign in tables)
            return interval(sum(signed))
    return interval(per_subject, images=False)


def _hits(of_subjects: Runs, runs: Path) -> dict[int, dict[str, float]] | None:
    """Return, per subject, the mean hit over seeds of every test image; None where a run did not keep its hits."""
    found: dict[int, dict[str, float]] = {}
    for subject, seeds in of_subjects.items():
        collected: dict[str, list[float]] = {}
        for row in seeds.values():
            try:
                gallery = read_config(runs, row["run_id"])["gallery_ids"]
                hits, target = (read_array(runs, row["run_id"], name) for name in ("hits", "target"))
            except (EmbedctlError, KeyError):
                return None
            for hit, own in zip(hits.tolist(), target.tolist(), strict=True):
                collected.setdefault(gallery[own], []).append(hit)
        found[subject] = {image: float(np.mean(values)) for image, values in collected.items()}
    return found
