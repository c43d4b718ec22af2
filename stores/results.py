"""Results: one row per run in ``results.parquet``, which is assembled from the summaries of finished runs.

It can be made again from them at any time. What a run is, and reading one, is in `stores.runs`; its columns are in
`stores.columns`; both are found here too.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stores.columns import COLUMNS, results_schema, rows_table, unsaid
from stores.commits import digest, discard, remove_file, sweep
from stores.errors import DamagedStore, EmbedctlError, UnknownName, suggest
from stores.files import read_file
from stores.inside import refuse_links
from stores.locks import clear_dead, lock
from stores.receipts import change, finish, is_announced, read_receipt
from stores.runs import (
    RECEIPT,
    RunReader,
    drafts,
    finished,
    read_array,
    read_checkpoint,
    read_config,
    read_metrics,
    read_summary,
    write_run,
)
from stores.screens import Configuration, configurations_in, record_tested
from stores.sealed import TRAIN_AGAIN
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

TABLE = "results.parquet"
_MADE_FROM = b"embedctl.receipts"
_PATIENCE = 120.0  # seconds: thousands of summaries are read inside the lock


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
                discard(runs / run_id, drafts(runs))
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
    sweep(drafts(runs))
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
        finish(_table_receipt(runs), runs, drafts(runs))
    table, receipts, is_written = _find(runs, without)
    if not is_written:
        record_tested(runs, _listed(runs) | configurations_in(table), trained=True)
        data = table_bytes(table.replace_schema_metadata({_MADE_FROM: _state(receipts)}))
        if not _is_vouched_for(runs):  # else `change` would take what was lost or damaged for what is there
            remove_file(_table_receipt(runs))
        change(_table_receipt(runs), runs, {TABLE: data}, drafts=drafts(runs))
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
        try:
            table = rows_table([read_summary(runs, run_id)])
        except EmbedctlError:  # not finished, or damaged: it counts for nothing
            continue
        record_tested(runs, configurations_in(table), trained=True)


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
    if table.schema != results_schema() or unsaid(table):  # written by another version, or by a stranger
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


def _read_rows(runs: Path, run_ids: Iterable[str]) -> "pa.Table":
    summaries = {run_id: read_summary(runs, run_id) for run_id in run_ids}
    for run_id, summary in summaries.items():
        if summary["run_id"] != run_id:
            raise DamagedStore(f"'{runs / run_id}' is not the run that its summary speaks of")
    table = _fitting(runs, summaries)
    if wrong := unsaid(table):
        row, name = wrong
        raise DamagedStore(f"'{runs / table['run_id'][row].as_py()}' says nothing of its '{name}'", TRAIN_AGAIN)
    return table


def _fitting(runs: Path, summaries: Mapping[str, Mapping[str, Any]]) -> "pa.Table":
    """Return the rows of all; where one is a stranger's, whose receipt fits and whose summary is none, say which."""
    try:
        return rows_table(list(summaries.values()))
    except ValueError:
        for run_id, summary in summaries.items():
            try:
                rows_table([summary])
            except ValueError as error:
                raise DamagedStore(f"'{runs / run_id}' cannot be in the table: {error}", TRAIN_AGAIN) from error
        raise
