"""Keeping the store's image table true: which file each row was computed from."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from pipelines.extract.changes import refuse_changed
from pipelines.extract.loading import LoadedImage, load
from pipelines.extract.request import ExtractRequest
from pipelines.extract.sources import ImageSource, open_images
from pipelines.extract.stamps import Stamp
from pipelines.extract.survey import Survey
from pipelines.extract.targets import Target
from stores.embeddings import EmbeddingStore
from stores.errors import EmbedctlError
from stores.images import ImageRecord
from stores.names import counted

__all__ = ["drop_float16", "record_images", "records_from", "settle_images"]


def settle_images(request: ExtractRequest, source: ImageSource, store: EmbeddingStore, found: Survey) -> None:
    """Bring the image table up to date: changed images lose their rows, new ones get theirs."""
    if request.overwrite:
        for target in found.targets:
            for entry in target.stored:
                store.remove(entry)
    if found.changes.changed or found.changes.touched:
        store.update_images([*found.changes.changed, *found.changes.touched])
    # Without hash: that is known when an image has been read, which happens once, when its row is computed.
    store.add_images([_record(image_id, source.stamps[image_id]) for image_id in found.changes.new])


def record_images(
    store: EmbeddingStore, source: ImageSource, images: Mapping[str, LoadedImage], known: dict[str, ImageRecord]
) -> None:
    """Write down what was read, before the rows computed from it.

    Parameters
    ----------
    store : EmbeddingStore
        Where.
    source : ImageSource
        What was read from.
    images : mapping of str to LoadedImage
        What was read, by id.
    known : dict of str to ImageRecord
        What the store knows of every image; brought up to date.

    Raises
    ------
    EmbedctlError
        If an image is not the one that other rows of it were computed from, whatever its time says.
    """
    now = {
        image_id: _record(image_id, source.stamps[image_id], image)
        for image_id, image in images.items()
        if image.sha256  # one that could not be read stays what it was
    }
    if changed := [i for i, record in now.items() if known[i].sha256 not in ("", record.sha256)]:
        raise refuse_changed(changed)
    if fresh := [record for image_id, record in now.items() if record != known[image_id]]:
        store.update_images(fresh)
        known |= {record.id: record for record in fresh}


def records_from(images: Path, image_ids: Sequence[str]) -> Iterator[list[ImageRecord]]:
    """Yield what a lost table may have said of these images: all of them read; then none of them, which is always true.

    Parameters
    ----------
    images : Path
        Where they are.
    image_ids : sequence of str
        Which.

    Raises
    ------
    EmbedctlError
        If one of them is not there.
    """
    source = open_images(images)
    if missing := [image_id for image_id in image_ids if image_id not in source.stamps]:
        raise EmbedctlError(
            f"'{images}' lacks {len(missing):,} of {len(image_ids):,} images, such as '{missing[0]}'",
            "name the images that the store was made from",
        )
    with ThreadPoolExecutor() as threads:
        loaded = list(threads.map(partial(load, source, {}), image_ids))
    unread = [_record(image_id, source.stamps[image_id]) for image_id in image_ids]
    known = zip(image_ids, loaded, unread, strict=True)
    yield [_record(one, source.stamps[one], image) if image.sha256 else record for one, image, record in known]
    yield unread


def _record(image_id: str, stamp: Stamp, image: LoadedImage | None = None) -> ImageRecord:
    if image is None:
        return ImageRecord(image_id, "", *stamp, 0, 0, "")
    return ImageRecord(image_id, image.sha256, *stamp, image.width, image.height, image.mode)


def drop_float16(target: Target, source: ImageSource, store: EmbeddingStore) -> None:
    """Drop an embedding whose rows will be computed again in float32, if they all can be."""
    for entry in store.entries():
        if entry.group != target.group:
            continue
        rows = np.flatnonzero(store.committed(entry)).tolist()
        gone = [store.image_ids[row] for row in rows if store.image_ids[row] not in source.stamps]
        if gone:
            raise EmbedctlError(
                f"'{target.name}' has to change to float32, and of its rows "
                f"{counted(len(gone), 'image is', 'images are')} gone: '{gone[0]}'",
                "bring the images back, or extract into another store",
            )
        store.remove(entry)
