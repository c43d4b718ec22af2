"""Brain encoders and losses of one's own, ``FILE.py:NAME``, tried on a few made-up epochs before anything is trained.

What is wrong with them is their author's to mend, so it is said in two lines that name the file and the line in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from traceback import extract_tb
from typing import TYPE_CHECKING, Any

import torch

from pipelines.train.brain_encoders import brain_encoder, prepare
from pipelines.train.brain_encoders.elsewhere import file_of, is_in_a_file, said
from pipelines.train.losses import loss_function
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
    """Say of what a file of the user's own raises inside, which and where; whatever else is raised is let pass.

    Parameters
    ----------
    *names : str
        Of the brain encoder and the loss; those that are not in a file are left alone.

    Raises
    ------
    OwnCodeError
        If one of their files raised.
    """
    try:
        yield
    except EmbedctlError:
        raise
    except Exception as problem:  # whatever a person's own code raises
        for name in filter(is_in_a_file, names):
            if line := _line_of(problem, name):
                raise OwnCodeError(f"'{name}' raised {said(problem)} in line {line}", SUITE) from problem
        raise


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
    with torch.random.fork_rng(devices=[]):
        brain = torch.randn(N_EPOCHS, dim, requires_grad=True)
        if is_in_a_file(kind):
            brain = _embedded(kind, n_chans, n_times, dim)
        if is_in_a_file(recipe.loss):
            _judge(recipe.loss, brain)


def _embedded(name: str, n_chans: int, n_times: int, dim: int) -> Tensor:
    kind, shape = brain_encoder(name), (N_EPOCHS, n_chans, n_times)
    model = _called(name, SUITE, f"built for {(n_chans, n_times, dim)}", kind, n_chans, n_times, dim)
    epochs = _called(name, SUITE, f"preparing epochs {shape}", prepare, kind, torch.randn(shape))
    found = _called(name, SUITE, f"given epochs {shape}", model, epochs)
    if _shape(found) != (N_EPOCHS, dim):
        where = _defined(kind.forward, name)
        raise OwnCodeError(f"'{name}'{where} makes {_shape(found)} of epochs {shape}, not {(N_EPOCHS, dim)}", SUITE)
    return found  # type: ignore[no-any-return]


def _judge(name: str, brain: Tensor) -> None:
    loss, shape = loss_function(name), tuple(brain.shape)
    given = f"given brain and image {shape}, scale () and shown ({N_EPOCHS},)"
    batch = torch.randn(shape), torch.tensor(10.0), torch.arange(N_EPOCHS)
    found, where = _called(name, CONTRACT, given, loss, brain, *batch), _defined(loss, name)
    if _shape(found) != ():
        raise OwnCodeError(f"'{name}'{where} returns {_shape(found)}, not one number, {given}", CONTRACT)
    if not found.requires_grad:
        raise OwnCodeError(f"'{name}'{where} returns a number without a gradient, {given}", CONTRACT)
    _called(name, CONTRACT, "followed backwards", found.backward)


def _called(name: str, hint: str, doing: str, function: Callable[..., Any], *args: Any) -> Any:
    """Call what is the user's own, or what runs it, and say what it raised while doing what."""
    try:
        return function(*args)
    except Exception as problem:  # whatever a person's own code raises
        line = _line_of(problem, name)
        where = f" in line {line}" if line else _defined(function, name)
        raise OwnCodeError(f"'{name}' raised {said(problem)}{where}, {doing}", hint) from problem


def _shape(found: Any) -> Any:
    return tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__


def _line_of(problem: BaseException, name: str) -> int:
    """Return the last line of a file of the user's own that took part in what was raised; 0 where none did."""
    lines = [at.lineno for at in extract_tb(problem.__traceback__) if at.filename == str(file_of(name))]
    return lines[-1] or 0 if lines else 0


def _defined(function: Any, name: str) -> str:
    """Say where in its file something is defined, as far as that can be told."""
    code = getattr(
        getattr(function, "__init__" if isinstance(function, type) else "forward", function), "__code__", None
    )
    return f" (line {code.co_firstlineno})" if code and code.co_filename == str(file_of(name)) else ""
