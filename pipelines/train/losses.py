"""Contrastive losses between brain embeddings and image embeddings.

A loss is ``loss(brain, image, scale, shown)``, a scalar; `info_nce` says what these are. One of one's own is
``FILE.py:function``.
"""

from collections.abc import Callable

import torch
from torch.nn import functional

from pipelines.train.brain_encoders.elsewhere import from_file, is_in_a_file

__all__ = ["info_nce", "loss_function", "soft_clip", "unit"]

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | float, torch.Tensor | None], torch.Tensor]


def unit(x: torch.Tensor) -> torch.Tensor:
    """Centre every vector over its own features, then scale it to length one.

    A constant vector has no direction and becomes zero, or what rounding its mean leaves. The dot product of two such
    vectors is the correlation of their features.

    Examples
    --------
    >>> unit(torch.tensor([[1.0, 3.0], [5.0, 5.0]]))
    tensor([[-0.7071,  0.7071],
            [ 0.0000,  0.0000]])
    """
    return functional.normalize(x - x.mean(dim=-1, keepdim=True), dim=-1)


def info_nce(
    brain: torch.Tensor, image: torch.Tensor, scale: torch.Tensor | float, shown: torch.Tensor | None = None
) -> torch.Tensor:
    """Symmetric InfoNCE: tell each brain embedding's own image from the others in the batch, and back.

    With both sides through `unit`, ``s = scale * brain @ image.T`` and
    ``loss = -(mean log softmax_rows(s)[i, i] + mean log softmax_columns(s)[i, i]) / 2``.

    Parameters
    ----------
    brain : (n, dim)
        Brain embeddings.
    image : (n, dim)
        Embeddings of the images shown, row by row.
    scale : scalar
        Inverse temperature.
    shown : (n,)
        Which image each row shows. Two rows with the same image (several trials, several subjects) are
        never negatives of each other: they are left out of each other's denominators.

    Returns
    -------
    scalar
        The loss in nats; chance is ``log(n)``.

    Examples
    --------
    >>> round(info_nce(torch.zeros(4, 8), torch.randn(4, 8), 10.0).item(), 4)  # log(4)
    1.3863
    """
    logits = scale * (unit(brain) @ unit(image).T)
    own = torch.arange(len(logits), device=logits.device)
    if shown is not None:
        logits = logits.masked_fill(_doubles(shown), float("-inf"))
    return (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2


def soft_clip(
    brain: torch.Tensor, image: torch.Tensor, scale: torch.Tensor | float, shown: torch.Tensor | None = None
) -> torch.Tensor:
    """SoftCLIP: be as near to every image of the batch as that image is to one's own (https://arxiv.org/abs/2305.18274).

    With both sides through `unit`, ``t = softmax_rows(scale * image @ image.T)`` and ``s = scale * brain @ image.T``,
    ``loss = -(mean sum_j t[i, j] log softmax_rows(s)[i, j] + mean sum_j t[i, j] log softmax_columns(s).T[i, j]) / 2``.
    Arguments are those of `info_nce`. No gradient goes through ``t``: with a trainable image head it would be a target
    that moves towards what is easy. Two rows with the same image are left out of each other's sums.

    Examples
    --------
    >>> round(soft_clip(torch.zeros(4, 8), torch.randn(4, 8), 10.0).item(), 4)  # log(4)
    1.3863
    """
    z, v = unit(brain), unit(image)
    logits, likeness = scale * (z @ v.T), (scale * (v @ v.T)).detach()
    if shown is not None:
        doubles = _doubles(shown)
        logits, likeness = (x.masked_fill(doubles, float("-inf")) for x in (logits, likeness))
    target = likeness.softmax(dim=1)
    return (_soft_cross_entropy(logits, target) + _soft_cross_entropy(logits.T, target)) / 2


def _soft_cross_entropy(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    left_out = torch.isinf(logits) & (target == 0)  # zero times minus infinity is no number
    return -(target * logits.log_softmax(dim=1).masked_fill(left_out, 0)).sum(dim=1).mean()


def _doubles(shown: torch.Tensor) -> torch.Tensor:
    """Say which pairs of different rows show the same image."""
    return (shown[:, None] == shown[None, :]).fill_diagonal_(False)


LOSSES: dict[str, Loss] = {"info-nce": info_nce, "soft-clip": soft_clip}


def loss_function(name: str) -> Loss:
    """Return a loss by its name, or one of one's own by ``FILE.py:function``.

    Examples
    --------
    >>> loss_function("soft-clip") is soft_clip
    True
    """
    own: Loss = from_file(name, "--loss") if is_in_a_file(name) else LOSSES[name]
    return own
