"""The root's copy of all metadata: where other programs look first, and what `repair` takes where a file is damaged."""

from collections.abc import Iterator
from pathlib import Path

from stores.commits import digest
from stores.errors import DamagedStore
from stores.layout import Node, group_node, private, read_node
from stores.receipts import read_receipt

__all__ = ["consolidated"]

_Digests = dict[Path, set[str]]
_KEEPERS = ("image", "subject", "split", "values")
"""Arrays whose ``.embedctl`` holds the receipt of a group's metadata."""


def consolidated(path: Path, without: str = "", attributes: Node | None = None) -> Node:
    """Return the root's ``zarr.json`` with that of every node below in it, as zarr's own consolidation writes it.

    The copy must not follow a damaged file, or nothing could be restored from it: of a node that is not what its
    receipt says, or whose receipt is lost, what the root says now is kept, or nothing. The group ``without`` and what
    is below it is left out. The root's ``attributes`` are read from it, if not given.
    """
    if attributes is None:
        attributes = read_node(path)["attributes"]
    below = {folder.relative_to(path).as_posix(): node for folder, node in _nodes(path, without)}
    by_depth = dict(sorted(below.items(), key=lambda item: (item[0].count("/"), item[0])))
    return {**group_node(attributes), "consolidated_metadata": _inline(by_depth)}


def _inline(metadata: Node) -> Node:
    return {"kind": "inline", "must_understand": False, "metadata": metadata}


def _nodes(path: Path, without: str) -> Iterator[tuple[Path, Node]]:
    copies = _copies(path)
    open_groups = [(path, *_vouched(path, {}))]
    while open_groups:
        group, known, is_lost = open_groups.pop()
        for folder in sorted(child for child in group.iterdir() if _is_node(child)):
            if without and folder == path / without:
                continue
            digests, is_lost_here = _vouched(folder, known)
            copy = copies.get(folder.relative_to(path).as_posix())
            node = _sound(folder, digests, copy, is_lost or is_lost_here)
            if node is None or node.get("node_type") == "group":
                open_groups.append((folder, digests, is_lost_here))
            if node is not None:
                yield folder, node


def _copies(path: Path) -> Node:
    try:
        copies = read_node(path)["consolidated_metadata"]["metadata"]
    except (DamagedStore, KeyError, TypeError):
        return {}
    return copies if isinstance(copies, dict) else {}


def _vouched(group: Path, known: _Digests) -> tuple[_Digests, bool]:
    """Return the digests that a node and those below may have, and whether the receipt that says so is lost."""
    digests, is_lost = dict(known), False
    if group / "zarr.json" in known:  # whoever vouches for it vouches for what is below, too
        return digests, False
    for hidden in (private(group / array) for array in _KEEPERS):
        try:
            receipt = read_receipt(hidden / "metadata.json")
        except DamagedStore:
            receipt = {"files": {}}
        said = [*receipt["files"].items(), *receipt.get("next", {}).items()]
        is_lost |= not said and hidden.is_dir()
        for name, voucher in said:
            if name.endswith("zarr.json"):
                digests[group / name] = {*digests.get(group / name, ()), voucher["blake2b"]}
    return digests, is_lost


def _sound(folder: Path, digests: _Digests, copy: Node | None, is_lost: bool) -> Node | None:
    """Return a node as it was written, from its file or else from the copy; None where neither can be trusted."""
    wanted = digests.get(folder / "zarr.json", set())
    try:
        node = read_node(folder)
    except DamagedStore:
        return copy if wanted or is_lost else None
    if wanted:
        return _listed(node) if digest(folder / "zarr.json") in wanted else copy
    return copy if is_lost else _listed(node)


def _listed(node: Node) -> Node:
    return {**node, "consolidated_metadata": _inline({})} if node.get("node_type") == "group" else node


def _is_node(path: Path) -> bool:
    # A link may lead in a circle.
    return path.is_dir() and not path.is_symlink() and (path / "zarr.json").is_file()
