"""kill -9 at any moment: nothing committed is lost, and the final bytes are those of an uninterrupted run."""

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest

from pipelines.extract.extract import extract
from pipelines.extract.request import ExtractRequest
from pipelines.extract.sources import open_images
from stores.embeddings import EmbeddingStore
from stores.images import ImageRecord
from tests.photos import write_photographs

CONTROLS = ("pixels", "gabor-pyramid", "hog", "colour-histogram")
N_IMAGES = 136  # two whole blocks and a bit

pytestmark = pytest.mark.skipif(os.name == "nt", reason="no SIGKILL there")


@pytest.fixture(scope="module")
def processes():
    """Processes that begin with torch imported: a kill then falls into the work and not into the imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pipelines.extract.extract", "pipelines.extract.forward"])
    return context


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("killed") / "images"
    write_photographs(folder, N_IMAGES, sizes=False)
    return folder


def request(images: Path, store: Path) -> ExtractRequest:
    return ExtractRequest(models=CONTROLS, images=images, store=store, batch_size=16, device="cpu")


def begin(images: Path, store: Path) -> None:
    """Make a store that begins with a few images, so that its blocks are the smallest there are: 64 rows."""
    first = list(open_images(images).stamps.items())[:8]
    opened = EmbeddingStore.open(store, create=True)
    opened.add_images([ImageRecord(image_id, "", *stamp, 0, 0, "") for image_id, stamp in first])
    assert opened.block_rows == 64


def chunks(store: Path) -> dict[str, bytes]:
    return {str(f.relative_to(store)): f.read_bytes() for f in sorted(store.glob("*/values/c/*/*"))}


def run(processes, images: Path, store: Path, kill_after: float | None = None) -> int | None:
    """Extract in a process of its own; kill it after so many seconds, or let it end."""
    process = processes.Process(target=extract, args=(request(images, store),))
    process.start()
    process.join(kill_after)
    if process.is_alive():
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    return process.exitcode


@pytest.fixture(scope="module")
def uninterrupted(processes, images) -> tuple[dict[str, bytes], float]:
    """The final chunk files, and the seconds it takes to get there."""
    store = images.parent / "uninterrupted.zarr"
    begin(images, store)
    start = time.perf_counter()
    assert run(processes, images, store) == 0
    seconds = time.perf_counter() - start
    final = chunks(store)
    assert len(final) == len(CONTROLS) * 3
    return final, seconds


def kill_and_resume(processes, images: Path, uninterrupted, seed: int) -> None:
    final, seconds = uninterrupted
    store = images.parent / f"killed-{seed}.zarr"
    begin(images, store)
    run(processes, images, store, kill_after=random.Random(seed).uniform(0.05, seconds))
    left = EmbeddingStore.open(store)
    committed = {str(entry.name): int(left.committed(entry).sum()) for entry in left.entries()}
    report = extract(request(images, store))
    for line in report.embeddings:  # nothing that was committed is computed again
        assert line.already == committed.get(line.name, 0)
    assert chunks(store) == final
    assert not report.skipped and all(line.written + line.already == N_IMAGES for line in report.embeddings)
    assert extract(request(images, store)).to_do == 0


@pytest.mark.parametrize("seed", range(3))
def test_a_killed_extraction_resumes_to_the_same_bytes(processes, images, uninterrupted, seed):
    kill_and_resume(processes, images, uninterrupted, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3, 20))
def test_a_killed_extraction_resumes_to_the_same_bytes_whenever_it_was_killed(processes, images, uninterrupted, seed):
    kill_and_resume(processes, images, uninterrupted, seed)


@pytest.mark.slow
def test_an_extraction_that_is_killed_again_and_again_still_ends_in_the_same_bytes(processes, images, uninterrupted):
    final, seconds = uninterrupted
    store = images.parent / "hunted.zarr"
    begin(images, store)
    draw = random.Random(99)
    for _ in range(8):
        run(processes, images, store, kill_after=draw.uniform(0.05, seconds / 2))
    extract(request(images, store))
    assert chunks(store) == final
