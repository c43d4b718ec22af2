"""Find damage: every file of a store or of a folder of runs against its receipt. Nothing is written.

First it is decided what to look at (`plan`: receipts are read, data are not), then each file is judged
(`stores.checks.judge`). What an interrupted command left is no damage: the next one finishes it.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from stores.again import COMMANDS
from stores.checks import Check, Damage, accepted, judge
from stores.commits import DRAFT
from stores.epoch_writer import complete_subjects
from stores.errors import DamagedStore, EmbedctlError
from stores.layout import private, read_array, read_node, read_ours
from stores.names import EmbeddingName
from stores.receipts import is_of_a_block, read_receipt
from stores.remote import RemotePath, is_remote
from stores.results import TABLE, runs_listed
from stores.roots import count_strings, read_strings
from stores.runs import RECEIPT, own_id
from stores.screens import SCREENS, SCREENS_RECEIPT
from stores.speed import SPEED
from stores.whose import is_of_embedding, is_of_subject

__all__ = ["MISNAMED", "Plan", "find_places", "is_ours", "judged", "plan", "run_damages"]

_KEY = re.compile(r"-[0-9a-f]{2,}$")
_PASSING = {"locks", "drafts", "unfinished", COMMANDS}
_BLOCK = ("epochs", "mean", "valid", "session")
_OURS = re.compile(
    r"(^|/)(zarr\.json|c/\d+(/0)*|\.embedctl/(metadata\.json|receipts/\d{6,9}\.json|(images-\d+|trials)\.parquet))$",
    re.ASCII,
)
"""What embedctl writes into a store; anything else was put there by others: file managers, network mounts, people."""
MISNAMED = "holds what has another name"
_MOST_BLOCKS = 10_000  # of a split, 32 MB each: what claims more lies


@dataclass
class Plan:
    """What to look at in one store or folder of runs, and what reading the receipts has shown already.

    Parameters
    ----------
    store : Path
        Its folder.
    kind : {"embeddings", "epochs", "runs"}
        What it holds.
    checks : list of Check
        Files that receipts vouch for.
    damages : list of Damage
        Found without reading data: receipts that are lost or damaged, files that no receipt vouches for.
    remarks : list of str
        What is no damage and still worth a line.
    receipts : set of Path
        Receipts that were read.
    names : dict
        The names in arrays of ids that were asked for.
    problems : dict
        What is wrong with files that had to be looked at to read on; nothing of those that are whole.
    """

    store: Path
    kind: str
    checks: list[Check] = field(default_factory=list)
    damages: list[Damage] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    receipts: set[Path] = field(default_factory=set)
    names: dict[Path, list[str]] = field(default_factory=dict)
    problems: dict[Path, str] = field(default_factory=dict)

    def blame(self, file: Path, problem: str, part: str, rows: Any = (), ids: Path | None = None) -> None:
        """Write down a damage."""
        if ids and ids not in self.names:  # once, however many blocks are damaged
            self.names[ids] = _images(ids)
        known = self.names[ids] if ids else []
        # The last block is rarely full.
        ranges = tuple(
            (int(start), min(int(stop), len(known)) if start < len(known) else int(stop)) for start, stop in rows
        )
        images = tuple(image for start, stop in ranges for image in known[start:stop])
        self.damages.append(Damage(file, problem, self.kind, self.store, part, ranges, images))

    def read(self, receipt: Path, part: str, rows: Any = (), ids: Path | None = None) -> dict[str, Any]:
        """Return a receipt; write down where it is lost or damaged."""
        self.receipts.add(receipt)
        try:
            if receipt.exists():
                return read_receipt(receipt)
            self.blame(receipt, "is missing", part, rows, ids)
        except (DamagedStore, OSError):
            self.blame(receipt, "is not the file that was written", part, rows, ids)
        return {"files": {}}

    def trust(self, receipt: Path, base: Path, part: str, lists: Path | None = None) -> None:
        """Check the files of a receipt that speaks of no rows."""
        for name, may_be in accepted(self.read(receipt, part)).items():
            self.checks.append(Check(base / name, may_be, receipt, name, part, ids=lists))

    def is_whole(self, file: Path) -> bool:
        """Say whether a file is the one that a receipt read just now speaks of: what it says counts for more."""
        return self._problem(file) == ""

    def told(self, ask: Callable[[Any], int], of: Path) -> int:
        """Return what the metadata of an array or a store say of its rows; 0 where they are damaged."""
        return 0 if self._problem(of / "zarr.json") else _number(ask, of)

    def _problem(self, file: Path) -> str | None:
        check = next((check for check in reversed(self.checks) if check.file == file), None)
        if check and file not in self.problems:
            self.problems[file] = judge(check)
        return self.problems.get(file)


def find_places(path: Path) -> list[tuple[Path, str]]:
    """Return the stores and folders of runs at ``path``, or in the workspace it is, and what each holds.

    Raises
    ------
    EmbedctlError
        If there is none, or ``path`` is a part of a store.
    """
    above = None if is_remote(path) else next((above for above in path.absolute().parents if _is_store(above)), None)
    if above:
        raise EmbedctlError(f"'{path}' is a part of '{above}'", "name the store: all of it is looked at")
    if kind := _kind(path):
        return [(path, kind)]
    inside = sorted(f for f in path.iterdir() if f.is_dir() and not f.name.endswith(DRAFT)) if path.is_dir() else []
    places = [(folder, kind) for folder in inside if (kind := _kind(folder))]
    if not places:
        what = f"'{path}' is neither a store, nor runs, nor a workspace" if path.exists() else f"nothing at '{path}'"
        raise EmbedctlError(what, "name a store, a folder of runs, one run, or the folder they are in")
    return places


def plan(place: Path, kind: str) -> Plan:
    """Decide what to look at in one place that `find_places` found."""
    makers = {"embeddings": _embeddings, "epochs": _epochs, "runs": _runs, "run": _one_run}
    found = makers[kind](place)
    if found.damages:  # of a writer that was at work while we looked, we may have seen one half: the other is there now
        seen = {(damage.file, damage.problem) for damage in found.damages}
        found = makers[kind](place)
        found.damages = [damage for damage in found.damages if (damage.file, damage.problem) in seen]
    return found


def judged(
    found: Plan, quick: Callable[[Check], bool] = lambda check: False, advance: Callable[[], None] = lambda: None
) -> list[Damage]:
    """Return all damage: what the plan knows, and every file that is not what its receipt says.

    Parameters
    ----------
    found : Plan
        What to look at.
    quick : callable
        Of which files size and last bytes are enough.
    advance : callable
        Called after each file.
    """
    for check in found.checks:
        known = found.problems.get(check.file)
        if problem := judge(check, quick(check)) if known is None else known:
            found.blame(check.file, problem, check.part, check.rows, check.ids)
        advance()
    return found.damages


def _is_store(path: Path) -> bool:
    return any(
        private(path / array).is_dir() and (path / array / "zarr.json").exists() for array in ("image", "subject")
    )


def _kind(path: Path) -> str:
    """Say what ``path`` holds, by what damage to one file cannot take away."""
    for array, kind in (("image", "embeddings"), ("subject", "epochs")):
        if private(path / array).is_dir():
            return kind
    if _is_run(path):
        return "run"
    runs = path.is_dir() and ((path / TABLE).exists() or any(map(_is_run, path.iterdir())))
    return "runs" if runs or (path / ".embedctl").is_dir() else ""


def _is_run(path: Path) -> bool:
    marks = (RECEIPT, "config.json", "summary.json", "checkpoint.safetensors")
    return not path.name.startswith(".") and path.is_dir() and sum((path / name).exists() for name in marks) > 1


def _embeddings(path: Path) -> Plan:
    found = Plan(path, "embeddings")
    found.trust(private(path / "image") / "metadata.json", path, "")
    block_rows = found.told(_block_rows, path)
    for folder in sorted(path.iterdir()):
        if (folder / "values" / ".embedctl").is_dir():  # whatever somebody called it
            _embedding_rows(found, folder, _embedding(folder.name) or folder.name, block_rows)
    _listed(found, lambda node: _embedding(node.partition("/")[0]))
    _rest(found, private(path / "image") / "locks")
    return found


def _embedding(group: str) -> str:
    """Return ``NAME#KEY`` of a group; nothing if it is none of an embedding."""
    name, _, key = group.rpartition("-")
    try:
        return f"{EmbeddingName.parse(name.replace('~', ':'))}#{key}" if key else ""
    except EmbedctlError:
        return ""


def _embedding_rows(found: Plan, group: Path, part: str, block_rows: int) -> None:
    hidden, ids = private(group / "values"), found.store / "image"
    found.trust(hidden / "metadata.json", group, part)
    if found.is_whole(group / "zarr.json") and not is_of_embedding(group.name, _said(group)):
        found.blame(group, MISNAMED, part)
    chunk_rows = found.told(_chunk_rows, group / "values")
    for receipt in sorted(path for path in (hidden / "receipts").glob("*.json") if is_of_a_block(path.name)):
        block = _number(int, receipt.stem)
        whole = [(block * block_rows, (block + 1) * block_rows)] if block_rows else []
        for name, may_be in accepted(found.read(receipt, part, whole, ids)).items():
            of_other = block_rows and chunk_rows and _number(_place, name) * chunk_rows // block_rows != block
            if of_other or not name.startswith("values/c/"):
                found.blame(receipt, "is the receipt of other rows", part, whole, ids)
                break
            said = [voucher for voucher in may_be if voucher]
            rows = {tuple(pair) for voucher in said for pair in voucher.get("rows", ())}
            rows |= {(int(row), int(row) + 1) for voucher in said for row in voucher.get("absent", ())}
            found.checks.append(Check(group / name, may_be, receipt, name, part, tuple(sorted(rows)), ids))


def _epochs(path: Path) -> Plan:
    found = Plan(path, "epochs")
    found.trust(private(path / "subject") / "metadata.json", path, "")
    others = [file.parents[1] for file in path.glob("*/*/split/.embedctl")]  # whatever somebody called them
    for name in sorted({*complete_subjects(path), *(folder.relative_to(path).as_posix() for folder in others)}):
        _subject(found, path / name, name, is_whole=True)
    unfinished = private(path / "subject") / "unfinished"
    for folder in sorted(unfinished.glob("*/sub-*")):
        _subject(found, folder, folder.relative_to(unfinished).as_posix(), is_whole=False)
    _listed(found, lambda node: "/".join(node.split("/")[:3]))
    _rest(found, private(path / "subject") / "locks")
    return found


def _subject(found: Plan, folder: Path, name: str, is_whole: bool) -> None:
    receipt = private(folder / "split") / "metadata.json"
    if is_whole or receipt.exists():
        found.trust(receipt, folder, name)
        if found.is_whole(folder / "zarr.json") and not is_of_subject(name, _said(folder)):
            found.blame(folder, MISNAMED, name)
    for split in (folder / "train", folder / "test"):
        hidden = private(split / "mean") / "receipts"
        if not (split.is_dir() and (is_whole or hidden.is_dir())):
            continue
        part, ids = f"{name}/{split.name}", split / "image"
        found.trust(private(split / "image") / "metadata.json", split, part)
        wanted = range(found.told(_n_chunks, split / "mean") if is_whole else 0)
        size = found.told(_chunk_rows, split / "mean")
        there = {path for path in hidden.glob("*.json") if is_of_a_block(path.name)}
        for file in sorted({*there, *(hidden / f"{block:06d}.json" for block in wanted)}):
            block = _number(int, file.stem)
            rows = ((block * size, (block + 1) * size),)
            for chunk, may_be in accepted(found.read(file, part, rows, ids)).items():
                if _number(_place, chunk) != block or chunk.partition("/")[0] not in _BLOCK:
                    found.blame(file, "is the receipt of other rows", part, rows, ids)
                    break
                found.checks.append(Check(split / chunk, may_be, file, chunk, part, rows, ids))


def _runs(path: Path) -> Plan:
    found = Plan(path, "runs")
    folders = [folder for folder in sorted(path.iterdir()) if _is_run(folder)]
    listed = runs_listed(path)
    busy = any((path / ".embedctl" / "locks").glob("*.lock*"))
    for folder in folders:
        if (folder / RECEIPT).exists() or (folder.name in listed and not busy):
            _run(found, folder, busy)
        else:
            found.remarks.append(f"run '{folder.name}' is not finished: it counts for nothing until it is")
    for name in sorted(listed - {folder.name for folder in folders}):
        found.blame(path / name, "is missing", name)
    for name, receipt, part in ((TABLE, ".embedctl/results.json", ""), (SCREENS, SCREENS_RECEIPT, SCREENS)):
        n_before = len(found.checks)
        if (path / receipt).exists() or ((path / name).exists() and not busy):
            found.trust(path / receipt, path, part)
            if found.checks[n_before:] and name not in {check.name for check in found.checks[n_before:]}:
                found.blame(path / receipt, "is the receipt of other files", part)
        elif (path / name).exists():
            found.remarks.append(f"'{name}' was left by a command that is at work or was cut short")
    return found


def _one_run(path: Path) -> Plan:
    found = Plan(path.parent, "runs")
    _run(found, path, any((path.parent / ".embedctl" / "locks").glob("*.lock*")))
    return found


def _run(found: Plan, folder: Path, busy: bool) -> None:
    """Look at a run, and at what was computed from it and lies beside (`stores.beside`)."""
    found.trust(folder / RECEIPT, folder, folder.name)
    if found.is_whole(folder / "summary.json") and own_id(folder) not in (folder.name, ""):
        found.blame(folder, MISNAMED, folder.name)
    for beside in sorted(path for path in folder.iterdir() if path.is_dir()):
        marks = (beside / RECEIPT).exists() or (beside / "summary.json").exists()
        if not (marks or beside.name.startswith("interpret-")):
            found.remarks.append(f"'{folder.name}/{beside.name}' is not ours")
            continue
        part = f"{folder.name}/{beside.name}"
        if (beside / RECEIPT).exists() or not busy:
            found.trust(beside / RECEIPT, beside, part)
        else:
            found.remarks.append(f"'{part}' is not finished")


def run_damages(folder: Path) -> list[Damage]:
    """Return the damage of one run whose lock the caller holds: what is not finished is damaged."""
    found = Plan(folder.parent, "runs")
    _run(found, folder, busy=False)
    return judged(found)


def is_ours(store: Path, kind: str, folder: str) -> bool:
    """Say whether a folder directly below a store is one that embedctl made, by more than one of its files."""
    if folder in ("image", "subject"):
        return True
    if kind == "embeddings":
        return private(store / folder / "values").is_dir() or bool(_KEY.search(folder) and _embedding(folder))
    try:
        said = read_ours(store / folder, kind=str)["kind"] == "dataset"
    except DamagedStore:
        said = False
    return said or any((store / folder).glob("sub-*"))


def _listed(found: Plan, part: Callable[[str], str]) -> None:
    """Write down groups that the root lists and that are gone."""
    try:
        listed = read_node(found.store)["consolidated_metadata"]["metadata"]
    except (DamagedStore, KeyError, TypeError):
        return
    ours = {f"{node.partition('/')[0]}" for node in listed if _KEY.search(node.partition("/")[0]) or "/sub-" in node}
    gone = [node for node in listed if not (found.store / node).is_dir()]
    for node in gone:
        if node.partition("/")[0] not in ours | {"image", "subject"}:
            continue  # what others kept there is theirs to take away
        if node.rpartition("/")[0] not in gone:
            found.blame(found.store / node, "is missing", part(node))


def _rest(found: Plan, locks: Path) -> None:
    """Write down what no receipt vouches for."""
    vouched = {check.file for check in found.checks} | found.receipts
    busy = any(locks.glob("*.lock*"))
    tops = {file.relative_to(found.store).parts[0] for file in vouched if found.store in file.parents}
    foreign = set()
    for file in sorted(_files(found.store)):
        if file in vouched or file == locks.parent / SPEED:
            continue
        name = file.relative_to(found.store).as_posix()
        top, _, below = name.partition("/")
        if below and top not in tops:
            if is_ours(found.store, found.kind, top):
                tops.add(top)
            else:
                foreign.add(top)
                continue
        if not _OURS.search(name):
            found.remarks.append(f"'{name}' is not ours")
        elif _is_of_lost_receipt(found, file, name):
            continue  # one damage, told once
        elif busy or _is_unlisted_dataset(found, file):
            found.remarks.append(f"'{name}' was left by a command that is at work or was cut short")
        else:
            found.blame(file, "has no receipt", _part(found, name), *_rows_of(found, file))
    found.remarks += [f"'{top}' is not ours" for top in sorted(foreign)]


def _said(folder: Path) -> dict[str, Any]:
    """Return what a group says of itself; nothing where a stranger made it say nothing."""
    try:
        return read_ours(folder)
    except DamagedStore:
        return {}


def _is_of_lost_receipt(found: Plan, file: Path, name: str) -> bool:
    """Say whether what would vouch for a file is a receipt that was found damaged."""
    part, (rows, _) = _part(found, name), _rows_of(found, file)
    lost = (d.rows for d in found.damages if d.part == part and d.file in found.receipts)
    return any(_overlap(ranges, rows) if ranges else not rows for ranges in lost)


def _overlap(some: Iterable[tuple[int, int]], others: Iterable[tuple[int, int]]) -> bool:
    return any(start < end and begin < stop for start, stop in some for begin, end in others)


def _is_unlisted_dataset(found: Plan, file: Path) -> bool:
    """Say whether a file is of a dataset whose first subject was finished, or was to be, and not listed yet."""
    if found.kind != "epochs" or file.name != "zarr.json" or file.parent.parent != found.store:
        return False
    try:
        return not any(name.startswith(f"{file.parent.name}/") for name in read_strings(found.store / "subject"))
    except DamagedStore:
        return False


def _part(found: Plan, name: str) -> str:
    if found.kind == "embeddings":
        return _embedding(name.partition("/")[0])
    words = name.split("/")
    if words[0] == "subject":
        return ""
    return "/".join(words[: 3 if words[2:3] in (["train"], ["test"]) else 2]) if len(words) > 2 else ""


def _rows_of(found: Plan, chunk: Path) -> tuple[Any, Path | None]:
    """Return the rows that a chunk file of embeddings or epochs holds, and the array of their ids."""
    array = next((parent.parent for parent in chunk.parents if parent.name == "c"), None)
    ids = found.store / "image" if found.kind == "embeddings" else (array.parent / "image" if array else None)
    if array is None or array.name not in ("values", *_BLOCK):
        return (), None
    size = _number(_chunk_rows, array)
    number = _number(_place, chunk.relative_to(array.parent).as_posix())
    return ((number * size, (number + 1) * size),), ids


def _files(store: Path) -> Iterator[Path]:
    if isinstance(store, RemotePath):
        found = (path for path in store.rglob("*") if not _PASSING & set(path.parts))
        yield from (cast(Path, path) for path in found if not path.name.endswith(DRAFT))
        return
    for here, folders, names in os.walk(store):
        if os.path.basename(here) == ".embedctl":
            folders[:] = [name for name in folders if name not in _PASSING]
        yield from (Path(here, name) for name in names if not name.endswith(DRAFT))


def _block_rows(store: Path) -> int:
    return int(read_ours(store)["block_rows"])


def _chunk_rows(array: Path) -> int:
    return read_array(array).chunks[0]


def _n_chunks(array: Path) -> int:
    node = read_array(array)
    n_images = _number(count_strings, array.parent / "image") or node.shape[0]
    return min(-(-min(node.shape[0], n_images) // node.chunks[0]), _MOST_BLOCKS)


def _place(chunk: str) -> int:
    """Return the number of a chunk of whole rows, ``ARRAY/c/NUMBER/0``."""
    return int(chunk.split("/")[2])


def _number(ask: Callable[[Any], int], of: Any) -> int:
    """Return a number that damaged metadata may not tell; then 0."""
    try:
        return ask(of)
    except (DamagedStore, KeyError, IndexError, ValueError, TypeError):
        return 0


def _images(ids: Path) -> list[str]:
    try:
        return read_strings(ids)
    except DamagedStore:
        return []
