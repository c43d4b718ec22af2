"""A sweep against its pure compute: 20 embeddings x 2 subjects x 2 seeds at full size, three passes each.

    python -m benchmarks.sweep [--embeddings 20] [--concepts 1654] [--seeds 2] [--passes 3] [--folder FOLDER]

Makes the stores in FOLDER (a temporary one by default; subjects of ten images per concept, 63 channels x 250), then
runs `embedctl train` in a process of its own. Pure compute are the steps alone (forward, backward, optimiser;
EEGProject on 17 channels, D = 768), timed in as many processes as there are cores, at once, before and after the sweep.
Limit: a wall time of 1.15 times the pure compute of all runs over the cores; start-up, reading, validation, test and
writing are what is left for.
"""

import argparse
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.screen import DIM, PER_CONCEPT, make
from pipelines.allocator import kept_memory
from pipelines.cores import n_cores
from pipelines.train.brain_encoders.eegproject import EEGProject
from pipelines.train.image_head import ImageHead
from pipelines.train.losses import info_nce
from pipelines.train.recipes import read_recipe
from stores.results import read_results

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
TIMED = 10  # steps
LIMIT = 1.15


def seconds(batch: int, n_held: int) -> np.ndarray:
    """Return the wall time of a step and of a validation in this process, on one thread."""
    torch.set_num_threads(1)
    with kept_memory():
        return _seconds(batch, n_held)


def _seconds(batch: int, n_held: int) -> np.ndarray:
    brain, image = EEGProject(17, 250, DIM), ImageHead("linear", DIM)
    scale = torch.nn.Parameter(torch.tensor(2.7))
    weights = [*brain.parameters(), *image.parameters(), scale]
    optimiser = torch.optim.AdamW(weights, lr=1e-4, fused=True)
    x, pictures, shown = torch.randn(batch, 17, 250), torch.randn(batch, DIM), torch.arange(batch)
    for step in range(TIMED + 2):
        if step == 2:
            started = time.perf_counter()
        loss = info_nce(brain(x), image(pictures), scale.exp(), shown)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    stepped = time.perf_counter()
    held, shown_held = torch.randn(n_held, 17, 250), torch.randn(n_held, DIM)
    with torch.inference_mode():
        for module, rows in ((brain.eval(), held), (image.eval(), shown_held)):
            for part in rows.split(batch):
                module(part)
    return np.array([(stepped - started) / TIMED, time.perf_counter() - stepped])


def pure(batch: int, n_held: int) -> np.ndarray:
    """Return the wall time of a step and of a validation while every core is at one."""
    with multiprocessing.get_context("spawn").Pool(n_cores()) as processes:
        return np.mean(processes.starmap(seconds, [(batch, n_held)] * n_cores()), axis=0)


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in (("embeddings", 20), ("concepts", 1654), ("seeds", 2), ("passes", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    os.environ.update(ONE_THREAD)
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.folder or Path(temporary)
        if not (folder / "epochs.zarr").exists():
            make(folder, asked.concepts, asked.embeddings, subjects=(1, 2))
        recipe = folder / "few_passes.toml"
        recipe.write_text(f'base = "modern"\npasses = {asked.passes}\n')
        modern = read_recipe("modern", "eeg")
        batch = min(modern.batch, asked.concepts * PER_CONCEPT // 2)
        n_held = min(round(modern.held_out * asked.concepts), modern.held_out_at_most) * PER_CONCEPT
        before = pure(batch, n_held)
        words = ["--recipe", recipe, "--embeddings", folder / "embeddings.zarr", "--epochs", folder / "epochs.zarr"]
        words += ["--brain", "eeg", "--device", "cpu", "--seed", f"0..{asked.seeds - 1}"]
        with tempfile.TemporaryDirectory(dir=folder) as runs:
            cpu, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            subprocess.run([sys.executable, "-m", "embedctl", "train", *map(str, words), "--runs", runs], check=True)
            wall, spent = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
            steps = read_results(Path(runs))["steps"].to_pylist()
        step, validation = (before + pure(batch, n_held)) / 2
    compute = sum(steps) * step + len(steps) * asked.passes * validation
    cpu_seconds = spent.ru_utime - cpu.ru_utime + spent.ru_stime - cpu.ru_stime
    print(f"{len(steps)} runs, {sum(steps):,} steps of {step:.3f} s and validations of {validation:.2f} s")
    print(f"pure compute: {compute:.0f} CPU-seconds, {compute / n_cores():.0f} s on {n_cores()} cores")
    print(f"{wall:.0f} s wall: {wall * n_cores() / compute:.2f} times as long (at most {LIMIT})")
    print(f"{cpu_seconds:.0f} CPU-seconds: {cpu_seconds / compute:.2f} times as many")
    print(f"cores busy {cpu_seconds / (wall * n_cores()):.0%} of the time")


if __name__ == "__main__":
    main()
