"""Recipes: every setting of a training run, as data.

A recipe is a TOML file. It may start from another one with ``base = "modern"``; a table ``[eeg]``, ``[meg]`` or
``[fmri]`` holds what differs for that kind of recording, a table ``[cross]`` what differs across subjects, and a table
``[brain.NAME]`` for that brain encoder, with or without ``+linear``. Reading one imports no torch.
"""

import dataclasses
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.train.brain_encoders import BRAIN_ENCODERS, canonical
from pipelines.train.recipe_values import checked_value
from stores.errors import EmbedctlError, UnknownName, suggest
from stores.files import read_file

__all__ = ["Recipe", "read_recipe", "recipe_names"]

FOLDER = Path(__file__).parent / "recipes"
MODALITIES = ("eeg", "meg", "fmri")
CROSS = "cross"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Every setting of a training run but the data, the image embedding and the seed.

    Parameters
    ----------
    name : str
        Name of the recipe, or stem of its file.
    channels : tuple of str
        Channels to use, of those that exist; empty for all.
    window : tuple of float
        First and last time in seconds from image onset, both included and inside the epoch; empty for all.
    trial_norm : str
        Whether each channel of a trial is centred over time and divided by its norm: ``none``,
        ``norm-then-mean`` or ``mean-then-norm`` (before or after repetitions are averaged).
    unit_scale : bool
        Whether recordings are divided by one number, the standard deviation of the training recordings.
    train_on : str
        ``mean`` over the repetitions of an image, single ``trials``, or ``random-K``: in every pass the mean of K
        repetitions of each image, drawn anew.
    split : str
        What is held out of training to choose the checkpoint: ``concept`` or ``image``.
    held_out : float
        Fraction of the concepts or images held out.
    held_out_at_most : int
        Upper bound of the number held out.
    val_batch : int
        Images in a validation gallery, at most; 0 for all of them in one, or of ``concept`` one of each concept.
    choose_by : str
        Validation figure that chooses the checkpoint: the pass with the lowest ``val_loss``, or with the highest
        ``val_mrr``, the mean reciprocal rank; of several with the same figure the last.
    brain_encoder : str
        Default brain encoder.
    image_head : str
        Trainable map on the image side, applied to the gallery too.
    several : str
        What several embeddings become that are trained against together, ``--model A+B``: ``concatenate``, all features
        side by side, standardised on the images trained on; or ``route``, the sum of embeddings of one width, such as
        layers of an encoder, with trained weights (a softmax).
    dim : int
        Widest space to train in: wider embeddings are reduced to so many principal components of the images trained
        on. 0 to leave them as they are.
    loss : str
        ``info-nce``, ``soft-clip``, or ``FILE.py:function``.
    temperature : float
        Temperature of the loss, initial when learned.
    learn_temperature : bool
        Whether the optimiser changes it.
    lr, weight_decay : float
        Of AdamW.
    lr_rule : str
        ``constant``; or ``val-loss-cosine``, after every pass ``1e-7 + (lr - 1e-7) (1 + cos(pi val_loss / 10)) / 2``,
        the validation loss modulo 10.
    clip : float
        Largest norm of the gradient; zero for no clipping.
    batch : int
        Rows per step, at most what there are.
    passes : int
        Passes through the training rows.
    patience : int
        Passes without a better validation figure after which training ends; 0 to never end early.
    seeds : tuple of int
        Seeds to run when none is asked for.
    """

    name: str
    channels: tuple[str, ...]
    window: tuple[float, ...]
    trial_norm: str
    unit_scale: bool
    train_on: str
    split: str
    held_out: float
    held_out_at_most: int
    val_batch: int
    choose_by: str
    brain_encoder: str
    image_head: str
    several: str
    dim: int
    loss: str
    temperature: float
    learn_temperature: bool
    lr: float
    weight_decay: float
    lr_rule: str
    clip: float
    batch: int
    passes: int
    patience: int
    seeds: tuple[int, ...]

    def settings(self) -> dict[str, Any]:
        """Return what changes the numbers of a run, as plain values: everything but the name and the seeds.

        ``several`` is told only where it is not ``concatenate``, which one embedding by itself knows nothing of.
        """
        settings = {key: value for key, value in dataclasses.asdict(self).items() if key not in ("name", "seeds")}
        return {key: value for key, value in settings.items() if (key, value) != ("several", "concatenate")}

    @property
    def n_random(self) -> int:
        """How many repetitions are drawn of each image in every pass; 0 when none are drawn."""
        return int(self.train_on.removeprefix("random-")) if self.train_on.startswith("random-") else 0

    def with_(self, **changes: Any) -> "Recipe":
        """Return a copy with some settings changed, checked like a recipe that was read.

        Examples
        --------
        >>> read_recipe("modern", "eeg").with_(passes=3).passes
        3
        """
        return _checked(dataclasses.asdict(self) | changes)


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with embedctl."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def read_recipe(name: str, modality: str, brain_encoder: str = "", protocol: str = "") -> Recipe:
    """Read a recipe by name, or from a TOML file.

    Parameters
    ----------
    name : str
        Name of a recipe that comes with embedctl, or path of a ``.toml`` file.
    modality : str
        ``eeg``, ``meg`` or ``fmri``.
    brain_encoder : str
        The one to train; the recipe's when empty.
    protocol : str
        ``cross`` for what it says of runs across subjects.

    Raises
    ------
    UnknownName
        If there is no such recipe, or no such brain encoder.
    EmbedctlError
        If a setting is unknown, missing or not one of the values it can take.

    Examples
    --------
    >>> read_recipe("modern", "eeg").brain_encoder, len(read_recipe("modern", "eeg").channels)
    ('eegproject', 17)
    >>> read_recipe("modern", "meg").channels
    ()
    """
    path = FOLDER / f"{name}.toml"
    if name not in recipe_names():
        path = Path(name)
        if path.suffix != ".toml":
            raise UnknownName(f"no recipe called '{name}'", suggest(name, recipe_names()))
    asked = {"brain_encoder": canonical(brain_encoder)} if brain_encoder else {}
    table, for_brain = _table(path, modality, protocol)
    chosen = str((table | asked).get("brain_encoder")).removesuffix("+linear")
    is_other = path.parent != FOLDER and path.stem in recipe_names()  # one of a name of ours is not ours
    return _checked(table | for_brain.get(chosen, {}) | asked | {"name": path.name if is_other else path.stem})


def _table(path: Path, modality: str, protocol: str) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return the settings of a file for a modality and protocol, and by brain encoder what differs; else its base's."""
    own = _parsed(path)
    base = own.pop("base", None)
    if base is not None and base not in recipe_names():
        raise UnknownName(f"recipe '{path.name}' starts from '{base}'", suggest(str(base), recipe_names()))
    inherited, for_brain = _table(FOLDER / f"{base}.toml", modality, protocol) if base is not None else ({}, {})
    differing = {kind: own.pop(kind, {}) for kind in (*MODALITIES, CROSS)}
    brains = own.pop("brain", {})
    if not isinstance(brains, dict):
        raise EmbedctlError(f"recipe '{path.name}': brain = {brains!r} is no table", "write [brain.NAME] on a line")
    if unknown := sorted(set(brains) - set(BRAIN_ENCODERS)):
        raise UnknownName(f"recipe '{path.name}' has [brain.{unknown[0]}]", suggest(unknown[0], BRAIN_ENCODERS))
    known = {field.name for field in dataclasses.fields(Recipe)} - {"name"}
    named = {f"brain.{name}": table for name, table in brains.items()}
    for where, table in (("", own), *differing.items(), *named.items()):
        if not isinstance(table, dict):
            raise EmbedctlError(f"recipe '{path.name}': {where} = {table!r} is no table", f"write [{where}] on a line")
        if unknown := sorted(table.keys() - known):
            section = f" in [{where}]" if where else ""
            raise UnknownName(
                f"recipe '{path.name}' has an unknown setting '{unknown[0]}'{section}",
                suggest(unknown[0], known if where else {*known, "base", "brain", *MODALITIES, CROSS}),
            )
    # What is said here goes before what a base says, also what it says of a brain encoder.
    said_here = own | differing[modality] | (differing[CROSS] if protocol == CROSS else {})
    kept = {name: {k: v for k, v in table.items() if k not in said_here} for name, table in for_brain.items()}
    return inherited | said_here, kept | brains


def _parsed(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_file(path).decode())
    except FileNotFoundError:
        raise UnknownName(f"no recipe file '{path}'", suggest(path.stem, recipe_names())) from None
    except (ValueError, RecursionError) as problem:
        why = " ".join(str(problem).split())
        raise EmbedctlError(f"recipe '{path}' is not TOML: {why}", 'begin it with base = "modern"') from None
    except OSError as problem:
        raise EmbedctlError(f"recipe '{path}' cannot be read: {problem.strerror}", "name a .toml file") from None


def _checked(table: dict[str, Any]) -> Recipe:
    """Build a recipe, with every mistake in it an error of one line."""
    fields = [field.name for field in dataclasses.fields(Recipe)]
    if unknown := sorted(table.keys() - set(fields)):
        raise UnknownName(
            f"recipe '{table['name']}' has an unknown setting '{unknown[0]}'", suggest(unknown[0], fields)
        )
    if missing := sorted(set(fields) - table.keys()):
        raise EmbedctlError(
            f"recipe '{table['name']}' lacks {', '.join(missing)}", 'start from another with base = "modern"'
        )
    return Recipe(**{key: checked_value(key, value) for key, value in table.items()})
