"""The little of BIDS that recordings need: labels in names, and the tables that lie beside a recording."""

import re
from collections.abc import Iterable
from os.path import lexists
from pathlib import Path

from pipelines.preprocess.channels import canonical_names
from pipelines.preprocess.trial_tables import read_trials

__all__ = ["RECORDINGS", "label", "not_brain", "numbered", "sidecar"]

RECORDINGS = (".vhdr", ".edf", ".bdf", ".gdf", ".set", ".fif", ".fif.gz", ".cnt", ".sqd", ".con", ".ds", ".mff", ".nxe")
"""How the name of a file (or folder) that MNE reads ends."""

_BRAIN = ("EEG", "MEGMAG", "MEGGRADAXIAL", "MEGGRADPLANAR")


def label(path: Path, key: str) -> str:
    """Return the label of an entity in a path, ``03`` in ``sub-03`` or ``sub03``; empty where it has none.

    Examples
    --------
    >>> label(Path("sub-03/ses-pre/eeg/sub-03_ses-pre_eeg.edf"), "ses"), label(Path("sub04/a.edf"), "sub")
    ('pre', '04')
    >>> label(Path("a.edf"), "sub")
    ''
    """
    found: list[str] = re.findall(rf"(?:^|[/_])(?:{key}-([0-9A-Za-z]+)|{key}(\d+))(?=[/_.-])", path.as_posix())
    return next(filter(None, found[-1])) if found else ""


def numbered(labels: Iterable[str]) -> dict[str, int]:
    """Return a number for every label: its own where all are numbers, else their order; 1 for none at all.

    Examples
    --------
    >>> numbered(["02", "10"]), numbered([""]), numbered(["pre", "post"])
    ({'02': 2, '10': 10}, {'': 1}, {'post': 1, 'pre': 2})
    """
    different = sorted(set(labels))
    if different == [""]:
        return {"": 1}
    own = [int(label) if label.isdigit() else None for label in different]
    if None in own or len(set(own)) < len(own):
        return {label: number for number, label in enumerate(different, start=1)}
    return dict(zip(different, own, strict=True))  # type: ignore[arg-type]


def sidecar(path: Path, what: str) -> Path:
    """Return the table that goes with a recording.

    Examples
    --------
    >>> sidecar(Path("sub-01_task-see_eeg.edf"), "events").name
    'sub-01_task-see_events.tsv'
    """
    stem = path.name[: -len(next(end for end in RECORDINGS if path.name.lower().endswith(end)))]
    return path.with_name(re.sub(r"_(eeg|meg|ieeg|raw)$", "", stem) + f"_{what}.tsv")


def not_brain(path: Path) -> list[str]:
    """Return the channels that ``channels.tsv`` calls bad, or something else than EEG and MEG; none without it."""
    table_path = sidecar(path, "channels")
    if not lexists(table_path):
        return []
    table = read_trials(table_path)
    if "name" not in table.column_names:
        return []
    columns = [
        table[name].to_pylist() if name in table.column_names else [None] * len(table)
        for name in ("name", "status", "type")
    ]
    columns[0] = canonical_names([name or "" for name in columns[0]])
    return [
        name
        for name, status, kind in zip(*columns, strict=True)
        if status == "bad" or (kind is not None and kind.upper() not in _BRAIN)
    ]
