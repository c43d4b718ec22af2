"""What sets configurations apart that a heading would call the same: the settings that differ, in words."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.train.brain_encoders.elsewhere import file_of, is_in_a_file
from stores.commits import json_bytes
from stores.errors import EmbedctlError
from stores.results import read_config

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["HEADING", "what_differs"]

HEADING = ("dataset", "preprocessing", "n_way", "brain_encoder", "recipe", "protocol")
"""What headings say: of configurations that are alike in this the other settings are told."""
AT_MOST = 5  # settings
_TEXT = "the text of "
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
        if name not in heading
        and len({json_bytes(one.get(name)) for one in settings.values()}) > 1
        # That one has a file of the user's which another lacks is said by its loss or brain encoder.
        and not (name.startswith(_TEXT) and len({one[name] for one in settings.values() if name in one}) == 1)
    ]
    more = [f"{len(differ) - AT_MOST} settings more"] if len(differ) > AT_MOST else []
    return {
        key: ", ".join([*filter(None, (_said(name, one.get(name)) for name in differ[:AT_MOST])), *more])
        for key, one in settings.items()
    }


def _said(name: str, value: Any) -> str:
    if name.startswith(_TEXT):
        return f"text {value[:6]} of {_shortened(name.removeprefix(_TEXT))}" if value else ""
    if name == "loss" and isinstance(value, str):
        value = _shortened(value)
    if isinstance(value, list):
        value = f"{len(value)} of them" if len(value) > 2 else " to ".join(map(str, value)) or "all"
    return _WORDS.get(name, f"{name.replace('_', ' ')} {{}}").format("no" if value is None else value)


def _shortened(name: str) -> str:
    """Return a name of the user's own with one folder at most.

    Examples
    --------
    >>> _shortened("/home/me/lab/mine/good.py:loss"), _shortened("soft-clip")
    ('mine/good.py:loss', 'soft-clip')
    """
    return f"{'/'.join(file_of(name).parts[-2:])}:{name.rpartition(':')[2]}" if is_in_a_file(name) else name


def _settings(row: Mapping[str, Any], runs: Path) -> dict[str, Any]:
    """Return the settings of a run, as far as it is at hand."""
    try:
        config = read_config(runs, row["run_id"])
        recordings = {f"preprocessing {name}": value for name, value in (config["preprocessing"] or {}).items()}
        own = {f"{_TEXT}{name}": digest for name, digest in config.get("own", {}).items()}
        return config["settings"] | recordings | own | {"gallery": row["gallery"]}
    except (EmbedctlError, KeyError, TypeError, AttributeError):
        return {name: row[name] for name in _IN_ROWS}
