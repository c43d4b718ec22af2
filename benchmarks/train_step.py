"""Training step: NICE as published against NICE as rewritten, EEGProject, and the share of a step spent on data.

    python -m benchmarks.train_step

One thread, CPU seconds of the process, the best of five repeats of each, taken in turns. Epochs are 63 channels x 250
samples in batches of 128 with D = 768 for NICE, 17 channels in batches of 1,024 with D = 1,024 for EEGProject.
"""

import time

import torch
from torch import nn

from pipelines.train.brain_encoders.eegproject import EEGProject
from pipelines.train.brain_encoders.nice import NICE
from pipelines.train.losses import info_nce
from tests.train.published_nice import PublishedNICE

N_EPOCHS, N_REPEATS = 4096, 5


def samples_per_second(
    model: nn.Module, epochs: torch.Tensor, batch: int, dim: int, n_steps: int
) -> tuple[float, float]:
    """Return samples per CPU second of whole steps, and the share of them spent on fetching the batch."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    images, x = torch.randn(len(epochs), dim), torch.empty((batch, *epochs.shape[1:]))
    fetching, started = 0.0, time.process_time()
    for _ in range(n_steps):
        before = time.process_time()
        rows = torch.randperm(len(epochs))[:batch]
        torch.index_select(epochs, 0, rows, out=x)
        goal = images[rows]
        fetching += time.process_time() - before
        loss = info_nce(model(x), goal, 1 / 0.07, rows)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    spent = time.process_time() - started
    return batch * n_steps / spent, fetching / spent


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    wide = torch.randn(N_EPOCHS, 63, 250)
    cases = {
        "NICE as published": (PublishedNICE(63, 250, 768).train(), wide, 128, 768, 2),
        "NICE rewritten": (NICE(63, 250, 768), NICE.prepare(wide), 128, 768, 8),
        "EEGProject": (EEGProject(17, 250, 1024), wide[:, :17].contiguous(), 1024, 1024, 4),
    }
    best: dict[str, tuple[float, float]] = {}
    for repeat in range(N_REPEATS + 1):  # the first warms up
        for name, case in cases.items():
            found = samples_per_second(*case)
            if repeat:
                best[name] = max(best.get(name, (0.0, 0.0)), found)
    for name, (rate, share) in best.items():
        print(f"{name:20} {rate:8.0f} samples per core-second, {share:6.2%} of it on data")
    print(f"ratio {best['NICE rewritten'][0] / best['NICE as published'][0]:.2f}")


if __name__ == "__main__":
    main()
