"""What a run is trained against: one embedding of the store, or several, written ``A+B``."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from stores.embedding import Entry
from stores.errors import EmbedctlError, UnknownName

__all__ = ["Target", "find_target", "target_of"]


@dataclass(frozen=True)
class Target:
    """One embedding of the store, or several side by side.

    Parameters
    ----------
    parts : tuple of Entry
        The embeddings, in the order of their features.
    """

    parts: tuple[Entry, ...]

    @cached_property
    def name(self) -> str:
        """As people type it."""
        return "+".join(str(part.name) for part in self.parts)

    @cached_property
    def encoder(self) -> str:
        """Who computed it; several encoders are joined by ``+``."""
        return "+".join(dict.fromkeys(part.name.encoder for part in self.parts))

    @cached_property
    def key(self) -> str:
        """Which numbers: of one embedding its own key."""
        keys = [part.key for part in self.parts]
        return keys[0] if len(keys) == 1 else hashlib.blake2b(" ".join(keys).encode(), digest_size=6).hexdigest()

    @property
    def widths(self) -> tuple[int, ...]:
        """Features of each part."""
        return tuple(part.dim for part in self.parts)

    @property
    def dim(self) -> int:
        """Features of all parts."""
        return sum(self.widths)

    @property
    def n_committed(self) -> int:
        """Images that are there in every part, at most."""
        return min(part.n_committed for part in self.parts)

    @property
    def texts(self) -> list[str]:
        """Every part as ``NAME#KEY``."""
        return [f"{part.name}#{part.key}" for part in self.parts]

    def said_of(self) -> dict[str, str]:
        """Return what the registry says of one embedding; of several, who aligned them and no base."""
        registries = [part.provenance.get("registry") or {} for part in self.parts]
        if len(registries) == 1:
            return {name: registries[0].get(name) or "" for name in ("aligned_by", "base", "matched_base", "match")}
        aligned_by = dict.fromkeys(one["aligned_by"] for one in registries if one.get("aligned_by"))
        return {"aligned_by": "+".join(aligned_by), "base": "", "matched_base": "", "match": ""}


def find_target(text: str, resolve: Callable[[str], Entry]) -> Target:
    """Return what ``A`` or ``A+B`` means; a ``+`` inside the name of one embedding is read as such.

    Parameters
    ----------
    text : str
        Names as in the store, or ``NAME#KEY``, joined by ``+``.
    resolve : callable
        From a name to the entry, as `EmbeddingStore.resolve`.

    Raises
    ------
    UnknownName
        If a part is not stored.
    EmbedctlError
        If a part is named twice, or its key has to be chosen.
    """
    words = text.split("+")
    if not all(words) and words != [""]:
        raise EmbedctlError(f"'{text}' names nothing on one side of a '+'", "write A+B, both names as in the store")
    parts = _parts(words, resolve)
    if parts is None:
        parts = tuple(resolve(word) for word in ([text] if len(words) == 1 else words))  # says which is unknown
    if len({(str(part.name), part.key) for part in parts}) < len(parts):
        raise EmbedctlError(f"'{text}' names an embedding twice", "name each once")
    return Target(parts)


def target_of(config: dict[str, Any], entries: Iterable[Entry]) -> Target | None:
    """Return what a run was trained against, from its configuration; None where the store lacks a part of it."""
    stored = {f"{entry.name}#{entry.key}": entry for entry in entries}
    texts = config.get("parts") or [f"{config['embedding']}#{config['embedding_key']}"]
    return Target(tuple(stored[text] for text in texts)) if all(text in stored for text in texts) else None


def _parts(words: list[str], resolve: Callable[[str], Entry]) -> tuple[Entry, ...] | None:
    """Return the entries that words joined by ``+`` mean, the longest names first; None where they mean none."""
    for n in range(len(words), 0, -1):
        try:
            first = resolve("+".join(words[:n]))
        except UnknownName:
            continue
        rest = _parts(words[n:], resolve) if words[n:] else ()
        if rest is not None:
            return (first, *rest)
    return None
