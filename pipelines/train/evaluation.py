"""What a brain encoder can do: on validation after every pass, and on the test set at the end."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from pipelines.train.losses import Loss, unit
from pipelines.train.metrics import csls, retrieve, sinkhorn

__all__ = ["embed", "retrieval_figures", "validate"]


@torch.inference_mode()
def validate(
    model: nn.ModuleDict,
    loss: Loss,
    scale: torch.Tensor,
    epochs: torch.Tensor,
    images: torch.Tensor,
    sizes: Sequence[int],
) -> dict[str, float]:
    """Score every validation round, and average: ``val_loss``, ``val_top1``, its ``val_chance``, and ``val_mrr``.

    Parameters
    ----------
    model : ModuleDict
        ``brain`` and ``image``.
    loss : callable
        See `pipelines.train.losses`.
    scale : scalar
        Inverse temperature.
    epochs : (n_held, n_chans, n_times)
        Held-out recordings, round after round.
    images : (n_held, dim)
        What they show.
    sizes : sequence of int
        Images in each round.
    """
    z, v = embed(model["brain"], epochs), embed(model["image"], images)
    losses, found = [], []
    for brain, image in zip(torch.split(z, list(sizes)), torch.split(v, list(sizes)), strict=True):
        losses.append(loss(brain, image, scale, None).item())
        # Where training left the finite numbers the loss says so; ranks have no word for it.
        found.append(retrieve(torch.nan_to_num(brain @ image.T).cpu().numpy()))
    return {
        "val_loss": float(np.mean(losses)),
        "val_top1": float(np.mean([f.top(1) for f in found])),
        "val_chance": float(np.mean([1 / n for n in sizes])),
        "val_mrr": float(np.mean([f.mrr for f in found])),
    }


@torch.inference_mode()
def embed(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return unit embeddings, a thousand rows at a time."""
    module.eval()
    return unit(torch.cat([module(part) for part in torch.split(x, 1024)]))


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
