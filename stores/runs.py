"""A run of results: one folder, which counts when its ``receipt.json`` is there.

The receipt is written last and vouches for every other file.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stores.columns import rows_table
from stores.commits import discard, json_bytes, put_bytes
from stores.errors import DamagedStore, EmbedctlError
from stores.files import read_file
from stores.names import check_folder_name
from stores.receipts import read_receipt, vouch, write_receipt
from stores.run_config import check_config
from stores.sealed import TRAIN_AGAIN, json_of, npy_bytes, npy_of

__all__ = [
    "RECEIPT",
    "RunReader",
    "check_place",
    "drafts",
    "finished",
    "own_id",
    "read_array",
    "read_checkpoint",
    "read_config",
    "read_metrics",
    "read_summary",
    "write_run",
]

RECEIPT = "receipt.json"


def write_run(
    runs: Path,
    run_id: str,
    *,
    config: Mapping[str, Any],
    summary: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    checkpoint: bytes,
    metrics: Sequence[Mapping[str, Any]],
) -> Path:
    """Write one run; the receipt, written last, is what makes it count.

    Parameters
    ----------
    runs : Path
        Folder of all runs.
    run_id : str
        Name of the run's folder.
    config : mapping
        Everything that was decided.
    summary : mapping
        Its row of the results table; may hold more.
    arrays : mapping of str to array
        Kept as ``NAME.npy``: the score matrix, the brain embeddings.
    checkpoint : bytes
        The weights, as safetensors.
    metrics : sequence of mapping
        One per validation, in order.

    Returns
    -------
    Path
        The run's folder.

    Raises
    ------
    EmbedctlError
        If the run id cannot be the name of a folder.
    ValueError
        If the summary does not fit the table.
    CannotWrite
        If the disk is full or read-only.
    """
    folder = runs / check_folder_name(run_id, "run")
    rows_table([summary])
    if folder.exists():  # cut short, or trained anew: nothing of it may mix with what comes now
        discard(folder, drafts=drafts(runs))
    files = {
        "config.json": json_bytes(config),
        "metrics.jsonl": b"".join(json.dumps(json.loads(json_bytes(m))).encode() + b"\n" for m in metrics),
        **{f"{name}.npy": npy_bytes(values) for name, values in arrays.items()},
        "checkpoint.safetensors": checkpoint,
        "summary.json": json_bytes(summary),
    }
    for name, data in files.items():
        put_bytes(folder / name, data)
    write_receipt(folder / RECEIPT, {name: vouch(data) for name, data in files.items()})
    return folder


class RunReader:
    """A finished run whose receipt is read once, for whoever reads several of its files.

    Parameters
    ----------
    runs : Path
        Folder of all runs.
    run_id : str
        Name of the run's folder.

    Raises
    ------
    EmbedctlError
        If there is no such run, or it is not finished.
    """

    def __init__(self, runs: Path, run_id: str) -> None:
        if not finished(runs, run_id):
            raise EmbedctlError(f"no finished run '{run_id}' in '{runs}'", "embedctl results lists the runs")
        self._folder = runs / run_id
        self._vouchers = read_receipt(self._folder / RECEIPT)["files"]
        if own_id(self._folder) not in (run_id, ""):
            raise DamagedStore(f"'{self._folder}' holds another run than its name says")

    def config(self) -> dict[str, Any]:
        """Return the configuration; raises `DamagedStore` where it holds what embedctl does not write there."""
        path = self._folder / "config.json"
        config = json_of(self.file("config.json"), path)
        check_config(config, path)
        return config

    def shown(self) -> tuple[list[str], list[str], np.ndarray]:
        """Return the images of the gallery, their concepts, and the place there of what each test recording shows."""
        target, config = self.array("target"), self.config()
        gallery = config["gallery_ids"]
        concepts = config.get("gallery_concepts") or gallery
        is_place = target.ndim == 1 and target.dtype.kind in "iu" and np.isin(target, np.arange(len(gallery))).all()
        if not is_place or len(concepts) != len(gallery):
            raise DamagedStore(f"'{self._folder}' was tested with images that are not in its gallery", TRAIN_AGAIN)
        return gallery, concepts, target

    def metrics(self) -> list[dict[str, Any]]:
        """Return what was measured on the way."""
        name = "metrics.jsonl"
        return [json_of(line, self._folder / name) for line in self.file(name).splitlines()]

    def array(self, name: str) -> np.ndarray:
        """Return an array, such as ``scores``."""
        return npy_of(self.file(f"{name}.npy"), self._folder / f"{name}.npy")

    def file(self, name: str) -> bytes:
        """Return a file, checked against the receipt.

        Raises
        ------
        EmbedctlError
            If the run has no such file.
        DamagedStore
            If it is not the one that was written.
        """
        if name not in self._vouchers:
            held = ", ".join(sorted(self._vouchers))
            raise EmbedctlError(f"run '{self._folder.name}' has no '{name}'", f"it has: {held}")
        path = self._folder / name
        data = path.read_bytes() if path.is_file() else b""
        if vouch(data) != self._vouchers[name]:
            raise DamagedStore(f"'{path}' is not the file that was written", TRAIN_AGAIN)
        return data


def own_id(run: Path) -> str:
    """Return the id that a run's summary says it has; nothing where it does not say, or cannot be read."""
    try:
        said = json_of(read_file(run / "summary.json"), run).get("run_id", "")
    except (OSError, DamagedStore):
        return ""
    return said if isinstance(said, str) else ""


def finished(runs: Path, run_id: str) -> bool:
    """Say whether a run is complete."""
    return (runs / check_folder_name(run_id, "run") / RECEIPT).is_file()


def read_summary(runs: Path, run_id: str) -> dict[str, Any]:
    """Return the summary of a finished run.

    Raises
    ------
    EmbedctlError
        If there is no such run, or it is not finished.
    DamagedStore
        If its file is not the one that was written.
    """
    return json_of(RunReader(runs, run_id).file("summary.json"), runs / run_id / "summary.json")


def read_config(runs: Path, run_id: str) -> dict[str, Any]:
    """Return the configuration of a finished run; raises as `read_summary`."""
    return RunReader(runs, run_id).config()


def read_metrics(runs: Path, run_id: str) -> list[dict[str, Any]]:
    """Return what was measured on the way; raises as `read_summary`."""
    return RunReader(runs, run_id).metrics()


def read_array(runs: Path, run_id: str, name: str) -> np.ndarray:
    """Return an array of a finished run, such as ``scores``; raises as `read_summary`."""
    return RunReader(runs, run_id).array(name)


def read_checkpoint(runs: Path, run_id: str) -> bytes:
    """Return the weights of a finished run, as safetensors; raises as `read_summary`."""
    return RunReader(runs, run_id).file("checkpoint.safetensors")


def check_place(runs: Path) -> None:
    """Refuse to write runs where something else is: a file, a store, or a folder with other things and no run.

    Raises
    ------
    EmbedctlError
        If so.

    Examples
    --------
    >>> check_place(Path("/dev/null"))
    Traceback (most recent call last):
    stores.errors.EmbedctlError: '/dev/null' is no folder, and runs need one
    hint: name a new folder, or one of runs
    """
    hint = "name a new folder, or one of runs"
    for place in (runs.absolute(), *runs.absolute().parents):
        if os.path.lexists(place) and not place.is_dir():
            raise EmbedctlError(f"'{place}' is no folder, and runs need one", hint)
        if (place / "zarr.json").exists():
            raise EmbedctlError(f"'{place}' is a store, and runs go into a folder of their own", hint)
    if not runs.is_dir() or (runs / ".embedctl").is_dir() or (runs / "results.parquet").exists():
        return
    others = [one for one in runs.iterdir() if not one.name.startswith(".") and one.name != "lost+found"]
    if others and not any((one / RECEIPT).is_file() for one in others):
        raise EmbedctlError(f"'{runs}' holds other things, such as '{min(others).name}', and no runs", hint)


def drafts(runs: Path) -> Path:
    """Return the folder for what is about to go: hidden, so that nobody takes it for a run."""
    return runs / ".embedctl" / "drafts"
