"""The files of an embedding store, to be compared with those of another run."""

import json
from pathlib import Path

from stores.again import COMMANDS
from stores.speed import SPEED


def files(store: Path) -> dict[str, bytes]:
    """Return every file as it must be again, without dates, the digests that hold them, and how long it took."""
    found = {
        str(f.relative_to(store)): f.read_bytes()
        for f in sorted(store.rglob("*"))
        if f.is_file() and f.name != SPEED and COMMANDS not in f.parts
    }
    for name in found:
        if name.endswith("/metadata.json"):
            found[name] = b""
        elif name.endswith("zarr.json"):
            found[name] = json.dumps(undated(json.loads(found[name]))).encode()
    return found


def undated(thing):
    if isinstance(thing, dict):
        return {key: undated(value) for key, value in thing.items() if key != "date"}
    return thing
