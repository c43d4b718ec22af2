"""What is asked of an extraction, and what it tells when it is done."""

from dataclasses import dataclass, field
from pathlib import Path

from stores.parts import Part

__all__ = ["EmbeddingReport", "ExtractReport", "ExtractRequest"]


@dataclass(frozen=True, kw_only=True)
class ExtractRequest:
    """Which embeddings of which images go into which store.

    Parameters
    ----------
    models : tuple of str
        Embedding names as people type them: ``ENCODER[:LAYER[.POOLING]][@VIEW]``.
    images : Path
        Folder tree, zip, tar, folder of tars or ``nsd_stimuli.hdf5``.
    store : Path
        Embedding store; made when it is not there.
    weights : str
        ``published``, ``random:SEED`` or the path of a checkpoint.
    batch_size : int, optional
        Rows of one forward pass. None takes what the store recorded, else 32.
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    dtype : str
        ``float16`` or ``float32``, as stored; an embedding that float16 cannot hold is float32.
    exact : bool
        Preprocess bit for bit as the encoder's own library does.
    layers, views : tuple of str
        Put on every model that names none itself; a layer may also be a depth, ``depth:0.5``.
    refresh : bool
        Hash every image again and compute the changed ones again.
    overwrite : bool
        Drop the named embeddings first.
    offline : bool
        Never fetch weights.
    shard : Part, optional
        Only these blocks, beside other commands at work on others.
    workers : int
        Processes of a dask cluster to start on this computer; 0 computes in this process.
    scheduler : str
        Address of a dask cluster to compute on.
    memory_budget : int, optional
        Bytes that all networks of one pass may take; encoders beyond it get a pass over the images of their own.
    dry_run : bool
        Only tell what is to do.
    """

    models: tuple[str, ...]
    images: Path = Path("images")
    store: Path = Path("embeddings.zarr")
    weights: str = "published"
    batch_size: int | None = None
    device: str = "auto"
    dtype: str = "float16"
    exact: bool = False
    layers: tuple[str, ...] = ()
    views: tuple[str, ...] = ()
    refresh: bool = False
    overwrite: bool = False
    offline: bool = False
    shard: Part | None = None
    workers: int = 0
    scheduler: str = ""
    memory_budget: int | None = None
    dry_run: bool = False


@dataclass(kw_only=True)
class EmbeddingReport:
    """One line of the final table: what happened to one embedding."""

    name: str
    key: str
    weights: str
    batch_size: int
    dim: int | None = None  # unknown to a dry run of a layer the registry gives no width for
    dtype: str = "float16"
    written: int = 0
    already: int = 0
    absent: int = 0
    to_do: int = 0


@dataclass(kw_only=True)
class ExtractReport:
    """What an extraction did, or with ``dry_run`` would do.

    Attributes
    ----------
    n_images : int
        Images found.
    n_read : int
        Images read by this run, once per pass over them: 0 where nothing was to do.
    embeddings : list of EmbeddingReport
        One line per embedding.
    skipped : dict of str to str
        Image id to the reason why it has no row: the caller ends with exit code 3 when there are any.
    seconds : float
        Wall time of the whole extraction.
    stages : dict of str to float
        Seconds spent in ``read``, ``decode`` and ``preprocess`` (summed over threads), ``forward`` and ``write``.
    bytes : int
        Bytes of rows written.
    bytes_needed, bytes_free : int
        What the rows still to compute take on disk, and what is free there.
    seconds_expected : float, optional
        In a dry run, what the rows to compute will take if they take as long as last time; None where nobody knows.
    to_fetch : dict of str to int
        In a dry run, encoders whose published weights are not on this computer, with their size in bytes (0: unknown).
    """

    store: Path
    n_images: int = 0
    n_read: int = 0
    embeddings: list[EmbeddingReport] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)
    bytes: int = 0
    bytes_needed: int = 0
    bytes_free: int = 0
    seconds_expected: float | None = None
    to_fetch: dict[str, int] = field(default_factory=dict)
    dry_run: bool = False

    @property
    def written(self) -> int:
        """Rows computed and committed, over all embeddings."""
        return sum(line.written for line in self.embeddings)

    @property
    def already(self) -> int:
        """Rows that were there before, over all embeddings."""
        return sum(line.already for line in self.embeddings)

    @property
    def to_do(self) -> int:
        """Rows still to compute when the plan was made, over all embeddings."""
        return sum(line.to_do for line in self.embeddings)
