"""A step of the trainer: NICE as published against NICE as rewritten, EEGProject, and the share that goes to data.

    python -m benchmarks.train_step

What is timed are the very batches and steps of `embedctl train`, on made-up recordings: `Course` and `Learner` with
the recipe ``paper`` for NICE (63 channels x 250 samples, batches of 128, D = 768) and ``modern`` for EEGProject (17
channels, batches of 1,024, D = 1,024, its image head among it). Data is what it takes to put a batch together: the
order of the pass, the epochs, the embeddings of the images. One thread, CPU seconds of the process, the best of five
repeats of each, taken in turns.
"""

import time
from itertools import count, islice
from pathlib import Path

import torch

from pipelines.train.brain_encoders import brain_encoder
from pipelines.train.brain_encoders.elsewhere import trust
from pipelines.train.course import Course
from pipelines.train.data import Recordings, Test
from pipelines.train.recipes import Recipe, read_recipe
from pipelines.train.train import Against, RunConfig, learners_of
from tests.train import published_nice

N_EPOCHS, N_REPEATS = 4096, 5
PUBLISHED = f"{Path(published_nice.__file__)}:PublishedNICE"


class Case:
    """A run on its way, as `pipelines.train.train` sets one out."""

    def __init__(self, kind: str, recipe: Recipe, n_chans: int, dim: int) -> None:
        epochs, ids = torch.randn(N_EPOCHS, n_chans, 250), [f"c{i // 10}/{i}.jpg" for i in range(N_EPOCHS)]
        concepts = [name.split("/")[0] for name in ids]
        data = Recordings(
            image_ids=ids,
            concepts=concepts,
            mean=epochs,
            rows=epochs,
            shown=torch.arange(N_EPOCHS),
            n_times=250,
            ch_names=[f"E{c}" for c in range(n_chans)],
            test=Test(epochs[:8], torch.arange(8).numpy(), ids[:8], concepts[:8], None),
        ).ready(brain_encoder(kind), "cpu")
        course, images = Course(recipe, 0, data), torch.randn(N_EPOCHS, dim).numpy()
        (self.learner,) = learners_of(
            RunConfig(recipe.with_(brain_encoder=kind), 0), data, course, [Against(images, images[:8])]
        )
        self.learner.model.train()
        self._batches = (batch for _ in count() for batch in course.batches())

    def steps(self, n_steps: int) -> tuple[float, float]:
        """Return samples per CPU second of whole steps, and the share of them spent on data."""
        fetching, n_rows, started = 0.0, 0, time.process_time()
        before = started
        for x, shown in islice(self._batches, n_steps):
            self.learner.images[shown]  # `gradients` does so, too: it is counted here, and done twice
            fetching += time.process_time() - before
            self.learner.gradients(x, shown)
            self.learner.step()
            n_rows += len(x)
            before = time.process_time()
        return n_rows / (before - started), fetching / (before - started)


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    trust(PUBLISHED)
    nice, modern = read_recipe("paper", "eeg", "nice"), read_recipe("modern", "eeg").with_(batch=1024, dim=0)
    cases = {
        "NICE as published": (Case(PUBLISHED, nice, 63, 768), 2),
        "NICE rewritten": (Case("nice", nice, 63, 768), 8),
        "EEGProject": (Case("eegproject", modern, 17, 1024), 4),
    }
    best: dict[str, tuple[float, float]] = {}
    for repeat in range(N_REPEATS + 1):  # the first warms up
        for name, (case, n_steps) in cases.items():
            found = case.steps(n_steps)
            if repeat:
                best[name] = max(best.get(name, (0.0, 0.0)), found)
    for name, (rate, share) in best.items():
        print(f"{name:20} {rate:8.0f} samples per core-second, {share:6.2%} of it on data")
    print(f"ratio {best['NICE rewritten'][0] / best['NICE as published'][0]:.2f}")


if __name__ == "__main__":
    main()
