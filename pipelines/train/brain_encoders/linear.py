"""The linear readout: every sample of an epoch into one linear map, the floor that a network has to beat."""

import torch
from torch import nn

__all__ = ["LinearReadout"]


class LinearReadout(nn.Module):
    """Flatten channels and times, and map them linearly.

    Parameters
    ----------
    n_chans, n_times : int
        Shape of an epoch.
    dim : int
        Width of the embedding space.

    Examples
    --------
    >>> LinearReadout(17, 250, 8)(torch.randn(2, 17, 250)).shape
    torch.Size([2, 8])
    """

    def __init__(self, n_chans: int, n_times: int, dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(n_chans * n_times, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(n_epochs, n_chans, n_times)`` to ``(n_epochs, dim)``."""
        out: torch.Tensor = self.project(x.flatten(1))
        return out
