"""``embedctl compare``: the encoders ranked, and the human-aligned ones against their bases."""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedctl import config, options, render
from embedctl.captions import said
from embedctl.options import path
from embedctl.outfile import check_file, put_file
from embedctl.pairs_said import say_alone, say_both_true
from embedctl.seen import say_seen, say_simulated
from stores.errors import EmbedctlError

if TYPE_CHECKING:
    import pyarrow as pa

    from pipelines.paper.beside import PaperRow
    from pipelines.train.compare import PairRow, RankRow
    from pipelines.train.statistics import Interval

__all__ = ["beside", "compare", "ranked", "say_reliability"]

PAIRING = typer.Option("--pairing", metavar="P", help="matched_base (differs in the alignment alone) or paper")

LAYERS = typer.Option(
    "--layers",
    help="each encoder at the layer that validation chose; other layers' test is not told",
    show_default=False,
)
PLOT = typer.Option("--plot", metavar="FILE", show_default=False, help="with --layers: validation over depth, a PNG")
CSV = typer.Option("--csv", metavar="FILE", show_default=False, help="with --layers: the table as CSV")
PAPER = typer.Option("--paper", help="beside the published numbers, with the paper's own bases", show_default=False)

_POINTS = 100
_FITTED = " *"
_OTHERWISE = " †"  # than the paper, as far as is known


def compare(
    pairing: Annotated[str, PAIRING] = "matched_base",
    paper: Annotated[bool, PAPER] = False,
    layers: Annotated[bool, LAYERS] = False,
    csv: Annotated[str | None, CSV] = None,
    plot: Annotated[str | None, PLOT] = None,
    runs: options.Runs = None,
    json: options.Json = False,
) -> None:
    """Rank the encoders, and test aligned ones against bases.

    The tests are paired by subject: seeds are averaged first, the subject is the unit. Only runs of the same settings
    on the same recordings are compared, and only published weights lead to a verdict.

    \b
      embedctl compare
      embedctl compare --pairing paper --json
      embedctl compare --paper
      embedctl compare --layers --plot depth.png
    """
    if (csv or plot) and not layers:
        raise EmbedctlError(
            "compare writes the table of --layers alone", "add --layers; 'embedctl results --plot' draws the ranking"
        )
    from pipelines.paper.beside import beside_paper
    from pipelines.train.compare import left_out, pairs, ranking
    from pipelines.train.origin import simulated_in
    from pipelines.train.settings import what_differs
    from pipelines.train.unpaired import unpaired
    from stores.results import read_results
    from stores.screens import seen

    chosen = config.load()
    options.use_cards(chosen)
    folder = path(chosen.value("runs", runs))
    table = read_results(folder)
    pairing = "paper" if paper else pairing
    if layers:
        _layers(table, pairing, folder, csv, plot, json)
        return
    ranks, tests, outdated = ranking(table, folder), pairs(table, pairing, folder), left_out(table)
    differs, alone = what_differs(table, folder), unpaired(table, pairing)
    tested = seen(folder, table)
    published = beside_paper(table, folder) if paper else []
    if json:
        render.as_json(
            ranking=[asdict(row) for row in ranks],
            pairs=[asdict(row) for row in tests],
            left_out=outdated,
            differs=differs,
            unpaired=[asdict(row) for row in alone],
            tested={dataset: asdict(counts) for dataset, counts in tested.items()},
            simulated=simulated_in(table),
            **({"paper": [asdict(row) for row in published]} if paper else {}),
        )
        return
    for said_of in outdated:
        render.note(said_of)
    for condition, rows in groupby(ranks, key=lambda row: row.condition):
        render.line(said(condition, differs.get(condition["config_key"], "")))
        ranked(list(rows))
        _tested([row for row in tests if row.condition == condition])
        say_alone([row for row in alone if row.condition == condition], pairing, folder)
    if paper:
        beside(published)
    say_seen(tested)
    say_simulated(simulated_in(table))


def _layers(table: "pa.Table", pairing: str, folder: Path, csv: str | None, plot: str | None, json: bool) -> None:
    """Show, and write where asked to, every pair at the depths that validation chose."""
    from embedctl import decisive
    from embedctl.drawing import png
    from pipelines.train.depths import at_best_depths
    from pipelines.train.origin import simulated_in
    from pipelines.train.settings import what_differs
    from stores.screens import seen

    files = [(path(file), suffix) for file, suffix in ((csv, ".csv"), (plot, ".png")) if file]
    for file, suffix in files:
        check_file(file, suffix, folder, beside=folder)
    rows, notes = at_best_depths(table, pairing, folder)
    differs = what_differs(table, folder, decisive.SAID)
    if files and not rows:
        raise EmbedctlError("there is no pair to write", "train an aligned encoder and its base")
    for file, suffix in files:
        put_file(file, decisive.as_csv(rows) if suffix == ".csv" else png(decisive.depth_figure(rows, differs)))
        render.note(f"{file}: written")
    tested = seen(folder, table)
    if json:
        counts = {dataset: asdict(counts) for dataset, counts in tested.items()}
        layered = [asdict(row) for row in rows]
        render.as_json(layers=layered, notes=notes, tested=counts, simulated=simulated_in(table))
        return
    for text in notes:
        render.note(text)
    decisive.tell(rows, differs)
    _explained([row.pair.interval for row in rows])
    say_both_true([row.pair for row in rows])
    say_reliability([row.noise_ceiling for row in rows])
    say_seen(tested)
    say_simulated(simulated_in(table))


def ranked(rows: "Sequence[RankRow]") -> None:
    """Show the embeddings of one condition, best first, beside chance."""
    from pipelines.train.cells import FEW
    from pipelines.train.origin import marked

    few = min(len(row.subjects) for row in rows) < FEW
    heading, intervals = _intervals([row.interval for row in rows])
    figures = ("subjects", "seeds", "top-1", *(["each subject"] if few else []), heading, "top-5", "median rank")
    columns = ("", "embedding", "aligned by", *figures, "chance")
    cells = [
        (
            row.rank,
            marked(row.embedding, row.weights) + _FITTED * row.contaminated,
            row.aligned_by,
            len(row.subjects),
            row.n_seeds if row.n_seeds == row.most_seeds else f"{row.n_seeds} to {row.most_seeds}",
            render.percent(row.top1),
            *([_each(row)] if few else []),
            interval,
            render.percent(row.figures["top5"]),
            f"{row.figures['median_rank']:.1f}",
            render.percent(row.figures["chance"]),
        )
        for row, interval in zip(rows, intervals, strict=True)
    ]
    leader = [place for place, row in enumerate(rows) if not row.contaminated][:1]
    render.table(columns, cells, right=("", *figures, "chance"), best=leader)
    if any(row.contaminated for row in rows):
        render.note(f"{_FITTED.strip()} fitted to THINGS or to brain data: such an encoder leads nothing")
    _explained([row.interval for row in rows])
    say_reliability([row.figures["noise_ceiling"] for row in rows])


def _explained(intervals: "Sequence[Interval]") -> None:
    """Say what the intervals are over: what they speak for, and what not."""
    from pipelines.train.cells import FEW

    meaning = {
        "subjects and images": "are over subjects and images: mean ± t x standard deviation of two-way bootstrap means "
        "(Owen's pigeonhole bootstrap, t of subjects less one), no percentiles",
        "subjects": "are over subjects, mean ± t x bootstrap standard deviation: hits are not at hand, or no test "
        "image is every subject's",
        "images": "are over test images (Agresti-Coull with Student's t, of differences Bonett-Price), for these very "
        f"subjects: fewer than {FEW} say next to nothing about others",
        "nothing": "are missing where there is one number only",
    }
    for over in dict.fromkeys(interval.over for interval in intervals):
        render.note(f"intervals {meaning[over]}")


def say_reliability(ceilings: "Sequence[float | None]") -> None:
    """Say how well the recordings alone tell the test images apart: the column ``noise_ceiling``, which is no bound."""
    known = sorted({ceiling for ceiling in ceilings if ceiling is not None})
    if known:
        span = " to ".join(dict.fromkeys(map(render.percent, (known[0], known[-1]))))
        render.note(
            f"split-half reliability {span}: so often half of an image's repetitions find the other half by plain "
            "correlation; no bound, a decoder may well exceed it (column noise_ceiling)"
        )


def _tested(rows: "Sequence[PairRow]") -> None:
    from pipelines.train.origin import marked

    render.line()
    if not rows:
        render.line("no aligned encoder and its base have both been run: there is no pair to test")
        return
    heading, intervals = _intervals([row.interval for row in rows])
    columns = ("aligned", "base", "match", "subjects", "difference", heading, "p", "lowest p", "p corrected", "verdict")
    cells = [
        (
            marked(row.embedding, row.weights),
            marked(row.base, row.base_weights),
            row.match,
            len(row.subjects),
            f"{_POINTS * row.difference:+.1f} points",
            interval,
            f"{row.p:.3g}",
            f"{row.p_floor:.3g}",
            "" if row.p_holm is None else f"{row.p_holm:.3g}",
            row.verdict or row.note,
        )
        for row, interval in zip(rows, intervals, strict=True)
    ]
    render.table(columns, cells, right=columns[3:9])
    for one, *others in dict.fromkeys(tuple(sorted({row.embedding, *row.shares})) for row in rows if row.shares):
        render.note(f"{', '.join([one, *others])} share a network: what they show is not independent")
    _explained([row.interval for row in rows])
    say_both_true(rows)


def beside(rows: "Sequence[PaperRow]") -> None:
    """Show measured accuracies beside the published ones, where there are any."""
    from pipelines.paper.tables import SOURCE

    render.line()
    measured = [row for row in rows if row.subjects]
    accuracies = ("published", "measured", "base published", "base measured", "chance")
    figures = (*accuracies, "difference published", "measured here")
    columns = ("table", "row", "image encoder", "metric", "subjects", *figures, "recipe")
    cells = [
        (
            row.table,
            row.row,
            row.column,
            row.metric,
            f"{len(row.subjects)} of {row.n_subjects}",
            *map(render.percent, (row.published, row.measured, row.published_base, row.measured_base)),
            render.percent(row.chance, 1 if row.chance >= 0.001 else 3),
            _points(row.published, row.published_base),
            _points(row.measured, row.measured_base),
            row.recipe + _OTHERWISE * bool(row.differs),
        )
        for row in measured
    ]
    if cells:
        render.table(columns, cells, right=("subjects", *figures))
        say_reliability([row.noise_ceiling for row in measured])
    for text in dict.fromkeys(text for row in measured for text in row.differs):
        tables = dict.fromkeys(row.table for row in measured if text in row.differs)
        render.note(f"{_OTHERWISE.strip()} {text} ({', '.join(tables)})")
    render.note(f"{len(measured)} of {len(rows)} published pairs have runs here; published: {SOURCE}")


def _points(aligned: float | None, base: float | None) -> str:
    return "" if aligned is None or base is None else f"{_POINTS * (aligned - base):+.1f} points"


def _each(row: "RankRow") -> str:
    return ", ".join(f"{_POINTS * top1:.1f}" for top1 in row.per_subject.values())


def _intervals(intervals: "Sequence[Interval]") -> tuple[str, list[str]]:
    """Return the heading and the cells of a column of intervals; what they are over stands with one or the other."""
    over = {interval.over for interval in intervals}
    cells = [
        "none"
        if interval.low is None or interval.high is None
        else f"{_POINTS * interval.low:.1f} to {_POINTS * interval.high:.1f}"
        for interval in intervals
    ]
    if len(over) == 1 and over != {"nothing"}:
        return f"95 % over {over.pop()}", cells
    return "95 % interval", [f"{cell} ({one.over})" for cell, one in zip(cells, intervals, strict=True)]
