"""HDF5 of strangers: datasets whose bytes lie in the file they are in, as many as their shape says."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import h5py

__all__ = ["not_plain"]


def not_plain(dataset: "h5py.Dataset", file: "h5py.File") -> str:
    """Say why a dataset is not read; nothing where it is plain.

    HDF5 unpacks a compressed chunk whole before it compares the size with the chunk's own, so ten bytes may turn
    into gigabytes; and a dataset may be a link to another file, or lie in one.
    """
    if dataset.file.filename != file.filename or dataset.external or dataset.is_virtual:
        return f"'{dataset.name}' lies in another file"
    if dataset.id.get_create_plist().get_nfilters():
        return f"'{dataset.name}' is packed, and unpacking it has no limit: h5repack -f NONE writes it plainly"
    return ""
