"""How well each embedding is retrieved: the ranking, aligned against base, subject by subject."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from embedctl.html import Markup, joined
from embedctl.report.gather import Answers
from embedctl.report.parts import Figure, Section, Table
from embedctl.report.svg import (
    ALIGNED,
    BASE,
    GREY,
    LABELS,
    WIDTH,
    Picture,
    Scale,
    axis_left,
    labels,
    legend,
    rows,
    sequential,
    shortened,
    span,
    whole,
)
from pipelines.train.compare import PairRow, RankRow
from pipelines.train.origin import marked
from pipelines.train.statistics import Interval

__all__ = ["accuracy", "best_said", "pairs_said", "ranking_table"]

_ROW, _PALE = 19, "#8a8f98"
_TOO_FEW, _NONE = "not to be judged with so few subjects", "without a verdict"


def accuracy(answers: Answers) -> Section:
    """Return the section of one condition."""
    figures = [_ranking(answers), _heatmap(answers)]
    figures += [_slopes(answers)] if answers.pairs else []
    text = [answers.title + ".", _bounds_said(answers)]
    if not answers.pairs:
        text.append("No aligned encoder and its base have both been run: alignment is not judged here.")
    return Section("How often the right image is found", text, figures)


def best_said(answers: Answers) -> str:
    """Say which embedding leads, with its interval."""
    row = answers.leader
    if row is None:
        return "Every embedding here was fitted to THINGS or to brain data: none leads."
    rivals = [other for other in answers.ranks if other is not row and not other.contaminated]
    close = [other.embedding for other in rivals if _overlap(row.interval, other.interval)]
    interval = _interval_said(row.interval)
    second = f"; the intervals of {len(close)} other{'s' if len(close) > 1 else ''} reach into its own" if close else ""
    n_way = answers.condition["n_way"]
    return (
        f"{_place(row, rivals, 1 / n_way)} on {answers.condition['dataset']}: the right one of {n_way} "
        f"images is found first in {100 * row.top1:.1f} % of cases ({interval}), by chance in {100 / n_way:.1f} %"
        f"{second}."
    )


def _place(row: RankRow, rivals: Sequence[RankRow], chance: float) -> str:
    """Say what the first place is worth: a lead, a shared one, or none where everything reaches down to chance."""
    name, n = marked(row.embedding, row.weights), len(rivals) + 1
    if all(_reaches(one.interval, chance) for one in (row, *rivals)):
        return (
            f"No embedding is shown to be above chance; {name} {f'is the highest of {n}' if rivals else 'stands alone'}"
        )
    equal = [marked(other.embedding, other.weights) for other in rivals if other.top1 == row.top1]
    place = f"shares the lead of {n} embeddings with {', '.join(equal)}" if equal else f"leads {n} embeddings"
    doubt = ", though its own interval reaches chance," if _reaches(row.interval, chance) else ""
    return f"{name} {place if rivals else 'stands alone'}{doubt}"


def pairs_said(answers: Answers) -> str:
    """Say how the aligned encoders fare against their bases, every pair counted once; empty where there is none."""
    words = [_verdict(pair) for pair in answers.pairs]
    if not words:
        return ""
    if set(words) == {_NONE}:
        reasons = dict.fromkeys(pair.note.removesuffix(": no verdict") for pair in answers.pairs)
        return f"No verdict on alignment: {'; '.join(reasons)}."
    if set(words) == {_TOO_FEW}:
        return f"Aligned against base: {'; '.join(dict.fromkeys(pair.verdict for pair in answers.pairs))}."
    order = ("higher", "lower", "no difference shown", _TOO_FEW, _NONE)
    told = ", ".join(f"{words.count(word)} {word}" for word in order if word in words)
    return f"Of {len(words)} aligned against base: {told} (sign-flip over subjects, Holm-corrected)."


def _verdict(pair: PairRow) -> str:
    if not pair.verdict:
        return _NONE
    return _TOO_FEW if "cannot" in pair.verdict else pair.verdict


def ranking_table(ranks: Sequence[RankRow]) -> Table:
    """Return the table that everything else is about."""
    columns = (
        ("rank", "count"), ("embedding", "text"), ("aligned by", "text"), ("weights", "text"), ("subjects", "count"),
        ("seeds", "count"), ("top-1", "percent"), ("95 % from", "percent"), ("to", "percent"), ("over", "text"),
        ("top-5", "percent"), ("median rank", "number"), ("chance", "percent"), ("reliability", "percent"),
        ("fitted to THINGS or brains", "text"),
    )  # fmt: skip
    rows = [
        (
            *(row.rank, row.embedding, row.aligned_by, row.weights, len(row.subjects), row.n_seeds, row.top1),
            *(row.interval.low, row.interval.high, row.interval.over),
            *(row.figures[name] for name in ("top5", "median_rank", "chance", "noise_ceiling")),
            "yes" if row.contaminated else "",
        )
        for row in ranks
    ]
    return Table(columns, rows, next((i for i, row in enumerate(ranks) if not row.contaminated), -1))


def _ranking(answers: Answers) -> Figure:
    ranks = answers.ranks
    bounds = [value for row in ranks for value in (row.top1, row.interval.high or 0, *row.per_subject.values())]
    chance, ceiling = 1 / answers.condition["n_way"], _ceiling(answers)
    names = [marked(row.embedding, row.weights) for row in ranks]
    best = next((place for place, row in enumerate(ranks) if row is answers.leader), -1)
    ends = span([*bounds, chance, ceiling or 0])
    picture, scale, places = rows(names, ends, "top-1 accuracy, %", 100, strong=best)
    bottom = places[-1] + 10
    picture.line(scale(chance), 4, scale(chance), bottom, "#000", 1.5, dash="2 3", title=f"chance {100 * chance:.1f} %")
    if ceiling is not None:
        told = f"split-half reliability {100 * ceiling:.1f} %"
        picture.line(scale(ceiling), 4, scale(ceiling), bottom, GREY, 1.5, dash="7 4", title=told)
    for row, name, y in zip(ranks, names, places, strict=True):
        colour = ALIGNED if row.aligned_by else BASE
        if row.interval.low is not None and row.interval.high is not None:
            told = f"{name}: {_interval_said(row.interval)}"
            picture.line(scale(row.interval.low), y, scale(row.interval.high), y, colour, 2, title=told)
        for subject, top1 in row.per_subject.items():
            picture.dot(scale(top1), y + 5, _PALE, f"{name}, subject {subject}: {100 * top1:.1f} %", 2)
        told = f"{name}: {100 * row.top1:.1f} %"
        picture.dot(scale(row.top1), y, colour, told, 4, hollow=row.contaminated)
    over = ", or ".join(dict.fromkeys(row.interval.over for row in ranks))
    note = f"Line: 95 % interval over {over}. Small dots below: subjects. Dotted: chance."
    note += " Dashed: split-half reliability of the recordings, no bound." if ceiling is not None else ""
    note += " Rings: fitted to THINGS or to brain data." if any(row.contaminated for row in ranks) else ""
    shown = [("human-aligned", ALIGNED)] if any(row.aligned_by for row in ranks) else []
    keys = legend([("not aligned", BASE), *shown]) if shown else Markup("")
    title = "Which embeddings are retrieved best, with intervals"
    return Figure(title, ranking_table(ranks), joined([picture.svg(title), keys]), note)


def _heatmap(answers: Answers) -> Figure:
    subjects = sorted({subject for row in answers.ranks for subject in row.subjects})
    values = [top1 for row in answers.ranks for top1 in row.per_subject.values()]
    high, width = max(values) or 1.0, min(64.0, (WIDTH - LABELS - 8) / len(subjects))
    picture = Picture(WIDTH, 22 + _ROW * len(answers.ranks))
    for column, subject in enumerate(subjects):
        picture.text(LABELS + width * (column + 0.5), 13, subject, "middle", "small", f"subject {subject}")
    names = [marked(row.embedding, row.weights) for row in answers.ranks]
    for number, (row, name, short) in enumerate(zip(answers.ranks, names, labels(names), strict=True)):
        y = 18 + _ROW * number
        picture.text(LABELS - 8, y + 13, short, "end", "", name)
        for column, subject in enumerate(subjects):
            if (top1 := row.per_subject.get(subject)) is not None:
                colour, ink = sequential(top1 / high)
                x, told = LABELS + width * column, f"{name}, subject {subject}: {100 * top1:.1f} %"
                picture.box(x, y, width - 1, _ROW - 1, colour, told)
                if width >= 20:
                    picture.text(x + width / 2, y + 13, whole(100 * top1), "middle", "small", told, ink)
    columns = (("embedding", "text"), *((f"subject {subject}", "percent") for subject in subjects))
    cells = zip(names, answers.ranks, strict=True)
    rows = [(name, *(row.per_subject.get(subject) for subject in subjects)) for name, row in cells]
    title = "Top-1 of every embedding and subject, %"
    note = "A column per subject; seeds are averaged. The brighter, the more often found."
    return Figure(title, Table(columns, rows), picture.svg(title), note)


def _slopes(answers: Answers) -> Figure:
    sides = [_sides(answers, pair) for pair in answers.pairs]
    low, high = span([top1 for both in sides for side in both for top1 in side.values()])
    called = [replace(p, embedding=answers.called(p.embedding), base=answers.called(p.base)) for p in answers.pairs]
    pictures = [_slope(pair, *both, low, high) for pair, both in zip(called, sides, strict=True)]
    columns = (
        ("aligned", "text"), ("base", "text"), ("match", "text"), ("subjects", "count"), ("difference", "points"),
        ("95 % from", "points"), ("to", "points"), ("over", "text"), ("p", "number"), ("p corrected", "number"),
        ("verdict", "text"),
    )  # fmt: skip
    rows = [
        (
            *(p.embedding, p.base, p.match, len(p.subjects), p.difference, p.interval.low, p.interval.high),
            *(p.interval.over, p.p, p.p_holm, p.verdict or p.note),
        )
        for p in called
    ]
    note = "A line per subject, from the base to the aligned encoder, top-1 in %; the thick line is the mean."
    title = "Each aligned encoder beside its base, subject by subject"
    grid = Markup(f'<div class="multiples">{joined(pictures)}</div>')
    return Figure(title, Table(columns, rows), grid, note)


def _sides(answers: Answers, pair: PairRow) -> tuple[dict[int, float], dict[int, float]]:
    """Return top-1 of base and aligned by subject, over the seeds that both have, as the difference is."""
    base, aligned = (answers.cells[name].runs for name in (pair.base, pair.embedding))
    shared = {subject: base[subject].keys() & aligned[subject].keys() for subject in pair.subjects}
    theirs, ours = (
        {subject: fmean(side[subject][seed]["top1"] for seed in seeds) for subject, seeds in shared.items()}
        for side in (base, aligned)
    )
    return theirs, ours


def _slope(pair: PairRow, base: dict[int, float], aligned: dict[int, float], low: float, high: float) -> Markup:
    picture, scale = Picture(170, 172), Scale(low, high, 142, 34)
    axis_left(picture, scale, 34, 160, 100)
    picture.text(4, 11, shortened(pair.embedding, 160, size=12.5), "start", "strong", pair.embedding)
    told = f"{100 * pair.difference:+.1f} points" + (f", {pair.verdict}" if len(pair.verdict) < 22 else "")
    picture.text(4, 25, told.removesuffix(", "), "start", "small", pair.verdict or pair.note)
    for subject in pair.subjects:
        said = f"subject {subject}: {100 * base[subject]:.1f} % to {100 * aligned[subject]:.1f} %"
        picture.line(58, scale(base[subject]), 138, scale(aligned[subject]), "#aab0ba", 1.2, title=said)
        picture.dot(58, scale(base[subject]), BASE, said, 2.5)
        picture.dot(138, scale(aligned[subject]), ALIGNED, said, 2.5)
    means = [fmean(side.values()) for side in (base, aligned)]
    picture.line(58, scale(means[0]), 138, scale(means[1]), "#20242a", 3, title="mean over subjects")
    picture.text(58, 158, "base", "middle", "small", pair.base)
    picture.text(138, 158, "aligned", "middle", "small", pair.embedding)
    return picture.svg(f"{pair.embedding} against {pair.base}: {100 * pair.difference:+.1f} points")


def _bounds_said(answers: Answers) -> str:
    told, ceiling = f"Chance is {100 / answers.condition['n_way']:.1f} %.", _ceiling(answers)
    if ceiling is not None:
        told += (
            f" Split-half reliability is {100 * ceiling:.1f} %: so often half of an image's repetitions find the other "
            "half by plain correlation. It says how noisy the recordings are; a decoder may well exceed it."
        )
    return told


def _ceiling(answers: Answers) -> float | None:
    known = [ceiling for row in answers.ranks if (ceiling := row.figures["noise_ceiling"]) is not None]
    return sum(known) / len(known) if known else None


def _interval_said(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return "no interval from one number"
    return f"95 % interval over {interval.over} {100 * interval.low:.1f} to {100 * interval.high:.1f}"


def _reaches(interval: Interval, chance: float) -> bool:
    return interval.low is not None and interval.low <= chance


def _overlap(one: Interval, other: Interval) -> bool:
    return one.low is not None and other.high is not None and other.high >= one.low
