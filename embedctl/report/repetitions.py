"""How accuracy grows with the repetitions that are averaged: from single trials to all there are."""

import math
from pathlib import Path
from statistics import fmean

from embedctl.html import joined
from embedctl.report.gather import Answers
from embedctl.report.parts import Figure, Section, Table
from embedctl.report.svg import WIDTH, Picture, Scale, axis_left, chance_line, legend, span
from pipelines.train.cells import Cell
from stores.errors import DamagedStore
from stores.names import counted
from stores.results import read_summary
from stores.sealed import TRAIN_AGAIN

__all__ = ["repetitions"]


def repetitions(answers: Answers, runs: Path) -> Section:
    """Return the section of one condition; without figures where the recordings had no repetitions to leave out."""
    curves = {
        answers.called(name): curve for name, cell in answers.cells.items() if len(curve := _curve(cell, runs)) > 1
    }
    if not curves:
        return Section("Repetitions", ["The runs were tested on one repetition, or on means alone."])
    numbers = sorted({n for curve in curves.values() for n in curve})
    picture = Picture(WIDTH, 220)
    across = Scale(math.log2(numbers[0]), math.log2(numbers[-1]), 50, WIDTH - 16)
    chance = 1 / answers.condition["n_way"]
    up = Scale(*span([chance, *(top1 for curve in curves.values() for top1 in curve.values())]), 186, 12)
    axis_left(picture, up, 40, WIDTH - 16, 100)
    chance_line(picture, up, chance)
    for n in numbers:
        picture.text(across(math.log2(n)), 200, f"{n}", "middle", "small")
    picture.text(WIDTH - 16, 214, "repetitions averaged in the test", "end", "small")
    colours = answers.colours(list(curves))
    for name in reversed(curves):
        colour = colours.get(name, "#c3c8d0")
        points = {n: (across(math.log2(n)), up(top1)) for n, top1 in curves[name].items()}
        picture.curve(list(points.values()), colour, 1.8, name)
        for n, (x, y) in points.items():
            picture.dot(x, y, colour, f"{name}, {counted(n, 'repetition')}: {100 * curves[name][n]:.1f} %", 2.5)
    columns = (("embedding", "text"), *((f"{n}", "percent") for n in numbers))
    rows = [(name, *(curve.get(n) for n in numbers)) for name, curve in curves.items()]
    title = "Top-1 by the repetitions averaged in the test, %"
    note = (
        "Means over subjects and seeds. The larger numbers contain the smaller; the last is the score shown elsewhere. "
        "Dotted: chance."
    )
    drawn = joined([picture.svg(title), legend(list(colours.items()), len(curves) - len(colours))])
    return Section("Repetitions", (), [Figure(title, Table(columns, rows), drawn, note)])


def _curve(cell: Cell, runs: Path) -> dict[int, float]:
    """Return top-1 by number of repetitions, seeds averaged first; only numbers that every run has."""
    per_subject = []
    for seeds in cell.runs.values():
        kept = [_of_run(runs, row["run_id"]) for row in seeds.values()]
        shared = set.intersection(*map(set, kept))
        per_subject.append({n: fmean(one[n] for one in kept) for n in shared})
    shared = set.intersection(*map(set, per_subject))
    return {n: fmean(one[n] for one in per_subject) for n in sorted(shared)}


def _of_run(runs: Path, run_id: str) -> dict[int, float]:
    summary = read_summary(runs, run_id)
    try:
        found = {int(n): float(top1) for n, top1 in (summary.get("top1_by_repetitions") or {}).items()}
        found |= {summary["test_repetitions"]: summary["top1"]} if found else {}
        is_sound = all(n > 0 and 0 <= top1 <= 1 for n, top1 in found.items())
    except (AttributeError, TypeError, ValueError, OverflowError):
        is_sound = False
    if not is_sound:
        raise DamagedStore(f"run '{run_id}' says nonsense of its 'top1_by_repetitions'", TRAIN_AGAIN)
    return found
