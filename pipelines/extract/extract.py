"""Images to embeddings: one pass over the images, every encoder fed from the same decoded pixels.

Resumable at any moment: a block of rows is committed across all embeddings of the pass before the next one is,
and whatever was interrupted is computed again to the same bytes.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from pipelines.extract.block import BlockRows
from pipelines.extract.derive import derive
from pipelines.extract.divide import divide
from pipelines.extract.loading import LoadedImage, load, n_cores, prefetch
from pipelines.extract.outlook import check_room, look_ahead
from pipelines.extract.plan import Batch, batches
from pipelines.extract.provenance import provenance
from pipelines.extract.records import drop_float16, record_images, settle_images
from pipelines.extract.request import ExtractReport, ExtractRequest
from pipelines.extract.sources import ImageSource, open_images
from pipelines.extract.survey import Survey, survey
from pipelines.extract.targets import Target
from pipelines.progress import SILENT, Progress
from stores.embeddings import EmbeddingStore
from stores.names import EmbeddingName

if TYPE_CHECKING:
    from pipelines.extract.forward import Networks

__all__ = ["extract"]


def extract(request: ExtractRequest, progress: Progress = SILENT) -> ExtractReport:
    """Compute every row of the embeddings asked for that the store lacks.

    Parameters
    ----------
    request : ExtractRequest
        What is asked.
    progress : Progress
        Who listens.

    Returns
    -------
    ExtractReport
        What was done. Images in ``skipped`` have no row: the command ends with exit code 3 if there are any.

    Raises
    ------
    EmbedctlError
        If there are no images, a name is malformed, or images changed under ids that have rows.
    UnknownName
        If an encoder or layer does not exist.
    StoreMismatch
        If the store has an embedding under another batch size, or of another device, than the one asked for.
    NotHere
        If weights, a package or the device are missing.
    CannotWrite
        If the disk is read-only or has no room; told before any work.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import mkdtemp
    >>> from PIL import Image
    >>> folder = Path(mkdtemp())
    >>> for n in range(3):
    ...     Image.new("RGB", (80, 60), (80 * n, 0, 0)).save(folder / f"{n}.png")
    >>> request = ExtractRequest(models=("pixels",), images=folder, store=folder / "embeddings.zarr")
    >>> extract(request).written, extract(request).written
    (3, 0)
    """
    started = perf_counter()
    passes, derived = divide(request)
    report = _together(request, [_from_images(part, progress) for part in passes])
    if derived:
        derive(request, derived, report, progress)
    report.seconds = perf_counter() - started
    return report


def _together(request: ExtractRequest, parts: Sequence[ExtractReport]) -> ExtractReport:
    """Return one report of several passes; of none where everything follows from stored rows."""
    report = ExtractReport(store=request.store, dry_run=request.dry_run)
    for part in parts:
        report.n_images, report.bytes_free = part.n_images, part.bytes_free
        report.n_read += part.n_read
        report.embeddings += part.embeddings
        report.skipped |= part.skipped
        report.bytes += part.bytes
        report.bytes_needed += part.bytes_needed
        report.to_fetch |= part.to_fetch
        report.stages = {stage: report.stages.get(stage, 0.0) + spent for stage, spent in part.stages.items()}
    return report


def _from_images(request: ExtractRequest, progress: Progress) -> ExtractReport:
    source = open_images(request.images)
    store = EmbeddingStore.open(request.store) if request.store.exists() else None
    hashes: dict[str, str] = {}
    found = survey(request, source, store, hashes=hashes, progress=progress)
    report = found.report(request, source)
    if request.dry_run:
        look_ahead(request, found, report)
    elif not found.nothing_to_do or found.changes.touched:
        # Before there is a store: a layer, width or device that is wrong is told here, and leaves nothing behind.
        networks = None if store else _networks(request, found, None, progress)
        store = EmbeddingStore.open(request.store, create=True)
        with store.lock():
            _complete(request, source, store, networks, hashes, report, progress)
    elif store is not None and not store.is_consolidated:
        store.consolidate()  # a run was killed after its last row and before its end
    return report


def _complete(
    request: ExtractRequest,
    source: ImageSource,
    store: EmbeddingStore,
    networks: "Networks | None",
    hashes: dict[str, str],
    report: ExtractReport,
    progress: Progress,
) -> None:
    """Do everything that is to do, as the only writer of the store."""
    written: Counter[EmbeddingName] = Counter()
    as_float32: frozenset[EmbeddingName] = frozenset()
    while True:
        # Not what was surveyed before: another process may have written until the lock was ours.
        found = survey(request, source, store, as_float32, hashes, progress)
        networks = _networks(request, found, networks, progress)
        settle_images(request, source, store, found)
        if networks is None:
            break
        if not as_float32:
            for note in found.notes(source):
                progress.say(note)
        lacking = found.lacking
        check_room(report, found, networks.widths)
        for target in lacking:
            origin, tokens = networks.weights_sources[target.spec.id], networks.token_shapes.get(target.name)
            facts = provenance(target, request, networks.device, networks.threads[target.name], origin, tokens)
            store.create(
                target.name, target.key, dim=networks.widths[target.name], dtype=target.dtype, provenance=facts
            )
        unfit = _run(found, source, store, networks, written, report, progress)
        if not unfit:
            break
        for target in unfit:
            progress.say(f"{target.name}: float16 cannot hold its values, so every row is stored in float32")
            drop_float16(target, source, store)
            del written[target.name]
        as_float32 |= {target.name for target in unfit}
        request = replace(request, overwrite=False, refresh=False)
    store.consolidate()
    _tell(report, source, store, found, written)


def _networks(
    request: ExtractRequest, found: Survey, there: "Networks | None", progress: Progress
) -> "Networks | None":
    """Return networks for what is lacking: those that are ``there`` if they do; None where nothing is to do."""
    if found.nothing_to_do or (there and there.serve(found.lacking)):
        return None if found.nothing_to_do else there
    from pipelines.extract.forward import build_networks

    return build_networks(request, found.lacking, progress)


def _run(
    found: Survey,
    source: ImageSource,
    store: EmbeddingStore,
    networks: "Networks",
    written: "Counter[EmbeddingName]",
    report: ExtractReport,
    progress: Progress,
) -> list[Target]:
    """Compute and commit block after block; stop early and return those that float16 cannot hold."""
    entries = {entry.group: entry for entry in store.entries()}
    names = {target.group: target.name for target in found.targets}
    known = store.images()
    seconds: defaultdict[str, float] = defaultdict(float)
    for batch_size, tasks in found.passes():
        todo = [(task, batches(task, found.block_rows, batch_size)) for task in tasks]
        work = (_work(batch, found, source, names, networks) for _, passes in todo for batch in passes)
        progress.start("extract", sum(len(task.union()) for task in tasks), "images")
        with networks.image_threads() as begin, closing(prefetch(work, n_cores(), begin)) as loaded:
            for task, passes in todo:
                block = BlockRows(task, entries)
                read: dict[str, LoadedImage] = {}
                for batch, images in zip(passes, loaded, strict=False):
                    start = perf_counter()
                    _compute(batch, images, batch_size, names, networks, block)
                    seconds["forward"] += perf_counter() - start
                    for row, image in zip(batch.rows.tolist(), images, strict=True):
                        read[found.image_ids[row]] = replace(image, tensors={})
                        for stage, spent in image.seconds.items():
                            seconds[stage] += spent
                    report.n_read += len(images)
                    progress.advance(len(images))
                start = perf_counter()
                record_images(store, source, read, known)
                for group, n_rows in block.commit(store).items():
                    written[names[group]] += n_rows
                seconds["write"] += perf_counter() - start
                report.stages = dict(seconds)
                if block.unfit:
                    return [target for target in found.targets if target.group in block.unfit]
    return []


def _work(
    batch: Batch, found: Survey, source: ImageSource, names: Mapping[str, EmbeddingName], networks: "Networks"
) -> list[Callable[[], LoadedImage]]:
    """Return what threads are to do for one batch."""
    transforms = networks.transforms({names[group] for group in batch.groups})
    return [partial(load, source, transforms, found.image_ids[row]) for row in batch.rows.tolist()]


def _compute(
    batch: Batch,
    images: Sequence[LoadedImage],
    batch_size: int,
    names: Mapping[str, EmbeddingName],
    networks: "Networks",
    block: BlockRows,
) -> None:
    """Run one batch through every network that lacks a row of it."""
    for row, image in zip(batch.rows.tolist(), images, strict=True):
        if image.reason:
            block.refuse(row, image.reason)
    good = [position for position, image in enumerate(images) if not image.reason]
    if not good:
        return
    wanted = {names[group]: group for group in batch.groups}
    rows = networks([images[i] for i in good], batch.places[good], batch_size, wanted)
    for name, values in rows.items():
        block.put(wanted[name], batch.rows[good], values)


def _tell(
    report: ExtractReport,
    source: ImageSource,
    store: EmbeddingStore,
    found: Survey,
    written: Mapping[EmbeddingName, int],
) -> None:
    """Fill the report from what the store holds now."""
    stored = {entry.group: entry for entry in store.entries()}
    skipped: dict[str, str] = {}
    for line, target in zip(report.embeddings, found.targets, strict=True):
        entry = stored[target.group]
        line.key, line.dim, line.dtype, line.batch_size = entry.key, entry.dim, entry.dtype, target.batch_size
        line.written, line.absent = written[target.name], entry.n_absent
        line.already = entry.n_committed - line.written
        report.bytes += line.written * entry.dim * np.dtype(entry.dtype).itemsize
        skipped |= {store.image_ids[row]: why for row, why in store.absent(entry).items()}
    report.skipped = {image_id: skipped[image_id] for image_id in source.stamps if image_id in skipped}
