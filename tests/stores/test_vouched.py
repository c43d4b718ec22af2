"""Every file of a store is vouched for, so that ``verify`` can find any damage."""

from stores.receipts import read_receipt, vouch
from tests.crashes import extract, preprocess, train


def vouched_for(store):
    """Return what all receipts below ``store`` say, by file: a receipt speaks of the group that holds its array."""
    found = {}
    for path in receipts_of(store):
        array = next(parent.parent for parent in path.parents if parent.name == ".embedctl")
        for name, said in read_receipt(path)["files"].items():
            found[array.parent / name] = {key: said[key] for key in ("bytes", "tail", "blake2b")}
    return found


def receipts_of(store):
    return {*store.rglob(".embedctl/metadata.json"), *store.rglob(".embedctl/receipts/*.json")}


def check(files, receipts, found):
    assert set(found) == {path for path in files if path.is_file()} - receipts
    assert all(vouch(path.read_bytes()) == said for path, said in found.items())


def test_every_file_of_an_embedding_store(tmp_path):
    extract(tmp_path, 70)
    extract(tmp_path, 80, "b")
    store = tmp_path / "e.zarr"
    check(store.rglob("*"), receipts_of(store), vouched_for(store))


def test_every_file_of_an_epoch_store(tmp_path):
    preprocess(tmp_path, (1, 2))
    store = tmp_path / "p.zarr"
    check(store.rglob("*"), receipts_of(store), vouched_for(store))


def test_every_file_of_a_run(tmp_path):
    train(tmp_path)
    run = tmp_path / "runs" / "run-0"
    found = {run / name: said for name, said in read_receipt(run / "receipt.json")["files"].items()}
    check(run.iterdir(), {run / "receipt.json"}, found)
