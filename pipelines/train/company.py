"""Who takes part in a run: the subject that is tested, and whoever is learned from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from torch import nn

from pipelines.memory import bytes_there
from pipelines.train.cost import run_seconds
from pipelines.train.cross import load_cross, memory_of, require_alike
from pipelines.train.data import Recordings, load_subject
from pipelines.train.recipes import Recipe
from stores.commits import digest, json_bytes
from stores.epochs import EpochStore
from stores.errors import EmbedctlError
from stores.names import counted

__all__ = ["Cast", "Company", "cast", "for_cross"]


@dataclass(frozen=True, slots=True)
class Cast:
    """Who does what in a run.

    Parameters
    ----------
    tested : int
        The subject that is tested.
    training : tuple of int
        Who is trained on.
    validation : int or None
        Who the checkpoint is chosen on, where that is another subject.
    """

    tested: int
    training: tuple[int, ...]
    validation: int | None = None


def cast(protocol: str, stored: Sequence[int], tested: int) -> Cast:
    """Return who does what when a subject is tested.

    With ``cross`` the next subject, in a circle, is validated on, and all others are trained on.

    Raises
    ------
    EmbedctlError
        If there is no such protocol, or there are fewer than three subjects for ``cross``.

    Examples
    --------
    >>> cast("cross", [1, 2, 3, 4], 4)
    Cast(tested=4, training=(2, 3), validation=1)
    >>> cast("within", [1, 2, 3, 4], 4)
    Cast(tested=4, training=(4,), validation=None)
    """
    if protocol == "within":
        return Cast(tested, (tested,))
    if protocol != "cross":
        raise EmbedctlError(f"no protocol called '{protocol}'", "there are: within, cross")
    if len(stored) < 3:
        raise EmbedctlError(
            f"{counted(len(stored), 'subject is', 'subjects are')} too few: "
            "one is tested, one validated on, the others trained on",
            "preprocess more subjects, or use --protocol within",
        )
    others = [s for s in stored if s > tested] + [s for s in stored if s < tested]
    return Cast(tested, tuple(sorted(others[1:])), others[0])


def for_cross(recipe: Recipe, brain: str, split: str) -> Recipe:
    """Return a recipe as it is used across subjects: it holds out concepts.

    Raises
    ------
    EmbedctlError
        If the recordings are of voxels, which differ from subject to subject, or single images are to be held out.
    """
    if brain == "fmri":
        raise EmbedctlError("no run across subjects of fMRI: their voxels differ", "use --protocol within")
    if split == "image":
        raise EmbedctlError("runs across subjects hold out concepts", "leave out --split image")
    return recipe.with_(split="concept")


class Company:
    """The subjects of a run, opened.

    Parameters
    ----------
    epochs : EpochStore
        Where they are.
    dataset : str
        Of which dataset.
    of : Cast
        Who does what.
    """

    def __init__(self, epochs: EpochStore, dataset: str, of: Cast) -> None:
        self.cast = of
        self.tested = epochs[dataset, of.tested]
        self._training = [epochs[dataset, s] for s in of.training if s != of.tested]
        self._validation = None if of.validation is None else epochs[dataset, of.validation]

    @cached_property
    def key(self) -> str:
        """Of the very recordings: of the subject, or of all subjects of a run across them."""
        if self._validation is None:
            return self.tested.key
        keys = [one.key for one in (self.tested, self._validation, *self._training)]
        return digest(json_bytes(keys))[:12]

    @property
    def is_simulated(self) -> bool:
        """Whether recordings of any of them are simulated, as far as they say so."""
        everyone = [self.tested, *self._training, *([self._validation] if self._validation else [])]
        return any(bool(one.info.get("simulated")) for one in everyone)

    @property
    def train_ids(self) -> list[str]:
        """Every training image of those who are learned from."""
        return list(self._trained_concepts)

    @cached_property
    def _trained_concepts(self) -> dict[str, str]:
        of = [self.tested] if self._validation is None else [self._validation, *self._training]
        return {n: c for one in of for n, c in zip(one.train.image_ids, one.train.concepts, strict=True)}

    def gallery(self, kind: str) -> tuple[list[str], list[str]]:
        """Return the images that the one shown is told apart from, the test images first, and their concepts.

        Raises
        ------
        EmbedctlError
            If there is no such gallery.
        """
        if kind not in ("test", "train+test"):
            raise EmbedctlError(f"no gallery called '{kind}'", "there are: test, train+test")
        test = self.tested.test
        of = dict(zip(test.image_ids, test.concepts, strict=True))
        if kind == "train+test":
            of |= {name: concept for name, concept in self._trained_concepts.items() if name not in of}
        return list(of), list(of.values())

    def memory(self, recipe: Recipe) -> tuple[int, str]:
        """Return the bytes that a run across subjects takes while they are read, and a line on it; 0 for others.

        Raises
        ------
        EmbedctlError
            If the subjects differ in channels or times.
        """
        if self._validation is None:
            return 0, ""
        require_alike([self.tested, self._validation, *self._training], recipe)
        n_bytes, dtype = memory_of(self._training, recipe)
        kind, there = str(dtype).removeprefix("torch."), f"this computer has {bytes_there() / 1e9:.1f} GB"
        many = f"recordings of {len(self._training)} subjects at once"
        return n_bytes, f"{many}: {n_bytes / 1e9:.1f} GB of memory, as {kind}; {there}"

    def repetitions(self, recipe: Recipe) -> list[str]:
        """Return a line on whoever has images with fewer repetitions than a recipe draws of each.

        Raises
        ------
        EmbedctlError
            If someone who is trained on has no image with so many.
        """
        notes = []
        for one in self._training or [self.tested] if recipe.n_random else ():
            n_of = np.asarray(one.train.valid).sum(axis=1)
            if (most := int(n_of.max(initial=0))) < recipe.n_random:
                raise EmbedctlError(
                    f"{recipe.train_on} takes {counted(recipe.n_random, 'repetition')} of an image, "
                    f"and there are {most} of subject {one.subject} at most",
                    f"use --train-on random-{most} or mean" if most > 1 else "use --train-on mean",
                )
            if fewer := int((n_of < recipe.n_random).sum()):
                notes.append(
                    f"subject {one.subject}: {fewer:,} of {len(n_of):,} training images have fewer than "
                    f"{counted(recipe.n_random, 'repetition')}; of these all are averaged"
                )
        return notes

    def seconds(self, recipe: Recipe, kind: str, n_features: int) -> float:
        """Return about what a run takes on one core (`pipelines.train.cost.run_seconds`)."""
        return run_seconds(self._training or [self.tested], recipe, kind, n_features)

    def load(self, recipe: Recipe, kind: type[nn.Module], gallery: str) -> Recordings:
        """Read their recordings, to be tested with a gallery."""
        if self._validation is None:
            found = load_subject(self.tested, recipe)
        else:
            found = load_cross(self.tested, self._training, self._validation, recipe, kind)
        image_ids, concepts = self.gallery(gallery)
        return replace(found, test=replace(found.test, image_ids=image_ids, concepts=concepts))
