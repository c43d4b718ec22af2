"""Brain encoders: networks from brain activity to embedding space, one file each.

A brain encoder is a ``torch.nn.Module`` built as ``Class(n_chans, n_times, dim)`` that maps
``(n_epochs, n_chans, n_times)`` to ``(n_epochs, dim)``. It may have ``prepare(epochs)``, a fixed first step
without parameters that is applied to all epochs once, when they are loaded, instead of in every pass.
Voxels come as channels with one time. Which kinds of recording each reads is listed here, so that a wrong choice
is found before anything runs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from stores.errors import EmbedctlError, UnknownName, suggest

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["BRAIN_ENCODERS", "brain_encoder", "check_reads", "prepare"]

# Name on the command line -> where its class lives. Listing them imports no torch.
BRAIN_ENCODERS = {
    "eegproject": "pipelines.train.brain_encoders.eegproject:EEGProject",
    "nice": "pipelines.train.brain_encoders.nice:NICE",
    "residual-mlp": "pipelines.train.brain_encoders.residual_mlp:ResidualMLP",
}
READS = {"eegproject": ("eeg", "meg"), "nice": ("eeg", "meg"), "residual-mlp": ("fmri",)}


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
    module, _, attribute = BRAIN_ENCODERS[_known(name)].partition(":")
    kind: type[nn.Module] = getattr(import_module(module), attribute)
    return kind


def check_reads(name: str, modality: str) -> None:
    """Make sure that a brain encoder reads a kind of recording: ``eeg``, ``meg`` or ``fmri``.

    Raises
    ------
    UnknownName
        If there is no brain encoder of that name.
    EmbedctlError
        If it reads other recordings.

    Examples
    --------
    >>> check_reads("nice", "eeg")
    """
    if modality not in READS[_known(name)]:
        fitting = [other for other, kinds in READS.items() if modality in kinds]
        raise EmbedctlError(
            f"the brain encoder '{name}' reads {' and '.join(READS[_known(name)])}, not {modality}",
            f"use --brain-encoder {' or '.join(fitting)}",
        )


def _known(name: str) -> str:
    if name.lower() not in BRAIN_ENCODERS:
        raise UnknownName(f"no brain encoder called '{name}'", suggest(name.lower(), BRAIN_ENCODERS))
    return name.lower()


def prepare(kind: type[nn.Module], epochs: Tensor) -> Tensor:
    """Apply a brain encoder's fixed first step to all epochs, where it has one."""
    step = getattr(kind, "prepare", None)
    return epochs if step is None else step(epochs)
