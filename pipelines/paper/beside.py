"""Results beside the published numbers: the same dataset, protocol, gallery, brain encoder and image encoder."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.paper.sweeps import PREPROCESSING
from pipelines.paper.tables import PaperCell, paper_cells
from pipelines.train.cells import divided
from pipelines.train.origin import mark
from pipelines.train.recipes import read_recipe
from stores.commits import json_bytes
from stores.errors import EmbedctlError
from stores.names import counted
from stores.results import read_config

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["PaperRow", "beside_paper"]

N_TRAINED_ON = 9  # subjects across which the paper trained, validation among them; here one fewer, and one to validate

Runs = Mapping[tuple[int, int], Any]  # of one configuration and embedding: (subject, seed) -> row of the results


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
        Seeds averaged first, then subjects: where both were run, the subjects and seeds that both have; where these are
        none, the aligned alone. None where there is no run.
    chance : float
        Of such an accuracy.
    noise_ceiling : float or None
        Split-half reliability of the test recordings, averaged in the same way.
    subjects : tuple of int
        Who was measured, of whom the published numbers are the mean.
    n_subjects : int
        Of the published numbers.
    recipe : str
        Of the runs, with its config_key.
    differs : tuple of str
        What is known to differ from the paper's, a few words each.
    """

    table: str
    row: str
    column: str
    metric: str
    published: float
    published_base: float
    measured: float | None
    measured_base: float | None
    chance: float
    noise_ceiling: float | None
    subjects: tuple[int, ...]
    n_subjects: int
    recipe: str
    differs: tuple[str, ...]


def beside_paper(results: "pa.Table", runs: Path) -> list[PaperRow]:
    """Return every pair of published numbers with what was measured, in the order of the tables.

    Only embeddings of published weights count, against galleries of the published size, and both of a pair come from
    runs of one configuration: of the recipe ``paper`` where there are any, else of the one that both have the most of.

    Parameters
    ----------
    results : Table
        The results, one row per run.
    runs : Path
        Folder of the runs: their settings say whether they are the recipe's.
    """
    rows = [row for row in divided(results)[0] if not mark(row["weights"])]
    cells = {(cell.table, cell.row, cell.column, cell.metric, cell.variant): cell for cell in paper_cells()}
    changed: dict[str, str] = {}  # by configuration, which settings are not the paper's
    return [
        _pair(rows, cell, cells[*place[:4], "Base"], runs, changed)
        for place, cell in cells.items()
        if cell.variant == "HA"
    ]


def _pair(rows: Sequence[Any], aligned: PaperCell, base: PaperCell, runs: Path, changed: dict[str, str]) -> PaperRow:
    ours, theirs = (_by_configuration(rows, cell) for cell in (aligned, base))
    best = max(_ranked(ours, theirs), default=None)
    key = best[-1] if best else ""
    mine, other = ours.get(key, {}), theirs.get(key, {})
    if shared := mine.keys() & other.keys():
        mine, other = ({at: side[at] for at in sorted(shared)} for side in (mine, other))
    elif mine:
        other = {}  # a difference between people is none between encoders
    used = [*mine.values(), *other.values()]
    return PaperRow(
        table=aligned.table,
        row=aligned.row,
        column=aligned.column,
        metric=aligned.metric,
        published=aligned.published,
        published_base=base.published,
        measured=_mean(mine, aligned.metric),
        measured_base=_mean(other, base.metric),
        chance=int(aligned.metric.removeprefix("top")) / aligned.n_way,
        noise_ceiling=_mean(mine or other, "noise_ceiling"),
        subjects=tuple(sorted({subject for subject, _ in (*mine, *other)})),
        n_subjects=len(aligned.subjects),
        recipe=f"{used[0]['recipe']} ({key})" if used else "",
        differs=tuple(dict.fromkeys(_differences(used, runs, changed))),
    )


def _by_configuration(rows: Sequence[Any], cell: PaperCell) -> dict[str, dict[tuple[int, int], Any]]:
    """Return the runs that a published number can stand beside; of a subject and seed the newest."""
    found: dict[str, dict[tuple[int, int], Any]] = {}
    same = ("dataset", "protocol", "gallery", "brain_encoder", "embedding", "n_way")
    for row in rows:
        fits = row["subject"] in cell.subjects and all(row[name] == getattr(cell, name) for name in same)
        if fits and (row["protocol"] != "cross" or _n_trained_on(row) == N_TRAINED_ON - 1):
            found.setdefault(row["config_key"], {})[row["subject"], row["seed"]] = row
    return found


def _n_trained_on(row: Any) -> int:
    return len(row["train_subjects"].split(","))


def _ranked(ours: Mapping[str, Runs], theirs: Mapping[str, Runs]) -> Iterator[tuple[bool, int, int, str]]:
    """Yield how well each configuration would stand there."""
    for key in {**ours, **theirs}:
        mine, other = ours.get(key, {}), theirs.get(key, {})
        some_run = next(iter({**mine, **other}.values()))
        yield some_run["recipe"] == "paper", len(mine.keys() & other.keys()), len(mine) + len(other), key


def _mean(rows: Runs, name: str) -> float | None:
    """Return the mean over subjects of the mean over seeds; None where a run has none, or there is no run."""
    of: dict[int, list[float]] = {}
    for (subject, _), row in rows.items():
        if row[name] is None:
            return None
        of.setdefault(subject, []).append(row[name])
    return float(np.mean([np.mean(seeds) for seeds in of.values()])) if of else None


def _differences(rows: Sequence[Any], runs: Path, changed: dict[str, str]) -> Iterator[str]:
    """Yield what is known to differ from how the paper's numbers came about."""
    for row in rows:
        if row["simulated"]:
            yield "simulated recordings"
        wanted = PREPROCESSING[row["dataset"]]
        if row["preprocessing"] != wanted:
            yield f"preprocessed with {row['preprocessing'] or 'a recipe nobody noted'}, the paper's is {wanted}"
        if row["protocol"] == "cross":
            n = _n_trained_on(row)
            yield f"trained on {counted(n, 'subject')} and validated on one, the paper on {N_TRAINED_ON} less a tenth"
        if row["recipe"] == "paper":
            if row["config_key"] not in changed:
                changed[row["config_key"]] = _changed(row, runs)
            if changed[row["config_key"]]:
                yield changed[row["config_key"]]


def _changed(row: Any, runs: Path) -> str:
    """Say which settings of a run were asked for instead of the recipe's, as far as the run is at hand."""
    try:
        had = read_config(runs, row["run_id"])["settings"]
    except (EmbedctlError, KeyError):
        return ""
    recipe = read_recipe("paper", row["modality"], row["brain_encoder"], row["protocol"])
    given = recipe.with_(split="concept") if row["protocol"] == "cross" else recipe
    names = [name for name, value in given.settings().items() if json_bytes(had.get(name)) != json_bytes(value)]
    return f"other settings than the recipe's: {', '.join(names)}" if names else ""
