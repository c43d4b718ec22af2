"""Recipes: every setting of a training run, as data.

A recipe is a TOML file. It may start from another one with ``base = "modern"``, and a table ``[eeg]``, ``[meg]``
or ``[fmri]`` holds what differs for that kind of recording. Reading one imports no torch.
"""

import dataclasses
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stores.errors import EmbedctlError, UnknownName, suggest

__all__ = ["Recipe", "read_recipe", "recipe_names"]

FOLDER = Path(__file__).parent / "recipes"
MODALITIES = ("eeg", "meg", "fmri")
CHOICES = {
    "trial_norm": ("none", "norm-then-mean", "mean-then-norm"),
    "train_on": ("mean", "trials"),
    "split": ("concept", "image"),
    "choose_by": ("val_mrr", "val_loss"),
    "image_head": ("none", "linear", "mlp"),
}

TYPES: dict[Any, tuple[Any, str]] = {
    str: (str, "a text"),
    bool: (bool, "true or false"),
    int: (int, "a whole number"),
    float: ((int, float), "a number"),
}
RANGES = {"temperature": (0, 100), "lr": (0, 10), "held_out": (0, 1)}


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
        First and last time in seconds from image onset, both included; empty for all.
    trial_norm : str
        Whether each channel of a trial is centred over time and divided by its norm: ``none``,
        ``norm-then-mean`` or ``mean-then-norm`` (before or after repetitions are averaged).
    unit_scale : bool
        Whether recordings are divided by one number, the standard deviation of the training recordings.
    train_on : str
        ``mean`` over the repetitions of an image, or single ``trials``.
    split : str
        What is held out of training to choose the checkpoint: ``concept`` or ``image``.
    held_out : float
        Fraction of the concepts or images held out.
    held_out_at_most : int
        Upper bound of the number held out.
    choose_by : str
        Validation figure that chooses the checkpoint: ``val_loss`` takes the pass with the lowest, ``val_mrr`` the
        latest pass whose mean reciprocal rank is within one standard error of the highest.
    brain_encoder : str
        Default brain encoder.
    image_head : str
        Trainable map on the image side, applied to the gallery too.
    dim : int
        Widest space to train in: wider embeddings are reduced to so many principal components of the images trained
        on. 0 to leave them as they are.
    temperature : float
        Temperature of InfoNCE, initial when learned.
    learn_temperature : bool
        Whether the optimiser changes it.
    lr, weight_decay : float
        Of AdamW.
    clip : float
        Largest norm of the gradient; zero for no clipping.
    batch : int
        Rows per step, at most what there are.
    passes : int
        Passes through the training rows.
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
    choose_by: str
    brain_encoder: str
    image_head: str
    dim: int
    temperature: float
    learn_temperature: bool
    lr: float
    weight_decay: float
    clip: float
    batch: int
    passes: int

    def settings(self) -> dict[str, Any]:
        """Return what changes the numbers, as plain values: everything but the name."""
        return {key: value for key, value in dataclasses.asdict(self).items() if key != "name"}

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


def read_recipe(name: str, modality: str) -> Recipe:
    """Read a recipe by name, or from a TOML file.

    Parameters
    ----------
    name : str
        Name of a recipe that comes with embedctl, or path of a ``.toml`` file.
    modality : str
        ``eeg``, ``meg`` or ``fmri``.

    Raises
    ------
    UnknownName
        If there is no such recipe.
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
    return _checked(_table(path, modality) | {"name": path.stem})


def _table(path: Path, modality: str) -> dict[str, Any]:
    """Return the settings of a file for one modality, its base's where it has none."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UnknownName(f"no recipe file '{path}'", suggest(path.stem, recipe_names())) from None
    except tomllib.TOMLDecodeError as problem:
        raise EmbedctlError(f"recipe '{path}' is not TOML: {problem}", 'begin it with base = "modern"') from None
    own = {key: value for key, value in table.items() if key not in MODALITIES}
    base = own.pop("base", None)
    if base is not None and base not in recipe_names():
        raise UnknownName(f"recipe '{path.name}' starts from '{base}'", suggest(str(base), recipe_names()))
    inherited = _table(FOLDER / f"{base}.toml", modality) if base is not None else {}
    differing: dict[str, Any] = table.get(modality, {})
    return inherited | own | differing


def _checked(table: dict[str, Any]) -> Recipe:
    """Build a recipe, with every mistake in it an error of one line."""
    fields: dict[str, Any] = {field.name: field.type for field in dataclasses.fields(Recipe)}
    unknown = sorted(table.keys() - fields.keys())
    if unknown:
        raise UnknownName(
            f"recipe '{table['name']}' has an unknown setting '{unknown[0]}'", suggest(unknown[0], fields)
        )
    missing = sorted(fields.keys() - table.keys())
    if missing:
        raise EmbedctlError(
            f"recipe '{table['name']}' lacks {', '.join(missing)}", 'start from another with base = "modern"'
        )
    for key, options in CHOICES.items():
        if table[key] not in options:
            raise EmbedctlError(f"{key} = '{table[key]}' is no choice", f"there are: {', '.join(options)}")
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
    for key, kind in fields.items():
        accepted, said = TYPES.get(kind, (tuple, "a list"))
        if not isinstance(values[key], accepted) or (kind is not bool and isinstance(values[key], bool)):
            raise EmbedctlError(f"{key} = {values[key]!r} is not what it should be", f"it is {said}")
    recipe = Recipe(**values)
    if recipe.passes < 1 or recipe.batch < 2:
        raise EmbedctlError(
            f"{recipe.passes} passes in batches of {recipe.batch} train nothing", "use at least 1 pass and 2 per batch"
        )
    for key, (low, high) in RANGES.items():
        if not low < values[key] < high:
            raise EmbedctlError(f"{key} = {values[key]} is out of range", f"it lies between {low:g} and {high:g}")
    if len(recipe.window) not in (0, 2):
        raise EmbedctlError("a window is a first and a last time", "for example window = [0.0, 0.996]")
    return recipe
