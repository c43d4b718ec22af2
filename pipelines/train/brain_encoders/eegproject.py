"""EEGProject, the brain encoder of UBP (https://arxiv.org/abs/2503.04207): all samples into one linear map.

The cheapest brain encoder and, on 17 occipito-parietal channels, the best of the published ones
(https://arxiv.org/abs/2601.21948, Table 4).
"""

import torch
from torch import nn

__all__ = ["EEGProject", "Head"]


class Head(nn.Module):
    """The head that NICE and EEGProject share: linear, a residual GELU block, layer norm.

    ``y = Linear(x); LayerNorm(y + Dropout(Linear(GELU(y))))``

    Parameters
    ----------
    n_features : int
        Width of the input.
    dim : int
        Width of the embedding space.
    dropout : float
        Probability of dropping a feature of the residual branch.
    """

    def __init__(self, n_features: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.project = nn.Linear(n_features, dim)
        self.residual = nn.Sequential(nn.GELU(), nn.Linear(dim, dim), nn.Dropout(dropout))
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(n_epochs, n_features)`` to ``(n_epochs, dim)``."""
        x = self.project(x)
        out: torch.Tensor = self.norm(x + self.residual(x))
        return out


class EEGProject(nn.Module):
    """Flatten channels and times, then a `Head` with dropout 0.3.

    Parameters
    ----------
    n_chans, n_times : int
        Shape of an epoch.
    dim : int
        Width of the embedding space.

    Examples
    --------
    >>> sum(p.numel() for p in EEGProject(17, 250, 1024).parameters())
    5404672
    """

    def __init__(self, n_chans: int, n_times: int, dim: int) -> None:
        super().__init__()
        self.head = Head(n_chans * n_times, dim, dropout=0.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(n_epochs, n_chans, n_times)`` to ``(n_epochs, dim)``."""
        out: torch.Tensor = self.head(x.flatten(1))
        return out
