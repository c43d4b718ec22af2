"""Several brain encoders in one pass, each learning what it would learn alone, bit for bit.

``torch.func`` runs all networks as one whose weights have a leading axis (https://pytorch.org/tutorials, "model
ensembling"). They share what one seed decides: the batches, and what dropout leaves out. What is done number by number
is done for all at once. A sum over a batch would be taken in another order than alone, and so its bits would differ:
products of matrices, normalisations and losses are computed network after network, by the very calls of `Learner`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.func import functional_call, vmap
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_unflatten

from pipelines.train.learner import Learner

__all__ = ["Stack"]


class Stack:
    """Learners of one shape, whose gradients are computed together.

    Their weights and statistics move into stacks, and become views of these, so that optimisers, validation and
    checkpoints go on as they are.

    Parameters
    ----------
    learners : sequence of Learner
        As they are before their first step, all of one seed.
    """

    def __init__(self, learners: Sequence[Learner]) -> None:
        self._learners = learners
        self._model = _Loss(learners[0])
        models = [learner.model for learner in learners]
        self._weights = _stacked([dict(model.named_parameters()) for model in models])
        self._scales = _stacked([{"": learner.log_scale} for learner in learners])[""]
        self._statistics = _stacked([dict(model.named_buffers()) for model in models])
        self._images = torch.stack([learner.images for learner in learners])
        self._losses = vmap(self._loss, in_dims=(0, 0, 0, None, 0, None), randomness="same")

    def gradients(self, x: torch.Tensor, shown: torch.Tensor) -> torch.Tensor:
        """Put the gradients of a batch where `Learner.step` finds them, and return the losses, ``(n_learners,)``."""
        leaves = {name: weight.requires_grad_() for name, weight in self._weights.items()}
        scales = self._scales.requires_grad_(self._learners[0].recipe.learn_temperature)
        images = self._images[:, shown]
        losses: torch.Tensor = self._losses(leaves, self._statistics, scales, x, images, shown)
        for leaf in (*leaves.values(), scales):
            leaf.grad = None
        losses.sum().backward()  # type: ignore[no-untyped-call]
        for k, learner in enumerate(self._learners):
            for name, weight in learner.model.named_parameters():
                found = leaves[name].grad
                weight.grad = None if found is None else found[k]
            learner.log_scale.grad = None if scales.grad is None else scales.grad[k]
        return losses.detach()

    def _loss(self, weights: Any, statistics: Any, log_scale: Any, *batch: torch.Tensor) -> torch.Tensor:
        with _Exactly():
            named = {f"model.{name}": value for name, value in (weights | statistics).items()}
            loss: torch.Tensor = functional_call(self._model, named | {"log_scale": log_scale}, batch)
            return loss


class _Loss(nn.Module):
    """A learner's loss as a module, so that all it depends on can be replaced by name."""

    def __init__(self, learner: Learner) -> None:
        super().__init__()
        self.model, self.log_scale, self._of = learner.model, learner.log_scale, learner.loss_of

    def forward(self, x: torch.Tensor, images: torch.Tensor, shown: torch.Tensor) -> torch.Tensor:
        return self._of(self.model, self.log_scale, x, images, shown)


def _stacked(named: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Return what is called the same, stacked, and make each a view of the stack."""
    stacks = {}
    for name in named[0]:
        stacks[name] = torch.stack([one[name].detach() for one in named])
        for one, view in zip(named, stacks[name], strict=True):
            one[name].data = view
    return stacks


class _Alone(torch.autograd.Function):
    """An operation done for one network after the other."""

    @staticmethod
    def forward(operation: Callable[..., Any], *args: torch.Tensor) -> Any:
        return operation(*args)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], operation: Callable[..., Any], *args: torch.Tensor) -> Any:
        of_each = [
            [arg] * info.batch_size if dim is None else _Parted.apply(arg.movedim(dim, 0))
            for arg, dim in zip(args, in_dims[1:], strict=True)
        ]
        found = [operation(*mine) for mine in zip(*of_each, strict=True)]
        if isinstance(found[0], tuple):
            return tuple(_together(one) for one in zip(*found, strict=True)), (0,) * len(found[0])
        return _together(found), 0


class _Parted(torch.autograd.Function):
    """The parts of a stack; their gradients are stacked with their strides, as these decide the order of later sums."""

    @staticmethod
    def forward(ctx: Any, stack: torch.Tensor) -> Any:
        return stack.unbind(0)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return _together(gradients)


def _together(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Stack arrays and keep the order in which their axes lie in memory."""
    strides = parts[0].stride()
    order = sorted(range(len(strides)), key=lambda axis: -strides[axis])
    back = [0, *(1 + order.index(axis) for axis in range(len(order)))]
    return torch.stack([part.permute(order) for part in parts]).permute(back)


def _alone(operation: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call an operation for every network by itself, unless no argument depends on the network."""
    given, form = tree_flatten((args, kwargs))
    tensors = [one for one in given if isinstance(one, torch.Tensor)]
    if not any(torch._C._functorch.is_batchedtensor(one) for one in tensors):
        return operation(*args, **kwargs)

    def of_tensors(*mine: torch.Tensor) -> Any:
        left = iter(mine)
        args, kwargs = tree_unflatten([next(left) if isinstance(one, torch.Tensor) else one for one in given], form)
        return operation(*args, **kwargs)

    return _Alone.apply(of_tensors, *tensors)


class _Exactly(TorchFunctionMode):
    """Make every operation give each network the bits it would have alone."""

    ALONE = (
        functional.linear, functional.layer_norm, functional.cross_entropy, functional.conv1d, functional.conv2d,
        functional.group_norm, functional.instance_norm, functional.scaled_dot_product_attention, torch.einsum,
        torch.matmul, torch.bmm, torch.mm, torch.addmm, torch.Tensor.matmul, torch.Tensor.__matmul__,
        torch.Tensor.__rmatmul__,
    )  # fmt: skip
    SCALED = (torch.mul, torch.Tensor.mul, torch.Tensor.__mul__, torch.Tensor.__rmul__)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunctionSubclass():
            if func is functional.dropout:
                return _dropout(*args, **kwargs)
            if func is functional.batch_norm:
                return _batch_norm(*args, **kwargs)
            if func is torch.Tensor.lerp_:  # which vmap does not know
                return args[0].copy_(torch.lerp(*args))
            if func in self.ALONE or (func in self.SCALED and _is_scaling(args)):
                return _alone(func, *args, **kwargs)
            return func(*args, **kwargs)


def _is_scaling(args: Any) -> bool:
    """Say whether an array is multiplied by one number that may be learned: its gradient is a sum over all of it."""
    ranks = [arg.ndim for arg in args if isinstance(arg, torch.Tensor)]
    return len(ranks) == 2 and min(ranks) == 0 < max(ranks)


def _dropout(x: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
    """Leave out of every network what would be left out of it alone."""
    if not training or p == 0:
        return x
    return x * functional.dropout(torch.ones(x.shape, dtype=x.dtype, device=x.device), p)


def _batch_norm(
    x: torch.Tensor, mean: Any, var: Any, weight: Any = None, bias: Any = None, training: bool = False,
    momentum: float = 0.1, eps: float = 1e-5,
) -> torch.Tensor:  # fmt: skip
    """Normalise with copies of the statistics, which are put back as a whole."""

    def one(x: Any, mean: Any, var: Any, weight: Any, bias: Any) -> Any:
        mean, var = (None if old is None else old.clone() for old in (mean, var))
        out = functional.batch_norm(x, mean, var, weight, bias, training, momentum, eps)
        return (out,) if mean is None else (out, mean, var)

    out, *statistics = _alone(one, x, mean, var, weight, bias)
    if training:
        for old, new in zip((mean, var), statistics, strict=False):
            old.copy_(new)
    return out
