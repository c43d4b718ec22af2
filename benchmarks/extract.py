"""Measure `embedctl extract` against what its own stages allow, and against the limits of its design.

    python -m benchmarks.extract FOLDER [--only PART,...] [--images N] [--pass-images N]

FOLDER holds photographs; they are copied, each with other bytes at its end, until there are as many distinct files as
a part asks for. Weights are random, and rows float32, because float16 cannot hold those of every random network.
Parts, all by default:

* ``efficiency`` of three models over N images (2,000): CPU-seconds of read and hash, decode, preprocess and forward,
  each alone on one thread, before the run and after it, over cores x wall time in steady state; beside it over the
  CPU-seconds that were spent, which a busy machine changes little: what is missing from 1 there is overhead.
* ``passes``: six encoders in one pass against six passes, over FOLDER's photographs made 500 and 1,500 pixels wide.
* ``layers``: three layers of one network against one, of CPU-seconds.
* ``dask``: two local workers against this process on as many cores, once all are at work; what a task costs that does
  nothing.
* ``memory``: peak memory of 1,000 and of 10,000 images.
* ``stores``: 1,024 random rows against a NumPy memmap; opening a store and listing 40 embeddings.
* ``again``: a run with nothing to do over 26,107 images.
* ``plan``: 1.3 million images x 40 encoders x 64 workers, without files.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from PIL import Image

from benchmarks import store_reads
from pipelines.cores import n_cores
from pipelines.extract.loading import LoadedImage
from pipelines.extract.provenance import provenance
from pipelines.extract.request import ExtractRequest
from pipelines.extract.sources import ImageSource, open_images
from pipelines.extract.targets import choose_targets
from stores.embeddings import EmbeddingStore, ImageRecord

if TYPE_CHECKING:
    from pipelines.extract.forward import Networks

Made = TypeVar("Made")

MODELS = {"resnet18-tv": 0.95, "clip-vitb32": 0.95, "mobilenetv3-small-tv": 0.90}
LIGHT = (
    "mobilenetv3-small-tv",
    "resnet18-tv",
    "alexnet-tv",
    "tf-efficientnet-b0",
    "tf-efficientnet-b0-ns-jft-in1k",
    "harmonized-efficientnet-b0-base",
)
LAYERS = tuple(f"clip-vitb32:blocks.{k}" for k in (8, 2, 5))
WIDTHS = (500, 1500)  # pixels
BATCH, N_SAMPLE = 32, 128


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


def cpu_of(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def stages(request: ExtractRequest) -> dict[str, float]:
    """Return the CPU-seconds per image of every stage alone, on one thread, at the settings of an extraction.

    That is: in a thread of its own, on memory that is kept. On memory that is asked for anew in every batch a network
    takes up to a quarter longer, and the stages would allow less than an extraction reaches.
    """
    from pipelines.allocator import kept_memory
    from pipelines.cores import workers
    from pipelines.extract.forward import build_networks

    networks = build_networks(request, choose_targets(request, []))
    with kept_memory(), networks.own_threads() as begin, workers(1, begin) as thread:
        return thread.submit(_stages, open_images(request.images), networks).result()


def _stages(source: ImageSource, networks: "Networks") -> dict[str, float]:
    """Do the work of some batches, one after the other as an extraction does, so that memory is used again; time it."""
    from pipelines.extract.images import DecodedImage, decode

    ids = list(source.stamps)[:: max(1, len(source.stamps) // N_SAMPLE)][:N_SAMPLE]
    transforms = networks.transforms(networks.names)
    places, n_batches = np.arange(BATCH), len(ids) // BATCH
    for number in (0, *range(n_batches)):  # the first batch twice: once to get everything ready
        if number == 0:
            spent = dict.fromkeys(("read", "decode", "preprocess", "forward"), 0.0)
        loaded = []
        for image_id in ids[number * BATCH : (number + 1) * BATCH]:
            data = _timed(spent, "read", lambda image_id=image_id: source.read(image_id))
            decoded = _timed(spent, "decode", lambda data=data: decode(data))  # hashes as well, a tenth of it
            assert isinstance(decoded, DecodedImage)
            see = {n: partial(transform, decoded) for n, (_, transform) in transforms.items()}
            tensors = _timed(spent, "preprocess", lambda see=see: {n: make() for n, make in see.items()})
            loaded.append(LoadedImage(decoded.sha256, tensors=tensors))
        _timed(spent, "forward", lambda loaded=loaded: networks(loaded, places, BATCH, networks.names))
    return {stage: seconds / (n_batches * BATCH) for stage, seconds in spent.items()}


def _timed(spent: dict[str, float], stage: str, work: Callable[[], Made]) -> Made:
    begun = time.thread_time()
    made = work()
    spent[stage] += time.thread_time() - begun
    return made


def efficiency(request: ExtractRequest, place: Path) -> None:
    for model, least in MODELS.items():
        one = replace(request, models=(model,))
        before, (wall, cpu), after = stages(one), run(one, place / f"{model}.zarr").steady(), stages(one)
        cost = {stage: (before[stage] + after[stage]) / 2 for stage in before}  # the machine's speed drifts
        shares = ", ".join(f"{stage} {1000 * spent:.2f}" for stage, spent in cost.items())
        ideal = sum(cost.values())
        line(f"{model}: {1 / wall:.1f} images/s; CPU-ms per image:", shares)
        line(f"{model}: efficiency, by wall time", f"{ideal / (n_cores() * wall):.2f}", f"at least {least}")
        line(f"{model}: stages / CPU-seconds spent", f"{ideal / cpu:.2f}", f"at least {least}")


def passes(folder: Path, place: Path) -> None:
    for width in WIDTHS:
        six(folder, width, place)


def six(folder: Path, width: int, place: Path) -> None:
    request = asking(resized(folder, place / f"wide-{width}", width))
    apart, cost = [], []
    for model in LIGHT:
        one = replace(request, models=(model,))
        cost.append(sum(stages(one).values()))
        apart.append(run(one, place / f"{model}-{width}.zarr").per_image())
    together = replace(request, models=LIGHT)
    allowed = sum(cost) / sum(stages(together).values())
    pass_ = run(together, place / f"six-{width}.zarr").per_image()
    for what, six, one in zip(("wall", "CPU"), zip(*apart, strict=True), pass_, strict=True):
        gain = sum(six) / one
        line(f"six encoders at {width} px, one pass for six: less {what}", f"{gain:.2f} x, stages allow {allowed:.2f}")
        line(f"six encoders at {width} px, {what}: of what stages allow", f"{gain / allowed:.2f}", "at least 0.95")


def layers(request: ExtractRequest, place: Path) -> None:
    clocks = (run(replace(request, models=m), place / f"layers-{len(m)}.zarr") for m in (LAYERS[:1], LAYERS))
    one, three = (clock.per_image()[1] for clock in clocks)
    line("three layers of clip-vitb32 over one, CPU", f"{three / one:.2f}", "at most 1.1")


class WithChildren(Clock):
    """Counts the CPU-seconds of other processes that this one started, too."""

    def advance(self, n: int = 1, **figures: str | float) -> None:
        """Remember."""
        import psutil  # comes with dask

        here = psutil.Process()
        used = [process.cpu_times() for process in (here, *here.children(recursive=True))]
        cpu = sum(times.user + times.system for times in used)
        self.seen.append((time.perf_counter(), cpu, self.seen[-1][2] + n))

    def after(self, n_first: int) -> tuple[float, float]:
        """Return seconds and CPU-seconds per image, the first ones left out: until then networks are built."""
        begun, last = next(seen for seen in self.seen if seen[2] >= n_first), self.seen[-1]
        wall, cpu, n = (b - a for a, b in zip(begun, last, strict=True))
        return wall / n, cpu / n


def dask(request: ExtractRequest, place: Path) -> None:
    """Compare two workers of one core each with one process of two, over blocks of 64 images."""
    from pipelines.extract.extract import extract

    first = place / "first"
    first.mkdir()
    for path in sorted(request.images.iterdir())[:64]:
        (first / path.name).hardlink_to(path)
    spent = []
    for workers in (0, 2):
        store, clock = place / f"dask-{workers}.zarr", WithChildren()
        extract(replace(request, models=("pixels",), images=first, store=store))  # decides the size of a block
        model = "mobilenetv3-small-tv"
        extract(replace(request, models=(model,), store=store, workers=workers), clock)
        spent.append(clock.after(4 * 64))
    for what, here, there in zip(("by wall time", "by CPU-seconds"), *spent, strict=True):
        line(f"two dask workers, throughput of one process {what}", f"{here / there:.2f}", "at least 0.9")
    wall, cpu = task_overhead(request)
    line("dask: a task that does nothing", f"{1000 * wall:.2f} ms, {1000 * cpu:.2f} CPU-ms here", "below 5 ms")


def task_overhead(request: ExtractRequest, n_tasks: int = 1000) -> tuple[float, float]:
    """Return wall and CPU-seconds per block that dask takes when a block takes nothing."""
    from pipelines.extract import distributed
    from pipelines.extract.compute import BlockDone
    from pipelines.extract.plan import BlockTask
    from pipelines.progress import SILENT

    def nothing(*task: object) -> BlockDone:
        return BlockDone(0, {})

    computed, distributed._compute = distributed._compute, nothing  # type: ignore[assignment]
    try:
        with distributed.open_cluster(replace(request, workers=2), SILENT) as cluster:
            rows = {"some": np.arange(1024)}
            for n in (50, n_tasks):  # the first ones find everything out
                begun = time.perf_counter(), time.process_time()
                for _ in cluster.run(None, BATCH, [BlockTask(block, rows) for block in range(n)]):  # type: ignore[arg-type]
                    pass
            return (time.perf_counter() - begun[0]) / n_tasks, (time.process_time() - begun[1]) / n_tasks
    finally:
        distributed._compute = computed


def memory(folder: Path, place: Path) -> None:
    peaks = []
    for n in (1000, 10_000):
        images = copies(folder, place / f"memory-{n}", n)
        words = ["--model", "pixels", "--images", str(images), "--store", str(place / f"memory-{n}.zarr")]
        peaks.append(spent(words)[2])
    line("peak memory of 1,000 and 10,000 images (pixels)", f"{peaks[0]:.0f} MB, {peaks[1]:.0f} MB")
    line("peak memory: difference", f"{peaks[1] - peaks[0]:.0f} MB", "at most 300 MB")


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


def stores(place: Path) -> None:
    for n_images in (16_540, 1_000_000):
        store, memmap = store_reads.batches(place / f"{n_images}.zarr", n_images)
        what = f"1,024 random rows of {n_images:,} x 768 float16 over memmap"
        line(what, f"{store:.2f} ms / {memmap:.2f} ms = {store / memmap:.2f}", "at most 1.5")
    line("open a store and list 40 embeddings", f"{store_reads.listing(place / 'forty.zarr'):.0f} ms", "under 50 ms")


def again(place: Path) -> None:
    folder = place / "again"
    for n in range(26_107):
        concept = folder / f"concept_{n // 14:04d}"
        concept.mkdir(parents=True, exist_ok=True)
        (concept / f"{n % 14:02d}.jpg").write_bytes(b"not looked at")
    request = ExtractRequest(models=("resnet18-tv",), images=folder, store=place / "again.zarr", weights="random:7")
    store = EmbeddingStore.open(request.store, create=True)
    with store.lock():
        found = open_images(folder).stamps.items()
        store.add_images([ImageRecord(image_id, "00" * 32, *stamp, 8, 8, "RGB") for image_id, stamp in found])
        (target,) = choose_targets(request, [])
        facts = provenance(target, request, "cpu", 1)
        entry = store.create(target.name, target.key, dim=512, dtype="float16", provenance=facts)
        for start in range(0, len(found), store.block_rows):
            rows = np.arange(start, min(start + store.block_rows, len(found)))
            numbers = np.ones((len(rows), 512), "float16")
            store.write_block(start // store.block_rows, {entry.group: (rows, numbers)}, {})
        store.consolidate()
    words = ["--model", "resnet18-tv", "--weights", "random:7", "--images", str(folder), "--store", str(request.store)]
    wall, cpu, _ = min(spent(words) for _ in range(3))
    line("nothing to do over 26,107 images", f"{wall:.2f} s, {cpu:.2f} CPU-seconds", "under 2 s")


def plan() -> None:
    code = "from benchmarks.extract import plan_here; plan_here()"
    measured = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    line("dry run: 1.3 million images x 40 encoders x 64 workers", measured, "under 10 s and 1,000 MB")


def plan_here() -> None:
    """Plan images that only seem to be there; print what that took."""
    from pipelines.encoders.registry import registry
    from pipelines.extract import extract
    from pipelines.extract.stamps import Stamp

    class Simulated:
        stamps = {f"n{n // 1300:08d}/n{n // 1300:08d}_{n}.JPEG": Stamp(110_000, n) for n in range(1_300_000)}

    extract.open_images = lambda path: Simulated  # type: ignore[attr-defined]
    networks = [name for name, spec in registry().items() if spec.family in ("timm", "torchvision", "open_clip")]
    request = ExtractRequest(
        models=tuple(networks[:40]), store=Path("nowhere.zarr"), weights="random:7", workers=64, dry_run=True
    )
    start, cpu = time.perf_counter(), cpu_of(lambda: extract.extract(request))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    print(f"{time.perf_counter() - start:.1f} s, {cpu:.1f} CPU-s, {peak:.0f} MB")


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
            "dask": lambda: dask(of(chosen.pass_images), place),
            "memory": lambda: memory(chosen.folder, place),
            "stores": lambda: stores(place),
            "again": lambda: again(place),
            "plan": plan,
        }
        for part in chosen.only.split(","):
            parts[part]()


if __name__ == "__main__":
    main()
