"""Memory that a batch gave back is there for the next one."""

import subprocess
import sys

import pytest

WORK = """
import resource
from contextlib import nullcontext
from threading import Thread
import numpy as np
from pipelines.allocator import kept_memory

def batch():
    return len([np.ones(400_000, np.float32) for _ in range(60)])  # 96 MB, too little each for huge pages

def work():
    batch()
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    for _ in range(3):
        batch()
    print(resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before)

with {}():
    thread = Thread(target=work)
    thread.start()
    thread.join()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="is about glibc")
def test_a_thread_gets_the_same_pages_again_instead_of_new_ones():
    faults = {}
    for name in ("kept_memory", "nullcontext"):
        ran = subprocess.run([sys.executable, "-c", WORK.format(name)], capture_output=True, text=True, check=True)
        faults[name] = int(ran.stdout)
    assert faults["kept_memory"] < 1000
    if faults["nullcontext"] < 1000:
        pytest.skip("this C library keeps memory by itself")
