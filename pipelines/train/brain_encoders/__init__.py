"""Brain encoders: networks from brain activity to embedding space, one file each.

A brain encoder is a ``torch.nn.Module`` built as ``Class(n_chans, n_times, dim)`` that maps
``(n_epochs, n_chans, n_times)`` to ``(n_epochs, dim)``. It may have ``prepare(epochs)``, a fixed first step
without parameters that is applied to all epochs once, when they are loaded, instead of in every pass.
Voxels come as channels with one time. Which kinds of recording each reads is listed here, so that a wrong choice
is found before anything runs.

A brain encoder of one's own is ``FILE.py:Class``; `pipelines.train.brain_encoders.suite` holds what it has to keep to.
``braindecode:NAME`` is a model of braindecode, where that is installed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from pipelines.train.brain_encoders.elsewhere import from_braindecode, from_file, is_in_a_file
from stores.errors import EmbedctlError, UnknownName, suggest

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["BRAIN_ENCODERS", "brain_encoder", "canonical", "check_reads", "prepare"]

# Name on the command line -> where its class lives. Listing them imports no torch.
BRAIN_ENCODERS = {
    "atm-s": "pipelines.train.brain_encoders.atm_s:ATMS",
    "atm-s+linear": "pipelines.train.brain_encoders.atm_s:ATMSLinear",
    "brain-mlp": "pipelines.train.brain_encoders.residual_mlp:BrainMLP",
    "eegconformer": "pipelines.train.brain_encoders.eegconformer:EEGConformer",
    "eegnet": "pipelines.train.brain_encoders.eegnet:EEGNet",
    "eegproject": "pipelines.train.brain_encoders.eegproject:EEGProject",
    "linear": "pipelines.train.brain_encoders.linear:LinearReadout",
    "nice": "pipelines.train.brain_encoders.nice:NICE",
    "nice+linear": "pipelines.train.brain_encoders.nice:NICELinear",
    "residual-mlp": "pipelines.train.brain_encoders.residual_mlp:ResidualMLP",
}
FOR_VOXELS = ("brain-mlp", "residual-mlp")
READS = {name: ("fmri",) if name in FOR_VOXELS else ("eeg", "meg") for name in BRAIN_ENCODERS} | {
    "linear": ("eeg", "meg", "fmri")
}
BRAINDECODE = "braindecode:"


def brain_encoder(name: str) -> type[nn.Module]:
    """Return the class of a brain encoder by its name, also ``FILE.py:Class`` or ``braindecode:NAME``.

    Raises
    ------
    UnknownName
        If there is no brain encoder of that name.
    NotHere
        If it is braindecode's, and braindecode is not installed.
    EmbedctlError
        If it is in a file that cannot be run, or that nobody named (`elsewhere.trust`), or is no ``torch.nn.Module``.

    Examples
    --------
    >>> brain_encoder("NICE").__name__
    'NICE'
    """
    if is_in_a_file(name):
        return _own(name)
    if name.startswith(BRAINDECODE):
        return from_braindecode(name.removeprefix(BRAINDECODE))
    module, _, attribute = BRAIN_ENCODERS[_known(name)].partition(":")
    kind: type[nn.Module] = getattr(import_module(module), attribute)
    return kind


def check_reads(name: str, modality: str) -> None:
    """Make sure that a brain encoder reads a kind of recording: ``eeg``, ``meg`` or ``fmri``.

    Those from elsewhere have to know for themselves.

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
    if is_in_a_file(name) or name.startswith(BRAINDECODE):
        brain_encoder(name)
    elif modality not in READS[_known(name)]:
        fitting = [other for other, kinds in READS.items() if modality in kinds]
        raise EmbedctlError(
            f"the brain encoder '{name}' reads {' and '.join(READS[_known(name)])}, not {modality}",
            f"use --brain-encoder {' or '.join(fitting)}",
        )


def canonical(name: str) -> str:
    """Return a name as it is kept: ours in lower case, those from elsewhere as they are.

    Raises
    ------
    UnknownName
        If there is no brain encoder of that name.

    Examples
    --------
    >>> canonical("NICE"), canonical("mine.py:Net")
    ('nice', 'mine.py:Net')
    """
    return name if is_in_a_file(name) or name.startswith(BRAINDECODE) else _known(name)


def _own(name: str) -> type[nn.Module]:
    from torch import nn

    kind = from_file(name, "--brain-encoder")
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise EmbedctlError(f"'{name}' is no torch.nn.Module", "write a class with (n_chans, n_times, dim)")
    return kind


def _known(name: str) -> str:
    if name.endswith(".py"):
        raise UnknownName(f"'{name}' is a file, and no brain encoder", f"name the class in it: '{name}:CLASS'")
    if name.lower() not in BRAIN_ENCODERS:
        raise UnknownName(f"no brain encoder called '{name}'", suggest(name.lower(), BRAIN_ENCODERS))
    return name.lower()


def prepare(kind: type[nn.Module], epochs: Tensor) -> Tensor:
    """Apply a brain encoder's fixed first step to all epochs, where it has one."""
    step = getattr(kind, "prepare", None)
    return epochs if step is None else step(epochs)
