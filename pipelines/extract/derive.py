"""Embeddings that follow from stored rows of others: no image is read for them, no network is run.

`pipelines.extract.divide` finds out which they are; this does them when the passes over the images are done.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.encoders.combinations import Combination, Source
from pipelines.encoders.key import versions_that_matter
from pipelines.extract.block import MOST_BYTES, BlockRows, not_finite
from pipelines.extract.divide import stored_source
from pipelines.extract.plan import plan_blocks
from pipelines.extract.provenance import provenance
from pipelines.extract.request import EmbeddingReport, ExtractReport, ExtractRequest
from pipelines.extract.targets import NOT_FLOAT16, Target, draft_target, keyed
from pipelines.progress import Progress
from stores.embeddings import EmbeddingStore
from stores.errors import EmbedctlError
from stores.names import EmbeddingName

if TYPE_CHECKING:
    from stores.embedding import Entry

__all__ = ["derive"]


def derive(
    request: ExtractRequest, derived: Mapping[EmbeddingName, Combination], report: ExtractReport, progress: Progress
) -> None:
    """Derive embeddings, and add a line for each to ``report``.

    Parameters
    ----------
    request : ExtractRequest
        What was asked.
    derived : mapping of EmbeddingName to Combination
        What `divide` found to derive, sources first.
    report : ExtractReport
        Of the passes over the images; its lines say under which key the sources are stored.
    progress : Progress
        Who listens.
    """
    store = EmbeddingStore.find(request.store)
    no_pass = not report.embeddings
    for name, combination in derived.items():
        lines = {line.name: line for line in report.embeddings}
        found = [_find(store, source, lines, combination, request) for source in combination.sources]
        stored = [entry for entry in found if not isinstance(entry, EmbeddingReport)]
        if store and len(stored) == len(found):
            work = _Work(request, store, combination, name, stored)
            report.embeddings.append(_derive_one(work, report, progress))
        else:  # a dry run, before the sources
            sources = [_source(entry) for entry in found]
            target = _target(request, combination, name, sources, [], as_float32=False)
            to_do = max(entry.to_do for entry in found if isinstance(entry, EmbeddingReport))
            report.embeddings.append(_report(target, to_do=to_do))
    if store and not request.dry_run and not store.is_consolidated:
        store.consolidate()  # also where a run was killed after its last row and before its end
    if store and no_pass:  # nobody has looked at images
        report.n_images = len(store.image_ids)


def _find(
    store: EmbeddingStore | None,
    source: EmbeddingName,
    lines: Mapping[str, EmbeddingReport],
    combination: Combination,
    request: ExtractRequest,
) -> "Entry | EmbeddingReport":
    """Return what the rows of a source are taken from: the store, or in a dry run the line that says they will be."""
    line = lines.get(str(source))
    if line is None:
        assert store is not None  # `divide` found it there
        entry = stored_source(store, source, combination.source_weights, request)
        assert entry is not None
        return entry
    entries = store.entries() if store else []
    return next((e for e in entries if (e.name, e.key) == (source, line.key)), line)


def _source(found: "Entry | EmbeddingReport") -> Source:
    if isinstance(found, EmbeddingReport):
        assert found.dim is not None  # a dry run finds out
        return Source(EmbeddingName.parse(found.name), found.key, found.weights, found.batch_size, found.dim)
    facts = found.provenance
    return Source(found.name, found.key, facts["weights"], facts["batch_size"], found.dim)


@dataclass(frozen=True)
class _Work:
    request: ExtractRequest
    store: EmbeddingStore
    combination: Combination
    name: EmbeddingName
    sources: "list[Entry]"

    def target(self, as_float32: bool) -> Target:
        sources = [_source(entry) for entry in self.sources]
        return _target(self.request, self.combination, self.name, sources, self.store.entries(), as_float32)

    def absent(self) -> dict[int, str]:
        """Rows that cannot be derived, and why: some source has a reason for not having them."""
        return {row: why for entry in self.sources[::-1] for row, why in self.store.absent(entry).items()}


def _target(
    request: ExtractRequest,
    combination: Combination,
    name: EmbeddingName,
    sources: Sequence[Source],
    entries: Sequence["Entry"],
    as_float32: bool,
) -> Target:
    spec, weights = combination.keyed_spec(sources), combination.weights_of(sources)
    versions = versions_that_matter(spec, weights.label)
    return keyed(draft_target(request, name, spec, weights, versions, entries, as_float32), sources[0].batch_size)


def _derive_one(work: _Work, report: ExtractReport, progress: Progress) -> EmbeddingReport:
    request, store = work.request, work.store
    target = work.target(as_float32=False)
    to_do = _rows_to_do(work, None if request.overwrite else target.entry)
    if not request.dry_run and to_do.any():
        with store.lock():
            return _complete(work, report, progress)
    if target.entry:
        report.skipped |= _skipped(store, target.entry)
    return _report(target, to_do=int(to_do.sum()))


def _complete(work: _Work, report: ExtractReport, progress: Progress) -> EmbeddingReport:
    """Derive what is lacking now: until the lock was ours, another process may have changed any row."""
    store = work.store
    there = {entry.group for entry in store.entries()}
    if gone := [entry for entry in work.sources if entry.group not in there]:
        raise EmbedctlError(f"'{gone[0].name}' was removed while this command began", "run it again")
    target = work.target(as_float32=False)
    if work.request.overwrite:
        for entry in target.stored:
            store.remove(entry)
        target = work.target(as_float32=False)
    to_do = _rows_to_do(work, target.entry)
    written = _write(work, target, to_do, progress)
    if written is None:
        progress.say(f"{work.name}: float16 cannot hold its values, so every row is stored in float32")
        store.remove(store.resolve(f"{work.name}#{target.key}"))
        target = work.target(as_float32=True)
        written = _write(work, target, _rows_to_do(work, target.entry), progress)
    assert written is not None  # float32 holds every float32
    line = _report(work.target(as_float32=target.note == NOT_FLOAT16), to_do=int(to_do.sum()))
    line.written, line.already = written, line.already - written
    report.skipped |= _skipped(store, store.resolve(f"{target.name}#{target.key}"))
    report.bytes += written * target.spec.dim * np.dtype(target.dtype).itemsize
    return line


def _skipped(store: EmbeddingStore, entry: "Entry") -> dict[str, str]:
    return {store.image_ids[row]: why for row, why in store.absent(entry).items()}


def _rows_to_do(work: _Work, entry: "Entry | None") -> np.ndarray:
    """Return the rows ``(n_images,)`` that the sources have, or cannot have, and the derived one lacks."""
    store, absent = work.store, work.absent()
    to_do: np.ndarray = np.logical_and.reduce([store.committed(source) for source in work.sources])
    to_do[list(absent)] = True
    if entry:
        to_do &= ~store.committed(entry)
        # A row that is not finite stays so: if its sources change, it is no longer known to be absent.
        own = not_finite(entry.name)
        to_do[[row for row, why in store.absent(entry).items() if row in absent or why == own]] = False
    return to_do


def _write(work: _Work, target: Target, to_do: np.ndarray, progress: Progress) -> int | None:
    """Combine and commit block after block; None as soon as float16 cannot hold a row."""
    store = work.store
    store.create(target.name, target.key, dim=target.spec.dim, dtype=target.dtype, provenance=_facts(work, target))
    entries = {entry.group: entry for entry in store.entries()}
    sources = [(store[f"{s.name}#{s.key}"], np.flatnonzero(store.committed(s))) for s in work.sources]
    absent = work.absent()
    progress.start(f"derive {target.name}", int(to_do.sum()), "images")
    written, size = 0, max(1, MOST_BYTES // sum(s.dim * np.dtype(s.dtype).itemsize for s in work.sources))
    for task in plan_blocks({target.group: to_do}, store.block_rows):
        block, lacking = BlockRows(task, entries), task.rows[target.group]
        for rows in (lacking[start : start + size] for start in range(0, len(lacking), size)):
            for row in (row for row in rows.tolist() if row in absent):
                block.refuse(row, absent[row])
            there = np.array([row for row in rows.tolist() if row not in absent], dtype=np.intp)
            places = [np.searchsorted(committed, there) for _, committed in sources]
            assert all(np.array_equal(known[at], there) for at, (_, known) in zip(places, sources, strict=True))
            values = [source.take(at) for at, (source, _) in zip(places, sources, strict=True)]
            block.put(target.group, there, work.combination.combine(values, there))
            if block.unfit:
                return None
            written += sum(block.commit(store).values())
            progress.advance(len(rows))
    return written


def _facts(work: _Work, target: Target) -> dict[str, Any]:
    # Its own table in the registry, not the one with the keys of its sources put in.
    facts = provenance(replace(target, spec=work.combination.spec), work.request, "cpu", threads=1)
    facts["derived_from"] = [{"name": str(s.name), "key": s.key, "dtype": s.dtype} for s in work.sources]
    shapes = [source.provenance.get("token_shape") for source in work.sources]
    if work.combination.kind == "mean" and shapes[0] and all(shape == shapes[0] for shape in shapes):
        facts["token_shape"] = shapes[0]
    return facts


def _report(target: Target, to_do: int) -> EmbeddingReport:
    entry = target.entry
    return EmbeddingReport(
        name=str(target.name),
        key=target.key,
        weights=target.weights.label,
        batch_size=target.batch_size,
        dim=target.spec.dim,
        dtype=target.dtype,
        already=entry.n_committed if entry else 0,
        absent=entry.n_absent if entry else 0,
        to_do=to_do,
    )
