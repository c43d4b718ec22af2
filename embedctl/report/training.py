"""How training went, what it cost, and how often the test set was looked at."""

from statistics import fmean

from embedctl.html import joined
from embedctl.report.gather import Answers, Material
from embedctl.report.parts import Figure, Section, Table
from embedctl.report.svg import (
    GREY,
    LABELS,
    WIDTH,
    Picture,
    Scale,
    axis_left,
    chance_line,
    legend,
    nice,
    rows,
    span,
)
from pipelines.train.cells import Runs
from stores.names import counted
from stores.screens import seen

__all__ = ["looks", "training"]


def training(answers: Answers) -> Section:
    """Return the section of one condition."""
    return Section("Learning curves and cost", (), [*_curves(answers), _cost(answers)])


def looks(material: Material) -> Section:
    """Return how many configurations have seen each test set: the best of many is flattered by the choice."""
    results, found_in = material.results.to_pylist(), []
    for dataset, found in seen(material.request.runs, material.results).items():
        mine = [row for row in results if row["dataset"] == dataset]
        subjects = len({row["subject"] for row in mine})
        found_in.append((dataset, found.trained + found.screened, found.trained, found.screened, len(mine), subjects))
    columns = (
        ("dataset", "text"), ("configurations", "count"), ("trained", "count"), ("screened", "count"),
        ("runs", "count"), ("subjects", "count"),
    )  # fmt: skip
    text = [
        "Every run reads the test set once: what counts is the checkpoint that validation chose; the accuracy of the "
        "last step is kept beside it and chooses nothing. But each configuration that was tried is one more chance to "
        "be lucky: the best of many looks better than it is. Runs that were removed are not counted."
    ]
    title = "Configurations that have seen the test set: an embedding with all settings that subjects and seeds share"
    return Section("How often the test set was seen", text, [Figure(title, Table(columns, found_in))])


def _curves(answers: Answers) -> list[Figure]:
    """Return validation accuracy after each pass, over the runs that got so far, averaged over subjects and seeds."""
    curves: dict[str, list[float]] = {}
    chances: dict[str, float] = {}
    told: list[tuple[object, ...]] = []
    for embedding, cell in answers.cells.items():
        name = answers.called(embedding)
        ids = [row["run_id"] for seeds in cell.runs.values() for row in seeds.values()]
        kept = [answers.hits[run_id].curve for run_id in ids if run_id in answers.hits]
        if not kept or not all(curve and {"val_top1", "loss"} <= curve[0].keys() for curve in kept):
            continue
        found = [[one["val_top1"] for one in curve] for curve in kept]
        curves[name] = [fmean(column[n] for column in found if n < len(column)) for n in range(max(map(len, found)))]
        lengths = sorted({len(course) for course in found})
        passes = f"{lengths[0]:,}" if len(lengths) == 1 else f"{lengths[0]:,} to {lengths[-1]:,}"
        losses = [fmean(curve[end]["loss"] for curve in kept) for end in (0, -1)]
        best = fmean(max(course) for course in found)
        if all("val_chance" in one for curve in kept for one in curve):
            chances[name] = fmean(one["val_chance"] for curve in kept for one in curve)
        after = fmean(course.index(max(course)) + 1 for course in found)
        told.append((name, len(kept), passes, *losses, best, chances.get(name), after))
    if not curves:
        return []
    longest = max(map(len, curves.values()))
    picture = Picture(WIDTH, 226)
    across = Scale(1, max(longest, 2), 40, WIDTH - 16)
    up = Scale(*span([*chances.values(), *(value for course in curves.values() for value in course)]), 186, 12)
    axis_left(picture, up, 40, WIDTH - 16, 100)
    for number in (tick for tick in nice(1, longest) if tick == int(tick)):
        picture.text(across(number), 200, f"{number:g}", "middle", "small")
    picture.text(WIDTH - 16, 214, "passes over the training images", "end", "small")
    for chance in sorted({round(value, 6) for value in chances.values()}):
        chance_line(picture, up, chance)
    colours = answers.colours(list(curves))
    for name in reversed(curves):
        colour = colours.get(name, "#c3c8d0")
        picture.curve([(across(n), up(v)) for n, v in enumerate(curves[name], start=1)], colour, 1.8, name)
    columns = (
        ("embedding", "text"), ("runs", "count"), ("passes", "text"), ("first loss", "number"), ("last loss", "number"),
        ("best validation top-1", "percent"), ("chance", "percent"), ("after pass", "number"),
    )  # fmt: skip
    title = "Validation top-1 while training, %"
    note = (
        "On concepts held out of training, mean over the runs that got so far. A curve that still rises asks for more "
        "passes. In the table, best and last are each run's own, averaged."
    )
    note += " Dotted: chance among the images of validation." if chances else ""
    keys = legend(list(colours.items()), len(curves) - len(colours))
    return [Figure(title, Table(columns, told), joined([picture.svg(title), keys]), note)]


def _cost(answers: Answers) -> Figure:
    cost = [(answers.called(name), *_seconds(cell.runs)) for name, cell in answers.cells.items()]
    most = max(mean for _, _, mean, _ in cost) or 1.0
    picture, scale, places = rows([name for name, *_ in cost], (0, 1.05 * most), "seconds per run")
    for (name, n_runs, mean, _), y in zip(cost, places, strict=True):
        picture.box(LABELS, y - 5, scale(mean) - LABELS, 10, GREY, f"{name}: {mean:.1f} s, {counted(n_runs, 'run')}")
    columns = (("embedding", "text"), ("runs", "count"), ("mean", "seconds"), ("all", "seconds"))
    n = sum(row[1] for row in cost)
    title = f"What training cost: {_hours(sum(row[3] for row in cost))} for {n:,} run{'s' if n != 1 else ''}"
    return Figure(title, Table(columns, cost), picture.svg(title))


def _seconds(runs: Runs) -> tuple[int, float, float]:
    """Return how many runs there are, and what one took and all took."""
    seconds = [row["seconds"] or 0.0 for seeds in runs.values() for row in seeds.values()]
    return len(seconds), sum(seconds) / len(seconds), sum(seconds)


def _hours(seconds: float) -> str:
    """Return a length of time as people say it.

    Examples
    --------
    >>> _hours(40), _hours(600), _hours(7200)
    ('40 s', '10 min', '2.0 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
