"""Look at every golden store, with embedctl, zarr and xarray: ``python -m tests.golden.look``.

To be run by the oldest and by the newest zarr there is, which need not be on the same Python::

    python3.13 -m venv new && new/bin/pip install . "zarr>=3.4" && new/bin/python -m tests.golden.look
"""

import shutil
import sys
import tempfile
import warnings
import zipfile
from pathlib import Path

import numpy as np

from stores.embeddings import EmbeddingStore
from stores.epochs import EpochStore
from stores.results import read_array, read_results
from tests.damage import damages
from tests.golden.make import IDS, epochs_of, make, values

HERE = Path(__file__).parent
NAMES = {"pixels": (6, "float16"), "hog:layer3.gap@blur-9": (4, "float32")}
GOLDEN = sorted(HERE.glob("format-*.zip"))
LATER = {"runs/screens.json"}  # files that came after the golden store


def unpack(golden: Path, folder: Path) -> Path:
    """Return a golden store as a folder."""
    with zipfile.ZipFile(golden) as archive:
        archive.extractall(folder)
    return folder


def with_embedctl(folder: Path) -> None:
    """Make sure that the numbers are the ones that were written."""
    there = np.array([row != 250 for row in range(260)])
    store = EmbeddingStore.open(folder / "embeddings.zarr")
    assert store.names == sorted(NAMES), store.names
    assert store.image_ids == IDS and list(store.images()) == IDS and store.images()[IDS[1]].width == 8
    for name, (dim, dtype) in NAMES.items():
        embedding = store[name]
        assert embedding.values.dtype == dtype and np.array_equal(embedding.values, values(dim, dtype)[there])
        assert embedding.absent == {IDS[250]: "the file is empty"} and embedding.provenance["weights"] == "none"
    subject = EpochStore.open(folder / "epochs.zarr")["things-eeg2", 1]
    assert (subject.ch_names, subject.sfreq, subject.recipe) == (["O1", "Oz", "O2"], 10.0, {"name": "clean"})
    assert np.array_equal(subject.arrays["whitener"], np.eye(3)[None])
    for split, ids, n in ((subject.train, IDS[:8], 2), (subject.test, IDS[8:11], 4)):
        expected = epochs_of(len(ids), n)
        expected[1, 1] = np.nan
        assert split.image_ids == ids and np.array_equal(split.take(range(len(ids))), expected, equal_nan=True)
        assert np.allclose(split.mean, np.nanmean(expected, axis=1)) and split.valid.sum() == len(ids) * n - 1
        assert split.trials.num_rows == len(ids) * n
    assert read_results(folder / "runs")["top1"].to_pylist() == [0.5]
    assert np.array_equal(read_array(folder / "runs", "run-1", "scores"), np.eye(3))
    assert damages(folder) == []


def with_zarr_and_xarray(folder: Path) -> None:
    """Make sure that others read the same numbers, and are warned of nothing."""
    import xarray
    import zarr

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, (dim, dtype) in NAMES.items():
            group = f"{name.replace(':', '~')}-0011aabb2233"
            for consolidated in (None, False):
                root = zarr.open_group(folder / "embeddings.zarr", mode="r", use_consolidated=consolidated)
                assert {group, "image"} <= {member for member, _ in root.members()}
                array = root[f"{group}/values"][...]
                assert np.array_equal(np.delete(array, 250, 0), np.delete(values(dim, dtype), 250, 0))
                assert np.isnan(array[250]).all() and root[f"{group}/image"][:].tolist() == IDS
            assert xarray.open_zarr(folder / "embeddings.zarr", group=group).load()["values"].shape == (260, dim)
        test = xarray.open_zarr(folder / "epochs.zarr", group="things-eeg2/sub-01/test").load()
        assert test["epochs"].dims == ("image", "repetition", "channel", "time")
        expected = epochs_of(3, 4)
        expected[1, 1] = np.nan
        assert np.array_equal(test["epochs"].values, expected, equal_nan=True)


def differences(golden: Path, made: Path) -> list[str]:
    """Return the files of Zarr and of runs that are not the same, byte for byte; tables and receipts name versions."""

    def plain(folder: Path) -> dict[str, bytes]:
        files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        return {name: data for name, data in files.items() if ".embedctl" not in name and "receipt" not in name}

    ours, theirs = plain(golden), plain(made)
    names = sorted(name for name in {*ours, *theirs} - LATER if ours.get(name) != theirs.get(name))
    return [name for name in names if not name.endswith(".parquet")]


def main() -> None:
    """Look at all of them, then write one here and look at that."""
    import zarr

    folder = Path(tempfile.mkdtemp())
    for golden in GOLDEN:
        unpack(golden, folder / golden.stem)
        with_embedctl(folder / golden.stem)
        with_zarr_and_xarray(folder / golden.stem)
    make(folder / "today")
    with_embedctl(folder / "today")
    with_zarr_and_xarray(folder / "today")
    changed = differences(folder / GOLDEN[-1].stem, folder / "today")
    shutil.rmtree(folder)
    assert not changed, changed
    read_by = f"python {sys.version.split()[0]}, zarr {zarr.__version__}"
    print(f"{read_by}: all as written, {len(GOLDEN)} golden and one of today")


if __name__ == "__main__":
    main()
