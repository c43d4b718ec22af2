"""What a subject is made from, so that it is known again: its files as they are, and what was understood of them.

A subject is "already there", and an interrupted one goes on where it was, only while both are the same. A small file is
read whole. Of a large one (a session is 3 GB, and hashing it costs as much as the work) size, time of modification,
beginning, middle and end are taken: a copy that does not keep the times is another file. What was understood of files,
whichever they are, is in `meaning`: events, images, concepts, channels, units, times, voxels.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stores.files import open_file

__all__ = ["changed", "identify", "meaning"]

_WHOLE = 16_000_000  # bytes: read in a blink
_PART = 65_536


def identify(name: str, paths: Iterable[Path]) -> dict[str, Any]:
    """Return what one recording is known by.

    Parameters
    ----------
    name : str
        What it is called.
    paths : iterable of Path
        Its files, or folders of them.

    Returns
    -------
    dict
        ``file`` and ``bytes``; ``fingerprint`` of the content of its largest file, which a copy under another name
        shares; ``state``, which changes when any of its files does.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.npy"
    >>> _ = path.write_bytes(b"123")
    >>> before = identify("a.npy", [path])
    >>> _ = path.write_bytes(b"124")
    >>> changed([before], [identify("a.npy", [path])])
    'a.npy'
    """
    listed = {file for path in paths for file in (path.rglob("*") if path.is_dir() else [path])}
    files = sorted(file for file in listed if file.is_file())
    sizes = {file: file.stat().st_size for file in files}
    contents = {file: _content(file, sizes[file]) for file in files}
    states = [
        [file.name, sizes[file], contents[file], file.stat().st_mtime_ns if sizes[file] > _WHOLE else 0]
        for file in files
    ]
    largest = max(files, key=lambda file: sizes[file])
    return {
        "file": name,
        "bytes": sum(sizes.values()),
        "fingerprint": contents[largest],
        "state": meaning({"files": states})["state"],
    }


def meaning(understood: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was understood of a subject's files as one more thing it is known by.

    Parameters
    ----------
    understood : mapping
        Arrays, and whatever JSON can hold.

    Examples
    --------
    >>> meaning({"sfreq": 250.0})["state"] == meaning({"sfreq": 500.0})["state"]
    False
    """
    state = hashlib.blake2b(digest_size=16)
    _feed(state, understood)
    return {"file": "what they mean", "state": state.hexdigest()}


def changed(before: Iterable[Mapping[str, Any]], after: Iterable[Mapping[str, Any]]) -> str:
    """Return the first name whose state differs between two lists of `identify` and `meaning`; empty if none does."""
    states = [{source["file"]: source.get("state") for source in sources} for sources in (before, after)]
    names = [*states[1], *states[0]]
    return next((name for name in names if states[0].get(name) != states[1].get(name)), "")


def _content(path: Path, size: int) -> str:
    """Hash a small file, or beginning, middle and end of a large one."""
    state = hashlib.blake2b(digest_size=16)
    with open_file(path) as file:
        if size <= _WHOLE:
            state.update(file.read())
        else:
            for start in (0, size // 2, size - _PART):
                file.seek(start)
                state.update(file.read(_PART))
    return state.hexdigest()


def _feed(state: Any, value: Any) -> None:
    """Hash a value so that two that differ differ."""
    if isinstance(value, Mapping):
        for key in sorted(value, key=str):
            state.update(f"{key}:".encode())
            _feed(state, value[key])
    elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
        state.update(f"{value.dtype.str} {value.shape}".encode())
        state.update(np.ascontiguousarray(value).tobytes())
    else:
        state.update(json.dumps(value.tolist() if isinstance(value, np.ndarray) else value, default=str).encode())
