"""Runs grouped for comparison: what ran under the same conditions, by embedding, subject and seed."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.train.statistics import Interval, image_interval, interval
from stores.errors import EmbedctlError
from stores.results import RunReader

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["FEW", "Cell", "Runs", "conditions", "HitsOf", "divided", "hits_in", "hits_interval"]

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

FEW = 4
"""Subjects: with fewer, what their differences say about other subjects is next to nothing."""

Row = Mapping[str, Any]  # of the results
Runs = Mapping[int, Mapping[int, Row]]  # subject -> seed -> row
HitsOf = Callable[[str], tuple[Sequence[str], Sequence[float]] | None]  # run id -> the images and hits of its queries


class Cell:
    """All runs of one embedding under one condition.

    Parameters
    ----------
    rows : sequence of mapping
        Rows of the results, of each subject on the same recordings.
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

    def __init__(self, rows: Sequence[Row], label: str) -> None:
        self.label, self.first = label, rows[0]
        self.runs: dict[int, dict[int, Row]] = {}
        for row in sorted(rows, key=lambda row: (row["subject"], row["seed"], str(row["started"]))):
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


def divided(results: "pa.Table") -> tuple[list[Row], list[Row]]:
    """Divide the runs into those that can be compared and those on recordings or images that were replaced since.

    Under one condition only one set of recordings of a subject counts, and one content of its images, those of the
    newest run: what was trained on others says nothing about an embedding.

    Returns
    -------
    current, outdated : list of Row
        Every run is in one of them.
    """
    rows = sorted(results.to_pylist(), key=lambda row: str(row["started"]))
    newest = {_of_subject(row): _data(row) for row in rows}
    current = [row for row in rows if _data(row) == newest[_of_subject(row)]]
    return current, [row for row in rows if _data(row) != newest[_of_subject(row)]]


def conditions(results: "pa.Table") -> Iterable[tuple[dict[str, Any], list[Cell]]]:
    """Group the runs that can be compared by condition, and within by embedding.

    A condition is what the columns say, and ``preprocessing``: the name of the recipe of the recordings. Its settings
    are part of ``config_key``.
    """
    grouped: dict[tuple[Any, ...], dict[tuple[str, str], list[Row]]] = {}
    for row in divided(results)[0]:
        cells = grouped.setdefault(_condition(row), {})
        cells.setdefault((row["embedding"], row["embedding_key"]), []).append(row)
    for values, cells in sorted(grouped.items(), key=lambda item: tuple(map(str, item[0]))):
        preprocessing = next(iter(cells.values()))[0]["preprocessing"] or ""
        keys_of: dict[str, int] = {}
        for name, _ in cells:
            keys_of[name] = keys_of.get(name, 0) + 1
        yield (
            dict(zip(CONDITION, values, strict=True)) | {"preprocessing": preprocessing},
            [Cell(rows, name if keys_of[name] == 1 else f"{name}#{key}") for (name, key), rows in cells.items()],
        )


def _of_subject(row: Row) -> tuple[Any, ...]:
    return (*_condition(row), row["subject"])


def _data(row: Row) -> tuple[Any, ...]:
    return row["epochs_key"], row["images_key"]


def _condition(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in CONDITION)


def hits_in(runs: Path) -> HitsOf:
    """Return what reads the hits of a run in a folder of runs."""

    def read(run_id: str) -> tuple[Sequence[str], Sequence[float]] | None:
        try:
            run = RunReader(runs, run_id)
            hits, (gallery, _, target) = run.array("hits"), run.shown()
        except (EmbedctlError, KeyError):
            return None
        return [gallery[own] for own in target.tolist()], hits.tolist()

    return read


def hits_interval(sides: Sequence[tuple[Runs, int]], hits_of: HitsOf | None, per_subject: Sequence[float]) -> Interval:
    """Return the interval of a mean, or with two sides of a difference.

    It is over subjects and images; with fewer than `FEW` subjects over images alone, for these very subjects. How
    far it reaches is told by the test images that all subjects have; it is about the mean of ``per_subject``, in which
    each counts with all of its own.

    Parameters
    ----------
    sides : sequence of (Runs, int)
        The runs, and the sign with which they count.
    hits_of : callable or None
        From the id of a run to the image of every query and its hit; None where it kept none. See `hits_in`.
    per_subject : sequence of float
        Its mean is what the interval is of. It is taken by itself, over subjects alone, where hits are missing or
        subjects have no test image in common.
    """
    tables = [(table, sign) for rows, sign in sides if hits_of and (table := _hits(rows, hits_of))]
    if len(tables) == len(sides):
        images = sorted(set.intersection(*(set(hits) for table, _ in tables for hits in table.values())))
        if images:
            signed = (sign * np.array([[hits[i] for i in images] for hits in t.values()]) for t, sign in tables)
            values = np.asarray(sum(signed))
            few = len(values) < FEW
            found = image_interval(values.mean(axis=0), differences=len(sides) > 1) if few else interval(values)
            return _moved(found, float(np.mean(per_subject) - values.mean()))
    return interval(per_subject, images=False)


def _moved(found: Interval, by: float) -> Interval:
    if found.low is None or found.high is None:
        return found
    return replace(found, low=found.low + by, high=found.high + by)


def _hits(of_subjects: Runs, hits_of: HitsOf) -> dict[int, dict[str, float]] | None:
    """Return, per subject, the mean hit over seeds of every test image; None where a run did not keep its hits."""
    found: dict[int, dict[str, float]] = {}
    for subject, seeds in of_subjects.items():
        collected: dict[str, list[float]] = {}
        for row in seeds.values():
            if (kept := hits_of(row["run_id"])) is None:
                return None
            for image, hit in zip(*kept, strict=True):
                collected.setdefault(image, []).append(hit)
        found[subject] = {image: float(np.mean(values)) for image, values in collected.items()}
    return found
