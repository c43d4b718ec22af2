"""Which file builds which family, and which packages decide its numbers. Imports none of them.

A family is one builder file with one function ``network(spec, weights, device) -> Network`` (see `network`);
adding one is that file and a line here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from stores.errors import NotHere, UnknownName, suggest

__all__ = ["FAMILIES", "Family", "family"]


@dataclass(frozen=True, slots=True)
class Family:
    """Where a family is built, and the distributions whose version can change its numbers."""

    module: str
    packages: tuple[str, ...]

    def builder(self) -> Callable[..., Any]:
        """Import the builder file and return its ``network`` function.

        Raises
        ------
        NotHere
            If a package it needs is not installed.
        """
        try:
            builder: Callable[..., Any] = import_module(self.module).network
        except ModuleNotFoundError as missing:
            if missing.name and missing.name.startswith("pipelines"):
                raise
            raise NotHere(
                f"encoders need the package '{missing.name}', which is not installed", 'pip install "embedctl[extract]"'
            ) from missing
        return builder


FAMILIES = {
    "affine": Family("pipelines.encoders.derived", ("numpy",)),
    "alignet": Family("pipelines.encoders.alignet_family", ("torch", "torchvision", "timm", "pillow")),
    "brain_like": Family("pipelines.encoders.brain_like_family", ("torch", "torchvision", "pillow")),
    "classical": Family("pipelines.encoders.classical", ("torch", "pillow")),
    "concat": Family("pipelines.encoders.combinations", ("numpy",)),
    "dino": Family("pipelines.encoders.dino_family", ("torch", "torchvision", "timm", "pillow")),
    "dreamsim": Family("pipelines.encoders.dreamsim_family", ("torch", "torchvision", "timm", "pillow")),
    "harmonization": Family("pipelines.encoders.harmonization", ("torch", "torchvision", "timm", "pillow")),
    "mean": Family("pipelines.encoders.combinations", ("numpy",)),
    "open_clip": Family(  # half of its image towers are timm's
        "pipelines.encoders.open_clip_family", ("torch", "torchvision", "timm", "open_clip_torch", "pillow")
    ),
    "timm": Family("pipelines.encoders.timm_family", ("torch", "torchvision", "timm", "pillow")),
    "torchvision": Family("pipelines.encoders.torchvision_family", ("torch", "torchvision", "pillow")),
}


def family(name: str) -> Family:
    """Return a family by name: one of these, or one a package brings.

    A package does so by an entry point of the group ``embedctl.families``: its name is the family's, its value the
    module of the builder.

    Raises
    ------
    UnknownName
        If no builder file is registered under ``name``.

    Examples
    --------
    >>> family("timm").module
    'pipelines.encoders.timm_family'
    """
    if name not in FAMILIES:
        for entry in entry_points(group="embedctl.families"):
            theirs = (entry.dist.name,) if entry.dist else ()
            FAMILIES.setdefault(entry.name, Family(entry.value, ("torch", "pillow", *theirs)))
    if name not in FAMILIES:
        raise UnknownName(f"no encoder family called '{name}'", suggest(name, FAMILIES))
    return FAMILIES[name]
