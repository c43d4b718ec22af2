"""Two writers that begin a store behind an address at the same moment: one makes it, and nothing is lost."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from stores import remote
from stores.embeddings import EmbeddingStore, ImageRecord
from stores.remote import RemotePath

store_of = pytest.importorskip("obstore.store")
RECORDS = [ImageRecord(f"{n}.jpg", "aa", 1, 0, 8, 8, "RGB") for n in range(5)]


def test_who_finds_nothing_and_is_slow_does_not_make_it_again_over_what_another_wrote(monkeypatch):
    memory, copy = store_of.MemoryStore(), RemotePath.copy
    monkeypatch.setattr(remote, "_open_bucket", lambda address: memory)

    def begin() -> EmbeddingStore:
        store = EmbeddingStore.open("s3://b123/e.zarr", create=True)
        store.add_images(RECORDS)
        return store

    with ThreadPoolExecutor(1) as threads:
        others = []

        def slow(self, target, last):
            monkeypatch.setattr(RemotePath, "copy", copy)
            assert EmbeddingStore.find("s3://b123/e.zarr") is None
            others.append(threads.submit(begin))  # finds nothing either, and would be done before this one is
            with pytest.raises(TimeoutError):
                others[0].result(timeout=0.3)
            copy(self, target, last)

        monkeypatch.setattr(RemotePath, "copy", slow)
        assert EmbeddingStore.open("s3://b123/e.zarr", create=True).path
        assert others[0].result().n_images == 5
    assert EmbeddingStore.open("s3://b123/e.zarr").n_images == 5
