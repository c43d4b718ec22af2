"""Measure `embedctl extract` against what its own stages allow.

    python -m benchmarks.extract FOLDER [--images N] [--model E,...] [--workers]

FOLDER holds photographs; they are copied, each with other bytes at its end, until there are N of them (2,000), so that
every file is distinct. Weights are random. Everything runs in this process with all its cores, twice over: the first
run, which also builds and warms up, is not measured. Prints

* efficiency of every model: CPU-seconds of read and hash, decode, preprocess and forward, each alone on one thread,
  over cores x wall time;
* all models in one pass: seconds of the passes one by one, over those of one pass, and what the stages allow;
* three layers of the first vision transformer over one layer;
* a run with nothing to do;
* with ``--workers``: a dask cluster of one process per core over the embedded run.
"""

import argparse
import hashlib
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch

from pipelines.extract.extract import extract
from pipelines.extract.forward import build_networks
from pipelines.extract.images import DecodedImage, decode
from pipelines.extract.loading import LoadedImage, n_cores
from pipelines.extract.request import ExtractRequest
from pipelines.extract.sources import open_images
from pipelines.extract.targets import choose_targets

MODELS = ("resnet18-tv", "clip-vitb32", "mobilenetv3-small-tv")
N_SAMPLE = 128  # of each stage alone


def copies(folder: Path, into: Path, n: int) -> None:
    """Fill a folder with ``n`` distinct files: what follows the end of a picture is not looked at."""
    source = open_images(folder)
    into.mkdir()
    for number, image_id in enumerate(islice(cycle(source.stamps), n)):
        name = f"{number:06d}{Path(image_id).suffix}"
        (into / name).write_bytes(source.read(image_id) + number.to_bytes(8, "big"))


def seconds_of(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def wall(request: ExtractRequest, store: Path) -> float:
    """Return the wall time of the pass itself, from a second run: the first one warms everything up."""
    for attempt in range(2):
        report = extract(replace(request, store=store / f"{attempt}.zarr"))
    return report.seconds


def stages(request: ExtractRequest) -> dict[str, float]:
    """Return the seconds per image of every stage alone, on one thread."""
    source = open_images(request.images)
    ids = list(source.stamps)[:N_SAMPLE]
    networks = build_networks(request, choose_targets(request, []))
    torch.set_num_threads(1)
    found = {"read": seconds_of(lambda: [hashlib.sha256(source.read(i)).digest() for i in ids])}
    data = [source.read(i) for i in ids]
    decoded: list[DecodedImage] = []
    with_hash = seconds_of(lambda: decoded.extend(d for d in map(decode, data) if isinstance(d, DecodedImage)))
    found["decode"] = with_hash - seconds_of(lambda: [hashlib.sha256(d).digest() for d in data])
    transforms = networks.transforms(networks.names)
    loaded: list[LoadedImage] = []

    def preprocess() -> None:
        for image in decoded:
            tensors = {number: transform(image) for number, (_, transform) in transforms.items()}
            loaded.append(LoadedImage(image.sha256, tensors=tensors))

    found["preprocess"] = seconds_of(preprocess)
    size = 32
    batches = [loaded[start : start + size] for start in range(0, len(loaded) - size + 1, size)] or [loaded]
    places = np.arange(size)
    networks(batches[0], places[: len(batches[0])], size, networks.names)
    forward = seconds_of(lambda: [networks(b, places[: len(b)], size, networks.names) for b in batches])
    torch.set_num_threads(n_cores())
    per_image = {stage: spent / len(loaded) for stage, spent in found.items()}
    return {**per_image, "forward": forward / (size * len(batches))}


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("folder", type=Path)
    options.add_argument("--images", type=int, default=2000)
    options.add_argument("--model", default=",".join(MODELS))
    options.add_argument("--workers", action="store_true")
    chosen = options.parse_args()
    models, n, cores = tuple(chosen.model.split(",")), chosen.images, n_cores()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        copies(chosen.folder, folder / "images", n)
        request = ExtractRequest(models=models, images=folder / "images", weights="random:7", batch_size=32)
        alone, cost = {}, {}
        for model in models:
            cost[model] = stages(replace(request, models=(model,)))
            alone[model] = wall(replace(request, models=(model,)), folder / model)
            shares = ", ".join(f"{stage} {1000 * spent:.2f}" for stage, spent in cost[model].items())
            efficiency = n * sum(cost[model].values()) / (cores * alone[model])
            print(f"{model}: {n / alone[model]:.1f} images/s, ms/image {shares}; efficiency {efficiency:.2f}")
        if len(models) > 1:
            together = wall(request, folder / "together")
            joint = stages(request)
            allowed = sum(sum(c.values()) for c in cost.values()) / sum(joint.values())
            gain = sum(alone.values()) / together
            print(f"{len(models)} in one pass: {gain:.2f} times as fast, {gain / allowed:.2f} of what the stages allow")
        if vit := next((m for m in models if "vit" in m), None):
            layers = tuple(f"{vit}:blocks.{k}" for k in (2, 5, 8))
            one, three = (wall(replace(request, models=m), folder / f"layers-{len(m)}") for m in (layers[-1:], layers))
            print(f"three layers of {vit}: {three / one:.2f} times one layer")
        done = replace(request, models=models[:1], store=folder / models[0] / "1.zarr")
        print(f"nothing to do over {n:,} images: {seconds_of(lambda: extract(done)):.2f} s")
        if chosen.workers:
            spread = wall(replace(request, models=models[:1], workers=cores), folder / "workers")
            print(f"{cores} dask workers: {alone[models[0]] / spread:.2f} of the embedded run, start included")


if __name__ == "__main__":
    main()
