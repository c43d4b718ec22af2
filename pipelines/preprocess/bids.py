"""The little of BIDS that recordings need: numbers in names, and the tables that lie beside a recording."""

import re
from pathlib import Path

from pipelines.preprocess.channels import canonical_names
from pipelines.preprocess.trial_tables import read_trials

__all__ = ["RECORDINGS", "entity", "not_brain", "sidecar"]

RECORDINGS = (".vhdr", ".edf", ".bdf", ".gdf", ".set", ".fif", ".fif.gz", ".cnt", ".sqd", ".con", ".ds", ".mff", ".nxe")
"""How the name of a file (or folder) that MNE reads ends."""

_BRAIN = ("EEG", "MEGMAG", "MEGGRADAXIAL", "MEGGRADPLANAR")


def entity(path: Path, key: str) -> int | None:
    """Return the number of an entity in a path, ``sub-03`` or ``sub03``; None where it has none.

    Examples
    --------
    >>> entity(Path("sub-03/ses-2/eeg/sub-03_ses-2_eeg.edf"), "ses"), entity(Path("a.edf"), "ses")
    (2, None)
    """
    found = re.findall(rf"(?:^|[/_]){key}-?(\d+)", path.as_posix())
    return int(found[-1]) if found else None


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
    if not table_path.is_file():
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
