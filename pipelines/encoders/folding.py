"""The same network with less to do: norms folded into the convolutions before them, channels last in memory.

A batch norm of a frozen network multiplies and shifts what a convolution puts out, so the convolution can do it
itself. Modules stay where they are, and layers that are tapped put out what they did; the numbers change by rounding.
"""

from collections.abc import Collection, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

__all__ = ["Folding"]

# Others of these kinds, with weights that are made anew in every pass, are left alone.
_CONVOLUTIONS = {"Conv2d", "Conv2dSame"}
_NORMS = {"BatchNorm2d", "BatchNormAct2d"}


class Folding:
    """A network, folded in place, that can be made what it was and folded again at little cost.

    Parameters
    ----------
    network : nn.Module
        In evaluation mode, on its device.
    tapped : collection of nn.Module
        Modules of it whose output must stay what it is.

    Examples
    --------
    >>> network = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)).eval().requires_grad_(False)
    >>> images = torch.rand(2, 3, 8, 8)
    >>> before = network(images)
    >>> folding = Folding(network, [])
    >>> network[0].bias is None, torch.allclose(network(images), before, atol=1e-6)
    (False, True)
    >>> folding.undo()
    >>> network[0].bias is None, torch.equal(network(images), before)
    (True, True)
    """

    def __init__(self, network: nn.Module, tapped: Collection[nn.Module]) -> None:
        inside = [set(module.modules()) for module in tapped]
        self._network = network
        self._folded = [
            (convolution, norm, (convolution.weight, convolution.bias), _folded(convolution, norm))
            for convolution, norm in _pairs(network)
            if not any(convolution in modules and norm not in modules for modules in inside)
        ]
        self.redo()

    def redo(self) -> None:
        """Fold it."""
        for convolution, norm, _, folded in self._folded:
            convolution.weight, convolution.bias = folded
            norm.forward = partial(_after, norm)  # the module stays: somebody may listen at it
        self._network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def undo(self) -> None:
        """Make it what it was."""
        for convolution, norm, plain, _ in self._folded:
            convolution.weight, convolution.bias = plain
            del norm.forward
        self._network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


def _pairs(network: nn.Module) -> Iterator[tuple[Any, Any]]:
    """Yield every convolution whose output goes to a norm and nowhere else; none of what cannot be followed."""
    try:
        graph = _Tracer().trace(network)
    except Exception:  # whatever a network does with numbers that are not there while it is followed
        return
    called = [node.target for node in graph.nodes if node.op == "call_module"]
    for node in graph.nodes:
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
            continue
        convolution, norm = (network.get_submodule(str(n.target)) for n in (before, node))
        once = called.count(before.target) == called.count(node.target) == 1
        if once and _is(convolution, _CONVOLUTIONS) and _is(norm, _NORMS) and norm.running_var is not None:
            yield convolution, norm


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Follow no module that is to be folded: timm has its own."""
        return _is(m, _CONVOLUTIONS | _NORMS) or super().is_leaf_module(m, module_qualified_name)


def _is(module: nn.Module, kinds: Collection[str]) -> bool:
    return type(module).__name__ in kinds


def _folded(convolution: Any, norm: Any) -> tuple[nn.Parameter, nn.Parameter]:
    """Return the weight and bias of a convolution that does what the norm after it did."""
    of_norm = norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    weight, bias = fuse_conv_bn_weights(convolution.weight, convolution.bias, *of_norm)
    return nn.Parameter(weight, requires_grad=False), nn.Parameter(bias, requires_grad=False)


def _after(norm: Any, x: Tensor) -> Tensor:
    """Do what a norm does beside norming: timm's have an activation."""
    return norm.act(norm.drop(x)) if hasattr(norm, "act") else x
