"""When, at which frequencies and where the evidence lies: what the last ``embedctl interpret`` found."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from embedctl.captions import ms, windows
from embedctl.drawing import HEAD, flat
from embedctl.html import Markup, joined
from embedctl.report.gather import Answers
from embedctl.report.parts import Figure, Section, Table
from embedctl.report.svg import (
    GREY,
    INK,
    LABELS,
    WIDTH,
    Picture,
    Scale,
    axis_left,
    diverging,
    labels,
    legend,
    nice,
    shortened,
    span,
    whole,
)
from pipelines.interpret.clusters import LEVEL
from pipelines.interpret.kept import Found, read_found
from pipelines.interpret.methods import METHODS
from pipelines.interpret.notes import notes_of
from pipelines.interpret.over_subjects import over_sensors

__all__ = ["evidence"]

_ROW, _BAR, _LINE_WIDTH = 19, 5, 1.8
_MOST_MAPS = 12
_GONE, _FAINT = "#c3c8d0", 0.25  # what is not shown to be there
_PALE = "Grey names, pale: nothing is shown to be there."
_KINDS = {"time": "without 50 ms", "sensors": "without sensors", "band": "without a band"}
_EVIDENCE = (
    "The evidence is the log odds with which a trained run points at the right image, beyond those of the average "
    "recording. Shares of it add up to 100 % in absolute value; a negative share speaks against the right image. "
)
_MEANING = {
    "integrated-gradients": _EVIDENCE + "By integrated gradients: contributions add up to the evidence.",
    "gradient-x-input": _EVIDENCE + "By gradient x input: contributions need not add up to the evidence.",
    "paper-gradcam": "The maps of Rajabi et al. (2025), their Grad-CAM, averaged over images; read first what is wrong "
    "with them.",
}


def evidence(answers: Answers, runs: Path) -> Section:
    """Return the section of one condition; it names the command where nothing was interpreted."""
    title = "When, at which frequencies and where"
    for method in METHODS:
        found, pairs = read_found(runs, method)
        of_run = _of_run(answers)
        profiles = _of_these(of_run, found)
        if profiles:
            text = [_MEANING[method], *_left_out(answers, of_run, profiles, found)]
            notes = notes_of([profile for mine in profiles.values() for profile in mine])
            text += [
                f"{note}." if note.startswith(tuple(profiles)) else f"{note[:1].upper()}{note[1:]}." for note in notes
            ]
            mine = {answers.called(name): same for name, same in profiles.items()}
            return Section(title, text, _figures(mine, _pairs(answers, of_run, pairs), answers.colours(list(mine))))
    return Section(title, ["None of these runs has been interpreted: embedctl interpret does it."])


def _of_run(answers: Answers) -> dict[str, str]:
    """Return the embedding of every run: what it is called may have changed since it was interpreted."""
    return {
        row["run_id"]: name
        for name, cell in answers.cells.items()
        for seeds in cell.runs.values()
        for row in seeds.values()
    }


def _of_these(of_run: Mapping[str, str], found: Sequence[Found]) -> dict[str, list[Found]]:
    """Return the profiles of these very runs, by embedding in the order of the ranking: of a subject the fullest."""
    mine: dict[str, dict[int, Found]] = {name: {} for name in of_run.values()}
    for profile in found:
        names = {of_run.get(run_id) for run_id in profile["run_ids"]}
        if len(names) == 1 and (name := names.pop()):
            known = mine[name].get(profile["subject"])
            if known is None or len(known["run_ids"]) < len(profile["run_ids"]):
                mine[name][profile["subject"]] = {**profile, "embedding": name}
    return {name: list(by_subject.values()) for name, by_subject in mine.items() if by_subject}


def _pairs(answers: Answers, of_run: Mapping[str, str], found: Sequence[Found]) -> list[Found]:
    """Return the pairs of these very runs, both sides called as they are elsewhere."""
    mine: dict[tuple[str, ...], Found] = {}
    for pair in found:
        names = {of_run.get(run_id) for run_id in pair["run_ids"]}
        if len(names) == 2 and None not in names:
            sides = [_side(pair[side], [name for name in names if name]) for side in ("embedding", "base")]
            mine.setdefault(tuple(sides), {**pair, "embedding": sides[0], "base": sides[1]})
    return [{**p, **{side: answers.called(p[side]) for side in ("embedding", "base")}} for p in mine.values()]


def _side(label: str, names: Sequence[str]) -> str:
    return next((name for name in names if name.partition("#")[0] == label.partition("#")[0]), label)


def _left_out(
    answers: Answers, of_run: Mapping[str, str], profiles: Mapping[str, Sequence[Found]], found: Sequence[Found]
) -> list[str]:
    """Say what is not drawn: embeddings that were not interpreted, and profiles of runs that are here in part alone."""
    missing = [answers.called(name) for name in answers.cells if name not in profiles]
    told = [f"Not interpreted, so left out here: {', '.join(missing)}: embedctl interpret does it."] if missing else []
    shown = {(name, p["subject"]) for name, mine in profiles.items() for p in mine}
    gone = [p for p in found if 0 < len(of_run.keys() & p["run_ids"]) < len(p["run_ids"])]
    sides = {(of_run[run_id], p["subject"]) for p in gone for run_id in p["run_ids"] if run_id in of_run} - shown
    names = [f"{answers.called(name)}, subject {subject}" for name, subject in sorted(sides)]
    if names:
        told.append(
            f"Left out, some of their runs being gone: {'; '.join(names)}: embedctl interpret reads them again."
        )
    return told


def _figures(profiles: dict[str, list[Found]], pairs: Sequence[Found], colours: Mapping[str, str]) -> list[Figure]:
    first = next(iter(profiles.values()))[0]
    timed = len(first["times"]) > 1
    bands = "At which frequencies the evidence lies, %"
    figures = [_time(profiles, colours), _shares(bands, profiles, "bands")] if timed else []
    if first["positions"] and all(first["positions"]) and len(first["sensors"]) > 3:
        figures.append(_topographies(profiles))
    if first["groups"]:
        figures.append(_shares("Where the evidence lies: sensor groups or regions, %", profiles, "groups"))
    figures += [_lost(profiles)] if any(p["occlusion"] for mine in profiles.values() for p in mine) else []
    return figures + [_pair(pair) for pair in pairs]


def _time(profiles: dict[str, list[Found]], colours: Mapping[str, str]) -> Figure:
    times = 1000 * np.array(next(iter(profiles.values()))[0]["times"])
    courses = {name: np.mean([p["time"] for p in mine], axis=0) for name, mine in profiles.items()}
    inks = {name: colour if profiles[name][0]["is_found"] else _GONE for name, colour in colours.items()}
    picture, across, up = _over_time(times, [float(v) for course in courses.values() for v in course], len(inks))
    for number, (name, ink) in enumerate(inks.items()):
        windows = [window for p in profiles[name] for window in p["windows"]]
        _bars(picture, across, windows, number, ink, name)
    for name in reversed(courses):
        points = [(across(t), up(v)) for t, v in zip(times.tolist(), courses[name].tolist(), strict=True)]
        picture.curve(points, inks.get(name, _GONE), _LINE_WIDTH, name)
    rows = [
        (name, p["subject"], p["evidence"], _spans(p["windows"]), *_peaks(p))
        for name, mine in profiles.items()
        for p in mine
    ]
    columns = (
        ("embedding", "text"), ("subject", "count"), ("evidence, nats", "number"), ("above zero", "text"),
        ("peak", "text"), ("half by", "text"),
    )  # fmt: skip
    title = "When the evidence for the right image comes, % of it per sample"
    drawn = joined([picture.svg(title), legend(list(inks.items()), len(courses) - len(inks))])
    note = (
        "Mean over subjects; bars: above zero in a subject, by cluster permutation. Pale: nothing is shown to be there."
    )
    return Figure(title, Table(columns, rows), drawn, note)


def _peaks(profile: Found) -> tuple[str, str]:
    """Return peak and half, as the terminal does: of nothing none; the paper's maps have no test over time."""
    is_there = profile["is_found"] and (profile["windows"] or profile["corrected_peak"] is not None)
    return (ms(profile["peak"]), ms(profile["half"])) if is_there else ("", "")


def _shares(title: str, profiles: dict[str, list[Found]], what: str) -> Figure:
    parts = list(dict.fromkeys(part for mine in profiles.values() for p in mine for part in p[what]))
    means = {
        n: [float(np.mean([p[what].get(part, 0.0) for p in mine])) for part in parts] for n, mine in profiles.items()
    }
    width, is_found = (WIDTH - LABELS - 6) / len(parts), {name: mine[0]["is_found"] for name, mine in profiles.items()}
    most = max((abs(v) for n, row in means.items() for v in row if is_found[n] or not any(is_found.values()))) or 1.0
    picture = Picture(WIDTH, 22 + _ROW * len(means))
    for column, part in enumerate(parts):
        told = shortened(part, width + 2, size=10)
        picture.text(LABELS + width * (column + 0.5), 13, told, "middle", "small", part)
    for number, ((name, row), short) in enumerate(zip(means.items(), labels(list(means)), strict=True)):
        y = 18 + _ROW * number
        picture.text(LABELS - 8, y + 13, short, "end", "", name, "" if is_found[name] else GREY)
        for column, (part, value) in enumerate(zip(parts, row, strict=True)):
            told, x = f"{name}, {part}: {100 * value:.1f} %", LABELS + width * column
            colour, ink = diverging(value / most if is_found[name] else _FAINT * max(-1.0, min(1.0, value / most)))
            picture.box(x, y, width - 1, _ROW - 1, colour, told)
            if width >= 24:
                picture.text(x + width / 2, y + 13, whole(100 * value), "middle", "small", told, ink)
    columns = (("embedding", "text"), ("subject", "count"), *((part, "percent") for part in parts))
    rows = [(n, p["subject"], *(p[what].get(part) for part in parts)) for n, mine in profiles.items() for p in mine]
    note = f"Purple speaks for the right image, brown against it. {_PALE}"
    return Figure(title, Table(columns, rows), picture.svg(title), note)


def _topographies(profiles: dict[str, list[Found]]) -> Figure:
    drawn, rows = [], []
    shown = list(profiles.items())[:_MOST_MAPS]
    names, known, shares = over_sensors({n: [(p["sensors"], p["positions"]) for p in mine] for n, mine in shown})
    places = flat(np.array(known, dtype=float))
    is_found = {name: mine[0]["is_found"] for name, mine in shown}
    of_found = [values for name, values in shares.items() if is_found[name]] or list(shares.values())
    most = max(float(np.abs(values).max()) for values in of_found) or 1.0
    reach = max(0.12, 1.04 * float(np.linalg.norm(places, axis=1).max()))  # m; helmets go on below the equator
    across, up = Scale(-reach, reach, 8, 152), Scale(-reach, reach, 166, 22)
    radius = max(2.0, min(6.0, 40 / len(names) ** 0.5))
    for (name, values), short in zip(shares.items(), labels(list(shares), 156), strict=True):
        picture = Picture(160, 174)
        picture.text(80, 12, short, "middle", "", name, "" if is_found[name] else GREY)
        picture.dot(across(0), up(0), _GONE, r=across(HEAD) - across(0), hollow=True)
        nose = [(across(x), up(y)) for x, y in ((-0.012, 0.99 * HEAD), (0, 1.13 * HEAD), (0.012, 0.99 * HEAD))]
        picture.curve(nose, _GONE, 1.5)
        for sensor, (x, y), value in zip(names, places.tolist(), values.tolist(), strict=True):
            strength = value / most if is_found[name] else _FAINT * float(np.clip(value / most, -1, 1))
            picture.dot(across(x), up(y), diverging(strength)[0], f"{sensor}: {100 * value:.1f} %", radius)
        drawn.append(picture.svg(f"Sensors of {name}"))
        rows.append((name, *values.tolist()))
    columns = (("embedding", "text"), *((sensor, "percent") for sensor in names))
    note = f"Seen from above, nose up. Purple speaks for the right image, brown against it, up to {100 * most:.1f} %. "
    note += _PALE
    title = "Over which sensors the evidence lies"
    return Figure(title, Table(columns, rows), Markup(f'<div class="multiples">{joined(drawn)}</div>'), note)


def _lost(profiles: dict[str, list[Found]]) -> Figure:
    """Return, as a table, what is missed most, of each kind, when it is taken away before whitening."""
    shown = {name: mine for name, mine in profiles.items() if mine[0]["is_found"]} or profiles
    lost = {name: _mean_lost(mine) for name, mine in shown.items()}
    kinds = [kind for kind in _KINDS if any(one["kind"] == kind for p in shown.values() for one in p[0]["occlusion"])]
    rows = []
    for name, mine in shown.items():
        row = [name, len(mine), float(np.mean([p["evidence"] for p in mine]))]
        for kind in kinds:
            of_kind = {part: value for (its, part), value in lost[name].items() if its == kind}
            part = max(of_kind, key=of_kind.__getitem__, default="")
            row += [part, of_kind.get(part)]
        rows.append(row)
    columns = [("embedding", "text"), ("subjects", "count"), ("evidence, nats", "number")]
    columns += [column for kind in kinds for column in ((_KINDS[kind], "text"), ("lost", "number"))]
    note = (
        "Taken away at the sensors, before whitening: what is lost is what runs use, to cancel noise too; parts need "
        "not add up. The part without which most is lost, and how much, in nats; mean over subjects."
    )
    if nothing := [name for name in profiles if name not in shown]:
        note += f" Left out, since nothing is shown to be there: {', '.join(nothing)}."
    return Figure("What is lost when a part of the recording is taken away", Table(columns, rows), note=note)


def _mean_lost(mine: Sequence[Found]) -> dict[tuple[str, str], float]:
    """Return what is lost without each part, mean over the subjects who have it."""
    lost: dict[tuple[str, str], list[float]] = {}
    for part in (part for profile in mine for part in profile["occlusion"]):
        lost.setdefault((part["kind"], part["part"]), []).append(part["lost"])
    return {part: float(np.mean(values)) for part, values in lost.items()}


def _pair(pair: Found) -> Figure:
    """Return what differs between two sides: courses over time where there is time, and a table with every sign."""
    said = " ".join(f"{text}." for text in filter(None, (pair["note"], *pair["notes"])))
    against = f"{pair['embedding']} minus {pair['base']}"
    if len(pair["times"]) < 2:
        return Figure(f"{against}: which sensor groups or regions differ", _pair_table(pair, timed=False), note=said)
    title = f"{against}: when the evidence comes, % of it per sample"
    note = f"Bars: clusters where they differ, whose edges are not tested. {said}"
    return Figure(title, _pair_table(pair, timed=True), _pair_courses(pair, title), note)


def _pair_table(pair: Found, *, timed: bool) -> Table:
    columns = [("over", "text"), ("images", "text"), ("n", "count")]
    columns += [("aligned has more", "text"), ("aligned has less", "text"), ("bands (Holm)", "text")] if timed else []
    grouped = any(test["groups"] for test in pair["tests"])
    columns += [("sensor groups or regions (Holm)", "text")] if grouped else []
    rows = []
    for test in pair["tests"]:
        row = [test["over"], "both found" if test["matched"] else "all", test["n"]]
        row += [_spans([w for w in test["windows"] if w["sign"] == sign]) for sign in (1, -1)] if timed else []
        row += [_parts(test["bands"])] if timed else []
        rows.append([*row, _parts(test["groups"])] if grouped else row)
    return Table(columns, rows)


def _pair_courses(pair: Found, title: str) -> Markup:
    times = 1000 * np.array(pair["times"])
    sides = {
        label: [test for test in pair["tests"] if test["matched"] == matched]
        for label, matched in (("all images", False), ("images that both found", True))
    }
    courses = {label: np.mean([t["time"] for t in tests], axis=0) for label, tests in sides.items() if tests}
    picture, across, up = _over_time(times, [float(v) for course in courses.values() for v in course], len(courses))
    keys = list(zip(courses, (INK, GREY), strict=False))  # no embedding's colour
    for number, (label, colour) in enumerate(keys):
        _bars(picture, across, [w for test in sides[label] for w in test["windows"]], number, colour, label)
        points = [(across(t), up(v)) for t, v in zip(times.tolist(), courses[label].tolist(), strict=True)]
        picture.curve(points, colour, _LINE_WIDTH, label)
    return joined([picture.svg(title), legend(keys)])


def _over_time(times: np.ndarray, values: Sequence[float], n_bars: int) -> tuple[Picture, Scale, Scale]:
    """Return an empty picture of courses over ms, with room for bars below, and its scales."""
    below = 186 + _BAR * n_bars
    picture, across = Picture(WIDTH, below + 36), Scale(float(times[0]), float(times[-1]), 40, WIDTH - 16)
    up = Scale(*span([100 * v for v in values]), 186, 12)
    axis_left(picture, up, 40, WIDTH - 16)
    for number in nice(across.low, across.high):
        picture.text(across(number), below + 14, f"{number:g}", "middle", "small")
    picture.line(40, up(0), WIDTH - 16, up(0), "#8a8f98")
    picture.text(WIDTH - 16, below + 28, "ms from image onset", "end", "small")
    return picture, across, Scale(up.low / 100, up.high / 100, up.start, up.end)


def _bars(
    picture: Picture, across: Scale, windows: Sequence[Mapping[str, Any]], number: int, colour: str, name: str
) -> None:
    """Draw windows of time as bars below the courses, a row for each of them."""
    y = 186 + _BAR * (number + 0.7)
    for window in windows:
        start, end = across(1000 * window["first"]), across(1000 * window["last"])
        picture.line(start, y, max(end, start + 1), y, colour, 3, title=f"{name}: {_spans([window])}")


def _parts(found: Mapping[str, Any]) -> str:
    told = (f"{name} {100 * p['difference']:+.1f} points" for name, p in found.items() if p["p_holm"] <= LEVEL)
    return ", ".join(told) or "no difference shown"


def _spans(found: Sequence[Found]) -> str:
    return windows((one["first"], one["last"]) for one in found)
