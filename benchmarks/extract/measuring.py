"""What the measurements of extraction share: photographs, a request, a clock that hears a run, a line of print."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.cores import n_cores
from pipelines.extract.request import ExtractRequest
from pipelines.extract.sources import open_images

BATCH = 32


def asking(images: Path) -> ExtractRequest:
    return ExtractRequest(models=(), images=images, weights="random:7", batch_size=BATCH, dtype="float32")


def line(what: str, measured: str, limit: str = "") -> None:
    print(f"{what:<58} {measured:>34}  {limit}", flush=True)


def copies(folder: Path, into: Path, n: int) -> Path:
    """Fill a folder with ``n`` distinct files: what follows the end of a picture is not looked at."""
    source = open_images(folder)
    into.mkdir()
    for number, image_id in enumerate(islice(cycle(source.stamps), n)):
        name = f"{number:06d}{Path(image_id).suffix}"
        (into / name).write_bytes(source.read(image_id) + number.to_bytes(8, "big"))
    return into


def resized(folder: Path, into: Path, width: int) -> Path:
    """Fill a folder with the same photographs at another width."""
    into.mkdir()
    for image_id in open_images(folder).stamps:
        with Image.open(folder / image_id) as image:
            size = width, round(width * image.height / image.width)
            image.convert("RGB").resize(size).save(into / f"{Path(image_id).stem}.jpg")
    return into


class Clock:
    """Remembers when which image was done: (seconds, CPU-seconds, images)."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, float, int]] = []

    def start(self, label: str, total: int, unit: str) -> None:
        """Begin: the networks are built."""
        self.seen.append((time.perf_counter(), time.process_time(), 0))

    def advance(self, n: int = 1, **figures: str | float) -> None:
        """Remember."""
        self.seen.append((time.perf_counter(), time.process_time(), self.seen[-1][2] + n))

    def say(self, text: str) -> None:
        """Say nothing."""

    def per_image(self) -> tuple[float, float]:
        """Return seconds and CPU-seconds per image, from the first one begun to the last one done."""
        wall, cpu, n = (last - begun for begun, last in zip(self.seen[0], self.seen[-1], strict=True))
        return wall / n, cpu / n

    def steady(self) -> tuple[float, float]:
        """Return the same in steady state: the slope over all but the batches that fill the cores and empty them."""
        wall, cpu, n = np.array(self.seen[4 : -n_cores()]).T
        return np.polyfit(n, wall, 1)[0], np.polyfit(n, cpu, 1)[0]


def run(request: ExtractRequest, store: Path) -> Clock:
    from pipelines.extract.extract import extract

    clock = Clock()
    extract(replace(request, store=store), clock)
    return clock


def spent(words: list[str]) -> tuple[float, float, float]:
    """Return wall and CPU-seconds and peak megabytes of ``embedctl extract`` in a process of its own."""
    start = time.perf_counter()
    # Not what `wait4` says is the peak: that begins with the memory of this process.
    tell = "next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1]"
    code = f"import atexit; from embedctl.cli import main; atexit.register(lambda: print({tell})); main()"
    process = subprocess.Popen([sys.executable, "-c", code, "extract", *words], stdout=subprocess.PIPE, text=True)
    out = process.stdout.read() if process.stdout else ""
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"extract ended with {os.waitstatus_to_exitcode(status)}: {' '.join(words)}")
    return time.perf_counter() - start, used.ru_utime + used.ru_stime, int(out.split()[-1]) / 1000
