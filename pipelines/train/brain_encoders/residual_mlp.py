"""The residual MLP, the brain encoder for voxels: they have neither a time course nor an order to convolve over.

The layout is that of MindEye (https://arxiv.org/abs/2305.18274), which Rajabi et al. use as BrainMLP: a wide linear
map, then residual blocks. Theirs is 4,096 wide, 122 to 135 million parameters, half a gigabyte of checkpoint per run.
`ResidualMLP` is a quarter as wide, 20 million for 15,000 voxels, with their depth and dropout (assumed to do, not
measured); `BrainMLP` is theirs.
"""

import torch
from torch import nn

__all__ = ["BrainMLP", "ResidualMLP"]

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

    width = 1024

    def __init__(self, n_chans: int, n_times: int, dim: int) -> None:
        super().__init__()
        self.voxels = _layer(n_chans * n_times, self.width, dropout=0.5)
        self.blocks = nn.ModuleList(_layer(self.width, self.width, dropout=0.15) for _ in range(BLOCKS))
        self.project = nn.Linear(self.width, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(n_epochs, n_voxels)`` or ``(n_epochs, n_voxels, 1)`` to ``(n_epochs, dim)``."""
        x = self.voxels(x.flatten(1))
        for block in self.blocks:
            x = x + block(x)
        out: torch.Tensor = self.project(x)
        return out


class BrainMLP(ResidualMLP):
    """The same, 4,096 wide: the BrainMLP of Rajabi et al.

    Examples
    --------
    >>> BrainMLP.width
    4096
    """

    width = 4096


def _layer(n_features: int, width: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n_features, width), nn.LayerNorm(width), nn.GELU(), nn.Dropout(dropout))
