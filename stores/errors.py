"""Every problem embedctl expects, with the exit code it ends in.

::

    EmbedctlError        2   the request cannot be carried out as written
    ├── UnknownName      2   an encoder, dataset or embedding nobody registered
    ├── StoreMismatch    2   the store was written with different settings
    ├── BadRecording     2   a recording that cannot be used as asked
    ├── DamagedStore     4   the bytes on disk are not the bytes that were written
    ├── StoreLocked      5   a live process is writing here
    ├── NotHere          6   weights, an extra or a device that is not on this computer
    └── CannotWrite      7   the disk is full or read-only

A *programming* mistake stays a ``ValueError`` or ``TypeError``. The root lives in the lowest
package so that every layer can raise it, and the command line translates it once.
"""

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "REMOVE_AND_REDO",
    "BadRecording",
    "CannotWrite",
    "DamagedStore",
    "EmbedctlError",
    "NotHere",
    "StoreLocked",
    "StoreMismatch",
    "Terminated",
    "UnknownName",
    "suggest",
]

REMOVE_AND_REDO = "'embedctl verify .' lists the damage, and 'embedctl repair .' drops it so that it is computed again"
"""What to do about damage where nothing better is known."""


class EmbedctlError(Exception):
    """A problem the reader can act on: ``str(error)`` says what, ``hint`` says what to do.

    Parameters
    ----------
    what : str
        One line that names the problem and the thing it concerns.
    hint : str
        One line that says what to do about it.

    Examples
    --------
    >>> problem = EmbedctlError("no folder 'images'", "put the stimuli there, or name them with --images")
    >>> str(problem), problem.exit_code
    ("no folder 'images'", 2)
    """

    exit_code = 2

    def __init__(self, what: str, hint: str = "") -> None:
        # Both go to Exception so that a process pool can pickle the error and rebuild it.
        super().__init__(what, hint)
        self.what = what
        self.hint = hint
        if hint:
            self.add_note(f"hint: {hint}")  # for a traceback in a notebook; the command line shows two lines

    def __str__(self) -> str:
        return self.what


class UnknownName(EmbedctlError):
    """An encoder, dataset, subject or embedding that nobody registered or stored."""


class StoreMismatch(EmbedctlError):
    """The store was written with other settings than the ones asked for."""


class BadRecording(EmbedctlError):
    """A recording that cannot be used as asked."""


class DamagedStore(EmbedctlError):
    """The bytes on disk are not the bytes that were written."""

    exit_code = 4

    def __init__(self, what: str, hint: str = REMOVE_AND_REDO) -> None:
        super().__init__(what, hint)


class StoreLocked(EmbedctlError):
    """A live process is writing here."""

    exit_code = 5


class NotHere(EmbedctlError):
    """Weights, an extra or a device that is not on this computer."""

    exit_code = 6


class CannotWrite(EmbedctlError):
    """The disk is full or read-only."""

    exit_code = 7


class Terminated(SystemExit):
    """A signal ends this process: what is raised where it arrives, and no problem of whoever is at work there."""


def suggest(name: str, known: Iterable[str], listed_by: str = "") -> str:
    """Return the hint for a name nobody knows: the closest known one, else the first few, and what lists all.

    Examples
    --------
    >>> suggest("DINOv2-ViTB41", ["dinov2-vitb14", "clip-rn50"])
    "did you mean 'dinov2-vitb14'?"
    >>> suggest("xyz", ["clip-rn50"])
    'known: clip-rn50'
    >>> suggest("xyz", "abcdefghij", listed_by="embedctl models")
    "known: a, b, c, d, e, f, g, h and 2 more; 'embedctl models' lists them"
    """
    options = sorted(known)
    plain = {option.lower(): option for option in options}
    close = get_close_matches(name.lower(), plain, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{plain[close[0]]}'?"
    shown = ", ".join(options[:8]) + (f" and {len(options) - 8} more" if len(options) > 8 else "")
    where = f"; '{listed_by}' lists them" if listed_by and len(options) > 8 else ""
    return f"known: {shown}{where}" if options else "none are known yet"
