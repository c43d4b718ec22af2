"""How much of a run is read, hash, decode, preprocess and forward: the rest is overhead."""

from dataclasses import replace
from pathlib import Path

from benchmarks.extract.measuring import line, run
from benchmarks.extract.stages import stages
from pipelines.cores import n_cores
from pipelines.extract.request import ExtractRequest

MODELS = {"resnet18-tv": 0.95, "clip-vitb32": 0.95, "mobilenetv3-small-tv": 0.90}


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
