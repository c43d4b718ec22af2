"""One brain encoder on its way: its weights and their optimiser, what validation said so far, and the best it was."""

import math

import numpy as np
import torch
from torch import nn

from pipelines.train.brain_encoders import brain_encoder
from pipelines.train.evaluation import Held, validate
from pipelines.train.image_head import ImageHead
from pipelines.train.image_side import ImageSide
from pipelines.train.losses import loss_function
from pipelines.train.recipes import Recipe
from stores.errors import EmbedctlError

__all__ = ["HIGHEST_SCALE", "Diverged", "Learner", "scale_of", "val_loss_cosine"]

HIGHEST_SCALE = 100.0  # of the learned inverse temperature, as in CLIP
LOWEST_LR = 1e-7  # of the rule val-loss-cosine, as in AlignVis


class Diverged(EmbedctlError):
    """A run left the finite numbers: others go on without it."""


class Learner:
    """A brain encoder and an image head that learn to point at one embedding.

    Parameters
    ----------
    recipe : Recipe
        Every setting, the brain encoder too.
    n_chans, n_times : int
        Shape of an epoch.
    side : ImageSide
        How embeddings are read.
    images : (n_images, dim) or (n_images, stacked, dim)
        What the image head reads of every training image, on the device to train on.

    Attributes
    ----------
    model : ModuleDict
        ``brain`` and ``image``.
    log_scale : scalar
        Logarithm of the inverse temperature.
    metrics : list of dict
        One row per pass.
    states : dict
        Weights of the ``chosen`` pass and, in the end, of the ``last``.
    """

    def __init__(self, recipe: Recipe, n_chans: int, n_times: int, side: ImageSide, images: torch.Tensor) -> None:
        self.recipe, self.side, self.images = recipe, side, images
        dim, device = images.shape[-1], images.device
        brain_side = brain_encoder(recipe.brain_encoder)(n_chans, n_times, dim)
        image_head = ImageHead(recipe.image_head, dim, side.stacked)
        self.model = nn.ModuleDict({"brain": brain_side, "image": image_head}).to(device)
        self.log_scale = nn.Parameter(torch.tensor(1 / recipe.temperature, device=device).log())
        self.log_scale.requires_grad_(recipe.learn_temperature)
        self._loss_of = loss_function(recipe.loss)
        self.weights = list(self.model.parameters())
        groups: list[dict[str, object]] = [{"params": self.weights}]
        if recipe.learn_temperature:
            groups.append({"params": [self.log_scale], "weight_decay": 0.0})
        self._optimiser = torch.optim.AdamW(groups, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)
        self.metrics: list[dict[str, float]] = []
        self.states: dict[str, dict[str, torch.Tensor]] = {}
        self.chosen_pass = 0
        self.is_done = False

    @property
    def lr(self) -> float:
        """Learning rate of the next step."""
        return float(self._optimiser.param_groups[0]["lr"])

    def loss_of(
        self,
        model: nn.ModuleDict,
        log_scale: torch.Tensor,
        x: torch.Tensor,
        images: torch.Tensor,
        shown: torch.Tensor,
    ) -> torch.Tensor:
        """Return the loss of a batch: epochs, what the image head reads of their images, and which images these are."""
        return self._loss_of(model["brain"](x), model["image"](images), scale_of(log_scale), shown)

    def gradients(self, x: torch.Tensor, shown: torch.Tensor) -> torch.Tensor:
        """Put the gradients of a batch where `step` finds them, and return the loss."""
        loss = self.loss_of(self.model, self.log_scale, x, self.images[shown], shown)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def step(self) -> None:
        """Change the weights by their gradients."""
        if self.recipe.clip:
            nn.utils.clip_grad_norm_(self.weights, self.recipe.clip)
        self._optimiser.step()
        with torch.no_grad():  # and not where it is used: beyond, it would have no gradient, and never come back
            self.log_scale.clamp_(max=math.log(HIGHEST_SCALE))

    def close_pass(self, loss: float, held: Held) -> None:
        """Validate, keep the weights where they are the best so far, and settle how it goes on.

        Raises
        ------
        Diverged
            If training has left the finite numbers.
        """
        recipe, n_pass = self.recipe, len(self.metrics) + 1
        scale, images = scale_of(self.log_scale), self.images[held.images]
        seen = validate(self.model, self._loss_of, scale, held, images)
        row = {"pass": n_pass, "lr": self.lr, "loss": loss} | seen
        self.metrics.append(row)
        if not np.isfinite(row["loss"]) or not np.isfinite(row["val_loss"]):
            raise Diverged(f"the loss left the finite numbers in pass {n_pass}", "lower lr in a recipe of your own")
        # Of equals, the longest trained.
        if n_pass == 1 or _as_good(row, self.metrics[self.chosen_pass - 1], recipe.choose_by):
            self.states["chosen"], self.chosen_pass = self._copy(), n_pass
        self.is_done = n_pass == recipe.passes or 0 < recipe.patience <= n_pass - self.chosen_pass
        if self.is_done:
            self.states["last"] = self._copy()
        if recipe.lr_rule == "val-loss-cosine":
            for group in self._optimiser.param_groups:
                group["lr"] = val_loss_cosine(recipe.lr, row["val_loss"])

    def restore(self, name: str) -> nn.ModuleDict:
        """Return the networks as they were."""
        state = self.states[name]
        self.model.load_state_dict({key: value for key, value in state.items() if key != "log_scale"})
        return self.model

    def _copy(self) -> dict[str, torch.Tensor]:
        state = {key: value.detach().clone() for key, value in self.model.state_dict().items()}
        return state | {"log_scale": self.log_scale.detach().clone()}


def scale_of(log_scale: torch.Tensor) -> torch.Tensor:
    """Return the inverse temperature."""
    return log_scale.exp()


def val_loss_cosine(lr: float, val_loss: float) -> float:
    """Return the learning rate of the next pass, as in AlignVis.

    Its scheduler, a cosine with warm restarts every ten passes, is told the validation loss instead of the pass.

    Examples
    --------
    >>> [round(val_loss_cosine(1.0, loss), 3) for loss in (4.2, 2.6)]
    [0.624, 0.842]
    """
    return LOWEST_LR + (lr - LOWEST_LR) * (1 + math.cos(math.pi * (val_loss % 10) / 10)) / 2


def _as_good(row: dict[str, float], best: dict[str, float], by: str) -> bool:
    return row[by] <= best[by] if by == "val_loss" else row[by] >= best[by]
