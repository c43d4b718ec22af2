"""What was computed from a finished run and is kept beside it: ``runs/RUN/WHAT/``, with a receipt of its own.

It goes when the run goes or is trained anew, and the run itself is never touched.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stores.commits import json_bytes, remove_file
from stores.errors import DamagedStore, EmbedctlError
from stores.names import check_folder_name
from stores.receipts import change, read_receipt, settled, vouch
from stores.runs import finished
from stores.sealed import json_of, npy_bytes, npy_of

__all__ = ["read_array_beside", "read_beside", "write_beside"]

_SUMMARY = "summary.json"
_RECEIPT = "receipt.json"


def write_beside(
    runs: Path, run_id: str, what: str, *, summary: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> Path:
    """Write what was computed from a run, in place of what was there; the receipt decides what counts.

    Parameters
    ----------
    runs : Path
        Folder of all runs.
    run_id : str
        A finished run.
    what : str
        Name of the folder in the run's.
    summary : mapping
        Figures, and what they were computed with.
    arrays : mapping of str to array
        Kept as ``NAME.npy``.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    EmbedctlError
        If the run is not finished.
    CannotWrite
        If the disk is full or read-only.
    """
    folder = _folder(runs, run_id, what)
    files = {_SUMMARY: json_bytes(summary), **{f"{name}.npy": npy_bytes(values) for name, values in arrays.items()}}
    stale = set(read_receipt(folder / _RECEIPT)["files"]) - set(files)
    change(folder / _RECEIPT, folder, files, gone=stale)
    for name in stale:
        remove_file(folder / name)
    return folder


def read_beside(runs: Path, run_id: str, what: str) -> dict[str, Any] | None:
    """Return the summary of what was computed from a run; None where nothing was.

    Raises
    ------
    DamagedStore
        If the file is not the one that was written.
    """
    folder = _folder(runs, run_id, what)
    if not (folder / _RECEIPT).is_file():
        return None
    return json_of(_read(folder, _SUMMARY), folder / _SUMMARY)


def read_array_beside(runs: Path, run_id: str, what: str, name: str) -> np.ndarray:
    """Return an array that was computed from a run; raises as `read_beside`."""
    folder = _folder(runs, run_id, what)
    return npy_of(_read(folder, f"{name}.npy"), folder / f"{name}.npy")


def _folder(runs: Path, run_id: str, what: str) -> Path:
    if not finished(runs, run_id):
        raise EmbedctlError(f"no finished run '{run_id}' in '{runs}'", "embedctl results lists the runs")
    return runs / run_id / check_folder_name(what, "result")


def _read(folder: Path, name: str) -> bytes:
    path, vouchers = folder / name, settled(folder, folder / _RECEIPT)
    data = path.read_bytes() if path.is_file() else b""
    if vouch(data) != vouchers.get(name):
        raise DamagedStore(
            f"'{path}' is not the file that was written", f"remove the folder '{folder}', and do it again"
        )
    return data
