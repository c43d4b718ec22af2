"""EEGNet (https://arxiv.org/abs/1611.08024), the compact network that Rajabi et al. call EEGNetV4."""

import torch
from torch import nn

from stores.errors import EmbedctlError

__all__ = ["EEGNet"]

TEMPORAL, DEPTH, POINTWISE = 8, 2, 16  # F1, D, F2 of the paper
TAPS = 64  # samples of the temporal filters
POOLS = 4, 8  # samples averaged after either half


class EEGNet(nn.Module):
    """Temporal filters, spatial filters of each, separable filters, then a linear map.

    As AlignVis has it: every convolution with a bias and padded to its input's length, no bound on the norm of
    weights, dropout 0.5.

    Parameters
    ----------
    n_chans, n_times : int
        Shape of an epoch.
    dim : int
        Width of the embedding space.

    Raises
    ------
    EmbedctlError
        If an epoch is shorter than what both averages take together, 32 samples.

    Examples
    --------
    >>> model = EEGNet(63, 250, 768)
    >>> sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in model.project.parameters())
    2168
    """

    def __init__(self, n_chans: int, n_times: int, dim: int) -> None:
        super().__init__()
        n_windows = n_times // POOLS[0] // POOLS[1]
        if n_windows < 1:
            raise EmbedctlError(
                f"EEGNet needs epochs of {POOLS[0] * POOLS[1]} samples, these have {n_times}",
                "choose a longer window in the recipe, or another brain encoder",
            )
        n_spatial = TEMPORAL * DEPTH
        self.filters = nn.Sequential(
            nn.ZeroPad2d((TAPS // 2 - 1, TAPS // 2, 0, 0)),
            nn.Conv2d(1, TEMPORAL, (1, TAPS)),
            nn.BatchNorm2d(TEMPORAL),
            nn.Conv2d(TEMPORAL, n_spatial, (n_chans, 1), groups=TEMPORAL),
            nn.BatchNorm2d(n_spatial),
            nn.ELU(),
            nn.AvgPool2d((1, POOLS[0])),
            nn.Dropout(0.5),
            nn.ZeroPad2d((7, 8, 0, 0)),
            nn.Conv2d(n_spatial, n_spatial, (1, 16), groups=n_spatial),
            nn.Conv2d(n_spatial, POINTWISE, 1),
            nn.BatchNorm2d(POINTWISE),
            nn.ELU(),
            nn.AvgPool2d((1, POOLS[1])),
            nn.Dropout(0.5),
        )
        self.project = nn.Linear(POINTWISE * n_windows, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(n_epochs, n_chans, n_times)`` to ``(n_epochs, dim)``."""
        out: torch.Tensor = self.project(self.filters(x[:, None]).flatten(1))
        return out
