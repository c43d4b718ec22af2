"""How many configurations have seen a test set: those that were trained, and those that `embedctl screen` tested.

The best of many looks better than it is, so tables say how many there were. Runs are counted from their own table;
what a screen tested leaves no run, and is kept beside the runs in ``screens.json``.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stores.commits import digest, json_bytes, sweep
from stores.errors import DamagedStore
from stores.inside import refuse_links
from stores.locks import lock
from stores.receipts import change, settled
from stores.sealed import json_of

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["SCREENS", "SCREENS_RECEIPT", "Seen", "record_tested", "seen"]

SCREENS = "screens.json"
SCREENS_RECEIPT = Path(".embedctl") / "screens.json"

Configuration = tuple[str, str, str, str]  # dataset, embedding, embedding_key, config_key
_COLUMNS = ("dataset", "embedding", "embedding_key", "config_key")


@dataclass(frozen=True, slots=True)
class Seen:
    """How many configurations were scored on the test images of a dataset.

    A configuration is an embedding with everything that is shared by subjects and seeds.

    Parameters
    ----------
    trained, screened : int
        By how.
    """

    trained: int
    screened: int


def record_tested(runs: Path, configurations: Iterable[Configuration]) -> None:
    """Add configurations to those that a screen has tested.

    Parameters
    ----------
    runs : Path
        Folder of the runs.
    configurations : iterable of (str, str, str, str)
        Dataset, embedding, embedding_key and config_key, as in the results.

    Raises
    ------
    DamagedStore
        If the record is not what was written.
    """
    drafts = runs / ".embedctl" / "drafts"
    sweep(drafts)
    refuse_links(runs)
    with lock(runs / ".embedctl" / "locks", "screens", wait=30.0, shown=runs):
        tested = sorted(_screened(runs) | set(configurations))
        data = json_bytes({"tested": [dict(zip(_COLUMNS, one, strict=True)) for one in tested]})
        change(runs / SCREENS_RECEIPT, runs, {SCREENS: data}, drafts=drafts, announce=True)


def seen(runs: Path, results: "pa.Table | None") -> dict[str, Seen]:
    """Return how many configurations have seen the test images of each dataset; raises as `record_tested`.

    Parameters
    ----------
    runs : Path
        Folder of the runs.
    results : Table or None
        Its results, where there are any.
    """
    rows: Iterable[Mapping[str, str]] = results.select(list(_COLUMNS)).to_pylist() if results is not None else ()
    trained = {_configuration(row) for row in rows}
    screened = _screened(runs)
    return {
        dataset: Seen(sum(one[0] == dataset for one in trained), sum(one[0] == dataset for one in screened))
        for dataset in sorted({one[0] for one in trained | screened})
    }


def _screened(runs: Path) -> set[Configuration]:
    file = runs / SCREENS
    voucher = settled(runs, runs / SCREENS_RECEIPT).get(SCREENS)
    if voucher is None and not file.exists():
        return set()
    if voucher is None or not file.is_file() or digest(file) != voucher["blake2b"]:
        raise DamagedStore(f"'{file}' is not the file that was written", "embedctl repair drops it; the count restarts")
    try:
        return {_configuration(one) for one in json_of(file.read_bytes(), file)["tested"]}
    except (KeyError, TypeError) as error:
        raise DamagedStore(
            f"'{file}' lists no configurations", "embedctl repair drops it; the count restarts"
        ) from error


def _configuration(row: Mapping[str, str]) -> Configuration:
    return row["dataset"], row["embedding"], row["embedding_key"], row["config_key"]
