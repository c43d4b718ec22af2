"""What a run is shown: what it is trained on, batch by batch, and what is held out to validate it."""

from collections.abc import Iterator

import numpy as np
import torch

from pipelines.train.data import Recordings
from pipelines.train.draws import Draws
from pipelines.train.evaluation import Held
from pipelines.train.recipes import Recipe
from pipelines.train.splits import split_images
from stores.errors import EmbedctlError

__all__ = ["Course"]


class Course:
    """The batches of a run and its validation rounds, as its recipe and seed draw them.

    Parameters
    ----------
    recipe : Recipe
        Every setting.
    seed : int
        Of the split and of the order.
    data : Recordings
        What is recorded, on the device to train on.

    Attributes
    ----------
    train : (n_train,)
        Images that are trained on.
    held : Held
        What is validated on.
    n_batches : int
        In a pass.

    Raises
    ------
    EmbedctlError
        If nothing is left to train on.
    """

    def __init__(self, recipe: Recipe, seed: int, data: Recordings) -> None:
        device, n_images = data.mean.device, len(data.image_ids)
        split = split_images(
            data.image_ids,
            data.concepts,
            recipe.split,
            share=recipe.held_out,
            at_most=recipe.held_out_at_most,
            seed=seed,
            round_of=recipe.val_batch,
        )
        self.train = split.train
        trained_on = torch.zeros(n_images, dtype=torch.bool, device=device)
        trained_on[torch.from_numpy(split.train)] = True
        rows = torch.nonzero(trained_on[data.shown]).flatten()
        rounds = [there for one in split.rounds if len(there := one[one < len(data.mean)]) > 1]
        if not rounds:
            raise EmbedctlError("the subject to validate on saw none of the images held out", "use more images")
        held = torch.from_numpy(np.concatenate(rounds)).to(device)
        self.held = Held(data.mean[held], held, [len(r) for r in rounds])
        one_of = data.shown if data.whose is None else data.shown + n_images * data.whose
        self._draws = Draws(one_of, rows, recipe.n_random)
        self._batch = min(recipe.batch, len(self._draws))
        if self._batch < 2:
            raise EmbedctlError(
                f"{len(self._draws)} rows leave nothing to train on", "use more images or hold fewer out"
            )
        self.n_batches = len(self._draws) // self._batch  # what is left over takes part in another pass's order
        self._order_of = torch.Generator().manual_seed(seed)
        self._data, self._x = data, torch.empty((self._batch, *data.rows.shape[1:]), device=device)

    def batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield the epochs of every batch of the next pass, in one buffer, and which image each shows."""
        picked, share = self._draws.of_pass(self._order_of)
        order = torch.randperm(len(self._draws), generator=self._order_of).to(self._x.device)
        for step in range(self.n_batches):
            now = order[step * self._batch : (step + 1) * self._batch]
            gather(self._data.rows, picked[now], share[now], self._x)
            yield self._x, self._data.shown[picked[now, 0]]


def gather(rows: torch.Tensor, picked: torch.Tensor, share: torch.Tensor, out: torch.Tensor) -> None:
    """Put the weighted mean of the picked rows into ``out``."""
    if rows.dtype == out.dtype:
        torch.index_select(rows, 0, picked[:, 0], out=out)
    else:  # rows of many subjects are halves
        out.copy_(rows[picked[:, 0]])
    if picked.shape[1] > 1:
        shares = share.reshape(*share.shape, *[1] * (rows.ndim - 1))
        out *= shares[:, 0]
        for k in range(1, picked.shape[1]):
            out += shares[:, k] * rows[picked[:, k]]
