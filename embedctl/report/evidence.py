"""When, at which frequencies and where the evidence lies: what the last ``embedctl interpret`` found."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from embedctl.commands.interpret import found_at
from embedctl.figures import flat
from embedctl.html import Markup, joined
from embedctl.report.gather import Answers
from embedctl.report.parts import Figure, Section, Table
from embedctl.report.svg import (
    ALIGNED,
    COLOURS,
    INK,
    LABELS,
    WIDTH,
    Picture,
    Scale,
    axis_left,
    diverging,
    legend,
    nice,
    shortened,
    span,
    whole,
)
from pipelines.interpret.notes import notes_of
from pipelines.interpret.over_subjects import over_sensors
from stores.errors import DamagedStore

__all__ = ["evidence"]

METHODS = ("integrated-gradients", "gradient-x-input", "paper-gradcam")
_ROW, _BAR, _LINE_WIDTH = 19, 5, 1.8
_MOST_CURVES, _MOST_MAPS = 6, 12
_GONE = "#c3c8d0"

Profile = Mapping[str, Any]
_OF_A_PROFILE: Mapping[type, Sequence[str]] = {
    str: ("embedding",), bool: ("is_found",), dict: ("bands", "sensors", "groups"),
    list: ("times", "time", "positions", "windows", "run_ids", "notes", "untrained_windows", "untrained_bands",
           "untrained_groups"),
    object: ("subject", "evidence", "p", "peak", "half", "reliability", "random_reliability", "similarity"),
}  # fmt: skip
_OF_A_PAIR: Mapping[type, Sequence[str]] = {
    str: ("embedding", "base", "note"),
    list: ("notes", "times", "tests", "run_ids"),
}
_OF_A_TEST: Mapping[type, Sequence[str]] = {
    object: ("matched", "over", "n"),
    list: ("time", "times", "windows"),
    dict: ("bands", "groups"),
}


def evidence(answers: Answers, runs: Path) -> Section:
    """Return the section of one condition; it names the command where nothing was interpreted."""
    title = "When, at which frequencies and where"
    for method in METHODS:
        profiles, pairs = _found(answers, runs, method)
        if profiles:
            text = [
                f"Shares of the evidence for the right image ({method}); docs/interpretation.md says what they mean."
            ]
            notes = notes_of([profile for mine in profiles.values() for profile in mine])
            text += [note[:1].upper() + note[1:] + "." for note in notes]
            return Section(title, text, _figures(profiles, pairs))
    return Section(title, ["None of these runs has been interpreted: embedctl interpret does it."])


def _found(answers: Answers, runs: Path, method: str) -> tuple[dict[str, list[Profile]], list[Profile]]:
    """Return the profiles of these very runs, by embedding in the order of the ranking."""
    file = found_at(runs, method)
    if not file.is_file():
        return {}, []
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
        profiles, pairs = said["profiles"], said["pairs"]
        for profile in profiles:
            _check(profile, _OF_A_PROFILE)
        for pair in pairs:
            _check(pair, _OF_A_PAIR)
            for test in pair["tests"]:
                _check(test | {"times": pair["times"]}, _OF_A_TEST)
    except (ValueError, KeyError, TypeError, RecursionError) as problem:
        raise DamagedStore(f"'{file}' is not what interpret wrote", "embedctl interpret writes it again") from problem
    known = {row["run_id"] for cell in answers.cells.values() for s in cell.runs.values() for row in s.values()}
    mine: dict[str, list[Profile]] = {name: [] for name in answers.cells}
    for profile in profiles:
        if profile["embedding"] in mine and set(profile["run_ids"]) <= known:
            mine[profile["embedding"]].append(profile)
    kept = {name: found for name, found in mine.items() if found}
    return kept, [pair for pair in pairs if set(pair["run_ids"]) <= known]


def _check(found: Mapping[str, Any], kinds: Mapping[type, Sequence[str]]) -> None:
    """Raise where something is missing or of another kind than what interpret writes."""
    for kind, names in kinds.items():
        for name in names:
            if not isinstance(found[name], kind):
                raise TypeError(f"{name} is {type(found[name]).__name__}")
    if "time" in found and len(found["time"]) != len(found["times"]):
        raise ValueError("a course and its times differ in length")


def _figures(profiles: dict[str, list[Profile]], pairs: Sequence[Profile]) -> list[Figure]:
    first = next(iter(profiles.values()))[0]
    timed = len(first["times"]) > 1
    figures = (
        [_time(profiles), _shares("At which frequencies the evidence lies, %", profiles, "bands")] if timed else []
    )
    if first["positions"] and all(first["positions"]) and len(first["sensors"]) > 3:
        figures.append(_topographies(profiles))
    if first["groups"]:
        figures.append(_shares("Where the evidence lies: sensor groups or regions, %", profiles, "groups"))
    return figures + [_pair(pair) for pair in pairs]


def _time(profiles: dict[str, list[Profile]]) -> Figure:
    times = 1000 * np.array(next(iter(profiles.values()))[0]["times"])
    courses = {name: np.mean([p["time"] for p in mine], axis=0) for name, mine in profiles.items()}
    named = list(courses)[:_MOST_CURVES]
    picture, across, up = _over_time(times, [float(v) for course in courses.values() for v in course], len(named))
    for number, name in enumerate(named):
        windows = [window for p in profiles[name] for window in p["windows"]]
        _bars(picture, across, windows, number, COLOURS[number], name)
    for name in reversed(courses):
        colour = COLOURS[named.index(name)] if name in named and profiles[name][0]["is_found"] else _GONE
        points = [(across(t), up(v)) for t, v in zip(times.tolist(), courses[name].tolist(), strict=True)]
        picture.curve(points, colour, _LINE_WIDTH, name)
    rows = [
        (name, p["subject"], p["evidence"], _windows(p["windows"]), _ms(p["peak"]), _ms(p["half"]))
        for name, mine in profiles.items()
        for p in mine
    ]
    columns = (
        ("embedding", "text"), ("subject", "count"), ("evidence, nats", "number"), ("above zero", "text"),
        ("peak", "text"), ("half by", "text"),
    )  # fmt: skip
    title = "When the evidence for the right image comes, % of it per sample"
    keys = [(name, COLOURS[number] if profiles[name][0]["is_found"] else _GONE) for number, name in enumerate(named)]
    drawn = joined([picture.svg(title), legend(keys, len(courses) - len(named))])
    note = (
        "Mean over subjects; bars: above zero in a subject, by cluster permutation. Pale: nothing is shown to be there."
    )
    return Figure(title, Table(columns, rows), drawn, note)


def _shares(title: str, profiles: dict[str, list[Profile]], what: str) -> Figure:
    parts = list(dict.fromkeys(part for mine in profiles.values() for p in mine for part in p[what]))
    means = {
        n: [float(np.mean([p[what].get(part, 0.0) for p in mine])) for part in parts] for n, mine in profiles.items()
    }
    most, width = max(abs(v) for row in means.values() for v in row) or 1.0, (WIDTH - LABELS - 6) / len(parts)
    picture = Picture(WIDTH, 22 + _ROW * len(means))
    for column, part in enumerate(parts):
        told = shortened(part, width + 2, size=10)
        picture.text(LABELS + width * (column + 0.5), 13, told, "middle", "small", part)
    for number, (name, row) in enumerate(means.items()):
        y = 18 + _ROW * number
        picture.text(
            LABELS - 8, y + 13, shortened(name), "end", "", name, "" if profiles[name][0]["is_found"] else "#8a8f98"
        )
        for column, (part, value) in enumerate(zip(parts, row, strict=True)):
            told, x = f"{name}, {part}: {100 * value:.1f} %", LABELS + width * column
            picture.box(x, y, width - 1, _ROW - 1, diverging(value / most), told)
            if width >= 24:
                picture.text(x + width / 2, y + 13, whole(100 * value), "middle", "small", told, INK)
    columns = (("embedding", "text"), ("subject", "count"), *((part, "percent") for part in parts))
    rows = [(n, p["subject"], *(p[what].get(part) for part in parts)) for n, mine in profiles.items() for p in mine]
    note = "Orange speaks for the right image, blue against it. Grey names: nothing is shown to be there."
    return Figure(title, Table(columns, rows), picture.svg(title), note)


def _topographies(profiles: dict[str, list[Profile]]) -> Figure:
    drawn, rows = [], []
    shown = list(profiles.items())[:_MOST_MAPS]
    names, known, shares = over_sensors({n: [(p["sensors"], p["positions"]) for p in mine] for n, mine in shown})
    places = flat(np.array(known, dtype=float))
    most = max(float(np.abs(values).max()) for values in shares.values()) or 1.0
    across, up = Scale(-0.12, 0.12, 8, 152), Scale(-0.12, 0.12, 166, 22)
    radius = max(2.0, min(6.0, 40 / len(names) ** 0.5))
    for name, values in shares.items():
        picture = Picture(160, 174)
        picture.text(80, 12, shortened(name, 156), "middle", "", name)
        picture.dot(across(0), up(0), _GONE, r=57, hollow=True)
        picture.curve([(across(-0.012), up(0.094)), (across(0), up(0.108)), (across(0.012), up(0.094))], _GONE, 1.5)
        for sensor, (x, y), value in zip(names, places.tolist(), values.tolist(), strict=True):
            picture.dot(across(x), up(y), diverging(value / most), f"{sensor}: {100 * value:.1f} %", radius)
        drawn.append(picture.svg(f"Sensors of {name}"))
        rows.append((name, *values.tolist()))
    columns = (("embedding", "text"), *((sensor, "percent") for sensor in names))
    note = f"Seen from above, nose up. Orange speaks for the right image, blue against it, up to {100 * most:.1f} %."
    title = "Over which sensors the evidence lies"
    return Figure(title, Table(columns, rows), Markup(f'<div class="multiples">{joined(drawn)}</div>'), note)


def _pair(pair: Profile) -> Figure:
    """Return what differs between two sides: courses over time where there is time, and a table with every sign."""
    said = " ".join(f"{text}." for text in filter(None, (pair["note"], *pair["notes"])))
    against = f"{pair['embedding']} minus {pair['base']}"
    if len(pair["times"]) < 2:
        return Figure(f"{against}: which sensor groups or regions differ", _pair_table(pair, timed=False), note=said)
    title = f"{against}: when the evidence comes, % of it per sample"
    note = f"Bars: clusters where they differ, whose edges are not tested. {said}"
    return Figure(title, _pair_table(pair, timed=True), _pair_courses(pair, title), note)


def _pair_table(pair: Profile, *, timed: bool) -> Table:
    columns = [("over", "text"), ("images", "text"), ("n", "count")]
    columns += [("aligned has more", "text"), ("aligned has less", "text"), ("bands (Holm)", "text")] if timed else []
    grouped = any(test["groups"] for test in pair["tests"])
    columns += [("sensor groups or regions (Holm)", "text")] if grouped else []
    rows = []
    for test in pair["tests"]:
        row = [test["over"], "both found" if test["matched"] else "all", test["n"]]
        row += [_windows([w for w in test["windows"] if w["sign"] == sign]) for sign in (1, -1)] if timed else []
        row += [_parts(test["bands"])] if timed else []
        rows.append([*row, _parts(test["groups"])] if grouped else row)
    return Table(columns, rows)


def _pair_courses(pair: Profile, title: str) -> Markup:
    times = 1000 * np.array(pair["times"])
    sides = {
        label: [test for test in pair["tests"] if test["matched"] == matched]
        for label, matched in (("all images", False), ("images that both found", True))
    }
    courses = {label: np.mean([t["time"] for t in tests], axis=0) for label, tests in sides.items() if tests}
    picture, across, up = _over_time(times, [float(v) for course in courses.values() for v in course], len(courses))
    keys = list(zip(courses, (COLOURS[0], ALIGNED), strict=False))
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
        picture.line(start, y, max(end, start + 1), y, colour, 3, title=f"{name}: {_windows([window])}")


def _parts(found: Mapping[str, Any]) -> str:
    told = (f"{name} {100 * p['difference']:+.1f} points" for name, p in found.items() if p["p_holm"] <= 0.05)
    return ", ".join(told) or "no difference shown"


def _windows(windows: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"{1000 * w['first']:.0f} to {1000 * w['last']:.0f} ms" for w in windows) or "nowhere"


def _ms(seconds: float | None) -> str:
    return "" if seconds is None else f"{1000 * seconds:.0f} ms"
