"""What a brain encoder can do: on validation after every pass, and on the test set at the end."""

from typing import Any

import numpy as np
import torch
from torch import nn

from pipelines.train.losses import Loss, unit
from pipelines.train.metrics import csls, retrieve, sinkhorn

__all__ = ["Held", "embed", "outputs", "retrieval_figures", "validate"]


class Held:
    """What is validated on.

    Parameters
    ----------
    epochs : (n_held, n_chans, n_times)
        Held-out recordings, round after round.
    images : (n_held,)
        Which training image each shows.
    sizes : list of int
        Images in each round.
    """

    def __init__(self, epochs: torch.Tensor, images: torch.Tensor, sizes: list[int]) -> None:
        self.epochs, self.images, self.sizes = epochs, images, sizes


@torch.inference_mode()
def validate(
    model: nn.ModuleDict, loss: Loss, scale: torch.Tensor, held: Held, images: torch.Tensor
) -> dict[str, float]:
    """Score every validation round, and average: ``val_loss``, ``val_top1``, its ``val_chance``, and ``val_mrr``.

    The loss is given what it is given in training: embeddings as the networks put them out, and which images are shown.

    Parameters
    ----------
    model : ModuleDict
        ``brain`` and ``image``.
    loss : callable
        See `pipelines.train.losses`.
    scale : scalar
        Inverse temperature.
    held : Held
        What is validated on.
    images : (n_held, dim)
        What the image head reads of the images it shows.
    """
    parts = (outputs(model["brain"], held.epochs), outputs(model["image"], images), held.images)
    losses, found = [], []
    for brain, image, shown in zip(*(torch.split(part, held.sizes) for part in parts), strict=True):
        losses.append(loss(brain, image, scale, shown).item())
        # Where training left the finite numbers the loss says so; ranks have no word for it.
        found.append(retrieve(torch.nan_to_num(unit(brain) @ unit(image).T).cpu().numpy()))
    return {
        "val_loss": float(np.mean(losses)),
        "val_top1": float(np.mean([f.top(1) for f in found])),
        "val_chance": float(np.mean([1 / n for n in held.sizes])),
        "val_mrr": float(np.mean([f.mrr for f in found])),
    }


@torch.inference_mode()
def outputs(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return what a network makes of rows, a thousand at a time."""
    module.eval()
    return torch.cat([module(part) for part in torch.split(x, 1024)])


def embed(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return unit embeddings."""
    return unit(outputs(module, x))


def retrieval_figures(scores: np.ndarray, own: np.ndarray) -> dict[str, Any]:
    """Return the retrieval figures of a score matrix, by column of the results.

    ``sinkhorn_top1`` is None where the gallery is not just the images shown, one query each.
    """
    found = retrieve(scores, own)
    one_to_one = np.array_equal(np.sort(own), np.arange(scores.shape[1]))
    return {
        "top1": found.top(1),
        "top3": found.top(3),
        "top5": found.top(5),
        "median_rank": found.median_rank,
        "mrr": found.mrr,
        "csls_top1": retrieve(csls(scores), own).top(1),
        "sinkhorn_top1": retrieve(sinkhorn(scores), own).top(1) if one_to_one else None,
    }
