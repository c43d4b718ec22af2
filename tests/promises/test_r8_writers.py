"""R8: several writers lose no row, and a second one on the same rows is told who is there."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from distributed import LocalCluster

from stores.owners import HOST
from tests.promises.harness import content, damages, differing, ended, extract, run
from tests.promises.writers import N_WRITERS, crowd

ROOT = Path(__file__).parents[2]
HOLD = """
import sys, time
from pathlib import Path
from stores.embeddings import EmbeddingStore
from stores.parts import Part
with EmbeddingStore.open(Path(sys.argv[1])).part(Part(0, 4)):
    print("held", flush=True)
    time.sleep(60)
"""

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="needs os.fork")]


def test_four_writers_of_a_quarter_each_lose_no_row(large):
    words = [sys.executable, "-m", "tests.promises.writers", "200" if large else "20"]
    ran = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_four_workers_of_a_cluster_lose_no_row(world, scratch, large):
    shutil.copytree(world.inputs.folder, scratch / "inputs")
    begun = crowd(scratch)
    given = type(world.inputs)(scratch / "inputs")
    alone = shutil.copytree(begun, scratch / "alone")
    run(alone, extract(given, "crowd"))
    options = {"threads_per_worker": 1, "memory_limit": 0, "dashboard_address": ":0"}
    with LocalCluster(n_workers=N_WRITERS, processes=True, **options) as cluster:
        for _ in range(100 if large else 20):
            here = shutil.copytree(begun, scratch / "here")
            run(here, extract(given, "crowd", "--scheduler", cluster.scheduler_address))
            assert not damages(here) and not differing(content(here), content(alone))
            shutil.rmtree(here)


def test_a_second_writer_of_the_same_rows_is_told_who_is_there_and_takes_over_when_it_is_dead(world, scratch):
    here = scratch / "here"
    here.mkdir()
    shutil.copytree(world.whole / "embeddings.zarr", here / "embeddings.zarr")
    words = extract(world.inputs, "many", "--shard", "0/4")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(here / "embeddings.zarr")], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        began = time.monotonic()
        code, said = ended(here, words)
        assert time.monotonic() - began < 2
        assert code == 5 and f"process {holder.pid} on {HOST}" in said
        holder.kill()
    run(here, words)
