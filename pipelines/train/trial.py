"""Brain encoders and losses of one's own, ``FILE.py:NAME``, tried on a few made-up epochs before anything is trained.

What is wrong with them is their author's to mend, so it is said in two lines that name the file and the line in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save
from torch.nn.parameter import is_lazy

from pipelines.train.brain_encoders import brain_encoder, prepare
from pipelines.train.brain_encoders.elsewhere import NOT_THEIRS, file_of, is_in_a_file, line_of, said
from pipelines.train.losses import info_nce, loss_function
from pipelines.train.train import reproducible
from stores.errors import EmbedctlError

if TYPE_CHECKING:
    from torch import Tensor

    from pipelines.train.recipes import Recipe

__all__ = ["OwnCodeError", "try_own", "watched"]

N_EPOCHS = 4
SUITE = "BrainEncoderSuite of pipelines.train.brain_encoders.suite tests what it has to keep to (docs/training.md)"
CONTRACT = "it is given brain, image, scale, shown, and returns one number with a gradient (docs/training.md, Losses)"


class OwnCodeError(EmbedctlError):
    """A file of the user's own raised, or returned what cannot be used."""


@contextmanager
def watched(*names: str) -> Iterator[None]:
    """Say of what a file of the user's own raises inside, which and where; without one all is let pass.

    What is raised elsewhere is laid at the door of a file that takes part, but for a full memory or disk: what it
    returned went on into code of ours that has never met its like.

    Parameters
    ----------
    *names : str
        Of the brain encoder and the loss; those that are not in a file are left alone.

    Raises
    ------
    OwnCodeError
        If one of their files raised, or took part in what did.
    """
    own = list(filter(is_in_a_file, names))
    try:
        yield
    except (EmbedctlError, *NOT_THEIRS):
        raise
    except BaseException as problem:  # whatever a person's own code raises
        for name in own:
            if line := line_of(problem, file_of(name)):
                raise OwnCodeError(f"'{name}' raised {said(problem)} in line {line}", SUITE) from problem
        if not own or isinstance(problem, (OSError, MemoryError)) or not isinstance(problem, Exception):
            raise
        raise OwnCodeError(f"'{own[0]}' took part where {said(problem)} was raised", SUITE) from problem


def try_own(recipe: Recipe, kind: str, n_chans: int, n_times: int, dim: int) -> None:
    """Call a brain encoder and a loss once, where they are the user's own, as training does.

    Parameters
    ----------
    recipe : Recipe
        Its loss.
    kind : str
        Name of the brain encoder.
    n_chans, n_times : int
        Shape of an epoch.
    dim : int
        Width of the space to train in.

    Raises
    ------
    OwnCodeError
        If one of them raises, or returns what cannot be used.
    """
    with reproducible(0, torch.device("cpu")):
        brain = torch.randn(N_EPOCHS, dim, requires_grad=True)
        if is_in_a_file(recipe.loss):
            _judge(recipe.loss, brain)
        if is_in_a_file(kind):
            _try_network(kind, n_chans, n_times, dim)


def _try_network(name: str, n_chans: int, n_times: int, dim: int) -> None:
    """Build a network, and do with it all that training does: a step, a look at what was held out, a checkpoint."""
    kind, shape = brain_encoder(name), (N_EPOCHS, n_chans, n_times)
    model = _called(name, SUITE, f"built for {(n_chans, n_times, dim)}", kind, n_chans, n_times, dim)
    if any(map(is_lazy, model.parameters())):
        raise OwnCodeError(f"'{name}'{_defined(kind, name)} has parameters of no shape yet (a Lazy layer)", SUITE)
    epochs = _called(name, SUITE, f"preparing epochs {shape}", prepare, kind, torch.randn(shape))
    found = _called(name, SUITE, f"given epochs {shape}", model, epochs)
    where = _defined(kind.forward, name)
    _judge_embedding(name, where, found, shape, dim)
    if not found.requires_grad:
        raise OwnCodeError(f"'{name}'{where} makes embeddings without a gradient of epochs {shape}", SUITE)
    backwards = info_nce(found, torch.randn(N_EPOCHS, dim), 10.0).backward
    _called(name, SUITE, "followed backwards", backwards)
    step = torch.optim.AdamW(model.parameters(), lr=0.0, fused=True).step
    _called(name, SUITE, "changed by a step", step)
    with torch.inference_mode():
        seen = _called(name, SUITE, f"in evaluation given epochs {shape}", model.eval(), epochs)
    _judge_embedding(name, where, seen, shape, dim)
    _called(name, SUITE, "kept as a checkpoint", _keep, model)


def _judge_embedding(name: str, where: str, found: Any, shape: tuple[int, ...], dim: int) -> None:
    if _shape(found) != (N_EPOCHS, dim):
        raise OwnCodeError(f"'{name}'{where} makes {_shape(found)} of epochs {shape}, not {(N_EPOCHS, dim)}", SUITE)
    if wrong := _no_float(found):
        raise OwnCodeError(f"'{name}'{where} makes {wrong} of epochs {shape}, not finite float32", SUITE)


def _keep(model: torch.nn.Module) -> None:
    state = {key: value.detach().clone() for key, value in model.state_dict().items()}
    save({key: value.contiguous() for key, value in state.items()})
    model.load_state_dict(state)


def _judge(name: str, brain: Tensor) -> None:
    loss, shape = loss_function(name), tuple(brain.shape)
    given = f"given brain and image {shape}, scale () and shown ({N_EPOCHS},)"
    batch = torch.randn(shape), torch.tensor(10.0), torch.arange(N_EPOCHS)
    found, where = _called(name, CONTRACT, given, loss, brain, *batch), _defined(loss, name)
    if _shape(found) != ():
        raise OwnCodeError(f"'{name}'{where} returns {_shape(found)}, not one number, {given}", CONTRACT)
    if wrong := _no_float(found):
        raise OwnCodeError(f"'{name}'{where} returns {wrong}, not a finite float32, {given}", CONTRACT)
    if not found.requires_grad:
        raise OwnCodeError(f"'{name}'{where} returns a number without a gradient, {given}", CONTRACT)
    _called(name, CONTRACT, "followed backwards", found.backward)
    with torch.inference_mode():
        _called(name, CONTRACT, f"in validation {given}", loss, brain.detach(), *batch)


def _no_float(found: Tensor) -> str:
    """Return what a tensor is that training cannot use, empty where it can: it is not of finite float32."""
    if found.dtype != torch.float32 or found.layout != torch.strided:
        return f"{found.dtype} {found.layout}".removesuffix(" torch.strided")
    return "" if torch.isfinite(found).all() else "what is not finite"


def _called(name: str, hint: str, doing: str, function: Callable[..., Any], *args: Any) -> Any:
    """Call what is the user's own, or what runs it, and say what it raised while doing what."""
    try:
        return function(*args)
    except NOT_THEIRS:
        raise
    except BaseException as problem:  # whatever a person's own code raises
        line = line_of(problem, file_of(name))
        where = f" in line {line}" if line else _defined(function, name)
        raise OwnCodeError(f"'{name}' raised {said(problem)}{where}, {doing}", hint) from problem


def _shape(found: Any) -> Any:
    return tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__


def _defined(function: Any, name: str) -> str:
    """Say where in its file something is defined, as far as that can be told."""
    code = getattr(
        getattr(function, "__init__" if isinstance(function, type) else "forward", function), "__code__", None
    )
    return f" (line {code.co_firstlineno})" if code and code.co_filename == str(file_of(name)) else ""
