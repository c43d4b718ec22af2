"""What is there, what is asked, and so what is to do. Writes nothing and imports no torch."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipelines.extract.changes import Changes, find_changes, refuse_changed
from pipelines.extract.images import UNREADABLE
from pipelines.extract.plan import BlockTask, plan_blocks, rows_to_do
from pipelines.extract.request import EmbeddingReport, ExtractReport, ExtractRequest
from pipelines.extract.sources import ImageSource
from pipelines.extract.targets import DEFAULT_BATCH_SIZE, Target, choose_targets
from pipelines.progress import SILENT, Progress
from stores.blocks import block_rows_for
from stores.names import EmbeddingName

if TYPE_CHECKING:
    from stores.embeddings import EmbeddingStore

__all__ = ["Survey", "survey"]


@dataclass(frozen=True)
class Survey:
    """Everything an extraction decides before it starts.

    Attributes
    ----------
    targets : list of Target
        Embeddings to complete.
    changes : Changes
        How the images differ from what the store knows.
    image_ids : list of str
        Row to id, the new images behind the known ones.
    block_rows : int
        Rows of a block.
    to_do : dict of str to (n_images,) bool
        Rows to compute, by group.
    already : dict of str to int
        How many rows are there and stay, by group.
    absent : dict of str to dict
        Rows known to have no numbers and why, by group.
    started : dict of str to set of int
        Blocks that hold rows already, by group.
    """

    targets: list[Target]
    changes: Changes
    image_ids: list[str]
    block_rows: int
    to_do: dict[str, np.ndarray]
    already: dict[str, int]
    absent: dict[str, dict[int, str]]
    started: dict[str, set[int]]

    @property
    def nothing_to_do(self) -> bool:
        """Whether every row that can be computed is there."""
        return not any(rows.any() for rows in self.to_do.values())

    @property
    def lacking(self) -> list[Target]:
        """The targets with something to do."""
        return [target for target in self.targets if self.to_do[target.group].any()]

    def passes(self) -> list[tuple[int, list[BlockTask]]]:
        """Return the passes over the images: one per batch size, which nearly always means one."""
        found = []
        for batch_size in sorted({target.batch_size for target in self.targets}):
            mine = {t.group: self.to_do[t.group] for t in self.targets if t.batch_size == batch_size}
            if tasks := plan_blocks(mine, self.block_rows):
                found.append((batch_size, tasks))
        return found

    def report(self, request: ExtractRequest, source: ImageSource) -> ExtractReport:
        """Return the report of an extraction that has not begun."""
        lines = [
            EmbeddingReport(
                name=str(target.name),
                key=target.key,
                weights=target.weights.label,
                batch_size=target.batch_size,
                dim=target.dim,
                dtype=target.dtype,
                already=self.already[target.group],
                absent=len(self.absent[target.group]),
                to_do=int(self.to_do[target.group].sum()),
            )
            for target in self.targets
        ]
        return ExtractReport(
            store=request.store,
            n_images=len(source.stamps),
            embeddings=lines,
            skipped=self.skipped(source),
            dry_run=request.dry_run,
        )

    def notes(self, source: ImageSource) -> list[str]:
        """Return what was decided without being asked for, one line each."""
        said = []
        for batch_size in sorted({target.batch_size for target in self.targets if target.entry}):
            if batch_size != DEFAULT_BATCH_SIZE:
                said.append(f"batches of {batch_size}, as the store recorded: another size changes the last bits")
        if gone := self.gone(source):
            said.append(gone)
        if self.changes.changed:
            said.append(f"changed images, {len(self.changes.changed):,}: their rows are computed again")
        return said

    def gone(self, source: ImageSource) -> str:
        """Return how many images of the store are not among those that were named; nothing where all are."""
        n_gone = sum(image_id not in source.stamps for image_id in self.image_ids)
        what = f"images of the store that are not in the folder, {n_gone:,} of {len(self.image_ids):,}"
        return f"{what}: their rows stay as they are" if n_gone else ""

    def skipped(self, source: ImageSource) -> dict[str, str]:
        """Return the images that are there and have no row, with the reason."""
        why = {self.image_ids[row]: text for absent in self.absent.values() for row, text in absent.items()}
        return {image_id: why[image_id] for image_id in source.stamps if image_id in why}


def survey(
    request: ExtractRequest,
    source: ImageSource,
    store: "EmbeddingStore | None",
    as_float32: frozenset[EmbeddingName] = frozenset(),
    hashes: dict[str, str] | None = None,
    progress: Progress = SILENT,
) -> Survey:
    """Compare what is asked with what is there.

    Parameters
    ----------
    request : ExtractRequest
        What is asked.
    source : ImageSource
        The images.
    store : EmbeddingStore or None
        What is there; None before the first extraction.
    as_float32 : frozenset of EmbeddingName
        Embeddings that float16 is known not to hold.
    hashes : dict of str to str, optional
        Hashes of images known from an earlier survey; those found here are added.
    progress : Progress
        Who listens while weights are fetched.

    Raises
    ------
    EmbedctlError
        If images with rows have changed, and ``request.refresh`` does not allow to compute them again.
    StoreMismatch
        If the store has an embedding under another batch size, or of another device, than the one asked for.
    """
    entries = store.entries() if store else []
    targets = choose_targets(request, entries, as_float32, progress)
    changes = find_changes(source, store.images() if store else {}, request.refresh, hashes)
    if store and changes.changed and not request.refresh:
        has_rows = np.logical_or.reduce([np.zeros(store.n_images, dtype=bool), *map(store.committed, entries)])
        if names := [record.id for record in changes.changed if has_rows[store.row_of[record.id]]]:
            raise refuse_changed(names)
    image_ids = (store.image_ids if store else []) + changes.new
    block_rows = (store.block_rows if store else 0) or block_rows_for(len(changes.new))
    here = np.array([image_id in source.stamps for image_id in image_ids], dtype=bool)
    if request.shard:
        here &= np.arange(len(here)) // block_rows % request.shard.of == request.shard.number
    again = {store.row_of[record.id] for record in changes.changed} if store else set()
    to_do, already, absent, started = {}, {}, {}, {}
    for target in targets:
        entry = None if request.overwrite else target.entry
        committed = store.committed(entry) if store and entry else np.zeros(0, dtype=bool)
        known = store.absent(entry) if store and entry else {}
        known = {
            row: why
            for row, why in known.items()
            if row not in again and not _readable_now(source, image_ids[row], why)
        }
        to_do[target.group] = rows_to_do(here, committed, known, sorted(again))
        absent[target.group] = known
        rows = np.flatnonzero(committed)
        already[target.group] = int((~to_do[target.group][rows]).sum())
        started[target.group] = set((rows // block_rows).tolist())
    return Survey(targets, changes, image_ids, block_rows, to_do, already, absent, started)


def _readable_now(source: ImageSource, image_id: str, why: str) -> bool:
    """Whether an image that the disk would not give can be had now: the reason was never in the image."""
    if not why.startswith(UNREADABLE) or image_id not in source.stamps:
        return False
    try:
        source.read(image_id)
    except OSError:
        return False
    return True
