"""Undo damage without computing anything: what a copy still says is written again, what is lost counts as not computed.

A damaged chunk goes together with what its receipt says of it; everything else stays, and keeps its time. The command
that wrote the store then computes what is missing, and nothing else.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Any

from stores.checks import Accepted, Check, Damage, accepted, fits, judge
from stores.commits import digest, discard, draft_name, place, put_bytes, remove_file, sweep
from stores.copies import own_name, rebuild_receipt, restore, root_attributes
from stores.embeddings import EmbeddingStore
from stores.epoch_writer import complete_subjects, publish
from stores.errors import DamagedStore, EmbedctlError
from stores.images import ImageRecord, image_table_bytes
from stores.inside import refuse_links
from stores.layout import group_node, private, read_array
from stores.locks import clear_dead, lock, of_dead
from stores.names import counted
from stores.obstacles import clear_away, in_the_way, obstacles
from stores.parts import WHOLE, refuse_beside
from stores.receipts import Vouchers, is_of_a_block, read_receipt, vouch, write_receipt
from stores.results import assemble
from stores.roots import Root, node_bytes, read_strings
from stores.runs import RECEIPT
from stores.screens import SCREENS, SCREENS_RECEIPT
from stores.verify import MISNAMED, Plan, is_ours, judged, plan, run_damages

__all__ = ["RecordsOf", "Repair", "repair"]

RecordsOf = Callable[[Sequence[str]], Iterable[Sequence[ImageRecord]]]


@dataclass
class Repair:
    """What was done about the damage of one place.

    Parameters
    ----------
    store : Path
        The store, or the folder of runs.
    kind : {"embeddings", "epochs", "runs"}
        What it holds.
    found : list of Damage
        What was damaged.
    restored : list of Path
        Files that were written again from what the store says twice.
    dropped : list of str
        Parts of which damaged rows count as not computed now; of epochs the subject, of runs the run.
    lost : list of str
        Parts that had to go whole.
    unhashed : list of Path
        Tables of images that were written again without the hashes they held.
    strays : list of Path
        Folders that held what is there under its own name: they are gone.
    problem : DamagedStore, optional
        What could not be repaired; all else was.
    in_the_way : set of Path
        Folders that hold something and stand where files belong. They stay, and so does the damage they are.
    """

    store: Path
    kind: str
    found: list[Damage] = field(default_factory=list)
    restored: list[Path] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    unhashed: list[Path] = field(default_factory=list)
    strays: list[Path] = field(default_factory=list)
    problem: DamagedStore | None = None
    in_the_way: set[Path] = field(default_factory=set)

    def leave(self, folders: set[Path]) -> None:
        """Write down folders that hold something and stand where files belong."""
        self.in_the_way |= folders
        if self.in_the_way:
            self.problem = in_the_way(self.in_the_way)

    def add(self, more: "Repair") -> None:
        """Add what was done about damage that came to light with the first repaired."""
        self.found += more.found
        self.restored += more.restored
        self.dropped += [part for part in more.dropped if part not in self.dropped]
        self.lost += more.lost
        self.unhashed += more.unhashed
        self.strays += more.strays
        self.leave(more.in_the_way)

    def is_held(self, folder: Path) -> bool:
        """Say whether what stands in the way of a file lies in a folder, which must not go then."""
        return any(folder in one.parents for one in self.in_the_way)


def repair(store: Path, kind: str, records_of: RecordsOf | None = None) -> Repair:
    """Undo the damage of one place that `stores.verify.find_places` found.

    Parameters
    ----------
    store : Path
        The place.
    kind : {"embeddings", "epochs", "runs", "run"}
        What it holds.
    records_of : callable, optional
        From ids of images to what a table may have said of them, the likeliest first, what is true in any case last.

    Raises
    ------
    DamagedStore
        If what all of a store hangs on is lost, and no copy says it.
    StoreLocked
        If a live process is writing.
    """
    if kind in ("runs", "run"):
        return _runs(store if kind == "runs" else store.parent)
    done = _mended(store, kind, records_of)
    if done.restored and not done.in_the_way and plan(store, kind).damages:
        done.add(_mended(store, kind, records_of))  # what only metadata tell that are whole again
    return done


def _mended(store: Path, kind: str, records_of: RecordsOf | None) -> Repair:
    done, obstructed = _look(store, kind)
    if done.found and kind == "embeddings":
        _embeddings(store, done, obstructed, records_of)
    elif done.found:
        _epochs(store, done, obstructed)
    return done


def _look(store: Path, kind: str) -> tuple[Repair, list[Path]]:
    """Return the damage there is, and what stands in the place of damaged files and is none."""
    found = plan(store, kind)
    done = Repair(store, kind, judged(found))
    files = {check.file for check in found.checks} | found.receipts
    damaged = {d.file: d.file in files or d.problem == "has no receipt" for d in done.found}  # else it is a folder
    return done, obstacles(store, [file if is_file else file / "zarr.json" for file, is_file in damaged.items()])


def _embeddings(path: Path, done: Repair, obstructed: list[Path], records_of: RecordsOf | None) -> None:
    root = Root(path, "embeddings", "image")
    root.refuse_links(but=obstructed)
    with root.lock("embeddings"):
        refuse_beside(root, WHOLE)
        done.leave(clear_away(obstructed, root.drafts))
        sweep(root.drafts)
        _rename_back(root, done)
        found, bad = _still_damaged(path, done)
        _mend_root(root, found, bad, done, records_of)
        groups: dict[str, dict[Path, Check]] = {}
        for file in [*bad, *(damage.file for damage in (*found.damages, *done.found))]:
            groups.setdefault(file.relative_to(path).parts[0], {}).update({file: bad[file]} if file in bad else {})
        for name in sorted(groups):
            if private(path / name / "values").is_dir():
                _mend_group(root, path / name, found, groups[name], done)
            elif any(damage.file == path / name for damage in found.damages):
                done.lost += [damage.part for damage in found.damages if damage.file == path / name]
    with suppress(EmbedctlError) if done.in_the_way else nullcontext():
        EmbeddingStore.open(path).consolidate()


def _rename_back(root: Root, done: Repair) -> set[Path]:
    """Give folders that were renamed their own names again, and return what they were called; a copy goes.

    Raises
    ------
    DamagedStore
        If the root does not know one: it may hold what is nowhere else. Nothing was changed then.
    """
    wrong = {
        damage.file for damage in done.found if damage.problem == MISNAMED and root.private not in damage.file.parents
    }
    names = {folder: own_name(root.path, folder) for folder in sorted(wrong)}
    for folder, name in names.items():
        if root.path / name in (root.path, folder):
            what = f"'{folder}' holds what has another name, and the store does not say which"
            raise DamagedStore(what, "give it the name it had, or move it away, and repair again")
    while names:
        free = next((folder for folder, name in names.items() if not (root.path / name).exists()), None)
        if free:
            target = root.path / names.pop(free)
            place(free, target)
            done.restored.append(target)
            continue
        folder, name = names.popitem()
        if root.path / name in names:  # two that changed places
            aside = root.drafts / draft_name(folder.name)
            place(folder, aside)
            names[aside] = name
        else:
            discard(folder, root.drafts)
            done.strays.append(folder)
    return wrong


def _still_damaged(path: Path, done: Repair) -> tuple[Plan, dict[Path, Check]]:
    """Look once more, inside the lock, at what was found damaged without it; what was whole is not read again."""
    found, suspects = plan(path, done.kind), {damage.file for damage in done.found} - done.in_the_way
    found.damages = [damage for damage in found.damages if damage.file not in done.in_the_way]
    return found, {check.file: check for check in found.checks if check.file in suspects and judge(check)}


def _mend_root(root: Root, found: Plan, bad: dict[Path, Check], done: Repair, records_of: RecordsOf | None) -> None:
    """Make the root's own files and their receipt whole."""
    receipt = root.private / "metadata.json"
    for file, check in list(bad.items()):
        if check.receipt == receipt and restore(root.path, root.kind, file, check.accepted, root.drafts):
            done.restored.append(file)
            del bad[file]
    if (root.path / "zarr.json") in bad:  # it lists other nodes than there are now: those of now are what counts
        bare = _bare_root(root)
        put_bytes(root.path / "zarr.json", bare, root.drafts)
        _keep(receipt, root.path, root.drafts, also={"zarr.json": vouch(bare)})
        del bad[root.path / "zarr.json"]
    for file, check in list(bad.items()):
        if check.receipt == receipt and file.suffix == ".parquet":
            _rewrite_table(root, file, check, done, records_of)
            del bad[file]
    if any(check.receipt == receipt for check in bad.values()):
        lost = ", ".join(str(file) for file, check in bad.items() if check.receipt == receipt)
        hint = "embedctl extract into another store, or take the files from a copy of this one"
        raise DamagedStore(f"lost, and said nowhere else: {lost}", hint)
    if any(damage.file == receipt for damage in found.damages) and not any(
        root.private in one.parents or root.path / root.array in one.parents or one.parent == root.path
        for one in done.in_the_way
    ):
        ids = [
            file for file in sorted((root.path / root.array).rglob("*")) if file.is_file() and _is_public(file, root)
        ]
        names = ["zarr.json", *(file.relative_to(root.path).as_posix() for file in ids)]
        names += [table.relative_to(root.path).as_posix() for table in sorted(root.private.glob("images-*.parquet"))]
        if not rebuild_receipt(root.path, root.kind, receipt, root.path, names, root.drafts):
            hint = "embedctl extract into another store, or take the file from a copy of this one"
            raise DamagedStore(f"lost, and said nowhere else: {receipt}", hint)
        done.restored.append(receipt)


def _rewrite_table(root: Root, file: Path, check: Check, done: Repair, records_of: RecordsOf | None) -> None:
    """Write a table of images again, byte for byte where the images still say all of it, else without their hashes."""
    size, number = read_array(root.path / root.array).chunks[0], int(file.stem.rpartition("-")[2])
    ids = read_strings(root.path / root.array, root.private / "metadata.json")[number * size : (number + 1) * size]
    if records_of is None:
        done.problem = DamagedStore(
            f"lost with '{file}': size, time and hash of {counted(len(ids), 'image')}, "
            f"'{ids[0]}' to '{ids[-1]}', but no row",
            f"embedctl repair {quote(str(root.path))} --images DIR writes it from them; or take it from a copy",
        )
        return
    wanted, data = {voucher["blake2b"] for voucher in check.accepted if voucher}, b""
    for records in records_of(ids):
        data = image_table_bytes(records)
        if digest(data) in wanted:
            put_bytes(file, data, root.drafts)
            done.restored.append(file)
            return
    put_bytes(file, data, root.drafts)
    _keep(check.receipt, root.path, root.drafts, also={check.name: vouch(data)})
    done.unhashed.append(file)


def _is_public(file: Path, root: Root) -> bool:
    return root.private not in file.parents


def _bare_root(root: Root) -> bytes:
    return node_bytes(group_node(root_attributes(root.path, root.kind)))


def _mend_group(root: Root, group: Path, found: Plan, bad: Mapping[Path, Check], done: Repair) -> None:
    """Make the metadata of an embedding whole, and drop its damaged chunks."""
    hidden = private(group / "values")
    metadata = hidden / "metadata.json"
    name, _, key = group.name.rpartition("-")
    part = f"{name.replace('~', ':')}#{key}"
    is_whole = True
    for file, check in bad.items():
        if check.receipt == metadata:
            restored = restore(root.path, root.kind, file, check.accepted, root.drafts)
            done.restored += [file] * restored
            is_whole = is_whole and restored
    if any(damage.file == metadata for damage in found.damages):
        ids = sorted(file for file in (group / "image").rglob("*") if file.is_file())
        names = ["zarr.json", "values/zarr.json", *(file.relative_to(group).as_posix() for file in ids)]
        is_whole = rebuild_receipt(root.path, root.kind, metadata, group, names, root.drafts)
        done.restored += [metadata] * is_whole
    if not is_whole and done.is_held(group):
        return
    if not is_whole:
        discard(group, root.drafts)
        done.lost.append(part)
        return
    damaged = {damage.file for damage in found.damages} | set(bad)
    receipts = ({check.receipt for check in bad.values()} | damaged) - done.in_the_way
    for receipt in sorted(receipts & set((hidden / "receipts").glob("*.json"))):
        misplaced = any(d.file == receipt and d.problem == "is the receipt of other rows" for d in found.damages)
        _keep(receipt, group, root.drafts, nothing=misplaced)
    if not done.is_held(hidden / "receipts"):
        _drop_unvouched(group, hidden / "receipts")
    mended = {metadata, *done.restored, *done.in_the_way}
    if any(d.part == part and "values" in d.file.parts and d.file not in mended for d in done.found):
        done.dropped.append(part)


def _drop_unvouched(group: Path, receipts: Path) -> None:
    """Remove the chunks of an embedding that no receipt speaks of."""
    said = [accepted(read_receipt(path)) for path in receipts.glob("*.json") if is_of_a_block(path.name)]
    left = {group / name for names in said for name in names}
    for chunk in sorted(path for path in (group / "values" / "c").rglob("*") if path.is_file()):
        if chunk not in left and chunk.name.isdecimal():
            remove_file(chunk)


def _keep(
    receipt: Path, base: Path, drafts: Path, nothing: bool = False, also: Mapping[str, dict[str, Any]] | None = None
) -> None:
    """Leave in a receipt what is true, and put in ``also`` what is now; a receipt of nothing goes.

    What is said of a file in whose place a folder stands is left, too: as long as that is there, nothing can be.
    """
    kept: Vouchers = dict(also or {})
    try:
        says: dict[str, Accepted] = {} if nothing else accepted(read_receipt(receipt))
    except DamagedStore:
        says = {}
    for name, may_be in says.items():
        for voucher in reversed(may_be):
            if voucher and (fits(base / name, voucher) or (base / name).is_dir()):
                kept[name] = dict(voucher)
                break
    if kept:
        write_receipt(receipt, kept, drafts=drafts)
    else:
        remove_file(receipt)


def _epochs(path: Path, done: Repair, obstructed: list[Path]) -> None:
    root = Root(path, "epochs", "subject")
    root.refuse_links(but=obstructed)
    receipt = root.private / "metadata.json"
    with root.lock("list of subjects", wait=30.0):
        done.leave(clear_away(obstructed, root.drafts))
        renamed = _rename_back(root, done)
    _, bad = _still_damaged(path, done)
    away = {folder.relative_to(path).as_posix() for folder in renamed if not folder.exists()}
    subjects = sorted({"/".join(damage.part.split("/")[:2]) for damage in done.found if damage.part} - away)
    with root.lock("list of subjects", wait=30.0):
        for file, check in list(bad.items()):
            is_dataset = file.parent.parent == path and check.receipt == receipt
            if is_dataset and restore(path, "epochs", file, check.accepted, root.drafts):
                done.restored.append(file)
        # Where the list of subjects cannot be written, none is put on it or taken from it.
        is_held = not all("/sub-" in one.relative_to(path).as_posix() for one in done.in_the_way)
        if not is_held:
            if path / "zarr.json" in bad or any(damage.file == receipt for damage in done.found):
                put_bytes(path / "zarr.json", _bare_root(root), root.drafts)  # `publish` lists in it what there is
            _keep(receipt, path, root.drafts)
    for name in subjects:
        dataset, _, subject = name.partition("/")
        with ExitStack() as held:
            held.enter_context(root.lock(f"{dataset}-{subject}"))
            held.enter_context(root.lock(dataset, wait=30.0))
            _mend_subject(root, name, bad, done, is_held)
    if is_held:
        return
    publish(root)
    for folder in sorted(path.glob("*/zarr.json")):  # a dataset whose last subject was lost with a crash in between
        others = any(file.name != "zarr.json" for file in folder.parent.iterdir())
        if folder.parent.name != "subject" and not others and is_ours(path, "epochs", folder.parent.name):
            discard(folder.parent, root.drafts)
    publish(root)


def _mend_subject(root: Root, name: str, bad: Mapping[Path, Check], done: Repair, is_held: bool) -> None:
    """Drop the damaged blocks of a subject and put it back among the unfinished ones, or drop all of it.

    One that is held, or has a folder in it where a file belongs, stays where it is.
    """
    final, unfinished = root.path / name, root.private / "unfinished" / name
    folder = final if final.is_dir() else unfinished
    here = [one for one in done.found if folder in one.file.parents and one.file not in done.in_the_way]
    if not folder.is_dir():  # its folder is gone: the root shall not list it
        done.lost.append(name)
        return
    blocks, is_whole = set(), True
    for damage in here:
        check = bad.get(damage.file)
        if damage.file.parent.name == "receipts":
            blocks.add(damage.file)
        elif check and check.receipt.parent.name == "receipts":
            blocks.add(check.receipt)
        elif check and restore(root.path, root.kind, damage.file, check.accepted, root.drafts):
            done.restored.append(damage.file)
        elif damage.problem != "has no receipt":
            is_whole = False
    if is_held or done.is_held(folder):
        return
    for receipt in blocks:
        remove_file(receipt)
    if is_whole and not blocks:
        return
    if is_whole:
        for damage in here:
            if damage.file not in done.restored and damage.file.parent.name != "receipts":
                remove_file(damage.file)
    dataset = name.partition("/")[0]
    last = [other for other in complete_subjects(root.path) if other.partition("/")[0] == dataset] == [name]
    publish(root, without=dataset if last else name)
    if not is_whole:
        discard(folder, root.drafts)
        done.lost.append(name)
    else:
        if folder == final:
            if unfinished.is_dir():
                discard(unfinished, root.drafts)
            place(final, unfinished)
        done.dropped.append(name)
    if last and (root.path / dataset).is_dir():
        discard(root.path / dataset, root.drafts)


def _runs(path: Path) -> Repair:
    drafts, locks = path / ".embedctl" / "drafts", path / ".embedctl" / "locks"
    done, obstructed = _look(path, "runs")
    refuse_links(path, but=obstructed)
    if of_dead(locks):  # beside them a run without its receipt was taken for one at work
        clear_dead(locks)
        done, obstructed = _look(path, "runs")
    with lock(locks, "results", wait=30.0):
        done.leave(clear_away([file for file in obstructed if file.parent in (path, locks.parent)], drafts))
    for part in sorted({damage.part for damage in done.found if damage.part}):
        run, _, beside = part.partition("/")
        if part == SCREENS and {path / SCREENS, path / SCREENS_RECEIPT} & done.in_the_way:
            continue
        if part == SCREENS:  # what was tested cannot be found out again: the count restarts
            remove_file(path / SCREENS)
            remove_file(path / SCREENS_RECEIPT)
            done.lost.append(SCREENS)
            continue
        with lock(locks, run):
            done.leave(clear_away([file for file in obstructed if path / run in file.parents], drafts))
            if done.is_held(path / run):
                continue
            if (path / run / RECEIPT).exists() and part not in {damage.part for damage in run_damages(path / run)}:
                continue  # its writer has ended meanwhile
            if beside and (path / part).is_dir():
                discard(path / part, drafts)
            elif not beside:
                remove_file(path / run / RECEIPT)  # a run without it counts for nothing, and is trained anew
        done.dropped.append(part)
    if done.found and not any(one.parent in (path, locks.parent) for one in done.in_the_way):
        with suppress(DamagedStore) if done.in_the_way else nullcontext():
            assemble(path)
    return done
