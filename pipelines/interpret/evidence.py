"""The evidence for the right image, and how much of it every number of the input contributes.

The evidence is how far the right image's logit is above all others together, in nats::

    e(x) = l_true(x) - log sum over the others of exp(l_other(x)),    l = cosine / temperature

It is above zero where the right image has more than half of the probability. Contributions are to ``e(x) - e(b)``,
where the reference ``b`` is the average recording: what all images have in common is no evidence for one of them.

* gradient x input: ``(x - b) * de/dx(x)``. Exact for an ``e`` that is linear in ``x``.
* integrated gradients (Sundararajan et al., 2017, https://arxiv.org/abs/1703.01365): the gradient averaged along the
  straight path from ``b`` to ``x``. The contributions add up to ``e(x) - e(b)``, which is checked.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

__all__ = ["Gradient", "Objective", "average_gradient", "evidence", "retrieval_evidence"]

BATCH = 256  # epochs per pass
FIRST_STEPS, MOST_STEPS = 16, 256
TOLERANCE = 0.01  # of what is to be explained

Objective = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""From epochs ``(n, n_chans, n_times)`` and the number of the image that each shows ``(n,)`` to one number each."""


@dataclass(frozen=True, slots=True)
class Gradient:
    """The gradient that contributions are made of.

    Parameters
    ----------
    values : (n, n_chans, n_times)
        Per unit of the input: times ``x - reference`` they are the contributions.
    explained : (n,)
        What the contributions should add up to: ``e(x) - e(reference)``.
    steps : int
        Points of the path; 0 for the gradient at ``x`` alone.
    gap : float
        How far the contributions are from adding up: mean absolute difference over mean absolute ``explained``.
    """

    values: torch.Tensor
    explained: torch.Tensor
    steps: int
    gap: float


def evidence(logits: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """Return the logit of the own image minus the log-sum-exp of the others, ``(n,)``.

    Parameters
    ----------
    logits : (n, n_gallery)
        Cosine over temperature.
    own : (n,)
        Column of the right image.

    Examples
    --------
    >>> evidence(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0])).item() == 2 - torch.tensor(2.0).log().item()
    True
    """
    columns = own[:, None]
    others = logits.scatter(1, columns, float("-inf")).logsumexp(dim=1)
    return logits.gather(1, columns)[:, 0] - others


def retrieval_evidence(see: Callable[[torch.Tensor], torch.Tensor], gallery: torch.Tensor, scale: float) -> Objective:
    """Return the evidence as a function of epochs.

    Parameters
    ----------
    see : callable
        From epochs to unit brain embeddings.
    gallery : (n_gallery, dim)
        Unit image embeddings.
    scale : float
        Inverse temperature.
    """
    return lambda epochs, own: evidence(scale * (see(epochs) @ gallery.T), own)


def average_gradient(
    objective: Objective, x: torch.Tensor, change: torch.Tensor, own: torch.Tensor, *, integrated: bool
) -> Gradient:
    """Return the gradient at ``x``, or its average on the way from ``x - change`` to ``x``.

    The number of points of the path is doubled until the contributions add up to 1 %, or there are 256.

    Parameters
    ----------
    objective : Objective
        What is to be explained.
    x, change : (n, n_chans, n_times)
        Epochs, and how they differ from the reference.
    own : (n,)
        The right image of each.
    integrated : bool
        Whether to average along the path.

    Examples
    --------
    >>> cubic = lambda x, own: (x**3).sum(dim=(1, 2))
    >>> x = torch.tensor([[[1.0, 2.0]]])
    >>> found = average_gradient(cubic, x, x, torch.tensor([0]), integrated=True)
    >>> (found.values * x).round(decimals=1).tolist(), found.gap < 0.01
    ([[[1.0, 8.0]]], True)
    """
    with torch.no_grad():
        explained = _in_batches(objective, x, own) - _in_batches(objective, x - change, own)
    steps = FIRST_STEPS if integrated else 0
    while True:
        places = ((torch.arange(steps) + 0.5) / steps).tolist() if steps else [1.0]
        total = torch.zeros_like(x)
        for place in places:
            total += _in_batches(lambda a, b: _gradient(objective, a, b), x - (1 - place) * change, own)
        values = total / len(places)
        missed = (values * change).sum(dim=(1, 2)) - explained
        gap = float(missed.abs().mean() / explained.abs().mean().clamp(min=torch.finfo(x.dtype).tiny))
        if not integrated or gap <= TOLERANCE or 2 * steps > MOST_STEPS:
            return Gradient(values, explained, steps, gap)
        steps *= 2


def _gradient(objective: Objective, x: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    x = x.detach().requires_grad_()
    (found,) = torch.autograd.grad(objective(x, own).sum(), x)
    return found


def _in_batches(
    work: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], x: torch.Tensor, own: torch.Tensor
) -> torch.Tensor:
    return torch.cat([work(a, b) for a, b in zip(x.split(BATCH), own.split(BATCH), strict=True)])
