"""How much of a run is read, hash, decode, preprocess and forward: the rest is overhead."""

import time
from dataclasses import replace
from pathlib import Path
from statistics import median

from benchmarks.extract.measuring import line, run
from benchmarks.extract.stages import stages
from pipelines.cores import n_cores
from pipelines.extract.request import ExtractRequest

MODELS = {"resnet18-tv": 0.95, "clip-vitb32": 0.95, "mobilenetv3-small-tv": 0.90}
TURNS, SECONDS = 3, 120.0
"""Of a model, at least: the speed of a shared machine drifts, by a tenth within a minute."""


def efficiency(request: ExtractRequest, place: Path) -> None:
    for model, least in MODELS.items():
        of_model(replace(request, models=(model,)), least, place)


def of_model(request: ExtractRequest, least: float, place: Path) -> None:
    """Measure in turns the stages on one thread, a run, the stages again, and the stages on every core at once.

    The last is what the machine allows: cores that share caches and memory are slower together than one alone,
    whatever they work at.
    """
    (model,), begun = request.models, time.perf_counter()
    costs, by_wall, by_cpu, allowed = [], [], [], []
    before = stages(request)
    while len(costs) < TURNS or time.perf_counter() - begun < SECONDS:
        wall, cpu = run(request, place / f"{model}-{len(costs)}.zarr").steady()
        together, after = stages(request, n_threads=n_cores()), stages(request)
        cost = {stage: (before[stage] + after[stage]) / 2 for stage in before}
        costs.append(cost)
        ideal = sum(cost.values())
        by_wall.append(ideal / (n_cores() * wall))
        by_cpu.append(ideal / cpu)
        allowed.append(sum(after.values()) / sum(together.values()))
        before = after
    shares = ", ".join(f"{stage} {1000 * median(cost[stage] for cost in costs):.2f}" for stage in before)
    line(f"{model}: {len(costs)} turns; CPU-ms per image:", shares)
    line(f"{model}: efficiency, by wall time", _spread(by_wall), f"at least {least}")
    line(f"{model}: stages / CPU-seconds spent", _spread(by_cpu), f"at least {least}")
    line(f"{model}: stages on one core / on all at once", _spread(allowed), "what the machine allows")


def _spread(values: list[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"
