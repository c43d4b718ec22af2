"""R13: a store that was written once opens for ever, and without a file it never reads as numbers."""

import pytest

from embedctl import open_embeddings, open_epochs
from stores.epochs import EpochStore
from stores.errors import DamagedStore
from tests.golden import look
from tests.golden.make import make


@pytest.fixture(params=look.GOLDEN, ids=lambda path: path.stem)
def golden(request, tmp_path):
    return look.unpack(request.param, tmp_path)


def test_a_golden_store_is_small_and_opens_with_the_numbers_it_was_given(golden):
    assert all(path.stat().st_size < 100_000 for path in look.GOLDEN)
    look.with_embedctl(golden)


@pytest.mark.slow
def test_a_golden_store_opens_in_zarr_and_xarray_without_a_warning(golden):
    look.with_zarr_and_xarray(golden)


def test_a_store_written_today_has_the_bytes_of_the_golden_one_of_its_format(tmp_path):
    make(tmp_path / "today")
    assert look.differences(look.unpack(look.GOLDEN[-1], tmp_path / "golden"), tmp_path / "today") == []


CHUNKS = {
    "embeddings.zarr/pixels-0011aabb2233/values/c/0/0": lambda: open_embeddings()["pixels"].values,
    "embeddings.zarr/pixels-0011aabb2233/values/c/1/0": lambda: open_embeddings()["pixels"].take([-1]),
    "embeddings.zarr/image/c/0": lambda: open_embeddings()["pixels"],
    "epochs.zarr/things-eeg2/sub-01/train/epochs/c/0/0/0/0": lambda: open_epochs()["things-eeg2", 1].train.take([0]),
    "epochs.zarr/things-eeg2/sub-01/train/mean/c/0/0/0": lambda: open_epochs()["things-eeg2", 1].train.mean,
    "epochs.zarr/things-eeg2/sub-01/train/valid/c/0/0": lambda: open_epochs()["things-eeg2", 1].train.valid,
    "epochs.zarr/things-eeg2/sub-01/whitener/c/0/0/0": lambda: EpochStore.open("epochs.zarr")["things-eeg2", 1].arrays,
}


@pytest.mark.parametrize("chunk", CHUNKS)
def test_a_missing_chunk_never_reads_as_numbers(tmp_path, monkeypatch, chunk):
    monkeypatch.chdir(look.unpack(look.GOLDEN[-1], tmp_path))
    CHUNKS[chunk]()
    (tmp_path / chunk).unlink()
    with pytest.raises(DamagedStore):
        CHUNKS[chunk]()
