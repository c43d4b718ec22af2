"""The published form of NICE, the oracle of the rewritten one, in tests and in ``benchmarks/train_step.py``."""

import torch
from torch import nn


class PublishedNICE(nn.Module):
    """NICE layer by layer as in eeyhsong/NICE-EEG (MIT), the oracle of the rewritten form."""

    def __init__(self, n_chans, n_times, dim):
        super().__init__()
        self.tsconv = nn.Sequential(
            nn.Conv2d(1, 40, (1, 25), (1, 1)),
            nn.AvgPool2d((1, 51), (1, 5)),
            nn.BatchNorm2d(40),
            nn.ELU(),
            nn.Conv2d(40, 40, (n_chans, 1), (1, 1)),
            nn.BatchNorm2d(40),
            nn.ELU(),
            nn.Dropout(0.5),
        )
        self.projection = nn.Conv2d(40, 40, (1, 1), stride=(1, 1))
        n_features = self.projection(self.tsconv.eval()(torch.zeros(1, 1, n_chans, n_times))).numel()
        self.linear = nn.Linear(n_features, dim)
        self.residual = nn.Sequential(nn.GELU(), nn.Linear(dim, dim), nn.Dropout(0.5))
        self.norm = nn.LayerNorm(dim)

    def forward(self, x):
        x = self.projection(self.tsconv(x[:, None]))  # (n, 40, 1, n_windows)
        x = x.squeeze(2).transpose(1, 2).flatten(1)  # 'b e (h) (w) -> b (h w) e', then flat
        x = self.linear(x)
        return self.norm(x + self.residual(x))
