"""kill -9 of `embedctl extract` at any moment: nothing committed is lost, and the final bytes are those of an
uninterrupted run: rows, ids, image table, receipts and what plain zarr sees.
"""

import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from embedctl.cli import main
from stores.embeddings import EmbeddingStore
from tests.photos import write_photographs
from tests.stored_files import files

CONTROLS = ("pixels", "gabor-pyramid", "hog", "colour-histogram")
N_FIRST, N_IMAGES, N_RECEIPTS = 8, 136, 12  # two whole blocks and a bit, of four embeddings

pytestmark = pytest.mark.skipif(os.name == "nt", reason="no SIGKILL there")


def command(store: str) -> None:
    """Run ``embedctl extract`` as the program of this process."""
    sys.stdout = sys.stderr = open(os.devnull, "w")
    sys.argv = ["embedctl", "extract", "--model", ",".join(CONTROLS), "--store", store, "--batch-size", "16"]
    main()


@pytest.fixture(scope="module")
def processes():
    """Processes that begin with torch imported: a kill then falls into the work and not into the imports."""
    from multiprocessing import forkserver

    context = multiprocessing.get_context("forkserver")
    work = ["pipelines.extract.extract", "pipelines.extract.forward"]
    context.set_forkserver_preload(["tests.test_extract_kill", *work])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(Path(__file__).parent.parent)  # where the server finds what it imports
        forkserver.ensure_running()
    return context


@pytest.fixture(scope="module")
def folder(processes, tmp_path_factory):
    """A folder with ``images`` and a store that begins with few of them: its blocks are the smallest, 64 rows."""
    folder = tmp_path_factory.mktemp("killed")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_photographs(folder / "images", N_FIRST, sizes=False)
        assert run(processes, "begun.zarr") == 0
        write_photographs(folder / "images", N_IMAGES - N_FIRST, first=N_FIRST, sizes=False)
        yield folder


def run(processes, store: str, kill=None) -> int:
    """Run the command in a process of its own; ``kill`` waits for the moment to kill it, given the process."""
    process = processes.Process(target=command, args=(store,))
    process.start()
    if kill:
        kill(process)
        process.kill()
    process.join()
    return process.exitcode


def at_random(draw: random.Random, store: Path, seconds_per_block: float):
    """Wait until the command is at work and some receipts are there, then a while: commits come in bursts."""
    n_receipts, more = draw.randint(0, N_RECEIPTS - 5), draw.uniform(0, 0.6 * seconds_per_block)

    def wait(process) -> None:
        until_at_work(process, store)
        while process.is_alive() and len(fresh_receipts(store)) < n_receipts:
            time.sleep(0.002)
        process.join(more)

    return wait


def until_at_work(process, store: Path) -> None:
    while process.is_alive() and not list(store.glob("image/.embedctl/locks/*")):
        time.sleep(0.002)


def fresh_receipts(store: Path) -> list[Path]:
    began = (store.parent / "begun.zarr" / "zarr.json").stat().st_mtime_ns
    return [r for r in store.glob("*/values/.embedctl/receipts/*.json") if r.stat().st_mtime_ns > began]


def assert_receipts_hold(store: Path) -> None:
    """Compare every file that a receipt vouches for with its size and digest, and find each file in one receipt."""
    vouched = Counter()
    for receipt in store.rglob(".embedctl/**/*.json"):
        data = receipt.read_bytes()
        content = json.loads(data)
        body = data[data.index(b'"receipt": ') + 11 : -2]
        assert content["blake2b"] == hashlib.blake2b(body, digest_size=16).hexdigest(), receipt
        assert "next" not in content["receipt"], f"{receipt} announces what was never finished"
        base = next(above for above in receipt.parents if above.name == ".embedctl").parent.parent
        for name, voucher in content["receipt"]["files"].items():
            file = (base / name).read_bytes()
            assert (len(file), hashlib.blake2b(file, digest_size=16).hexdigest()) == (
                voucher["bytes"],
                voucher["blake2b"],
            ), base / name
            vouched[base / name] += 1
    there = {f for f in store.rglob("*") if f.is_file() and (".embedctl" not in f.parts or f.suffix == ".parquet")}
    assert set(vouched) == there and set(vouched.values()) == {1}


def seen_by_zarr(store: Path) -> dict[str, tuple[str, bytes]]:
    import zarr

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        group = zarr.open_group(store, mode="r")
        arrays = {name: m for name, m in group.members(max_depth=None) if isinstance(m, zarr.Array)}
        assert {"image"} < set(arrays) and len(arrays) == 1 + 2 * len(CONTROLS)
        return {name: (str(array.dtype), np.asarray(array[:]).tolist()) for name, array in arrays.items()}


@pytest.fixture(scope="module")
def uninterrupted(processes, folder) -> tuple[dict[str, bytes], dict, float]:
    """Return the final files, what zarr sees, and the seconds of a block."""
    shutil.copytree(folder / "begun.zarr", folder / "uninterrupted.zarr")
    process = processes.Process(target=command, args=("uninterrupted.zarr",))
    process.start()
    until_at_work(process, folder / "uninterrupted.zarr")
    start = time.perf_counter()
    process.join()
    seconds = time.perf_counter() - start
    assert process.exitcode == 0
    final = files(folder / "uninterrupted.zarr")
    assert sum("/values/c/" in name for name in final) == N_RECEIPTS
    return final, seen_by_zarr(folder / "uninterrupted.zarr"), seconds / 3


def progress(store: Path) -> tuple[int, ...]:
    left = EmbeddingStore.open(store)
    return tuple(int(left.committed(entry).sum()) for entry in left.entries())


def kill_and_resume(processes, folder: Path, uninterrupted, seed: int) -> tuple[bool, tuple[int, ...]]:
    """Return whether it was killed, and the rows that were committed by then."""
    final, as_zarr, seconds = uninterrupted
    store = folder / f"killed-{seed}.zarr"
    shutil.copytree(folder / "begun.zarr", store)
    killed = run(processes, store.name, at_random(random.Random(seed), store, seconds)) == -signal.SIGKILL
    rows = progress(store)
    kept = {f: f.stat().st_mtime_ns for f in store.glob("*/values/c/*/*")} if rows == (N_IMAGES,) * 4 else {}
    assert run(processes, store.name) == 0
    assert files(store) == final and seen_by_zarr(store) == as_zarr
    assert_receipts_hold(store)
    assert all(f.stat().st_mtime_ns == when for f, when in kept.items())
    shutil.rmtree(store)
    return killed, rows


def test_a_killed_command_resumes_to_the_same_bytes(processes, folder, uninterrupted):
    kill_and_resume(processes, folder, uninterrupted, seed=0)


@pytest.mark.slow
def test_a_command_killed_at_twenty_random_moments_resumes_to_the_same_bytes(processes, folder, uninterrupted):
    stages: Counter[tuple[int, ...]] = Counter()
    for seed in range(1, 41):  # on a busy computer some are done before the kill comes
        killed, rows = kill_and_resume(processes, folder, uninterrupted, seed)
        stages[rows] += killed and min(rows or (0,)) < N_IMAGES
        if seed >= 20 and stages.total() >= 15:
            break
    assert stages.total() >= 15, stages
    stages = +stages
    assert len(stages) >= 3, stages  # it was not always killed at the same point


@pytest.mark.slow
def test_a_command_that_is_killed_again_and_again_still_ends_in_the_same_bytes(processes, folder, uninterrupted):
    final, as_zarr, seconds = uninterrupted
    store = folder / "hunted.zarr"
    shutil.copytree(folder / "begun.zarr", store)
    draw = random.Random(99)
    for _ in range(8):
        run(processes, store.name, lambda process: process.join(draw.uniform(0.05, 4 * seconds)))
    assert run(processes, store.name) == 0
    assert files(store) == final and seen_by_zarr(store) == as_zarr
    assert_receipts_hold(store)
