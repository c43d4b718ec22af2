"""Brain encoders: networks from brain activity to embedding space, one file each.

A brain encoder is a ``torch.nn.Module`` built as ``Class(n_chans, n_times, dim)`` that maps
``(n_epochs, n_chans, n_times)`` to ``(n_epochs, dim)``. It may have ``prepare(epochs)``, a fixed first step
without parameters that is applied to all epochs once, when they are loaded, instead of in every pass.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from stores.errors import UnknownName, suggest

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["BRAIN_ENCODERS", "brain_encoder", "prepare"]

# Name on the command line -> where its class lives. Listing them imports no torch.
BRAIN_ENCODERS = {
    "eegproject": "pipelines.train.brain_encoders.eegproject:EEGProject",
    "nice": "pipelines.train.brain_encoders.nice:NICE",
}


def brain_encoder(name: str) -> type[nn.Module]:
    """Return the class of a brain encoder by its name, whatever the case.

    Raises
    ------
    UnknownName
        If there is no brain encoder of that name.

    Examples
    --------
    >>> brain_encoder("NICE").__name__
    'NICE'
    """
    if name.lower() not in BRAIN_ENCODERS:
        raise UnknownName(f"no brain encoder called '{name}'", suggest(name.lower(), BRAIN_ENCODERS))
    module, _, attribute = BRAIN_ENCODERS[name.lower()].partition(":")
    kind: type[nn.Module] = getattr(import_module(module), attribute)
    return kind


def prepare(kind: type[nn.Module], epochs: Tensor) -> Tensor:
    """Apply a brain encoder's fixed first step to all epochs, where it has one."""
    step = getattr(kind, "prepare", None)
    return epochs if step is None else step(epochs)
