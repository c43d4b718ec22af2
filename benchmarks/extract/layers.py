"""Three layers of one network in one pass, against one."""

from dataclasses import replace
from pathlib import Path

from benchmarks.extract.measuring import line, run
from pipelines.extract.request import ExtractRequest

LAYERS = tuple(f"clip-vitb32:blocks.{k}" for k in (8, 2, 5))


def layers(request: ExtractRequest, place: Path) -> None:
    clocks = (run(replace(request, models=m), place / f"layers-{len(m)}.zarr") for m in (LAYERS[:1], LAYERS))
    one, three = (clock.per_image()[1] for clock in clocks)
    line("three layers of clip-vitb32 over one, CPU", f"{three / one:.2f}", "at most 1.1")
