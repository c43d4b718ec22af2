"""What is asked of an import, and what it tells when it is done."""

from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["ImportReport", "ImportRequest"]


@dataclass(frozen=True, kw_only=True)
class ImportRequest:
    """What is imported, from where, into which store.

    Parameters
    ----------
    name : str
        What the embedding is called: ``NAME[:LAYER[.POOLING]][@VIEW]``.
    arrays : tuple of Path
        Files with an array (image, feature) each, and AlignVis's folders with a file per image. Several are one
        embedding of all their images.
    ids : tuple of Path
        A list of image ids for each of the files, in their order; folders need none.
    images : Path
        Folder tree, zip or tar of images; where there is none, only images of the store are known.
    store : Path
        Embedding store; made when it is not there.
    suffix : str
        Which encoder's files to take from a folder.
    dtype : str
        ``float16`` or ``float32``, as stored; numbers that float16 cannot hold are float32.
    dry_run : bool
        Check everything and write nothing.
    """

    name: str
    arrays: tuple[Path, ...]
    ids: tuple[Path, ...] = ()
    images: Path = Path("images")
    store: Path = Path("embeddings.zarr")
    suffix: str = ""
    dtype: str = "float16"
    dry_run: bool = False


@dataclass(kw_only=True)
class ImportReport:
    """What an import did, or with ``dry_run`` would do."""

    name: str
    key: str
    store: Path
    dim: int
    dtype: str
    written: int = 0
    already: int = 0
    to_do: int = 0
    notes: list[str] = field(default_factory=list)
    dry_run: bool = False
