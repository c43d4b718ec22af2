"""Which rows make up each batch of a pass: single rows, or a few repetitions of every image, drawn anew."""

import torch

__all__ = ["Draws"]


class Draws:
    """The rows that can be drawn from, by image.

    Parameters
    ----------
    shown : (n_rows,)
        Training image that each row shows.
    rows : (n_used,)
        Rows that are trained on.
    n_random : int
        Repetitions to average of each image; 0 to take every row by itself.

    Examples
    --------
    >>> draws = Draws(torch.tensor([5, 5, 5, 8]), torch.arange(4), 2)
    >>> len(draws), draws.images.tolist()
    (2, [5, 8])
    >>> picked, share = draws.of_pass(torch.Generator().manual_seed(0))
    >>> share.sum(dim=1).tolist()
    [1.0, 1.0]
    """

    def __init__(self, shown: torch.Tensor, rows: torch.Tensor, n_random: int) -> None:
        self._device = rows.device
        self._rows = rows[:, None].cpu()
        self._there = torch.ones_like(self._rows, dtype=torch.bool)
        self._n_random = n_random
        self.images = shown[rows].cpu()
        if n_random:
            self.images, image_of, n_of = torch.unique(self.images, return_inverse=True, return_counts=True)
            order = torch.argsort(image_of, stable=True)
            self._there = torch.arange(int(n_of.max())) < n_of[:, None]
            self._rows = torch.zeros(self._there.shape, dtype=torch.long)
            self._rows[self._there] = rows.cpu()[order]  # where nothing is, row 0 with no share

    def __len__(self) -> int:
        return len(self.images)

    def of_pass(self, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the rows drawn for every image or row, ``(n, k)``, and the share of each in the mean."""
        picked, there = self._rows, self._there
        if self._n_random:
            lots = torch.rand(there.shape, generator=generator).masked_fill(~there, 2.0)
            first = torch.argsort(lots, dim=1)[:, : self._n_random]
            picked, there = picked.gather(1, first), there.gather(1, first)
        return picked.to(self._device), (there / there.sum(dim=1, keepdim=True)).to(self._device)
