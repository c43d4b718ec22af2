"""The commands that wrote each part of a store or of a folder of runs: what `repair` tells the user to paste.

Not part of what is promised, so no receipt vouches for it, and a stranger may have written it: whoever shows it says
what of it may be shown. A part is an embedding, a subject or a run; those that one
command computes together are told together: ``option`` is what their commands differ in, such as ``--model``. The
store's own path is not noted, and what lies beside the store is noted from there, because a workspace may be moved.
"""

import json
import shlex
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from stores.commits import digest, put_json
from stores.files import read_file

__all__ = ["COMMANDS", "STORE", "Note", "commands_for", "from_workspace", "note_command"]

COMMANDS = "commands"
"""Name of the folder, beside the locks."""
STORE = "{store}"
"""Stands for the store, or the folder of runs, in the words that are noted."""
_HERE = "{workspace}/"
Note = dict[str, Any]
"""One command: its ``words``, and the ``option`` and its ``value`` that it does not share with those of other parts."""


def from_workspace(path: Path, place: Path) -> str:
    """Return a path as it is noted: from the folder the store lies in, or from the root.

    Examples
    --------
    >>> from_workspace(Path("/lab/images"), Path("/lab")), from_workspace(Path("/data/images"), Path("/lab"))
    ('{workspace}/images', '/data/images')
    """
    path, place = path.absolute(), place.absolute()
    return _HERE + path.relative_to(place).as_posix() if path.is_relative_to(place) else str(path)


def note_command(hidden: Path, part: str, words: Sequence[str], option: str, value: str, anew: bool = False) -> None:
    """Write down what computes a part: after what computed other rows of it, or, ``anew``, in its place."""
    known = [] if anew else _read(hidden, part)
    entry = {"words": list(words), "option": option, "value": value}
    if entry not in known:
        put_json(_file(hidden, part), {"part": part, "commands": [*known, entry]}, hidden / "drafts")


def commands_for(
    hidden: Path, parts: Iterable[str], store: Path, shown: Callable[[Note], Note | None] = lambda note: note
) -> tuple[list[str], list[str]]:
    """Return the lines to paste, in the order they were first used, and the parts of which nobody knows.

    Parameters
    ----------
    hidden : Path
        Where the notes lie.
    parts : iterable of str
        Parts of the store.
    store : Path
        The store, as it is to be named.
    shown : callable
        Returns what of a note may be shown, None if nothing.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> hidden = Path(mkdtemp())
    >>> for name in ("hog", "pixels"):
    ...     words = ["extract", "{store}", "--images", "{workspace}/my images"]
    ...     note_command(hidden, f"{name}#0a", words, "--model", name)
    >>> commands_for(hidden, ["hog#0a", "pixels#0a", "clip-rn50#0a"], Path("a.zarr"))
    (["embedctl extract --model hog,pixels a.zarr --images 'my images'"], ['clip-rn50#0a'])
    """
    together: dict[tuple[str, ...], list[str]] = {}
    unknown = []
    for part in parts:
        known = [entry for entry in map(shown, _read(hidden, part)) if entry]
        for entry in known:
            values = together.setdefault((entry["option"], *entry["words"]), [])
            if entry["value"] not in values:
                values.append(entry["value"])
        if not known:
            unknown.append(part)
    lines = [
        shlex.join(["embedctl", command, option, ",".join(values), *(_typed(word, store) for word in words)])
        for (option, command, *words), values in together.items()
    ]
    return lines, unknown


def _typed(word: str, store: Path) -> str:
    if word == STORE:
        return str(store)
    return str(store.parent / word.removeprefix(_HERE)) if word.startswith(_HERE) else word


def _file(hidden: Path, part: str) -> Path:
    return hidden / COMMANDS / f"{digest(part.encode())[:16]}.json"


def _read(hidden: Path, part: str) -> list[Note]:
    try:
        found = json.loads(read_file(_file(hidden, part), at_most=1 << 24))
        return [entry for entry in found["commands"] if _is_command(entry)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []


def _is_command(entry: Note) -> bool:
    """Say whether an entry is as `note_command` writes it: nothing vouches for these files."""
    texts = [entry["option"], entry["value"], *entry["words"]]
    return len(texts) > 2 and isinstance(entry["words"], list) and all(isinstance(text, str) for text in texts)
