"""The residual MLP, the brain encoder for voxels: they have neither a time course nor an order to convolve over.

The layout is that of MindEye (https://arxiv.org/abs/2305.18274), which Rajabi et al. use as BrainMLP: a wide linear
map, then residual blocks. Theirs is 4,096 wide, 122 to 135 million parameters, half a gigabyte of checkpoint per run.
This one is a quarter as wide, 20 million for 15,000 voxels, with their depth and dropout (assumed to do, not measured).
"""

import torch
from torch import nn

__all__ = ["ResidualMLP"]

WIDTH = 1024
BLOCKS = 4


class ResidualMLP(nn.Module):
    """``h = Dropout(GELU(LayerNorm(Linear(x))))``; four times ``h + Dropout(GELU(LayerNorm(Linear(h))))``; linear.

    Dropout is 0.5 after the voxels and 0.15 in the blocks.

    Parameters
    ----------
    n_chans, n_times : int
        Shape of an epoch; of fMRI the number of voxels, and 1.
    dim : int
        Width of the embedding space.

    Examples
    --------
    >>> ResidualMLP(300, 1, 24)(torch.randn(2, 300, 1)).shape
    torch.Size([2, 24])
    """

    def __init__(self, n_chans: int, n_times: int, dim: int) -> None:
        super().__init__()
        self.voxels = _layer(n_chans * n_times, dropout=0.5)
        self.blocks = nn.ModuleList(_layer(WIDTH, dropout=0.15) for _ in range(BLOCKS))
        self.project = nn.Linear(WIDTH, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(n_epochs, n_voxels)`` or ``(n_epochs, n_voxels, 1)`` to ``(n_epochs, dim)``."""
        x = self.voxels(x.flatten(1))
        for block in self.blocks:
            x = x + block(x)
        out: torch.Tensor = self.project(x)
        return out


def _layer(n_features: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n_features, WIDTH), nn.LayerNorm(WIDTH), nn.GELU(), nn.Dropout(dropout))
