"""Embeddings as they are trained against: on one scale, side by side or in a stack, of a bearable width."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pipelines.train.image_head import image_vectors, principal_axes
from pipelines.train.recipes import Recipe

__all__ = ["ImageSide", "fit_image_side"]

CONSTANT = 1e-6  # of the largest spread: what varies less is rounding


@dataclass(frozen=True)
class ImageSide:
    """How rows of the embedding store become what the image head reads, as it was settled on the images trained on.

    Parameters
    ----------
    stacked : int
        Embeddings of one width that are kept apart, for the head to route; 0 where all features stand side by side.
    mean, spread : (n_features,), optional
        What features are centred by and divided by, where several embeddings stand side by side.
    axes : (n_features, dim), optional
        What narrows them.
    """

    stacked: int = 0
    mean: torch.Tensor | None = None
    spread: torch.Tensor | None = None
    axes: torch.Tensor | None = None

    def __call__(self, values: np.ndarray, device: torch.device) -> torch.Tensor:
        """Map rows of the store ``(n_images, n_features)`` to ``(n_images, dim)``, or ``(n_images, stacked, dim)``."""
        if self.mean is not None and self.spread is not None:
            values = (values - self.mean.cpu().numpy()) / self.spread.cpu().numpy()
        if self.stacked:
            values = values.reshape(len(values), self.stacked, -1)
        images = image_vectors(values, device)
        return images if self.axes is None else images @ self.axes.to(device)

    def state(self) -> dict[str, torch.Tensor]:
        """Return what a checkpoint keeps of it."""
        kept = {"mean": self.mean, "spread": self.spread, "axes": self.axes}
        return {name: value for name, value in kept.items() if value is not None}


def fit_image_side(
    target: np.ndarray, train: np.ndarray, widths: Sequence[int], recipe: Recipe, device: torch.device
) -> tuple[ImageSide, torch.Tensor]:
    """Settle how embeddings are read, from the images trained on alone, and return that and all of them, read.

    Several embeddings side by side are standardised, feature by feature, and divided by the root of their width, so
    that each weighs the same; a recipe that routes keeps them apart. One embedding is taken as it is.

    Parameters
    ----------
    target : (n_images, n_features)
        Embeddings of all training images, side by side.
    train : (n_train,)
        Rows that are trained on.
    widths : sequence of int
        Features of each embedding.
    recipe : Recipe
        ``several`` and ``dim``.
    device : device
        Where the images go.
    """
    side = ImageSide()
    if len(widths) > 1 and recipe.several == "route":
        side = ImageSide(stacked=len(widths))
    elif len(widths) > 1:
        seen = target[train].astype(np.float64)
        spread = seen.std(axis=0)
        for part in np.split(spread, np.cumsum(widths)[:-1]):
            part[part <= CONSTANT * part.max()] = np.inf  # a constant feature says nothing
            part *= len(part) ** 0.5
        mean, spread = (torch.from_numpy(x.astype(np.float32)) for x in (seen.mean(axis=0), spread))
        side = ImageSide(mean=mean, spread=spread)
    images = side(target, device)
    if 0 < recipe.dim < images.shape[-1]:
        # One map for all in a stack: layers of an encoder share their space.
        axes = principal_axes(images[torch.from_numpy(train).to(device)].flatten(0, -2), recipe.dim)
        side = ImageSide(side.stacked, side.mean, side.spread, axes)
        images = images @ axes.to(device)
    return side, images
