"""The decisive table: aligned against base, each at its best depth, for every image head and brain encoder.

An intermediate layer of a plain encoder often beats the last layer of an aligned one, so an encoder is judged by the
layer that suits it. That layer is chosen on validation; of all other layers the test scores decide nothing and are not
told.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.train.cells import Cell, conditions
from pipelines.train.compare import PairRow, check_pairing, pair_of, weights_pair, with_verdicts
from stores.errors import EmbedctlError
from stores.names import EmbeddingName

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["AtDepth", "DepthRow", "at_best_depths"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AtDepth:
    """How the layer of an encoder was chosen, and what it scores.

    Parameters
    ----------
    validation : dict of str to float
        Validation top-1 of all its layers, in the order of their names, the conventional embedding last: means over the
        subjects and seeds that all of them have.
    top1 : float
        Test top-1 of the chosen layer alone, over the subjects and seeds that the other side of the pair has too.
    """

    validation: dict[str, float]
    top1: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthRow:
    """An aligned encoder against its base under one condition, each at the layer that validation chose.

    Parameters
    ----------
    pair : PairRow
        Who is compared, under which condition, and their difference, as `embedctl compare` tests it.
    aligned, base : AtDepth
        The depth of either.
    noise_ceiling : float or None
        Split-half reliability of the test recordings, averaged as the scores are; None where a run has none.
    """

    pair: PairRow
    aligned: AtDepth
    base: AtDepth
    noise_ceiling: float | None


@dataclass(frozen=True, slots=True)
class _Chosen:
    """An encoder's chosen layer, on the runs that all its layers have."""

    cell: Cell
    view: str
    validation: dict[str, float]


def at_best_depths(
    results: "pa.Table", pairing: str = "matched_base", runs: Path | None = None
) -> tuple[list[DepthRow], list[str]]:
    """Compare aligned encoders with their bases, each at the depth that validation chose for it.

    Parameters
    ----------
    results : Table
        The results, one row per run.
    pairing : str
        ``matched_base`` or ``paper``.
    runs : Path, optional
        Folder of the runs, for intervals over subjects and images.

    Returns
    -------
    rows : list of DepthRow
        By condition; corrected within it.
    notes : list of str
        Encoders that are left out, and why.

    Raises
    ------
    EmbedctlError
        If there is no such pairing.
    """
    check_pairing(pairing)
    column = "base" if pairing == "paper" else "matched_base"
    rows: list[DepthRow] = []
    notes: dict[str, None] = {}
    for condition, cells in conditions(results):
        chosen = [one for layers in _encoders(cells) if (one := _choose(layers, notes)) is not None]
        found = [
            row
            for ours in chosen
            for theirs in chosen
            if _are_paired(ours, theirs, column) and (row := _row(condition, ours, theirs, pairing, runs)) is not None
        ]
        judged = with_verdicts([row.pair for row in found])
        rows += [replace(row, pair=pair) for row, pair in zip(found, judged, strict=True)]
    return rows, list(notes)


def _encoders(cells: Sequence[Cell]) -> list[list[tuple[EmbeddingName, Cell]]]:
    """Return the layers of every encoder, in order; views and weights apart."""
    found: dict[tuple[str, str, str], list[tuple[EmbeddingName, Cell]]] = {}
    for cell in cells:
        try:
            name = EmbeddingName.parse(cell.first["embedding"])
        except EmbedctlError:  # layers of several encoders in one target have no depth
            continue
        found.setdefault((cell.first["encoder"], name.view, cell.first["weights"]), []).append((name, cell))
    return [sorted(layers, key=lambda one: _in_order(one[0], one[1].label)) for layers in found.values()]


def _in_order(name: EmbeddingName, label: str) -> tuple[Any, ...]:
    words = [(int(word), "") if word.isdigit() else (-1, word) for word in re.findall(r"\d+|\D+", name.layer)]
    return not name.layer, words, name.pooling, label


def _choose(layers: Sequence[tuple[EmbeddingName, Cell]], notes: dict[str, None]) -> _Chosen | None:
    """Choose an encoder's layer: the highest validation top-1, of equals the first. No test score is looked at."""
    shared = set.intersection(*({(s, seed) for s, of in cell.runs.items() for seed in of} for _, cell in layers))
    if not shared:
        notes[f"{layers[0][1].first['encoder']} is left out: no subject and seed was run at all its layers"] = None
        return None
    on_shared = [_only(cell, shared) for _, cell in layers]
    values = {cell.label: value for cell in on_shared if (value := cell.mean("val_top1")) is not None}
    if not values:
        return None
    best = max(values, key=lambda label: values[label])
    return _Chosen(next(cell for cell in on_shared if cell.label == best), layers[0][0].view, values)


def _only(cell: Cell, shared: set[tuple[int, int]]) -> Cell:
    rows = [row for of in cell.runs.values() for row in of.values() if (row["subject"], row["seed"]) in shared]
    return Cell(rows, cell.label)


def _are_paired(ours: _Chosen, theirs: _Chosen, column: str) -> bool:
    first, other = ours.cell.first, theirs.cell.first
    is_base = bool(first["aligned_by"] and first[column]) and other["encoder"] == first[column]
    return is_base and ours.view == theirs.view and weights_pair(first, other)


def _row(condition: dict[str, Any], ours: _Chosen, theirs: _Chosen, pairing: str, runs: Path | None) -> DepthRow | None:
    pair = pair_of(condition, ours.cell, theirs.cell, pairing, runs)
    if pair is None:
        return None
    both = {(s, n) for s, of in ours.cell.runs.items() for n in of if n in theirs.cell.runs.get(s, {})}
    sides = [
        AtDepth(
            validation=one.validation,
            top1=float(np.mean(list(_only(one.cell, both).per_subject.values()))),
        )
        for one in (ours, theirs)
    ]
    ceiling = _only(ours.cell, both).mean("noise_ceiling")
    return DepthRow(pair=pair, aligned=sides[0], base=sides[1], noise_ceiling=ceiling)
