"""Results beside the published numbers: the same dataset, protocol, gallery, brain encoder and image encoder."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.paper.tables import PaperCell, paper_cells
from pipelines.train.cells import divided
from pipelines.train.origin import mark

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["PaperRow", "beside_paper"]


TRAINED_ON = 8  # subjects of a run across them: all ten but the one tested and the one validated on


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperRow:
    """A pair of published numbers, aligned and base, and what was measured here.

    Parameters
    ----------
    table, row, column, metric : str
        Where they are printed.
    published, published_base : float
        Accuracies, fractions.
    measured, measured_base : float or None
        Seeds averaged first, then subjects; where both have runs, over subjects and seeds that both have. None where
        there is no run.
    subjects : tuple of int
        Who was measured, of whom the published numbers are the mean.
    n_subjects : int
        Of the published numbers.
    recipe : str
        Of the runs, with its config_key.
    """

    table: str
    row: str
    column: str
    metric: str
    published: float
    published_base: float
    measured: float | None
    measured_base: float | None
    subjects: tuple[int, ...]
    n_subjects: int
    recipe: str


def beside_paper(results: "pa.Table") -> list[PaperRow]:
    """Return every pair of published numbers with what was measured, in the order of the tables.

    Only embeddings of published weights count, against galleries of the published size, and both of a pair come from
    runs of one configuration: of the recipe ``paper`` where there are any, else of the one with the most. How the
    recordings were preprocessed is not looked at.
    """
    rows = [row for row in divided(results)[0] if not mark(row["weights"])]
    cells = {(cell.table, cell.row, cell.column, cell.metric, cell.variant): cell for cell in paper_cells()}
    return [_pair(rows, cell, cells[*place[:4], "Base"]) for place, cell in cells.items() if cell.variant == "HA"]


def _pair(rows: Sequence[Any], aligned: PaperCell, base: PaperCell) -> PaperRow:
    ours, theirs = ([row for row in rows if _fits(row, cell)] for cell in (aligned, base))
    counts: dict[tuple[bool, int, str], str] = {}
    for key in {row["config_key"] for row in ours + theirs}:
        mine = [row for row in ours + theirs if row["config_key"] == key]
        counts[mine[0]["recipe"] == "paper", len(mine), key] = mine[0]["recipe"]
    best = max(counts, default=None)
    key = best[2] if best else ""
    ours, theirs = ([row for row in rows if row["config_key"] == key] for rows in (ours, theirs))
    if ours and theirs:  # one pair, one group of subjects and seeds: else their difference is of people
        both = set(map(_who, ours)) & set(map(_who, theirs))
        ours, theirs = ([row for row in rows if _who(row) in both] for rows in (ours, theirs))
    measured, whom = _mean(ours, aligned)
    measured_base, whom_base = _mean(theirs, base)
    return PaperRow(
        table=aligned.table,
        row=aligned.row,
        column=aligned.column,
        metric=aligned.metric,
        published=aligned.published,
        published_base=base.published,
        measured=measured,
        measured_base=measured_base,
        subjects=tuple(sorted(whom | whom_base)),
        n_subjects=len(aligned.subjects),
        recipe=f"{counts[best]} ({key})" if best else "",
    )


def _fits(row: Any, cell: PaperCell) -> bool:
    same = all(
        row[name] == getattr(cell, name)
        for name in ("dataset", "protocol", "gallery", "brain_encoder", "embedding", "n_way")
    )
    few = cell.protocol == "cross" and len(row["train_subjects"].split(",")) < TRAINED_ON
    return same and row["subject"] in cell.subjects and not few


def _who(row: Any) -> tuple[int, int]:
    return row["subject"], row["seed"]


def _mean(rows: Sequence[Any], cell: PaperCell) -> tuple[float | None, set[int]]:
    of: dict[int, list[float]] = {}
    for row in rows:
        of.setdefault(row["subject"], []).append(row[cell.metric])
    return (float(np.mean([np.mean(seeds) for seeds in of.values()])) if of else None), set(of)
