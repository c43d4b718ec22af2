"""Results: one folder per run, one row per run.

A run is finished when its ``receipt.json`` is there: it is written last and vouches for every other file. The
table ``results.parquet`` is assembled from the summaries of finished runs and can be made again at any time.
"""

import io
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stores.commits import digest, discard, json_bytes, put_bytes, remove_file, sweep
from stores.errors import DamagedStore, EmbedctlError, UnknownName, suggest
from stores.files import read_file
from stores.inside import refuse_links
from stores.locks import clear_dead, lock
from stores.names import check_folder_name
from stores.receipts import change, finish, is_announced, read_receipt, vouch, write_receipt
from stores.screens import Configuration, configurations_in, record_tested
from stores.sealed import json_of, npy_of
from stores.tables import read_table, table_bytes

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "COLUMNS",
    "RECEIPT",
    "TABLE",
    "RunReader",
    "any_results",
    "assemble",
    "finished",
    "read_array",
    "read_checkpoint",
    "read_config",
    "read_metrics",
    "read_results",
    "read_summary",
    "remove_runs",
    "results_schema",
    "runs_listed",
    "write_run",
]

COLUMNS: dict[str, str] = {
    **dict.fromkeys(("run_id", "dataset", "modality"), "string"),
    "subject": "int64",
    **dict.fromkeys(("protocol", "train_subjects", "embedding", "encoder", "aligned_by", "base"), "string"),
    **dict.fromkeys(("matched_base", "match", "weights", "brain_encoder", "image_head", "recipe"), "string"),
    "seed": "int64",
    **dict.fromkeys(("split", "checkpoint", "channels", "window", "trial_norm", "train_on"), "string"),
    "test_repetitions": "int64",
    "gallery": "string",
    "n_way": "int64",
    **dict.fromkeys(("top1", "top3", "top5", "median_rank", "mrr", "val_top1", "concept_top1"), "float64"),
    **dict.fromkeys(("last_top1", "csls_top1", "sinkhorn_top1", "noise_ceiling", "chance"), "float64"),
    **dict.fromkeys(("n_queries", "steps"), "int64"),
    "seconds": "float64",
    **dict.fromkeys(("embedding_key", "epochs_key", "images_key", "config_key", "version", "started"), "string"),
    "preprocessing": "string",
    "simulated": "bool",
}
"""Columns of the results table, in order, with their Arrow types. Accuracies are fractions in [0, 1]."""

RECEIPT = "receipt.json"
TABLE = "results.parquet"
_MADE_FROM = b"embedctl.receipts"
_PATIENCE = 120.0  # seconds: thousands of summaries are read inside the lock


def results_schema() -> "pa.Schema":
    """Return the Arrow schema of the results table."""
    import pyarrow as pa

    return pa.schema([(name, pa.type_for_alias(kind)) for name, kind in COLUMNS.items()])


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
    _row_table([summary])
    if folder.exists():  # cut short, or trained anew: nothing of it may mix with what comes now
        discard(folder, drafts=_drafts(runs))
    files = {
        "config.json": json_bytes(config),
        "metrics.jsonl": b"".join(json.dumps(json.loads(json_bytes(m))).encode() + b"\n" for m in metrics),
        **{f"{name}.npy": _npy_bytes(values) for name, values in arrays.items()},
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

    def config(self) -> dict[str, Any]:
        """Return the configuration."""
        return json_of(self.file("config.json"), self._folder / "config.json")

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
            raise DamagedStore(f"'{path}' is not the file that was written", "remove the run and train it again")
        return data


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
    return _read_json(runs, run_id, "summary.json")


def read_config(runs: Path, run_id: str) -> dict[str, Any]:
    """Return the configuration of a finished run; raises as `read_summary`."""
    return _read_json(runs, run_id, "config.json")


def read_metrics(runs: Path, run_id: str) -> list[dict[str, Any]]:
    """Return what was measured on the way; raises as `read_summary`."""
    return RunReader(runs, run_id).metrics()


def read_array(runs: Path, run_id: str, name: str) -> np.ndarray:
    """Return an array of a finished run, such as ``scores``; raises as `read_summary`."""
    return RunReader(runs, run_id).array(name)


def read_checkpoint(runs: Path, run_id: str) -> bytes:
    """Return the weights of a finished run, as safetensors; raises as `read_summary`."""
    return RunReader(runs, run_id).file("checkpoint.safetensors")


def remove_runs(runs: Path, run_ids: Sequence[str]) -> list[str]:
    """Drop runs: first from the table, then their folders, so that a crash leaves a run whole or gone.

    That their configurations have seen the test images stays on record (`stores.screens`).

    Raises
    ------
    UnknownName
        If one of them is not there; then none is dropped.
    StoreLocked
        If a live process is at one of them.
    """
    refuse_links(runs)
    known = [path.name for path in sorted(runs.glob("[!.]*")) if path.is_dir()]
    found = list(dict.fromkeys(run_ids))
    if unknown := [run_id for run_id in found if run_id not in known]:
        raise UnknownName(f"no run '{unknown[0]}' in '{runs}'", suggest(unknown[0], known))
    with ExitStack() as held:
        for run_id in found:
            held.enter_context(lock(runs / ".embedctl" / "locks", run_id))
        with _lock(runs):  # until they are gone: who assembles in between would list them again
            _record_unlisted(runs, found)
            _write_table(runs, without=found)
            for run_id in found:
                discard(runs / run_id, _drafts(runs))
    return found


def assemble(runs: Path) -> "pa.Table":
    """Write ``results.parquet`` from the summaries of the finished runs, sorted by run id, and return it.

    A table that is made from these very runs already is left alone.

    Raises
    ------
    DamagedStore
        If a run is damaged.
    StoreLocked
        If another process is at the table for minutes.
    """
    refuse_links(runs)
    sweep(_drafts(runs))
    clear_dead(runs / ".embedctl" / "locks")
    table = _written_table(runs, _receipts(runs))
    if table is not None and not is_announced(_table_receipt(runs)):
        return table
    with _lock(runs):
        return _write_table(runs)


def _lock(runs: Path) -> AbstractContextManager[None]:
    return lock(runs / ".embedctl" / "locks", "results", wait=_PATIENCE, shown=runs)


def _write_table(runs: Path, without: Collection[str] = ()) -> "pa.Table":
    """List the runs but those ``without``, which are about to go, and write their table; inside the lock.

    Read before, it would lack a run whose process has written its own table in the meantime.
    """
    if _is_vouched_for(runs):  # perhaps by a writer that was cut short
        finish(_table_receipt(runs), runs, _drafts(runs))
    table, receipts, is_written = _find(runs, without)
    if not is_written:
        record_tested(runs, _listed(runs) | configurations_in(table), trained=True)
        data = table_bytes(table.replace_schema_metadata({_MADE_FROM: _state(receipts)}))
        if not _is_vouched_for(runs):  # else `change` would take what was lost or damaged for what is there
            remove_file(_table_receipt(runs))
        change(_table_receipt(runs), runs, {TABLE: data}, drafts=_drafts(runs))
    return table


def _find(runs: Path, without: Collection[str] = ()) -> tuple["pa.Table", dict[str, bytes], bool]:
    """Return the table of the finished runs, their receipts, and whether it is the one that lies there.

    A run that another process removes or trains anew meanwhile makes it look again.
    """
    while True:
        receipts = _receipts(runs, without)
        table = _written_table(runs, receipts)
        if table is not None:
            return table, receipts, True
        try:
            return _read_rows(runs, receipts), receipts, False
        except (OSError, EmbedctlError):
            if _receipts(runs, without) == receipts:
                raise


def runs_listed(runs: Path) -> set[str]:
    """Return the ids of the runs in the table that lies there, however old; none where it cannot be read."""
    try:
        return set(read_table(runs / TABLE)["run_id"].to_pylist())
    except (DamagedStore, KeyError):
        return set()


def _listed(runs: Path) -> set[Configuration]:
    """Return the configurations in the table that lies there, however old; none where it cannot be read."""
    try:
        return configurations_in(read_table(runs / TABLE)) if _is_vouched_for(runs) else set()
    except (DamagedStore, KeyError):
        return set()


def _record_unlisted(runs: Path, run_ids: Iterable[str]) -> None:
    """Put runs on record that are about to go and may be in no table yet, as after a sweep that was killed."""
    for run_id in run_ids:
        with suppress(EmbedctlError):  # not finished, or damaged: it counts for nothing
            summary = read_summary(runs, run_id)
            record_tested(runs, configurations_in(_row_table([summary])), trained=True)


def _table_receipt(runs: Path) -> Path:
    return runs / ".embedctl" / "results.json"


def _is_vouched_for(runs: Path) -> bool:
    """Say whether the table is one that its receipt speaks of."""
    try:
        receipt = read_receipt(_table_receipt(runs))
        found = digest(runs / TABLE)
    except (DamagedStore, OSError):
        return False
    return any(found == said.get(TABLE, {}).get("blake2b") for said in (receipt["files"], receipt.get("next", {})))


def _drafts(runs: Path) -> Path:
    """Return the folder for what is about to go: hidden, so that nobody takes it for a run."""
    return runs / ".embedctl" / "drafts"


def read_results(runs: Path | str) -> "pa.Table":
    """Return the results table, one row per finished run, also where a sweep was killed before it wrote the table.

    Raises
    ------
    EmbedctlError
        If there are no runs.
    DamagedStore
        If the table has to be made from a run that is damaged.
    """
    runs = Path(runs)
    table, receipts, _ = _find(runs)
    if not receipts and not (runs / TABLE).is_file():
        raise EmbedctlError(f"no results in '{runs}'", "embedctl train writes them; or name the folder where they are")
    return table


def any_results(runs: Path | str) -> "pa.Table | None":
    """Return the results table, or None where nothing was trained yet; raises `DamagedStore` as `read_results`."""
    runs = Path(runs)
    return read_results(runs) if _receipts(runs) or (runs / TABLE).is_file() else None


def _written_table(runs: Path, receipts: Mapping[str, bytes]) -> "pa.Table | None":
    """Return the table that lies there, if it is made from these receipts, and with the columns of today."""
    try:
        table = read_table(runs / TABLE) if _is_vouched_for(runs) else None
    except DamagedStore:
        return None
    if table is None or (table.schema.metadata or {}).get(_MADE_FROM) != _state(receipts):
        return None
    if table.column_names != list(COLUMNS):  # written by another version
        return None
    return table.replace_schema_metadata(None)


def _receipts(runs: Path, without: Collection[str] = ()) -> dict[str, bytes]:
    """Return the receipt of each finished run but those ``without``, by run id."""
    found = {}
    for path in sorted(runs.glob(f"[!.]*/{RECEIPT}")):
        if path.parent.name not in without and path.is_file():
            with suppress(FileNotFoundError):  # another process has just removed it
                found[path.parent.name] = read_file(path)
    return found


def _state(receipts: Mapping[str, bytes]) -> bytes:
    """Return a digest of everything the table is made from: each receipt vouches for its run's summary."""
    return digest(b"".join(receipts.values())).encode()


def _row_table(summaries: Sequence[Mapping[str, Any]]) -> "pa.Table":
    import pyarrow as pa

    columns = []
    for field in results_schema():
        try:
            columns.append(pa.array([summary.get(field.name) for summary in summaries], field.type))
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            raise ValueError(f"the summary's {field.name} is not {field.type}: {error}") from error
    return pa.Table.from_arrays(columns, schema=results_schema())


def _read_rows(runs: Path, run_ids: Iterable[str]) -> "pa.Table":
    summaries = {run_id: read_summary(runs, run_id) for run_id in run_ids}
    for run_id, summary in summaries.items():
        if summary["run_id"] != run_id:
            raise DamagedStore(f"'{runs / run_id}' is not the run that its summary speaks of")
    try:
        return _row_table(list(summaries.values()))
    except ValueError as error:  # of a stranger's run: its receipt fits, and its summary is none
        raise DamagedStore(f"a run of '{runs}' cannot be in the table: {error}") from error


def _read_json(runs: Path, run_id: str, name: str) -> dict[str, Any]:
    return json_of(RunReader(runs, run_id).file(name), runs / run_id / name)


def _npy_bytes(values: np.ndarray) -> bytes:
    sink = io.BytesIO()
    np.save(sink, values, allow_pickle=False)
    return sink.getvalue()
