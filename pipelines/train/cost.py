"""What a run will leave on disk, found out before it starts by building its networks without their numbers."""

import torch
from torch import nn

from pipelines.train.brain_encoders import brain_encoder
from pipelines.train.data import pick_channels, pick_window
from pipelines.train.image_head import ImageHead
from pipelines.train.recipes import Recipe
from stores.epochs import SubjectEpochs

__all__ = ["run_bytes"]


def run_bytes(epochs: SubjectEpochs, recipe: Recipe, kind: str, n_features: int, n_gallery: int) -> int:
    """Return the bytes of a run: its checkpoint, two score matrices and the brain embeddings of the test images.

    Parameters
    ----------
    epochs : SubjectEpochs
        The subject.
    recipe : Recipe
        The recipe.
    kind : str
        Name of the brain encoder.
    n_features : int
        Width of the image embedding.
    n_gallery : int
        Images that the one shown is told apart from, itself included.

    Raises
    ------
    EmbedctlError
        If the window does not fit the epochs, or holds fewer samples than the brain encoder needs.
    """
    window = pick_window(epochs, recipe)
    n_chans, n_times = len(pick_channels(epochs, recipe)[0]), 1 if window is None else len(window)
    dim = min(recipe.dim or n_features, n_features)
    with torch.device("meta"):
        model = nn.ModuleList([brain_encoder(kind)(n_chans, n_times, dim), ImageHead(recipe.image_head, dim)])
    n_test = len(epochs.test.image_ids)
    numbers = sum(values.numel() for values in model.state_dict().values()) + n_test * (2 * n_gallery + dim)
    return 4 * (numbers + (n_features * dim if dim < n_features else 0))
