"""A file the user names for an answer: never a folder, and never a part of what the answer is read from."""

from pathlib import Path

from stores.commits import put_bytes
from stores.disk import check_writable
from stores.errors import CannotWrite, EmbedctlError

__all__ = ["check_file", "put_file"]


def check_file(file: Path, suffix: str, *folders: Path, beside: Path | None = None) -> None:
    """Refuse a place where an answer would replace runs, rows or images; before anything is computed.

    Directly in ``beside``, the folder of runs, a file with the ending of its format may lie.

    Raises
    ------
    EmbedctlError
        If ``file`` is a folder or lies in one of these, or is named as what it would not be.
    CannotWrite
        If its disk is read-only.
    """
    if file.name == "-":
        raise EmbedctlError("'-' is no name of a file", "name one; what can go to stdout does without")
    if file.is_dir():
        raise EmbedctlError(f"'{file}' is a folder", f"name a file in it: {file / f'report{suffix}'}")
    real = file.resolve()
    for folder in folders:
        allowed = folder == beside and real.suffix == suffix and real.parent == folder.resolve()
        if real.is_relative_to(folder.resolve()) and not allowed:
            raise EmbedctlError(f"'{file}' lies in '{folder}', which the answer is read from", "name a file elsewhere")
    if file.suffix.lower() != suffix:  # programs open a file by its ending
        raise EmbedctlError(
            f"'{file.name}' would hold {suffix[1:].upper()}",
            f"name it {file.with_suffix(suffix).name}, or choose another format",
        )
    check_writable(file)


def put_file(file: Path, data: bytes) -> None:
    """Replace a file as `put_bytes`; whatever stands in the way is said in two lines.

    Raises
    ------
    EmbedctlError
        If ``file`` is a folder.
    CannotWrite
        If it cannot be written.
    """
    if file.is_dir():
        raise EmbedctlError(f"'{file}' is a folder", "name a file")
    try:
        put_bytes(file, data)
    except OSError as problem:
        raise CannotWrite(f"cannot write '{file}': {problem.strerror}", "name a file elsewhere") from problem
