"""What a family's builder returns, and how it draws or loads weights."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from stores.errors import EmbedctlError

if TYPE_CHECKING:
    from pipelines.encoders.weights import Weights

__all__ = ["Network", "construction", "load_strictly", "refuse_misfits", "state_dict"]


@dataclass(frozen=True, slots=True)
class Network:
    """A network ready to be tapped.

    Parameters
    ----------
    module : nn.Module
        Takes (n, 3, size, size) float32; what it returns is the layer called ``output``.
    layers : tuple of str
        The layers worth tapping, in the order of the forward pass.
    blocks : tuple of str
        The layers of equal rank that make up its depth (transformer blocks, stages of a convolutional network); those
        of several networks are told apart by what their names begin with.
    n_prefix : int
        Tokens before the first patch token (CLS and registers).
    has_cls : bool
        Whether the first of them is a CLS token.
    path : Callable
        From the name of a layer to the name of the module inside ``module``.
    to_rows : Callable
        From what a hooked module returned to (n, dim), (n, token, dim) or (n, dim, row, column): networks that keep
        tokens first or channels last turn them here.
    """

    module: nn.Module
    layers: tuple[str, ...]
    blocks: tuple[str, ...] = ()
    n_prefix: int = 0
    has_cls: bool = True
    path: Callable[[str], str] = str
    to_rows: Callable[[nn.Module, Tensor], Tensor] = lambda module, x: x


@contextmanager
def construction(weights: "Weights", device: str = "cpu") -> Iterator[None]:
    """Construct a network inside: seeds torch immediately before, and gives the caller's generator back after.

    ``--weights random:SEED`` promises that anyone gets the same network from ``torch.manual_seed(SEED)`` followed by
    the library's own constructor; nothing else may be drawn between the two. On ``device="meta"`` the network has
    shapes and no numbers.
    """
    is_meta = device == "meta"
    with torch.random.fork_rng(devices=[]), torch.device("meta" if is_meta else "cpu"):
        if weights.seed is not None:
            torch.manual_seed(weights.seed)
        with _NothingDrawn() if is_meta else nullcontext():
            yield


class _NothingDrawn(TorchFunctionMode):
    """Leave out the drawing of numbers that a tensor on the meta device does not have: it takes as long as the rest."""

    _in_place = frozenset({"uniform_", "normal_", "erfinv_", "mul_", "add_", "clamp_", "fill_", "zero_"})

    def __torch_function__(self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        drawn = args[0] if args else kwargs.get("tensor")
        draws = function.__name__ in self._in_place or getattr(function, "__module__", "") == "torch.nn.init"
        return drawn if draws and isinstance(drawn, Tensor) and drawn.is_meta else function(*args, **kwargs)


def state_dict(checkpoint: Mapping[str, Any], prefix: str = "") -> dict[str, Tensor]:
    """Return the tensors of a checkpoint: unwrapped from ``state_dict`` or ``model``, and only those under ``prefix``.

    Examples
    --------
    >>> list(state_dict({"model": {"module.visual.norm.bias": torch.zeros(1), "module.scale": 1}}, "module.visual."))
    ['norm.bias']
    """
    for wrapper in ("state_dict", "model"):
        if isinstance(checkpoint.get(wrapper), Mapping):
            checkpoint = checkpoint[wrapper]
    return {name.removeprefix(prefix): x for name, x in checkpoint.items() if name.startswith(prefix)}


def load_strictly(module: nn.Module, tensors: Mapping[str, Tensor], what: str) -> None:
    """Load every tensor into its place, and refuse when one is missing, left over, of another shape or another kind.

    Raises
    ------
    EmbedctlError
        Naming the counts and the first few tensors that do not fit.

    Examples
    --------
    >>> load_strictly(nn.Linear(2, 1), {"weight": torch.zeros(1, 3)}, "tiny.pth")
    Traceback (most recent call last):
    stores.errors.EmbedctlError: tiny.pth does not fit: 1 missing (bias), 1 misshapen (weight (1, 3), not (1, 2))...
    """
    wanted = module.state_dict()
    refuse_misfits(_shapes(wanted), _shapes(tensors), what)
    for name, tensor in tensors.items():
        if tensor.is_floating_point() != wanted[name].is_floating_point():
            raise EmbedctlError(
                f"{what} does not fit: {name} is {tensor.dtype}, not {wanted[name].dtype}",
                "these weights belong to another network, or were converted; check the file",
            )
    # A network constructed on the meta device has nothing to copy into. What it gets instead is a copy as well: tensors
    # of a memory-mapped file lie at any address, and the address decides which kernels run, hence the last bits.
    meta = any(tensor.is_meta for tensor in wanted.values())
    if meta:
        tensors = {name: tensor.to(wanted[name].dtype, copy=True) for name, tensor in tensors.items()}
    module.load_state_dict(tensors, strict=True, assign=meta)


def _shapes(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Return shapes by name; what is no tensor, a number or a nested dict, has its kind instead and fits nowhere."""
    return {
        name: tuple(x.shape) if isinstance(x, Tensor) else f"is a {type(x).__name__}" for name, x in tensors.items()
    }


def refuse_misfits(wanted: Mapping[str, Any], found: Mapping[str, Any], what: str) -> None:
    """Compare two inventories of tensors, name to shape.

    Raises
    ------
    EmbedctlError
        If they differ: how many tensors are missing, left over or misshapen, and the first few of each.

    Examples
    --------
    >>> refuse_misfits({"bias": (1,)}, {"bias": (1,)}, "tiny.pth")
    """
    odd = {
        "missing": [name for name in wanted if name not in found],
        "left over": [name for name in found if name not in wanted],
        "misshapen": [
            f"{name} {shape}, not {wanted[name]}" for name, shape in found.items() if wanted.get(name, shape) != shape
        ],
    }
    if any(odd.values()):
        told = ", ".join(
            f"{len(v)} {k} ({'; '.join(v[:3])}{'; ...' if len(v) > 3 else ''})" for k, v in odd.items() if v
        )
        raise EmbedctlError(f"{what} does not fit: {told}", "these weights belong to another network; check the file")
