"""Random rows of a store against a memmap, and opening one."""

from pathlib import Path

from benchmarks import store_reads
from benchmarks.extract.measuring import line


def stores(place: Path) -> None:
    for n_images in (16_540, 1_000_000):
        store, memmap = store_reads.batches(place / f"{n_images}.zarr", n_images)
        what = f"1,024 random rows of {n_images:,} x 768 float16 over memmap"
        line(what, f"{store:.2f} ms / {memmap:.2f} ms = {store / memmap:.2f}", "at most 1.5")
    line("open a store and list 40 embeddings", f"{store_reads.listing(place / 'forty.zarr'):.0f} ms", "under 50 ms")
