"""How many configurations have seen a test set: those that were trained, and those that `embedctl screen` tested.

The best of many looks better than it is, so tables say how many there were. A screen leaves no run, and a run may be
removed: both are kept beside the runs in ``screens.json``, from which nothing ever goes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stores.commits import digest, json_bytes, sweep
from stores.errors import DamagedStore
from stores.inside import refuse_links
from stores.locks import lock
from stores.receipts import change, finish, settled
from stores.sealed import json_of

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["SCREENS", "SCREENS_RECEIPT", "Configuration", "Seen", "configurations_in", "record_tested", "seen"]

SCREENS = "screens.json"
SCREENS_RECEIPT = Path(".embedctl") / "screens.json"

Configuration = tuple[str, str, str, str]
"""Dataset, embedding, embedding_key and config_key, as in the results."""
_SCREENED, _TRAINED = "tested", "trained"  # as the file calls them
_AGAIN = "embedctl repair drops it; the count restarts from the runs there"
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


def record_tested(runs: Path, configurations: Iterable[Configuration], *, trained: bool = False) -> None:
    """Add configurations to those that have seen a test set; where all are known nothing is written.

    Parameters
    ----------
    runs : Path
        Folder of the runs.
    configurations : iterable of Configuration
        Which.
    trained : bool
        Whether runs were trained, and not a screen made.

    Raises
    ------
    DamagedStore
        If the record is not what was written.
    """
    drafts, how, found = runs / ".embedctl" / "drafts", _TRAINED if trained else _SCREENED, set(configurations)
    sweep(drafts)
    refuse_links(runs)
    with lock(runs / ".embedctl" / "locks", "screens", wait=30.0, shown=runs):
        finish(runs / SCREENS_RECEIPT, runs, drafts)
        known = _recorded(runs)
        if found <= known[how]:
            return
        known[how] |= found
        lists = {name: [dict(zip(_COLUMNS, one, strict=True)) for one in sorted(some)] for name, some in known.items()}
        change(runs / SCREENS_RECEIPT, runs, {SCREENS: json_bytes(lists)}, drafts=drafts, announce=True)


def seen(runs: Path, results: "pa.Table | None") -> dict[str, Seen]:
    """Return how many configurations have seen the test images of each dataset; raises as `record_tested`.

    Parameters
    ----------
    runs : Path
        Folder of the runs.
    results : Table or None
        Its results, where there are any.
    """
    known = _recorded(runs)
    trained = known[_TRAINED] | (configurations_in(results) if results is not None else set())
    return {
        dataset: Seen(*(sum(one[0] == dataset for one in some) for some in (trained, known[_SCREENED])))
        for dataset in sorted({one[0] for one in trained | known[_SCREENED]})
    }


def configurations_in(results: "pa.Table") -> set[Configuration]:
    """Return the configurations that a table of results has runs of."""
    return {_configuration(row) for row in results.select(list(_COLUMNS)).to_pylist()}


def _recorded(runs: Path) -> dict[str, set[Configuration]]:
    """Return what the record holds, by how it saw the test."""
    file = runs / SCREENS
    voucher = settled(runs, runs / SCREENS_RECEIPT).get(SCREENS)
    if voucher is None and not file.exists():
        return {_SCREENED: set(), _TRAINED: set()}
    if voucher is None or not file.is_file() or digest(file) != voucher["blake2b"]:
        raise DamagedStore(f"'{file}' is not the file that was written", _AGAIN)
    try:
        lists = json_of(file.read_bytes(), file)
        return {name: {_configuration(one) for one in lists.get(name, ())} for name in (_SCREENED, _TRAINED)}
    except (AttributeError, KeyError, TypeError) as error:
        raise DamagedStore(f"'{file}' lists no configurations", _AGAIN) from error


def _configuration(row: Mapping[str, str]) -> Configuration:
    dataset, embedding, embedding_key, config_key = (row[name] or "" for name in _COLUMNS)
    return dataset, embedding, embedding_key, config_key
