"""Archives of strangers: refused where they hold far more than they weigh, and unpacked only as far as they claim."""

import zipfile

__all__ = ["check_members", "read_member", "refuse_bomb"]

_ROOM, _RATIO = 1 << 26, 50  # numbers shrink by a tenth, sparse ones to a fifth
_PIECE = 1 << 20


def refuse_bomb(packed: int, unpacked: int) -> None:
    """Refuse what unpacks to over 64 MiB and to more than 50 times its size.

    Raises
    ------
    ValueError
        Saying both sizes.

    Examples
    --------
    >>> refuse_bomb(1_000_000, 50_000_000)
    >>> refuse_bomb(1_000_000, 9_000_000_000)
    Traceback (most recent call last):
    ...
    ValueError: 1,000,000 bytes that unpack to 9,000,000,000: a bomb
    """
    if unpacked > max(_ROOM, _RATIO * packed):
        raise ValueError(f"{packed:,} bytes that unpack to {unpacked:,}: a bomb")


def check_members(archive: zipfile.ZipFile, *names: str) -> None:
    """Refuse members of a zip, all by default, that are bombs, or packed so that their size shows only afterwards.

    Raises
    ------
    ValueError
        Saying which.
    """
    members = [archive.getinfo(name) for name in names] or archive.infolist()
    for member in members:
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"'{member.filename}' is packed in a way that cannot be unpacked piece by piece")
    refuse_bomb(sum(member.compress_size for member in members), sum(member.file_size for member in members))


def read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Return a member of a zip, read in pieces: at once, it is unpacked whole, however much more it holds than it says.

    Raises
    ------
    ValueError
        As `check_members`.
    """
    check_members(archive, name)
    with archive.open(name) as member:
        return b"".join(iter(lambda: member.read(_PIECE), b""))
