"""What the runs say of human-aligned encoders and their bases; `pipelines.train.ranking` is found here too.

Seeds are averaged first, within subject; the subject is the unit. What is compared ran under the same conditions:
dataset, preprocessing, protocol, gallery and configuration, and on the very same recordings of each subject.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.train.cells import Cell, conditions, divided, hits_in, hits_interval
from pipelines.train.origin import doubt, is_contaminated
from pipelines.train.ranking import RankRow, ranking
from pipelines.train.statistics import Interval, holm, sign_flip
from stores.errors import EmbedctlError
from stores.names import EmbeddingName, counted

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "PairRow",
    "RankRow",
    "base_name",
    "check_pairing",
    "left_out",
    "pair_of",
    "pairs",
    "ranking",
    "weights_pair",
    "with_verdicts",
]

LEVEL = 0.05
ADVERSARIAL = "adversarial training"
"""``aligned_by`` of robust networks: their pairs answer another question, and would only weaken the correction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairRow:
    """A human-aligned encoder against its base, under one condition, on the subjects and seeds that both have.

    Parameters
    ----------
    condition : dict
        What is the same for both.
    embedding, base, aligned_by, weights, base_weights, match : str
        Who is compared, and how well the base matches.
    subjects : tuple of int
        Subjects that both have.
    n_seeds : int
        Fewest seeds that both have of a subject.
    difference : float
        Aligned minus base, in top-1.
    interval : Interval
        Of the difference.
    per_subject : dict
        The difference of each subject.
    p, p_floor : float
        Sign-flip test over subjects, and the smallest p that so many subjects can give.
    p_holm : float or None
        Corrected over the pairs with a verdict; None where this pair has none.
    verdict : str
        ``higher``, ``lower``, ``no difference shown``, or a plain refusal; empty where the pair carries none.
    note : str
        Why there is no verdict.
    shares : tuple of str
        Other aligned encoders with a verdict here whose base has a network in common with this one's, such as an
        ensemble's and its member's: their differences are not independent.
    """

    condition: dict[str, Any]
    embedding: str
    base: str
    aligned_by: str
    weights: str
    base_weights: str
    match: str
    subjects: tuple[int, ...]
    n_seeds: int
    difference: float
    interval: Interval
    per_subject: dict[int, float]
    p: float
    p_floor: float
    p_holm: float | None
    verdict: str
    note: str
    shares: tuple[str, ...] = ()


def pairs(results: "pa.Table", pairing: str = "matched_base", runs: Path | None = None) -> list[PairRow]:
    """Compare every human-aligned encoder with its base.

    Random weights are paired with random weights of the same seed only, and a layer, pooling or view with the same of
    the base. A verdict is given to pairs of published weights that differ in nothing but the alignment
    (``match = exact``) and are fitted neither to the THINGS images nor to brain data; it takes a sign-flip test across
    subjects, corrected over these pairs by Holm's method. Random, own and imported ones are shown and have none, and
    so are networks made robust by adversarial training, which aligns them with nobody.

    Parameters
    ----------
    results : Table
        The results, one row per run.
    pairing : str
        ``matched_base``, or ``paper`` for the bases the literature used, which carry no verdict.
    runs : Path, optional
        Folder of the runs, for intervals over subjects and images.

    Raises
    ------
    EmbedctlError
        If there is no such pairing.
    """
    check_pairing(pairing)
    column = "base" if pairing == "paper" else "matched_base"
    rows: list[PairRow] = []
    for condition, cells in conditions(results):
        found = [
            pair_of(condition, cell, base, pairing, runs)
            for cell in cells
            if cell.first["aligned_by"] and cell.first[column]
            for base in cells
            if base.first["embedding"] == base_name(cell.first, column) and weights_pair(cell.first, base.first)
        ]
        rows += with_verdicts([pair for pair in found if pair is not None])
    return rows


def check_pairing(pairing: str) -> None:
    """Refuse a pairing that there is not.

    Raises
    ------
    EmbedctlError
        Naming those there are.
    """
    if pairing not in ("matched_base", "paper"):
        raise EmbedctlError(f"no pairing called '{pairing}'", "there are: matched_base, paper")


def base_name(row: Mapping[str, Any], column: str) -> str:
    """Return the embedding of the base that corresponds: the same layer, pooling and view."""
    return str(replace(EmbeddingName.parse(row["embedding"]), encoder=row[column]))


def weights_pair(aligned: Mapping[str, Any], base: Mapping[str, Any]) -> bool:
    """Return whether two rows may be compared by their weights: random ones only with random ones of the same seed."""
    ours, theirs = aligned["weights"], base["weights"]
    if ours.startswith("random:") or theirs.startswith("random:"):
        return bool(ours == theirs)
    return True


def pair_of(condition: dict[str, Any], cell: Cell, base: Cell, pairing: str, runs: Path | None) -> PairRow | None:
    """Compare two embeddings on the subjects and seeds they share."""
    shared = {
        subject: sorted(set(seeds) & set(base.runs[subject]))
        for subject, seeds in cell.runs.items()
        if subject in base.runs
    }
    shared = {subject: seeds for subject, seeds in shared.items() if seeds}
    if not shared:
        return None
    ours, theirs = (
        {subject: {seed: side.runs[subject][seed] for seed in seeds} for subject, seeds in shared.items()}
        for side in (cell, base)
    )
    per_subject = {
        subject: float(np.mean([ours[subject][seed]["top1"] - theirs[subject][seed]["top1"] for seed in seeds]))
        for subject, seeds in shared.items()
    }
    test = sign_flip(list(per_subject.values()))
    match = cell.first["match"] if pairing == "matched_base" else "paper"
    return PairRow(
        condition=condition,
        embedding=cell.label,
        base=base.label,
        aligned_by=cell.first["aligned_by"],
        weights=cell.first["weights"],
        base_weights=base.first["weights"],
        match=match,
        subjects=tuple(shared),
        n_seeds=min(len(seeds) for seeds in shared.values()),
        difference=float(np.mean(list(per_subject.values()))),
        interval=hits_interval([(ours, 1), (theirs, -1)], hits_in(runs) if runs else None, list(per_subject.values())),
        per_subject=per_subject,
        p=test.p,
        p_floor=test.floor,
        p_holm=None,
        verdict="",
        note=_why_no_verdict(cell.first, base.first, match),
    )


def left_out(results: "pa.Table") -> list[str]:
    """Say which runs are not compared, subject by subject: those on recordings or images replaced since."""
    counts: dict[tuple[str, int], int] = {}
    for row in divided(results)[1]:
        counts[row["dataset"], row["subject"]] = counts.get((row["dataset"], row["subject"]), 0) + 1
    return [
        f"left out: {counted(n, 'run')} of {dataset}, subject {subject}; "
        "newer ones were trained on other recordings or images"
        for (dataset, subject), n in sorted(counts.items())
    ]


def _why_no_verdict(row: Mapping[str, Any], base: Mapping[str, Any], match: str) -> str:
    """Return the reason why a pair carries no verdict; empty when it carries one."""
    if match == "paper":
        return "the paper's own base, which differs in more than the alignment"
    if match != "exact":
        return f"the base matches in {match or 'name only'}: no verdict"
    if row["weights"].startswith("random:"):
        return "random weights: alignment has nothing to show here"
    if row["aligned_by"] == ADVERSARIAL:
        return "adversarial training aligns with no person, it is a control: no verdict"
    if is_contaminated(row["encoder"]):
        return "it was fitted to the THINGS images or to brain data: no verdict"
    if doubts := [found for side in (row, base) if (found := doubt(side))]:
        return f"{'; '.join(doubts)}: no verdict"
    return ""


def with_verdicts(rows: list[PairRow]) -> list[PairRow]:
    """Correct the p-values of the pairs that carry a verdict, and give it."""
    judged = [row for row in rows if not row.note]
    corrected = iter(holm([row.p for row in judged]))
    trunks = {row.embedding: _trunks(row) for row in judged}
    shares = {
        mine: tuple(other for other in trunks if other != mine and trunks[other] & trunks[mine]) for mine in trunks
    }
    return [
        row if row.note else replace(_judged(row, next(corrected), len(judged)), shares=shares[row.embedding])
        for row in rows
    ]


def _trunks(row: PairRow) -> set[str]:
    """Return the networks behind the base of a pair: of an ensemble every member's."""
    from pipelines.encoders.registry import registry

    base = EmbeddingName.parse(row.base.partition("#")[0]).encoder
    return set(registry()[base].model.get("branches") or (base,))


def _judged(row: PairRow, p_holm: float, n_pairs: int) -> PairRow:
    n = len(row.subjects)
    if row.p_floor > LEVEL:
        verdict = f"{counted(n, 'subject')} cannot show a group difference: no p below {row.p_floor:.3g} exists"
    elif p_holm <= LEVEL:
        verdict = "higher" if row.difference > 0 else "lower"
    elif row.p_floor * n_pairs > LEVEL:
        verdict = f"{n} subjects cannot show a group difference in {n_pairs} pairs at once"
    else:
        verdict = "no difference shown"
    return replace(row, p_holm=p_holm, verdict=verdict)
