"""What sets configurations apart that a heading would call the same: the settings that differ, in words."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stores.commits import json_bytes
from stores.errors import EmbedctlError
from stores.results import read_config

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["HEADING", "what_differs"]

HEADING = ("dataset", "preprocessing", "n_way", "brain_encoder", "recipe", "protocol")
"""What headings say: of configurations that are alike in this the other settings are told."""
AT_MOST = 5  # settings
_IN_ROWS = ("image_head", "train_on", "split", "gallery", "channels", "window", "trial_norm")
_WORDS = {
    "image_head": "{} head",
    "loss": "{}",
    "train_on": "trained on {}",
    "split": "{} split",
    "gallery": "{} gallery",
}


def what_differs(results: "pa.Table", runs: Path, heading: Sequence[str] = HEADING) -> dict[str, str]:
    """Return, by config_key, the settings in which a configuration differs from others under the same heading.

    Parameters
    ----------
    results : Table
        The results, one row per run.
    runs : Path
        Folder of the runs, which keep their settings.
    heading : sequence of str
        Columns that are said anyway.
    """
    alike: dict[tuple[Any, ...], dict[str, Mapping[str, Any]]] = {}
    for row in results.to_pylist():
        alike.setdefault(tuple(row[name] for name in heading), {})[row["config_key"]] = row
    return {
        key: words
        for rows in alike.values()
        if len(rows) > 1
        for key, words in _apart({key: _settings(row, runs) for key, row in rows.items()}, heading).items()
    }


def _apart(settings: Mapping[str, Mapping[str, Any]], heading: Sequence[str]) -> dict[str, str]:
    """Return the words of each."""
    names = dict.fromkeys((*_WORDS, *(name for one in settings.values() for name in one)))
    differ = [
        name
        for name in names
        if name not in heading and len({json_bytes(one.get(name)) for one in settings.values()}) > 1
    ]
    more = [f"{len(differ) - AT_MOST} settings more"] if len(differ) > AT_MOST else []
    return {
        key: ", ".join([_said(name, one.get(name)) for name in differ[:AT_MOST]] + more)
        for key, one in settings.items()
    }


def _said(name: str, value: Any) -> str:
    if isinstance(value, list):
        value = f"{len(value)} of them" if len(value) > 2 else " to ".join(map(str, value)) or "all"
    return _WORDS.get(name, f"{name.replace('_', ' ')} {{}}").format("no" if value is None else value)


def _settings(row: Mapping[str, Any], runs: Path) -> dict[str, Any]:
    """Return the settings of a run, as far as it is at hand."""
    try:
        config = read_config(runs, row["run_id"])
        recordings = {f"preprocessing {name}": value for name, value in (config["preprocessing"] or {}).items()}
        own = {f"the text of {name}": digest for name, digest in config.get("own", {}).items()}
        return config["settings"] | recordings | own | {"gallery": row["gallery"]}
    except (EmbedctlError, KeyError, TypeError, AttributeError):
        return {name: row[name] for name in _IN_ROWS}
