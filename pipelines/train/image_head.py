"""Embeddings brought to one scale and a bearable width, and the trainable map that may follow."""

import numpy as np
import torch
from torch import nn

from pipelines.train.losses import unit

__all__ = ["ImageHead", "image_vectors", "principal_axes"]

FASTER = 30.0  # than other weights: AdamW moves a number by lr a step, and these have to move by whole units


def image_vectors(values: np.ndarray, device: torch.device) -> torch.Tensor:
    """Centre each embedding and give its features unit variance, so that heads see one scale for all encoders.

    Examples
    --------
    >>> image_vectors(np.array([[1.0, 3.0], [10.0, 70.0]]), torch.device("cpu"))
    tensor([[-1.0000,  1.0000],
            [-1.0000,  1.0000]])
    """
    raw = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
    scaled: torch.Tensor = unit(raw) * raw.shape[-1] ** 0.5
    return scaled.to(device)


def principal_axes(images: torch.Tensor, dim: int) -> torch.Tensor:
    """Return the map onto the leading principal components of images, not centred, so that similarities stay.

    Parameters
    ----------
    images : (n_images, n_features)
        From `image_vectors`.
    dim : int
        How many components; fewer when the images span fewer.

    Returns
    -------
    (n_features, dim)
        ``images @ axes`` keeps the dot products of these images as well as so many numbers can, on a scale that gives
        unit variance again. On the CPU.

    Examples
    --------
    >>> x = torch.randn(5, 50, generator=torch.Generator().manual_seed(0))
    >>> y = x @ principal_axes(x, 20)
    >>> y.shape, torch.allclose(x @ x.T / 50, y @ y.T / 5, atol=1e-4)
    (torch.Size([5, 5]), True)
    """
    n_images, n_features = images.shape
    x = images.cpu().double()  # not every device has float64
    if n_images < n_features:  # take the smaller of the two Gram matrices
        values, vectors = torch.linalg.eigh(x @ x.T)
        vectors = x.T @ vectors / values.clamp(min=1e-300).sqrt()
    else:
        values, vectors = torch.linalg.eigh(x.T @ x)
    spanned = values > 1e-10 * values[-1]
    spanned[-1] = True  # embeddings that are all alike still have one axis
    axes = vectors[:, spanned].flip(1)[:, :dim]
    scaled: torch.Tensor = axes * (axes.shape[1] / n_features) ** 0.5
    return scaled.float()


class ImageHead(nn.Module):
    """The trainable map on the image side: ``none``, ``linear`` or ``mlp``. It starts as the identity.

    A stack of several embeddings, such as layers of an encoder, is first summed with weights that are trained too: the
    softmax of one number each. They start equal.

    Parameters
    ----------
    kind : str
        Name of the map.
    dim : int
        Width of what it reads and gives.
    stacked : int
        Embeddings in a stack; 0 where there is none.

    Examples
    --------
    >>> x = torch.randn(2, 5)
    >>> all(torch.equal(ImageHead(kind, 5)(x), x) for kind in ("none", "linear", "mlp"))
    True
    """

    def __init__(self, kind: str, dim: int, stacked: int = 0) -> None:
        super().__init__()
        self.route = nn.Parameter(torch.zeros(stacked)) if stacked else None
        self.linear = nn.Linear(dim, dim) if kind == "linear" else None
        self.residual = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim)) if kind == "mlp" else None
        if self.linear is not None:
            nn.init.eye_(self.linear.weight)
            nn.init.zeros_(self.linear.bias)
        if self.residual is not None:
            for parameter in self.residual[2].parameters():
                nn.init.zeros_(parameter)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(n_images, dim)``, or a stack ``(n_images, stacked, dim)``, to ``(n_images, dim)``."""
        if (weights := self.weights()) is not None:
            x = torch.einsum("s,nsd->nd", weights, x)
        x = x if self.linear is None else self.linear(x)
        return x if self.residual is None else x + self.residual(x)

    def weights(self) -> torch.Tensor | None:
        """Return what each of a stack weighs, ``(stacked,)``; None where there is none."""
        return None if self.route is None else (FASTER * self.route).softmax(dim=0)
