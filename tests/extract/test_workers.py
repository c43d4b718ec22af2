"""What one dask worker does with its task, without a cluster."""

import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest

from pipelines.extract import distributed
from pipelines.extract.distributed import Cluster, Encoders
from pipelines.extract.extract import extract
from pipelines.extract.request import ExtractRequest
from pipelines.extract.targets import choose_targets
from stores.embeddings import EmbeddingStore
from tests.photos import write_photographs


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A request of which every row but two is stored."""
    folder = tmp_path_factory.mktemp("workers")
    write_photographs(folder / "images", 4, sizes=False)
    request = ExtractRequest(models=("pixels",), images=folder / "images", store=folder / "e.zarr", batch_size=1)
    extract(request)
    store = EmbeddingStore.open(request.store)
    with store.lock():
        store._groups[store.entries()[0].group].forget([2, 3], store.block_rows)
    return request


@pytest.fixture
def worker(stored, monkeypatch):
    """The networks of one worker, as `_compute` finds them."""
    targets = choose_targets(stored, EmbeddingStore.open(stored.store).entries())
    mine = Encoders(stored, tuple(replace(target, stored=()) for target in targets), n_cores=1)
    mine.setup(None)
    monkeypatch.setattr(distributed, "_mine", lambda plugin: mine)
    return mine


def compute(worker) -> distributed.BlockDone | None:
    (target,) = worker._targets
    return distributed._compute("", "this run", 1, 0, {target.group: [[2, 4]]})


def committed(request) -> int:
    return EmbeddingStore.open(request.store).entries()[0].n_committed


def test_a_run_that_was_ended_stops_after_the_batch_that_is_under_way(worker, stored, monkeypatch):
    begun, before = threading.Event(), committed(stored)
    engine = worker.engine

    def run(batch_size, tasks, advance):
        for _ in engine.run(
            batch_size, tasks, lambda n, seconds: (begun.set(), worker.ended.add("this run"), advance(n, seconds))
        ):
            raise AssertionError("the block was completed")

    worker.__dict__["engine"] = SimpleNamespace(run=run)
    assert compute(worker) is None and begun.is_set()
    assert compute(worker) is None and committed(stored) == before == 2
    assert not worker.turn.locked()


def test_a_file_of_weights_is_named_so_that_every_worker_finds_it(stored, tmp_path, monkeypatch):
    (tmp_path / "mine.pt").touch()
    monkeypatch.chdir(tmp_path)
    asked = {weights: Cluster(None, replace(stored, weights=weights), None, 1) for weights in ("mine.pt", "random:7")}
    assert {w: cluster._request.weights for w, cluster in asked.items()} == {
        "mine.pt": str(tmp_path / "mine.pt"),
        "random:7": "random:7",
    }
