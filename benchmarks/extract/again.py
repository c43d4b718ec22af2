"""A run with nothing to do."""

from pathlib import Path

import numpy as np

from benchmarks.extract.measuring import line, spent
from pipelines.extract.provenance import provenance
from pipelines.extract.request import ExtractRequest
from pipelines.extract.sources import open_images
from pipelines.extract.targets import choose_targets
from stores.embeddings import EmbeddingStore, ImageRecord


def again(place: Path) -> None:
    folder = place / "again"
    for n in range(26_107):
        concept = folder / f"concept_{n // 14:04d}"
        concept.mkdir(parents=True, exist_ok=True)
        (concept / f"{n % 14:02d}.jpg").write_bytes(b"not looked at")
    request = ExtractRequest(models=("resnet18-tv",), images=folder, store=place / "again.zarr", weights="random:7")
    store = EmbeddingStore.open(request.store, create=True)
    with store.lock():
        found = open_images(folder).stamps.items()
        store.add_images([ImageRecord(image_id, "00" * 32, *stamp, 8, 8, "RGB") for image_id, stamp in found])
        (target,) = choose_targets(request, [])
        facts = provenance(target, request, "cpu", 1)
        entry = store.create(target.name, target.key, dim=512, dtype="float16", provenance=facts)
        for start in range(0, len(found), store.block_rows):
            rows = np.arange(start, min(start + store.block_rows, len(found)))
            numbers = np.ones((len(rows), 512), "float16")
            store.write_block(start // store.block_rows, {entry.group: (rows, numbers)}, {})
        store.consolidate()
    words = ["--model", "resnet18-tv", "--weights", "random:7", "--images", str(folder), "--store", str(request.store)]
    wall, cpu, _ = min(spent(words) for _ in range(3))
    line("nothing to do over 26,107 images", f"{wall:.2f} s, {cpu:.2f} CPU-seconds", "under 2 s")
