"""A store in an object store is the store on a disk: same rows, same receipts, read and written by the same code."""

import logging
import threading
import time

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

import embedctl
from embedctl.cli import app
from stores import locks, lost
from stores.codecs import CRC_BYTES
from stores.embeddings import EmbeddingStore, ImageRecord
from stores.errors import DamagedStore, EmbedctlError, StoreLocked
from stores.names import EmbeddingName
from stores.owners import PROCESSES
from stores.remote import RemotePath, locate
from tests.stores.google_storage import google_storage

pytestmark = pytest.mark.slow

obstore = pytest.importorskip("obstore")
ThreadedMotoServer = pytest.importorskip("moto.server").ThreadedMotoServer


@pytest.fixture(scope="module")
def bucket():
    """An empty bucket on a server of this computer."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    here = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_REGION": "us-east-1",
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "false",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in here.items():
            patch.setenv(name, value)
        import boto3

        boto3.client("s3", endpoint_url=here["AWS_ENDPOINT_URL"], region_name="us-east-1").create_bucket(Bucket="b123")
        yield "s3://b123"
    server.stop()


def records(n: int) -> list[ImageRecord]:
    return [ImageRecord(f"{row}.jpg", "00", 1, 0, 8, 8, "RGB") for row in range(n)]


def filled(place, n: int = 700) -> EmbeddingStore:
    """Write three blocks, the middle one in two steps, and then add images."""
    store = EmbeddingStore.open(place, create=True)
    store.add_images(records(n))
    entry = store.create(EmbeddingName("pixels"), "0a", dim=4, dtype="float16", provenance={"weights": "none"})
    numbers = np.random.default_rng(0).standard_normal((n, 4)).astype("float16")
    size = store.block_rows
    for block in range(-(-n // size)):
        rows = np.arange(block * size, min((block + 1) * size, n))
        for some in (rows[:7], rows[7:]) if block == 1 else (rows[1:] if block == 0 else rows,):
            store.write_block(block, {entry.group: (some, numbers[some])}, {0: "not an image"} if block == 0 else {})
    store.add_images(records(n + 20))
    store.consolidate()
    return store


@pytest.fixture(scope="module")
def both(bucket, tmp_path_factory):
    """The same store on a disk and in the bucket."""
    return filled(tmp_path_factory.mktemp("disk") / "e.zarr"), filled(f"{bucket}/e.zarr")


def test_it_holds_what_the_store_on_a_disk_holds(both):
    disk, far = (EmbeddingStore.open(store.path) for store in both)
    assert far.image_ids == disk.image_ids and far.images() == disk.images() and far.is_consolidated
    here, there = disk["pixels"], far["pixels"]
    assert there.image_ids == here.image_ids and there.absent == here.absent == {"0.jpg": "not an image"}
    assert np.array_equal(there.values, here.values)
    rows = [600, 3, 3, -1, 250]
    assert np.array_equal(there.take(rows), here.take(rows))


def test_python_opens_it_by_its_address(both):
    disk, far = (embedctl.open_embeddings(str(store.path)) for store in both)
    assert far.names == disk.names and np.array_equal(far["pixels"].values, disk["pixels"].values)
    assert far["pixels"].nearest("5.jpg", k=2).found == disk["pixels"].nearest("5.jpg", k=2).found
    assert far["pixels"].to_xarray().equals(disk["pixels"].to_xarray())


def test_other_programs_read_it_as_zarr_with_shards(both, bucket):
    import zarr
    from obstore.store import from_url
    from zarr.storage import ObjectStore

    _, far = both
    entry = far.resolve("pixels")
    array = zarr.open_array(
        ObjectStore(
            from_url(f"{bucket}/e.zarr/{entry.group}/values", client_options={"allow_http": True}), read_only=True
        ),
        mode="r",
    )
    assert array.shards == (far.block_rows, 4) and far.block_rows % array.chunks[0] == 0
    assert np.array_equal(array[1:700], far["pixels"].values) and np.isnan(array[700:]).all()


def test_a_second_writer_is_locked_out_and_a_dead_one_is_taken_over(bucket):
    store = EmbeddingStore.open(f"{bucket}/locked.zarr", create=True)
    with store.lock():
        with pytest.raises(StoreLocked):
            EmbeddingStore.open(store.path).add_images(records(1))
    lock = store.path / "image/.embedctl/locks/embeddings.lock"
    lock.write_bytes(b'{"processes": "%s", "pid": 999999999, "started": "", "token": "x"}' % PROCESSES.encode())
    store.add_images(records(1))
    assert store.n_images == 1 and not lock.exists()


def test_a_lock_is_renewed_as_long_as_it_is_ours_also_after_a_request_that_failed(bucket, monkeypatch):
    monkeypatch.setattr(locks, "HEARTBEAT", 0.05)
    store, calls = EmbeddingStore.open(f"{bucket}/beats.zarr", create=True), []
    lock, real = store.path / "image/.embedctl/locks/embeddings.lock", obstore.put

    def put(*what, **how):
        calls.append(how.get("mode"))
        if len(calls) == 2:
            raise obstore.exceptions.GenericError("the network is away")
        return real(*what, **how)

    with store.lock(), monkeypatch.context() as patch:
        patch.setattr(obstore, "put", put)
        wait(lambda: len(calls) > 4)
    assert not lock.exists() and all(how["e_tag"] for how in calls[:1])
    with pytest.raises(StoreLocked, match="has taken over"), store.lock():
        lock.write_bytes(b"another's")
        wait(lambda: lost._lost)
        store.consolidate()
    assert lock.read_bytes() == b"another's"


def wait(until) -> None:
    deadline = time.monotonic() + 20
    while not until() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert until()


def test_of_two_that_begin_a_store_together_neither_undoes_what_the_other_has_written(bucket, monkeypatch):
    place, copy, other = f"{bucket}/together.zarr", RemotePath.copy, []

    def while_another_begins(self, target, last) -> None:
        def begin() -> None:
            EmbeddingStore.open(place, create=True).add_images(records(5))

        monkeypatch.setattr(RemotePath, "copy", copy)
        other.append(threading.Thread(target=begin))
        other[0].start()
        other[0].join(1.0)
        copy(self, target, last)

    monkeypatch.setattr(RemotePath, "copy", while_another_begins)
    EmbeddingStore.open(place, create=True)
    other[0].join()
    assert EmbeddingStore.open(place).n_images == 5


@pytest.mark.parametrize("harm", ["flip", "swap", "lose"])
def test_a_damaged_shard_is_an_error_and_never_numbers(bucket, harm):
    store = filled(f"{bucket}/{harm}.zarr")
    values = store.path / store.resolve("pixels").group / "values"
    one, other = (values / f"c/{block}/0" for block in (1, 2))
    data = bytearray(one.read_bytes())
    data[5] ^= 1
    one.remove() if harm == "lose" else one.write_bytes(other.read_bytes() if harm == "swap" else bytes(data))
    embedding = EmbeddingStore.open(store.path)["pixels"]
    with pytest.raises(DamagedStore):
        embedding.take([embedding.image_ids.index(f"{store.block_rows}.jpg")])
    assert np.isfinite(embedding.take([10])).all() and CRC_BYTES == 4


def run(*words) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_an_embedding_that_is_removed_is_gone_and_a_removal_that_was_cut_short_goes_on(bucket, monkeypatch):
    store = filled(f"{bucket}/remove.zarr")
    delete, calls = obstore.delete, []

    def once(*what) -> None:
        calls.append(what)
        if len(calls) == 3:  # receipts and chunks are gone
            raise KeyboardInterrupt
        delete(*what)

    monkeypatch.setattr(obstore, "delete", once)
    with pytest.raises(KeyboardInterrupt):
        store.remove(store.resolve("pixels"))
    monkeypatch.undo()
    (entry,) = EmbeddingStore.open(store.path).entries()
    assert entry.n_committed == 0
    assert run("remove", store.path, "pixels").stdout == "s3://b123/remove.zarr: removed pixels#0a\n"
    assert EmbeddingStore.open(store.path).names == [] and not list((store.path).glob("pixels*"))
    assert run("verify", store.path).exit_code == 0


def test_rows_go_by_merge_from_a_disk_into_the_bucket_and_back(both, bucket, tmp_path):
    disk, far = (EmbeddingStore.open(store.path) for store in both)
    begun = filled(f"{bucket}/merged.zarr", 100).path
    back = filled(tmp_path / "back.zarr", 100).path
    for into, source in ((begun, disk.path), (back, begun)):
        result = run("merge", into, source)
        assert result.exit_code == 0, result.stderr
        found = EmbeddingStore.open(into)
        assert found.image_ids == disk.image_ids and found.is_consolidated
        assert np.array_equal(found["pixels"].values, disk["pixels"].values) and run("verify", into).exit_code == 0
    assert run("merge", begun, begun).exit_code == 2


def test_repair_drops_what_is_damaged_in_the_bucket_and_nothing_else(bucket):
    store = filled(f"{bucket}/repair.zarr")
    group = store.path / store.resolve("pixels").group
    chunk, node = group / "values/c/1/0", group / "values/zarr.json"
    for file in (chunk, node):
        file.write_bytes(file.read_bytes()[:-1] + b"?")
    assert run("verify", store.path).exit_code == 4
    result = run("repair", store.path)
    assert result.exit_code == 0 and "restored" in result.stdout and "dropped" in result.stdout, result.stdout
    found = EmbeddingStore.open(store.path)
    committed = found.committed(found.resolve("pixels"))
    assert np.flatnonzero(~committed[1:700]).tolist() == [*range(found.block_rows - 1, 2 * found.block_rows - 1)]
    assert run("verify", store.path).exit_code == 0


def test_a_bucket_of_google_is_read_and_written_the_same_way(both, tmp_path, monkeypatch):
    disk = EmbeddingStore.open(both[0].path)
    with google_storage() as (server, environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        far = filled("gs://lab-1/a folder/e.zarr").path
        assert server.objects and all(key.startswith("/lab-1/a folder/e.zarr/") for key in server.objects)
        store = EmbeddingStore.open(far)
        assert store.images() == disk.images() and np.array_equal(store["pixels"].values, disk["pixels"].values)
        with store.lock(), pytest.raises(StoreLocked):
            EmbeddingStore.open(far).add_images(records(1))
        assert run("merge", tmp_path / "back.zarr", far).exit_code == 2
        assert run("merge", filled(tmp_path / "back.zarr", 100).path, far).exit_code == 0
        assert (
            run("verify", far).exit_code == run("remove", far, "pixels").exit_code == run("verify", far).exit_code == 0
        )
        assert not any("/pixels" in key for key in server.objects)


def test_a_place_that_is_not_there_is_two_lines(bucket):
    with pytest.raises(EmbedctlError, match="no store at 's3://b123/nowhere.zarr'"):
        EmbeddingStore.open(f"{bucket}/nowhere.zarr")
    with pytest.raises(EmbedctlError):
        EmbeddingStore.open("s3://no-such-bucket/e.zarr", create=True)
    assert locate("s3://b123/a").name == "a"
