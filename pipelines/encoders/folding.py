"""The same network with less to do: norms folded into the convolutions before them, channels last, fewer products.

A batch norm of a frozen network multiplies and shifts what a convolution puts out, so the convolution can do it
itself. Modules stay where they are and put out what they did but for rounding, except the convolutions: what one of
them would have put out is computed beside the network, so that nothing else depends on who listens where.
"""

from collections import OrderedDict
from collections.abc import Collection, Iterator
from copy import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from pipelines.encoders.winograd import Winograd, is_tiled

__all__ = ["FORMS", "Folding"]

FORMS = ("plain", "folded", "winograd")
"""As its library makes it; folded, channels last; and that with wide 3 x 3 convolutions by `Winograd`."""

# Others of these kinds, with weights that are made anew in every pass, are left alone.
_CONVOLUTIONS = {"Conv2d", "Conv2dSame"}
_NORMS = {"BatchNorm2d", "BatchNormAct2d"}


class Folding:
    """A network that can be brought into other forms, in place, and made what it was at little cost.

    Parameters
    ----------
    network : nn.Module
        In evaluation mode, on its device.

    Attributes
    ----------
    forms : tuple of str
        Those of `FORMS` that differ for this network.

    Examples
    --------
    >>> network = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)).eval().requires_grad_(False)
    >>> images = torch.rand(2, 3, 8, 8)
    >>> before = network(images)
    >>> folding = Folding(network)
    >>> folding.take("folded")
    >>> network[0].bias is None, torch.allclose(network(images), before, atol=1e-6)
    (False, True)
    >>> folding.take("plain")
    >>> network[0].bias is None, torch.equal(network(images), before)
    (True, True)
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._folded = [
            (convolution, norm, _twin(convolution), _folded(convolution, norm)) for convolution, norm in _pairs(network)
        ]
        self._twins = {convolution: twin for convolution, _, twin, _ in self._folded}
        on_cpu = all(parameter.device.type == "cpu" for parameter in network.parameters())  # a GPU's library does it
        self._tiled: dict[Any, Winograd | None] = {m: None for m in network.modules() if on_cpu and is_tiled(m)}
        self.forms = FORMS if self._tiled else FORMS[:2]

    def take(self, form: str) -> None:
        """Bring the network into a form."""
        for convolution, norm, twin, folded in self._folded:
            if form == "plain":
                convolution.weight, convolution.bias = twin.weight, twin.bias
                norm.__dict__.pop("forward", None)
            else:
                convolution.weight, convolution.bias = folded
                norm.forward = partial(_after, norm)  # the module stays: somebody may listen at it
                twin.to(memory_format=torch.channels_last)
        layout = torch.contiguous_format if form == "plain" else torch.channels_last
        self._network.to(memory_format=layout)  # type: ignore[call-overload]
        for convolution, tiled in self._tiled.items():
            if form == "winograd":
                convolution.forward = self._tiled[convolution] = tiled or Winograd(convolution)
            else:
                convolution.__dict__.pop("forward", None)

    def keep(self, heard: Collection[nn.Module]) -> None:
        """Let go of what only another form needs; of convolutions that are listened at, what they were stays."""
        self._twins = {module: twin for module, twin in self._twins.items() if module in heard}
        self._folded, self._tiled = [], {}

    def unfolded(self, module: nn.Module) -> nn.Module | None:
        """Return what a folded convolution was, to be called with what goes into it; None of any other module."""
        return self._twins.get(module)


def _twin(convolution: Any) -> Any:
    """Return a convolution with the same weights that nobody listens to."""
    twin = copy(convolution)
    twin._parameters, twin._forward_hooks = dict(convolution._parameters), OrderedDict()
    return twin


def _pairs(network: nn.Module) -> Iterator[tuple[Any, Any]]:
    """Yield every convolution whose output goes to a norm beside it and nowhere else.

    None of a network that cannot be followed; nor one in a module without its norm, which would put out something else.
    """
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
        beside = str(node.target).startswith("".join(str(before.target).rpartition(".")[:2]))
        if once and beside and _is(convolution, _CONVOLUTIONS) and _is(norm, _NORMS) and norm.running_var is not None:
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
