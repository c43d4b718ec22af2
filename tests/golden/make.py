"""Make the golden stores of the format this embedctl writes: ``python -m tests.golden.make``, once per format.

Small, with everything a store can hold: embeddings of two blocks with an absent row, a subject with a missing
repetition and a whitener, a finished run. What is here once is never made again: it must open for ever.
"""

import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa

from stores import receipts
from stores.embeddings import EmbeddingStore
from stores.epochs import EpochStore
from stores.images import ImageRecord
from stores.layout import FORMAT
from stores.names import EmbeddingName
from stores.results import COLUMNS, assemble, write_run

IDS = [f"training_images/0000{n % 5}_thing/thing_{n:03d}.jpg" for n in range(260)]
PROVENANCE = {"weights": "none", "registry": {"family": "classical"}, "batch_size": 32, "threads": 1, "device": "cpu"}

LATER = {"preprocessing", "simulated"}  # columns of results that came after the golden store


def values(dim: int, dtype: str) -> np.ndarray:
    """Return numbers that anybody can compute again."""
    return (np.arange(260 * dim).reshape(260, dim) % 251 / 8 - 7).astype(dtype)


def epochs_of(n: int, repetitions: int) -> np.ndarray:
    """Return recordings ``(image, repetition, channel, time)`` that anybody can compute again."""
    return (np.arange(n * repetitions * 3 * 5).reshape(n, repetitions, 3, 5) % 97 / 16).astype("float32")


def make(folder: Path) -> None:
    """Write the three kinds of data into ``folder``."""
    receipts.HOST = "golden"  # whose computer it was is nobody's business
    store = EmbeddingStore.open(folder / "embeddings.zarr", create=True)
    store.add_images([ImageRecord(name, f"{n:064x}", 9, 1, 8, 6, "RGB") for n, name in enumerate(IDS)])
    for name, dim, dtype in (("pixels", 6, "float16"), ("hog:layer3.gap@blur-9", 4, "float32")):
        entry = store.create(EmbeddingName.parse(name), "0011aabb2233", dim=dim, dtype=dtype, provenance=PROVENANCE)
        for block in range(2):
            rows = np.arange(block * 192, min(260, block * 192 + 192))
            there = rows[rows != 250]
            absent = {250: "the file is empty"} if 250 in rows else {}
            store.write_block(block, {entry.group: (there, values(dim, dtype)[there])}, absent)
    store.consolidate()
    epochs = EpochStore.open(folder / "epochs.zarr", create=True)
    info = {"ch_names": ["O1", "Oz", "O2"], "times": [0.0, 0.1, 0.2, 0.3, 0.4], "sfreq": 10.0, "units": "uV"}
    arrays = {"whitener": np.eye(3)[None]}
    with epochs.writer("things-eeg2", 1, recipe={"name": "clean"}, modality="eeg", info=info, arrays=arrays) as writer:
        for split, ids, n in (("train", IDS[:8], 2), ("test", IDS[8:11], 4)):
            table = pa.table({"image": np.repeat(ids, n)})
            out = writer.split(split, ids, ["thing"] * len(ids), n, (3, 5), "float32", table)
            valid = np.ones((len(ids), n), bool)
            valid[1, 1] = False
            out.write_block(0, epochs_of(len(ids), n), valid, np.ones((len(ids), n), np.int16))
        writer.done()
    epochs.consolidate()
    kinds = {name: kind for name, kind in COLUMNS.items() if name not in LATER}
    row = {name: {"int64": 1, "float64": 0.5}.get(kind, "x") for name, kind in kinds.items()}
    write_run(
        folder / "runs", "run-1", config={"seed": 0}, summary={**row, "run_id": "run-1"},
        arrays={"scores": np.eye(3, dtype="float32")}, checkpoint=b"\x02" + bytes(7) + b"{}", metrics=[{"loss": 1.5}],
    )  # fmt: skip
    assemble(folder / "runs")


def pack(folder: Path, file: Path) -> None:
    """Write a folder as a zip whose bytes depend on nothing else."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            archive.writestr(
                zipfile.ZipInfo(path.relative_to(folder).as_posix()), path.read_bytes(), zipfile.ZIP_DEFLATED
            )


if __name__ == "__main__":
    target = Path(__file__).parent / f"format-{FORMAT}.zip"
    if target.exists():
        sys.exit(f"{target} is there: a golden store is never made again")
    with TemporaryDirectory() as made:
        make(Path(made))
        pack(Path(made), target)
