"""Planning a million images, forty encoders and sixty-four workers."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.extract.measuring import line
from pipelines.extract.request import ExtractRequest


def cpu_of(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def plan() -> None:
    code = "from benchmarks.extract.plan import plan_here; plan_here()"
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
    status = Path("/proc/self/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0]) / 1000  # what getrusage says begins with the parent's
    print(f"{time.perf_counter() - start:.1f} s, {cpu:.1f} CPU-s, {peak:.0f} MB")
