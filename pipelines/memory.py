"""How much memory this computer has for a program, and how much of it is free."""

__all__ = ["bytes_free", "bytes_there"]


def bytes_there() -> float:
    """Return the bytes a program may take: those of the computer, or of the container or job it runs in."""
    from distributed.system import MEMORY_LIMIT  # reads what cgroups and limits say; a second, so only where asked

    return float(MEMORY_LIMIT)


def bytes_free() -> float:
    """Return the bytes that are free at this moment."""
    import psutil

    return min(bytes_there(), float(psutil.virtual_memory().available))
