"""Embeddings that follow from stored rows of others: no image is read for them, no network is run.

`divide` turns a request into what needs the images, bases that are lacking included, and what follows from stored
rows; `derive` does the latter when the pass over the images is done. A base of the right weights that already has a
row for every image is taken as it is: neither its weights nor the images have to be on this computer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines.encoders.derived import Derivation, base_name, base_weights, is_derived, load_derivation
from pipelines.encoders.key import versions_that_matter
from pipelines.encoders.registry import find
from pipelines.extract.block import BlockRows
from pipelines.extract.plan import plan_blocks
from pipelines.extract.provenance import provenance
from pipelines.extract.request import EmbeddingReport, ExtractReport, ExtractRequest
from pipelines.extract.sources import open_images
from pipelines.extract.targets import NOT_FLOAT16, Target, draft_target, keyed, resolve_names
from pipelines.progress import Progress
from stores.embeddings import EmbeddingStore
from stores.errors import EmbedctlError
from stores.names import EmbeddingName

if TYPE_CHECKING:
    from stores.embedding import Entry

__all__ = ["derive", "divide"]


def divide(request: ExtractRequest) -> tuple[list[ExtractRequest], dict[EmbeddingName, Derivation]]:
    """Split a request into passes over the images and embeddings to derive afterwards.

    The maps are read here, so that a wrong one is refused before hours of extracting its base.

    Raises
    ------
    NotHere
        If a transform is not on this computer.
    EmbedctlError
        If one file is to be the weights of several encoders, a layer of a derived encoder is asked for, or a transform
        does not belong to its encoder or cannot be read.

    Examples
    --------
    >>> passes, derived = divide(ExtractRequest(models=("glocal-resnet18", "hog"), weights="random:7"))
    >>> [request.models for request in passes], [str(name) for name in derived]
    ([('hog', 'resnet18-tv')], ['glocal-resnet18'])
    """
    names = resolve_names(request)
    derived = [name for name in names if is_derived(find(name.encoder))]
    if not derived:
        return [request], {}
    direct = [name for name in names if name not in derived]
    if len(names) > 1 and Path(request.weights).is_file():
        raise EmbedctlError(
            f"'{request.weights}' cannot be the weights of '{names[0]}' and of '{names[1]}'",
            "extract them one at a time",
        )
    lacking = [base for base in dict.fromkeys(map(base_name, derived)) if base not in direct]
    maps = {name: load_derivation(find(name.encoder), request.weights, offline=request.offline) for name in derived}
    if request.store.exists() and not request.refresh:
        store = EmbeddingStore.open(request.store)
        lacking = [base for base in lacking if not _is_complete(store, _stored_base(store, base, request), request)]
    parts: dict[tuple[str, bool], list[str]] = {}
    for name in direct:
        parts.setdefault((request.weights, request.overwrite), []).append(str(name))
    for base in lacking:  # never overwritten: that means the embeddings that were named
        parts.setdefault((base_weights(request.weights, base.encoder), False), []).append(str(base))
    return [
        replace(request, models=tuple(models), layers=(), views=(), weights=weights, overwrite=overwrite)
        for (weights, overwrite), models in parts.items()
    ], maps


def _stored_base(store: EmbeddingStore, base: EmbeddingName, request: ExtractRequest) -> "Entry | None":
    """Return the stored embedding to derive from: of the right weights; the one that was mapped before, the fullest."""
    wanted = base_weights(request.weights, base.encoder)
    exact = request.exact or not find(base.encoder).preprocessing.has_fast
    mapped = {entry.provenance.get("derived_from", {}).get("key") for entry in store.entries()}
    fitting = [
        entry
        for entry in store.entries()
        if entry.name == base
        and entry.provenance.get("exact", False) == exact
        and (entry.published if wanted == "published" else entry.provenance.get("weights") == wanted)
    ]
    return max(fitting, key=lambda entry: (entry.key in mapped, entry.n_committed, entry.key), default=None)


def _is_complete(store: EmbeddingStore, entry: "Entry | None", request: ExtractRequest) -> bool:
    """Whether every image of the folder has a row, or a reason why not; without a folder the store is all there is."""
    if entry is None or not request.images.exists():
        return entry is not None
    known = {*np.flatnonzero(store.committed(entry)).tolist(), *store.absent(entry)}
    return all(store.row_of.get(image_id) in known for image_id in open_images(request.images).stamps)


def derive(
    request: ExtractRequest, maps: Mapping[EmbeddingName, Derivation], report: ExtractReport, progress: Progress
) -> None:
    """Derive embeddings, and add a line for each to ``report``.

    Parameters
    ----------
    request : ExtractRequest
        What was asked.
    maps : mapping of EmbeddingName to Derivation
        What `divide` found to derive.
    report : ExtractReport
        Of the passes over the images; its lines say under which key the bases are stored.
    progress : Progress
        Who listens.
    """
    store = EmbeddingStore.open(request.store) if request.store.exists() else None
    planned = {line.name: line for line in report.embeddings}
    for name, derivation in maps.items():
        line = planned.get(str(base_name(name)))
        entries = store.entries() if store else []
        base = next((e for e in entries if line and (str(e.name), e.key) == (line.name, line.key)), None)
        if store and not line:
            base = _stored_base(store, base_name(name), request)
        if store and base:
            report.embeddings.append(_derive_one(_Work(request, store, derivation, name, base), report, progress))
        elif line:  # a dry run, before the base
            target = _target(request, derivation, name, line.key, line.batch_size, [], as_float32=False)
            report.embeddings.append(_report(target, to_do=line.to_do))
    if store and not request.dry_run and not store.is_consolidated:
        store.consolidate()  # also where a run was killed after its last row and before its end
    if store and not planned:  # nobody has looked at images
        report.n_images = len(store.image_ids)


@dataclass(frozen=True)
class _Work:
    request: ExtractRequest
    store: EmbeddingStore
    derivation: Derivation
    name: EmbeddingName
    base: "Entry"

    def target(self, as_float32: bool) -> Target:
        batch_size = self.base.provenance["batch_size"]
        return _target(
            self.request, self.derivation, self.name, self.base.key, batch_size, self.store.entries(), as_float32
        )


def _target(
    request: ExtractRequest,
    derivation: Derivation,
    name: EmbeddingName,
    base_key: str,
    batch_size: int,
    entries: Sequence["Entry"],
    as_float32: bool,
) -> Target:
    spec, weights = derivation.keyed_spec(base_key), derivation.weights
    versions = versions_that_matter(spec, weights.label)
    return keyed(draft_target(request, name, spec, weights, versions, entries, as_float32), batch_size)


def _derive_one(work: _Work, report: ExtractReport, progress: Progress) -> EmbeddingReport:
    request, store = work.request, work.store
    target = work.target(as_float32=False)
    if request.overwrite and not request.dry_run:
        for entry in target.stored:
            store.remove(entry)
        target = work.target(as_float32=False)
    to_do = _rows_to_do(work, None if request.overwrite and request.dry_run else target.entry)
    if request.dry_run or not to_do.any():
        return _report(target, to_do=int(to_do.sum()))
    with store.lock():
        written = _write(work, target, to_do, progress)
        if written is None:
            progress.say(f"{work.name}: float16 cannot hold its values, so every row is stored in float32")
            store.remove(store.resolve(f"{work.name}#{target.key}"))
            target = work.target(as_float32=True)
            written = _write(work, target, _rows_to_do(work, target.entry), progress)
    assert written is not None  # float32 holds every float32
    line = _report(work.target(as_float32=target.note == NOT_FLOAT16), to_do=int(to_do.sum()))
    line.written, line.already = written, line.already - written
    entry = store.resolve(f"{target.name}#{target.key}")
    report.skipped |= {store.image_ids[row]: why for row, why in store.absent(entry).items()}
    report.bytes += written * target.spec.dim * np.dtype(target.dtype).itemsize
    return line


def _rows_to_do(work: _Work, entry: "Entry | None") -> np.ndarray:
    """Return the rows ``(n_images,)`` that the base has, or has a reason for not having, and the derived one lacks."""
    store = work.store
    to_do, absent = store.committed(work.base), store.absent(work.base)
    to_do[list(absent)] = True
    if entry:
        to_do &= ~store.committed(entry)
        to_do[[row for row in store.absent(entry) if row in absent]] = False
    return to_do


def _write(work: _Work, target: Target, to_do: np.ndarray, progress: Progress) -> int | None:
    """Map and commit block after block; None as soon as a value is beyond the type it is stored in."""
    store = work.store
    # Its own table in the registry, not the one with the key of the base put in.
    facts = provenance(replace(target, spec=work.derivation.spec), work.request, "cpu")
    facts["derived_from"] = {"name": str(work.base.name), "key": work.base.key, "dtype": work.base.dtype}
    store.create(target.name, target.key, dim=target.spec.dim, dtype=target.dtype, provenance=facts)
    entries = {entry.group: entry for entry in store.entries()}
    base = store[f"{work.base.name}#{work.base.key}"]
    committed, absent = np.flatnonzero(store.committed(work.base)), store.absent(work.base)
    progress.start(f"derive {target.name}", int(to_do.sum()), "images")
    written = 0
    for task in plan_blocks({target.group: to_do}, store.block_rows):
        block, rows = BlockRows(task, entries), task.rows[target.group]
        for row in (row for row in rows.tolist() if row in absent):
            block.refuse(row, absent[row])
        there = np.array([row for row in rows.tolist() if row not in absent], dtype=np.intp)
        values = base.take(np.searchsorted(committed, there))
        block.put(target.group, there, work.derivation.map(values, there))
        if block.unfit:
            return None
        written += sum(block.commit(store).values())
        progress.advance(len(rows))
    return written


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
