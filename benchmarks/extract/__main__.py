"""Measure `embedctl extract` against what its own stages allow, and against the limits of its design.

    python -m benchmarks.extract FOLDER [--only PART,...] [--images N] [--pass-images N]

FOLDER holds photographs; they are copied, each with other bytes at its end, until there are as many distinct files as
a part asks for. Weights are random, and rows float32, because float16 cannot hold those of every random network.
Parts, all by default:

* ``efficiency`` of three models over N images (2,000): CPU-seconds of read and hash, decode, preprocess and forward,
  each alone on one thread, before a run and after it, over cores x wall time in steady state, the median of some turns;
  beside it over the CPU-seconds that were spent, and what the stages lose by running on every core at once, without
  anything of an extraction around them.
* ``passes``: six encoders in one pass against six passes, over FOLDER's photographs made 500 and 1,500 pixels wide.
* ``layers``: three layers of one network against one, of CPU-seconds.
* ``dask``: two local workers against this process on as many cores, while all are at work; what a task costs that does
  nothing.
* ``memory``: peak memory of 1,000 and of 10,000 images, without a network and with one.
* ``stores``: 1,024 random rows against a NumPy memmap; opening a store and listing 40 embeddings.
* ``again``: a run with nothing to do over 26,107 images.
* ``plan``: 1.3 million images x 40 encoders x 64 workers, without files.
"""

import argparse
import os
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from benchmarks.extract.again import again
from benchmarks.extract.dask_workers import dask
from benchmarks.extract.efficiency import efficiency
from benchmarks.extract.layers import layers
from benchmarks.extract.measuring import asking, copies
from benchmarks.extract.memory import memory
from benchmarks.extract.passes import passes
from benchmarks.extract.plan import plan
from benchmarks.extract.store_speed import stores
from pipelines.allocator import kept_memory
from pipelines.cores import n_cores
from pipelines.extract.request import ExtractRequest

EXTRACTING = {"efficiency", "passes", "layers"}  # in this process


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("folder", type=Path)
    options.add_argument("--only", default="efficiency,passes,layers,dask,memory,stores,again,plan")
    options.add_argument("--images", type=int, default=2000)
    options.add_argument("--pass-images", type=int, default=320)
    chosen = options.parse_args()
    print(f"{n_cores()} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)

        def of(n: int) -> ExtractRequest:
            images = place / f"images-{n}"
            return asking(images if images.exists() else copies(chosen.folder, images, n))

        parts: dict[str, Callable[[], None]] = {
            "efficiency": lambda: efficiency(of(chosen.images), place),
            "passes": lambda: passes(chosen.folder, place),
            "layers": lambda: layers(of(chosen.pass_images), place),
            "dask": lambda: dask(of(chosen.images), place),
            "memory": lambda: memory(chosen.folder, place),
            "stores": lambda: stores(place),
            "again": lambda: again(place),
            "plan": plan,
        }
        for part in chosen.only.split(","):
            # Kept from the beginning, as in a process that only extracts: threads of one that did other things before
            # may allocate where nothing is kept, and a forward pass then takes twice as long.
            with kept_memory() if part in EXTRACTING else nullcontext():
                parts[part]()


if __name__ == "__main__":
    main()
