"""Embeddings of other programs into an embedding store: all rows checked first, then committed block by block.

Nothing tells whether such numbers are what their name says, so they are marked ``imported, unverified`` for good. The
key hashes the ids and the numbers: the same import again finds every row there, other numbers get another key.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.encoders.registry import registry
from pipelines.extract.block import rounded
from pipelines.extract.sources import ImageSource, open_images
from pipelines.imports.arrays import read_array, read_vector
from pipelines.imports.id_lists import read_ids
from pipelines.imports.per_image import find_per_image, first
from pipelines.imports.request import ImportReport, ImportRequest
from pipelines.progress import SILENT, Progress
from stores.disk import bytes_free, require_room
from stores.embedding import IMPORTED
from stores.embeddings import EmbeddingStore
from stores.errors import EmbedctlError, suggest
from stores.images import ImageRecord
from stores.names import EmbeddingName, counted
from stores.versions import installed_version

__all__ = ["import_embeddings"]

ROWS = 1024  # checked and hashed at a time


@dataclass(frozen=True)
class _Part:
    """Rows of one source."""

    label: str
    ids: list[str]
    values: np.ndarray


def import_embeddings(request: ImportRequest, progress: Progress = SILENT) -> ImportReport:
    r"""Bring embeddings into a store; whatever is wrong with them is said before anything is written.

    Raises
    ------
    EmbedctlError
        If a file cannot be read, numbers of rows and ids differ, an id comes twice or names no image that is known,
        or a number is not finite.
    CannotWrite
        If the disk is read-only or has no room.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from PIL import Image
    >>> folder = Path(mkdtemp())
    >>> for n in range(3):
    ...     Image.new("RGB", (8, 8)).save(folder / f"{n}.png")
    >>> np.save(folder / "mine.npy", np.eye(2, 5, dtype=np.float32))
    >>> (folder / "ids.txt").write_text("2.png\n0.png\n")
    12
    >>> files = {"arrays": (folder / "mine.npy",), "ids": (folder / "ids.txt",)}
    >>> request = ImportRequest(name="mine", images=folder, store=folder / "embeddings.zarr", **files)
    >>> import_embeddings(request).written, import_embeddings(request).written
    (2, 0)
    """
    name = EmbeddingName.parse(request.name)
    store = EmbeddingStore.find(request.store)
    source = open_images(request.images) if request.images.exists() or store is None else None
    known = dict.fromkeys([*(store.image_ids if store else []), *(source.stamps if source else [])])
    report = ImportReport(name=str(name), key="", store=request.store, dim=0, dtype=request.dtype)
    report.dry_run = request.dry_run
    parts = _read(request, list(known), report.notes, progress)
    _refuse_odd_ids(parts, known, request)
    place = {image_id: (part, i) for part in parts for i, image_id in enumerate(part.ids)}
    report.dim = parts[0].values.shape[1]
    digest, unfit = _examine(parts, place, progress)
    if unfit and request.dtype == "float16":
        report.dtype = "float32"
        report.notes.append("float16 cannot hold its values, so every row is stored in float32")
    report.key = hashlib.sha256(f"imported {digest} {report.dtype}".encode()).hexdigest()[:12]
    if name.encoder in registry():
        report.notes.append(f"'{name.encoder}' is an encoder of the registry: once extracted, the bare name means that")
    for note in report.notes:
        progress.say(note)
    if request.dry_run:
        committed = _committed(store, name, report.key)
        report.already = len(committed & place.keys())
        report.to_do = len(place) - report.already
        return report
    provenance = _provenance(name, report, parts, digest)
    store = store or EmbeddingStore.open(request.store, create=True)
    with store.lock():
        _write(store, source, name, report, place, provenance, progress)
    return report


def _read(request: ImportRequest, known: Sequence[str], notes: list[str], progress: Progress) -> list[_Part]:
    files = [path for path in request.arrays if not path.is_dir()]
    if not request.arrays:
        raise EmbedctlError("nothing to import is named", "name a file of embeddings, or a folder of them, with --npy")
    if len(files) != len(request.ids):
        raise EmbedctlError(
            f"{counted(len(files), 'file')} of embeddings, {counted(len(request.ids), 'list')} of ids",
            "give one --ids for each file, in the same order; folders need none",
        )
    lists = iter(request.ids)
    parts: list[_Part] = []
    for path in request.arrays:
        part = _folder(path, known, request.suffix, notes, progress) if path.is_dir() else _file(path, next(lists))
        if parts and part.values.shape[1] != parts[0].values.shape[1]:
            raise EmbedctlError(
                f"'{path}' has {part.values.shape[1]} features, '{parts[0].label}' {parts[0].values.shape[1]}",
                "import them under two names",
            )
        parts.append(part)
    return parts


def _file(path: Path, ids_path: Path) -> _Part:
    values, ids = read_array(path), read_ids(ids_path)
    if len(values) != len(ids):
        raise EmbedctlError(
            f"'{path}' has {counted(len(values), 'row')}, '{ids_path}' {counted(len(ids), 'id')}",
            "give one id per row, in order",
        )
    return _Part(str(path), ids, values)


def _folder(path: Path, known: Sequence[str], suffix: str, notes: list[str], progress: Progress) -> _Part:
    found = find_per_image(path, known, suffix)
    if found.n_others:
        notes.append(f"'{path}' holds {found.n_others:,} other .npy files, which are left out")
    progress.start("read", len(found.files), "files")
    vectors = []
    for file in found.files.values():
        vectors.append(read_vector(file))
        if len(vectors[-1]) != len(vectors[0]):
            raise EmbedctlError(
                f"'{file}' has {len(vectors[-1])} features, the ones before {len(vectors[0])}",
                "all files of an encoder have as many",
            )
        progress.advance()
    return _Part(str(path), list(found.files), np.stack(vectors))


def _refuse_odd_ids(parts: Sequence[_Part], known: dict[str, None], request: ImportRequest) -> None:
    seen: set[str] = set()
    for part in parts:
        for image_id in part.ids:
            if image_id in seen:
                raise EmbedctlError(f"the image id '{image_id}' comes twice", "keep one row per image")
            seen.add(image_id)
    if unknown := [image_id for part in parts for image_id in part.ids if image_id not in known]:
        where = f"neither in '{request.images}' nor in the store '{request.store}'"
        raise EmbedctlError(
            f"{len(unknown):,} of {len(seen):,} images are {where}: {first(unknown)}",
            f"an id is the path below the image folder, see --images; {suggest(unknown[0], known)}",
        )


def _examine(parts: Sequence[_Part], place: dict[str, tuple[_Part, int]], progress: Progress) -> tuple[str, bool]:
    """Return the digest of ids and numbers, and whether float16 cannot hold them; refuse what is not finite."""
    digest, unfit = hashlib.sha256(), False
    ordered = sorted(place, key=str.encode)
    progress.start("check", len(ordered), "rows")
    for start in range(0, len(ordered), ROWS):
        ids = ordered[start : start + ROWS]
        values = _take([place[image_id] for image_id in ids])
        broken = ~np.isfinite(values).all(axis=1)
        if broken.any():
            names = [image_id for image_id, bad in zip(ids, broken, strict=True) if bad]
            part, row = place[names[0]]
            raise EmbedctlError(
                f"'{part.label}' holds numbers that are not finite, or beyond float32: row {row}, '{names[0]}'",
                "compute these rows again, or leave their images out",
            )
        unfit |= rounded(values, "float16")[1]
        for image_id, row_bytes in zip(ids, values.astype("<f4"), strict=True):
            digest.update(image_id.encode() + b"\0" + row_bytes.tobytes())
        progress.advance(len(ids))
    return digest.hexdigest(), unfit


def _take(places: Sequence[tuple[_Part, int]]) -> np.ndarray:
    """Gather rows, ``(n, dim)`` float32."""
    with np.errstate(over="ignore"):  # infinite afterwards, and refused for it
        return np.stack([np.asarray(part.values[row], np.float32) for part, row in places])


def _committed(store: EmbeddingStore | None, name: EmbeddingName, key: str) -> set[str]:
    """Return the images whose row is there."""
    entry = next((e for e in store.entries() if (e.name, e.key) == (name, key)), None) if store else None
    if store is None or entry is None:
        return set()
    return {store.image_ids[row] for row in np.flatnonzero(store.committed(entry)).tolist()}


def _write(
    store: EmbeddingStore,
    source: ImageSource | None,
    name: EmbeddingName,
    report: ImportReport,
    place: dict[str, tuple[_Part, int]],
    provenance: dict[str, Any],
    progress: Progress,
) -> None:
    """Commit every row that is lacking, as the only writer."""
    committed = _committed(store, name, report.key)
    lacking = [image_id for image_id in place if image_id not in committed]
    report.already, report.to_do = len(place) - len(lacking), len(lacking)
    if not lacking:
        if not store.is_consolidated:
            store.consolidate()  # an import was killed after its last row and before its end
        return
    _check_room(report)
    if source and any(image_id not in store.row_of for image_id in lacking):
        # All of them, in the order an extraction would take: rows never move. Nobody has read them, hence no hash.
        stamps = source.stamps
        store.add_images([ImageRecord(i, "", *stamps[i], 0, 0, "") for i in stamps])
    entry = store.create(name, report.key, dim=report.dim, dtype=report.dtype, provenance=provenance)
    by_block: dict[int, list[int]] = {}
    for row in sorted(store.row_of[image_id] for image_id in lacking):
        by_block.setdefault(row // store.block_rows, []).append(row)
    progress.start("import", len(lacking), "rows")
    for block, rows in by_block.items():
        values, _ = rounded(_take([place[store.image_ids[row]] for row in rows]), report.dtype)
        store.write_block(block, {entry.group: (np.array(rows), values)}, {})
        report.written += len(rows)
        progress.advance(len(rows))
    store.consolidate()


def _check_room(report: ImportReport) -> None:
    needed, free = report.to_do * report.dim * np.dtype(report.dtype).itemsize, bytes_free(report.store)
    require_room(report.store, needed, free, "free some space, or name a store on another disk with --store")


def _provenance(name: EmbeddingName, report: ImportReport, parts: Sequence[_Part], digest: str) -> dict[str, Any]:
    return {
        "encoder": name.encoder,
        "layer": name.layer,
        "pooling": name.pooling,
        "view": name.view,
        "key": report.key,
        "weights": IMPORTED,
        "weights_source": ", ".join(f"file:{part.label}" for part in parts),
        "content": f"sha256:{digest}",
        "dtype": report.dtype,
        "versions": {"embedctl": installed_version("embedctl"), "numpy": np.__version__},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "imported": True,
    }
