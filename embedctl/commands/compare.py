"""``embedctl compare``: the encoders ranked, and the human-aligned ones against their bases."""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedctl import config, options, render
from embedctl.options import path

if TYPE_CHECKING:
    from pipelines.train.compare import PairRow, RankRow
    from pipelines.train.statistics import Interval

__all__ = ["compare", "ranked", "said"]

PAIRING = typer.Option("--pairing", metavar="P", help="matched_base (differs in the alignment alone) or paper")

_POINTS = 100
FEW = 4  # subjects: below it an interval over subjects says less than the subjects themselves


def compare(
    pairing: Annotated[str, PAIRING] = "matched_base",
    runs: options.Runs = None,
    json: options.Json = False,
) -> None:
    """Rank the encoders, and test aligned ones against bases.

    The tests are paired by subject: seeds are averaged first, the subject is the unit.

    \b
      embedctl compare
      embedctl compare --pairing paper --json
    """
    from pipelines.train.compare import pairs, ranking
    from stores.results import read_results

    chosen = config.load()
    options.use_cards(chosen)
    folder = path(chosen.value("runs", runs))
    table = read_results(folder)
    ranks, tests = ranking(table, folder), pairs(table, pairing, folder)
    if json:
        render.as_json(ranking=[asdict(row) for row in ranks], pairs=[asdict(row) for row in tests])
        return
    for condition, rows in groupby(ranks, key=lambda row: row.condition):
        render.line(said(condition))
        ranked(list(rows))
        _tested([row for row in tests if row.condition == condition])


def ranked(rows: "Sequence[RankRow]") -> None:
    """Show the embeddings of one condition, best first, beside chance."""
    few = min(len(row.subjects) for row in rows) < FEW
    figures = (
        "subjects",
        "seeds",
        "top-1",
        "each subject" if few else "95 % interval",
        "top-5",
        "median rank",
        "chance",
    )
    columns = ("", "embedding", "aligned by", *figures)
    cells = [
        (
            row.rank,
            row.embedding,
            row.aligned_by,
            len(row.subjects),
            row.n_seeds,
            render.percent(row.top1),
            _each(row) if few else _interval(row.interval),
            render.percent(row.figures["top5"]),
            f"{row.figures['median_rank']:.1f}",
            render.percent(row.figures["chance"]),
        )
        for row in rows
    ]
    render.table(columns, cells, right=("", *figures), best=0)
    if not few:
        render.note(f"intervals are over {rows[0].interval.over}")


def _tested(rows: "Sequence[PairRow]") -> None:
    render.line()
    if not rows:
        render.line("no aligned encoder and its base have both been run: there is no pair to test")
        return
    columns = ("aligned", "base", "match", "subjects", "difference", "95 % interval", "p", "p corrected", "verdict")
    cells = [
        (
            row.embedding,
            row.base,
            row.match,
            len(row.subjects),
            f"{_POINTS * row.difference:+.1f} points",
            _interval(row.interval),
            f"{row.p:.3g}",
            "" if row.p_holm is None else f"{row.p_holm:.3g}",
            row.verdict or row.note,
        )
        for row in rows
    ]
    render.table(columns, cells, right=columns[3:8])


def _each(row: "RankRow") -> str:
    return ", ".join(f"{_POINTS * top1:.1f}" for top1 in row.per_subject.values())


def _interval(interval: "Interval") -> str:
    if interval.low is None or interval.high is None:
        return ""
    return f"{_POINTS * interval.low:.1f} to {_POINTS * interval.high:.1f}"


def said(condition: dict[str, Any]) -> str:
    """Say in a line what all rows of a table have in common."""
    return (
        f"{condition['dataset']}, {condition['n_way']}-way retrieval with {condition['brain_encoder']}, "
        f"recipe {condition['recipe']} ({condition['config_key']}), {condition['protocol']} subject"
    )
