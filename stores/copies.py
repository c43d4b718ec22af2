"""What a store says twice: from the copy, a damaged file can be had again, byte for byte.

The root repeats the metadata of every node, and every embedding the ids of the images. A candidate counts only if its
digest is the one that the receipt of the lost file holds, or if two sources that know nothing of each other agree.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stores.checks import Accepted
from stores.commits import digest, put_bytes
from stores.consolidation import consolidated
from stores.errors import DamagedStore
from stores.images import read_image_table
from stores.layout import FORMAT, group_node, read_array, read_node
from stores.receipts import vouch, write_receipt
from stores.roots import node_bytes, read_strings

__all__ = ["own_name", "rebuild_receipt", "restore", "root_attributes"]


def own_name(store: Path, group: Path) -> str:
    """Return the name, below ``store``, of the one group that the root knows with this very metadata; else nothing."""
    try:
        node, copies = read_node(group), read_node(store)["consolidated_metadata"]["metadata"]
        known = [
            name
            for name, copy in copies.items()
            if {key: value for key, value in copy.items() if key != "consolidated_metadata"} == node
        ]
    except (DamagedStore, KeyError, TypeError, AttributeError):
        return ""
    return known[0] if len(known) == 1 and known[0].count("/") == group.relative_to(store).as_posix().count("/") else ""


def restore(store: Path, kind: str, file: Path, accepted: Accepted, drafts: Path) -> bool:
    """Write a damaged file again from a copy, if there is one that its receipt accepts."""
    wanted = {voucher["blake2b"] for voucher in accepted if voucher}
    for data in _candidates(store, kind, file):
        if digest(data) in wanted:
            put_bytes(file, data, drafts)
            return True
    return False


def rebuild_receipt(store: Path, kind: str, receipt: Path, base: Path, names: list[str], drafts: Path) -> bool:
    """Write a lost receipt of metadata again, if every file it spoke of equals an independent copy."""
    files = {}
    for name in names:
        file = base / name
        data = file.read_bytes() if file.is_file() else b""
        is_table = file.suffix == ".parquet" and _is_whole_table(file, store)
        if not data or not (is_table or data in _candidates(store, kind, file)):
            return False
        files[name] = vouch(data)
    write_receipt(receipt, files, drafts=drafts)
    return True


def root_attributes(store: Path, kind: str) -> dict[str, Any]:
    """Return the attributes of a root, from what else is known of the store."""
    ours: dict[str, Any] = {"kind": kind, "format": FORMAT}
    if kind == "embeddings" and (ids := read_array(store / "image")).shape[0]:
        ours["block_rows"] = ids.chunks[0] // 16  # see `stores.group.string_chunk`
    return {"embedctl": ours}


def _candidates(store: Path, kind: str, file: Path) -> Iterator[bytes]:
    name = file.relative_to(store)
    try:
        if file == store / "zarr.json":
            yield node_bytes(consolidated(store, attributes=root_attributes(store, kind)))
            return
        if file.name == "zarr.json":
            node = read_node(store)["consolidated_metadata"]["metadata"].get(name.parent.as_posix())
            if isinstance(node, dict):
                yield node_bytes({key: value for key, value in node.items() if key != "consolidated_metadata"})
            if kind == "epochs" and len(name.parts) == 2:
                for subject in sorted(file.parent.glob("sub-*")):
                    recipe = read_node(subject)["attributes"]["embedctl"]["recipe"]
                    yield node_bytes(group_node({"embedctl": {"kind": "dataset", "recipe": recipe}}))
    except (DamagedStore, KeyError, TypeError):
        pass
    array = next((part for part in ("image", "concept", "channel", "time") if part in name.parts), "")
    if array and ".embedctl" not in name.parts:
        below = name.parts[name.parts.index(array) :]
        for other in sorted(store.rglob("/".join(below))):
            if other != file and other.is_file():
                yield other.read_bytes()


def _is_whole_table(file: Path, store: Path) -> bool:
    try:
        size, number = read_array(store / "image").chunks[0], int(file.stem.rpartition("-")[2])
        ids = read_strings(store / "image")[number * size : (number + 1) * size]
        return bool(read_image_table(file)["id"].to_pylist() == ids)
    except DamagedStore:
        return False
