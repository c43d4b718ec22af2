"""How much memory this computer has for a program, and how much of it is free."""

from stores.errors import EmbedctlError

__all__ = ["BYTES_EACH", "bytes_free", "bytes_there", "require"]

BYTES_EACH = 6e8  # of a process with torch, measured


def bytes_there() -> float:
    """Return the bytes a program may take: those of the computer, or of the container or job it runs in."""
    from distributed.system import MEMORY_LIMIT  # reads what cgroups and limits say; a second, so only where asked

    return float(MEMORY_LIMIT)


def bytes_free() -> float:
    """Return the bytes that are free at this moment."""
    import psutil

    return min(bytes_there(), float(psutil.virtual_memory().available))


def require(n_bytes: float, what: str, hint: str, n_processes: int = 1) -> None:
    """Refuse what there is no memory for, before the system ends the program without a word.

    Parameters
    ----------
    n_bytes : float
        What is needed, the program itself left out.
    what : str
        What needs it, and the verb.
    hint : str
        What needs less.
    n_processes : int
        In how many processes at once.

    Raises
    ------
    EmbedctlError
        If this computer has less, all in all.
    """
    there = bytes_there()
    if n_processes * (n_bytes + BYTES_EACH) > there:
        each = f" in each of {n_processes} processes" if n_processes > 1 else ""
        raise EmbedctlError(
            f"{what} {n_bytes / 1e9:.1f} GB of memory{each}, this computer has {there / 1e9:.1f} GB",
            f"start fewer workers, or {hint}" if each else hint,
        )
