"""What the interpretations of a folder of runs have found so far, kept for the report: ``interpret/METHOD/found.json``.

It is read again from beside the runs by ``embedctl interpret`` at any time: a file that cannot be used is replaced.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.interpret.notes import notes_of
from pipelines.interpret.over_subjects import is_found
from stores.commits import put_json
from stores.errors import DamagedStore
from stores.locks import lock

if TYPE_CHECKING:
    from pipelines.interpret.request import InterpretReport

__all__ = ["Found", "found_at", "keep_found", "plain", "read_found"]

Found = Mapping[str, Any]
"""A profile or a pair as found.json keeps it: fields of `pipelines.interpret.profile.Profile` or of `PairedProfile`."""

_SAME = {"profiles": ("condition", "embedding", "subject"), "pairs": ("condition", "embedding", "base")}
_WAIT = 60.0  # s, for another call to keep what it found
_OF_A_PROFILE: Mapping[type, Sequence[str]] = {
    str: ("embedding", "weights"), bool: ("is_found",), dict: ("bands", "sensors", "groups"),
    list: ("times", "time", "positions", "windows", "run_ids", "notes", "untrained_windows", "untrained_bands",
           "untrained_groups", "occlusion"),
    object: ("subject", "evidence", "p", "peak", "half", "reliability", "random_reliability", "similarity",
             "corrected_peak"),
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


def found_at(runs: Path, method: str) -> Path:
    """Return the file that keeps what was found by a method."""
    return runs / "interpret" / method / "found.json"


def keep_found(report: "InterpretReport") -> None:
    """Keep what was found: beside it stays what is known of runs that were not asked about now.

    Raises
    ------
    StoreLocked
        If another call keeps what it found, for a minute.
    CannotWrite
        If the disk is full or read-only.
    """
    with lock(report.runs / ".embedctl" / "locks", f"found-{report.method}", wait=_WAIT):
        file, new = found_at(report.runs, report.method), plain(report)
        try:
            notes = _joined(new, json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):  # nothing, or nothing that can be used
            new, notes = plain(report), report.notes
        put_json(file, {kind: new[kind] for kind in _SAME} | {"notes": notes})


def read_found(runs: Path, method: str) -> tuple[list[Found], list[Found]]:
    """Return the profiles and pairs found by a method; none where nothing was.

    Raises
    ------
    DamagedStore
        If the file is not what `keep_found` wrote.
    """
    file = found_at(runs, method)
    if not file.is_file():
        return [], []
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
        for profile in said["profiles"]:
            _check(profile, _OF_A_PROFILE)
        for pair in said["pairs"]:
            _check(pair, _OF_A_PAIR)
            for test in pair["tests"]:
                _check(test | {"times": pair["times"]}, _OF_A_TEST)
        return list(said["profiles"]), list(said["pairs"])
    except (ValueError, KeyError, TypeError, RecursionError) as problem:
        raise DamagedStore(f"'{file}' is not what interpret wrote", "embedctl interpret writes it again") from problem


def plain(report: "InterpretReport") -> dict[str, Any]:
    """Return everything but the evidence per image, which lies beside the runs, as JSON can hold it."""
    fields = asdict(report)
    for profile in fields["profiles"]:
        del profile["table"]
    found: dict[str, Any] = _lists(fields)
    return found


def _joined(new: dict[str, Any], known: dict[str, Any]) -> list[str]:
    """Add to what is new what is known of others, and return what is to be said about all."""
    for kind, parts in _SAME.items():
        new[kind] = [_with_most_runs(one, known[kind], parts) for one in new[kind]]
        here = [[one[part] for part in parts] for one in new[kind]]
        new[kind] += [one for one in known[kind] if [one[part] for part in parts] not in here]
    for mine in _by_embedding(new["profiles"]):  # subjects of earlier calls take part
        shown = is_found([one["evidence"] for one in mine], [one["p"] for one in mine])
        for one in mine:
            one["is_found"] = shown
    return notes_of(new["profiles"])


def _with_most_runs(new: dict[str, Any], known: list[dict[str, Any]], parts: Sequence[str]) -> dict[str, Any]:
    """Return what was known where it is of these runs and more: a call for one seed does not replace all."""
    same = (one for one in known if all(one[part] == new[part] for part in parts))
    return next((one for one in same if set(one["run_ids"]) > set(new["run_ids"])), new)


def _by_embedding(profiles: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for one in profiles:
        found.setdefault(str((sorted(one["condition"].items()), one["embedding"])), []).append(one)
    return list(found.values())


def _check(found: Found, kinds: Mapping[type, Sequence[str]]) -> None:
    """Raise where something is missing or of another kind than what interpret writes."""
    for kind, names in kinds.items():
        for name in names:
            if not isinstance(found[name], kind):
                raise TypeError(f"{name} is {type(found[name]).__name__}")
    if "time" in found and len(found["time"]) != len(found["times"]):
        raise ValueError("a course and its times differ in length")


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _lists(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_lists(inner) for inner in value]
    return value.tolist() if hasattr(value, "tolist") else value
