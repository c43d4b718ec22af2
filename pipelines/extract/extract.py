"""Images to embeddings: one pass over the images, every encoder fed from the same decoded pixels.

Resumable at any moment: a block of rows is committed across all embeddings of the pass before the next one is,
and whatever was interrupted is computed again to the same bytes.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from time import perf_counter

import numpy as np

from pipelines.allocator import kept_memory
from pipelines.cluster import check_cluster
from pipelines.extract.compute import NetworkFacts
from pipelines.extract.derive import derive
from pipelines.extract.divide import divide
from pipelines.extract.engine import Engine, is_distributed, open_engine
from pipelines.extract.outlook import check_room, look_ahead
from pipelines.extract.pace import add
from pipelines.extract.provenance import provenance
from pipelines.extract.records import drop_float16, settle_images
from pipelines.extract.request import ExtractReport, ExtractRequest
from pipelines.extract.rounds import rounds
from pipelines.extract.sources import ImageSource, open_images
from pipelines.extract.survey import Survey, survey
from pipelines.extract.targets import Target
from pipelines.progress import SILENT, Progress
from stores.disk import check_writable
from stores.embeddings import EmbeddingStore
from stores.errors import EmbedctlError
from stores.names import EmbeddingName
from stores.parts import WHOLE

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
    _check_division(request)
    passes, derived = divide(request)
    passes = [one for several in passes for one in rounds(several, progress)]
    with kept_memory():  # from here on, because it is for threads that do not live yet
        source = open_images(request.images) if passes else None  # looked at once: all passes are over the same images
        hashes: dict[str, str] = {}
        report = _together(request, [_from_images(part, source, hashes, progress) for part in passes if source])
    if derived and request.shard:
        names = ", ".join(f"'{name}'" for name in derived)
        progress.say(f"{names}: derived from stored rows when the same command is run without --shard, at the end")
    elif derived:
        derive(request, derived, report, progress)
    report.seconds = perf_counter() - started
    return report


def _check_division(request: ExtractRequest) -> None:
    """Refuse, whatever is to do, several ways at once to divide the work."""
    check_cluster(request.scheduler, request.workers)
    if request.shard and (request.overwrite or request.refresh):
        flag = "--overwrite" if request.overwrite else "--refresh"
        raise EmbedctlError(
            f"{flag} changes rows that other shards may be at work on", f"run {flag} without --shard, or leave it out"
        )
    if request.shard and is_distributed(request):
        raise EmbedctlError("--shard divides the work, and so does a dask cluster", "leave one of them out")


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
        add(report.stages, part.stages)
    known = [part.seconds_expected for part in parts if part.seconds_expected is not None]
    report.seconds_expected = sum(known) if parts and len(known) == len(parts) else None
    return report


def _from_images(
    request: ExtractRequest, source: ImageSource, hashes: dict[str, str], progress: Progress
) -> ExtractReport:
    store = EmbeddingStore.find(request.store)
    found = survey(request, source, store, hashes=hashes, progress=progress)
    report = found.report(request, source)
    if (request.dry_run or found.nothing_to_do) and (gone := found.gone(source)):
        progress.say(gone)
    if request.dry_run:
        look_ahead(request, found, report, store.seconds_per_image() if store else {})
    elif not found.nothing_to_do or found.changes.touched:
        check_writable(request.store)
        with open_engine(request, source, progress) as engine:
            if found.lacking and (store is None or request.shard):
                # Before there is a store: a layer, width or device that is wrong, and a disk that is full, is told
                # here, and leaves nothing behind. And before a shard keeps others waiting.
                networks = engine.prepare(found.lacking)
                check_room(report, found, networks.widths)
            store = EmbeddingStore.open(request.store, create=True)
            with store.part(request.shard or WHOLE) if request.shard or is_distributed(request) else store.lock():
                _complete(request, source, store, engine, hashes, report, progress)
    elif store is not None and not store.is_consolidated:
        with store.part(request.shard) if request.shard else store.lock():
            store.consolidate()  # a run was killed after its last row and before its end
    return report


def _complete(
    request: ExtractRequest,
    source: ImageSource,
    store: EmbeddingStore,
    engine: Engine,
    hashes: dict[str, str],
    report: ExtractReport,
    progress: Progress,
) -> None:
    """Do everything that is to do, as the only writer of the store, or of a part of it."""
    written: Counter[EmbeddingName] = Counter()
    as_float32: frozenset[EmbeddingName] = frozenset()
    while True:
        with store.lock():  # all of it at once: what the first of several shards records, the others adopt
            # Not what was surveyed before: another process may have written until the lock was ours.
            found = survey(request, source, store, as_float32, hashes, progress)
            networks = engine.prepare(found.lacking) if found.lacking else None
            settle_images(request, source, store, found)
            if networks is None:
                break
            if not as_float32:
                for note in found.notes(source):
                    progress.say(note)
            check_room(report, found, networks.widths)
            _make_room(request, store, found, networks)
        unfit = _run(found, store, engine, written, report, progress)
        if not unfit:
            break
        for target in unfit:
            if request.shard:
                raise EmbedctlError(
                    f"float16 cannot hold the values of '{target.name}', and other shards may be at work on it",
                    "remove it, and run every shard with --dtype float32",
                )
            begins = "every row is stored in float32, and the pass begins again"
            progress.say(f"{target.name}: float16 cannot hold its values, so {begins}")
            drop_float16(target, source, store)
            del written[target.name]
        as_float32 |= {target.name for target in unfit}
        request = replace(request, overwrite=False, refresh=False)
    with store.lock():  # looks again: other processes may have written what is to be told
        store.consolidate()
        _tell(report, source, store, found, written)


def _make_room(request: ExtractRequest, store: EmbeddingStore, found: Survey, networks: NetworkFacts) -> None:
    for target in found.lacking:
        origin, tokens = networks.weights_sources[target.spec.id], networks.token_shapes.get(target.name)
        threads, form = networks.threads[target.name], networks.forms[target.name]
        facts = provenance(target, request, networks.device, threads, form, origin, tokens)
        store.create(target.name, target.key, dim=networks.widths[target.name], dtype=target.dtype, provenance=facts)


def _run(
    found: Survey,
    store: EmbeddingStore,
    engine: Engine,
    written: "Counter[EmbeddingName]",
    report: ExtractReport,
    progress: Progress,
) -> list[Target]:
    """Compute and commit block after block; stop early and return those that float16 cannot hold."""
    names = {target.group: target.name for target in found.targets}
    for batch_size, tasks in found.passes():
        progress.start("extract", sum(len(task.union()) for task in tasks), "images")
        begun = perf_counter()
        with closing(engine.run(store, batch_size, tasks)) as blocks:
            for done in blocks:
                report.n_read += done.n_images
                for group, n_rows in done.written.items():
                    written[names[group]] += n_rows
                add(report.stages, done.seconds)
                if done.unfit:
                    return [target for target in found.targets if target.group in done.unfit]
        n_rows = sum(len(rows) for task in tasks for rows in task.rows.values())
        groups = {group for task in tasks for group in task.rows}
        store.note_speed(dict.fromkeys(sorted(groups), (perf_counter() - begun) / n_rows))
    return []


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
