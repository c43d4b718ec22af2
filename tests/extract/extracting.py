"""Extract, and look at what is in the store then; for tests of the whole path."""

from pathlib import Path

from pipelines.extract.extract import extract
from pipelines.extract.request import ExtractReport, ExtractRequest
from pipelines.progress import SILENT
from stores.embeddings import EmbeddingStore

CONTROLS = ("pixels", "gabor-pyramid", "hog", "colour-histogram")


def run(images: Path, *models: str, store: str = "embeddings.zarr", progress=SILENT, **options) -> ExtractReport:
    defaults = {"models": models or ("pixels",), "store": images.parent / store, "batch_size": None}
    return extract(ExtractRequest(images=images, **{**defaults, **options}), progress)


def opened(images: Path, store: str = "embeddings.zarr") -> EmbeddingStore:
    return EmbeddingStore.open(images.parent / store)


def rows_of(images: Path, name: str, store: str = "embeddings.zarr") -> dict[str, bytes]:
    """Return the stored bytes of every committed row, by image id."""
    embedding = opened(images, store)[name]
    return {image_id: row.tobytes() for image_id, row in zip(embedding.image_ids, embedding.values, strict=True)}


def files_of(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {str(f): (f.stat().st_mtime_ns, f.read_bytes()) for f in sorted(folder.rglob("*")) if f.is_file()}
