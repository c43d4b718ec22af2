"""How recordings become epochs, as data: the built-in recipes, and a reader for one's own.

A recipe is a TOML table (``recipes/*.toml``). A file of one's own names every field, or starts from
a built-in one with ``based_on = "nice"`` and changes a few. The whole resolved table is stored with
the epochs, and a store holds one recipe per dataset.
"""

import tomllib
from collections.abc import Callable, Mapping, Set
from dataclasses import asdict, dataclass, fields
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from stores.errors import EmbedctlError, UnknownName, suggest

__all__ = ["Recipe", "built_in_folder", "built_in_recipes", "check_fields", "names_in", "read_recipe", "read_table"]

_CHOICES = {
    "resample": ("exact", "mne-epochs"),
    "units": ("uV", "V"),
    "bad_channels": ("exclude", "keep"),
    "mvnn": ("epochs", "none"),
    "dtype": ("float16", "float32"),
    "compute": ("float32", "float64"),
}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_number, value))


def _is_draw(value: Any) -> bool:
    return isinstance(value, dict) and all(
        split in ("train", "test") and isinstance(n, int) and n > 0 for split, n in value.items()
    )


# What each field looks like, and an example for the reader who wrote something else.
_FORMS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "channels": (lambda v: isinstance(v, list) and all(isinstance(name, str) for name in v), '["O1", "Oz", "O2"]'),
    "sfreq": (lambda v: _is_number(v) and v > 0, "250.0"),
    "epoch": (_is_pair, "[-0.2, 1.0]"),
    "window": (_is_pair, "[0.0, 1.0]"),
    "baseline": (lambda v: v == [] or _is_pair(v), "[-0.2, 0.0]"),
    "repetitions": (_is_draw, "{ train = 2, test = 20 }"),
    "seed": (lambda v: isinstance(v, int) and 0 <= v < 2**32, "0"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that decides what numbers an epoch holds.

    Parameters
    ----------
    name : str
        What the recipe is called.
    channels : tuple of str
        Channels in the order they are stored; empty for every EEG channel there is, in the
        recording's order. A listed channel that is absent is an error.
    sfreq : float
        Sampling frequency of the epochs, Hz.
    epoch : (float, float)
        What must lie inside the recording around an image onset, both ends included, s.
    window : (float, float)
        What is stored, the end excluded, s.
    baseline : (float, float) or ()
        Whose mean is subtracted from every channel, both ends included, s; empty for none.
    resample : {"exact", "mne-epochs"}
        ``exact`` low-passes the continuous recording and evaluates it at the exact instants;
        ``mne-epochs`` is ``mne.Epochs.resample`` on ``epoch``, with its shift in time.
    units : {"uV", "V"}
        Unit in which the covariance is estimated (sklearn's treatment of a flat channel depends on it).
    repetitions : dict
        Per split, how many repetitions are drawn from each session; empty keeps all of them.
    seed : int
        Seeds the draw and the final order of repetitions, as the public pipelines do.
    bad_channels : {"exclude", "keep"}
        Whether flat and non-finite channel-epochs are found and kept out of the covariance.
    mvnn : {"epochs", "none"}
        Multivariate noise normalisation, per session, fitted on the training split.
    dtype, compute : str
        Number type of the stored epochs, and of the computation.

    Examples
    --------
    >>> clean = read_recipe("clean")
    >>> clean.n_times, clean.dtype
    (250, 'float16')
    """

    name: str
    channels: tuple[str, ...]
    sfreq: float
    epoch: tuple[float, float]
    window: tuple[float, float]
    baseline: tuple[float, ...]
    resample: str
    units: str
    repetitions: dict[str, int]
    seed: int
    bad_channels: str
    mvnn: str
    dtype: str
    compute: str

    @property
    def n_times(self) -> int:
        """How many samples an epoch has."""
        return round((self.window[1] - self.window[0]) * self.sfreq)

    @property
    def times(self) -> list[float]:
        """When each sample is, in seconds from image onset."""
        return [round(self.window[0] + k / self.sfreq, 9) for k in range(self.n_times)]

    def as_dict(self) -> dict[str, Any]:
        """Return the recipe as plain JSON values, the form in which a store keeps it."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def built_in_recipes() -> list[str]:
    """Return the names of the recipes that come with embedctl.

    Examples
    --------
    >>> built_in_recipes()
    ['clean', 'nice']
    """
    return names_in(built_in_folder())


def read_recipe(name: str) -> Recipe:
    """Return the built-in recipe ``name``, or the one in the TOML file it names.

    Raises
    ------
    UnknownName
        If there is neither such a recipe nor such a file.
    EmbedctlError
        If the file is not a complete, well-formed recipe.
    """
    table = read_table(name, built_in_folder())
    check_fields(table, {field.name for field in fields(Recipe)}, _CHOICES, _FORMS)
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
    recipe = Recipe(**{**values, "sfreq": float(table["sfreq"])})
    _check_times(recipe)
    return recipe


def built_in_folder(kind: str = "") -> Traversable:
    """Return where the recipes that come with embedctl lie, those of one ``kind`` of dataset or the general ones."""
    folder = files("pipelines.preprocess") / "recipes"
    return folder / kind if kind else folder


def names_in(folder: Traversable) -> list[str]:
    """Return the names of the recipes in a folder."""
    return sorted(file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml"))


def read_table(name: str, folder: Traversable) -> dict[str, Any]:
    """Return the table of the recipe ``name`` in ``folder``, or in the TOML file it names, with the ``name`` in it.

    Raises
    ------
    UnknownName
        If there is neither such a recipe nor such a file.
    EmbedctlError
        If the file is not TOML.
    """
    if name in names_in(folder):
        return {"name": name, **tomllib.loads((folder / f"{name}.toml").read_text(encoding="utf-8"))}
    path = Path(name)
    if not path.is_file():
        raise UnknownName(f"no preprocessing recipe '{name}'", suggest(name, names_in(folder)))
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise EmbedctlError(f"{name} is not TOML: {problem}", "correct the line it names") from None
    base = table.pop("based_on", None)
    return {**(read_table(str(base), folder) if base is not None else {}), "name": path.stem, **table}


def check_fields(
    table: Mapping[str, Any],
    known: Set[str],
    choices: Mapping[str, tuple[str, ...]],
    forms: Mapping[str, tuple[Callable[[Any], bool], str]],
) -> None:
    """Check a table field by field: a recipe decides numbers, so nothing in it is guessed.

    Raises
    ------
    EmbedctlError
        If a field is unknown, missing, not one of its choices or not of its form.
    """
    name = table["name"]
    for key in table.keys() - known:
        raise EmbedctlError(f"recipe {name} has an unknown field '{key}'", suggest(key, known))
    for key in sorted(known - table.keys()):
        raise EmbedctlError(f"recipe {name} lacks '{key}'", 'state it, or begin the file with based_on = "clean"')
    for key, allowed in choices.items():
        if table[key] not in allowed:
            raise EmbedctlError(f"recipe {name}: {key} = {table[key]!r}", f"allowed: {', '.join(allowed)}")
    for key, (is_right, example) in forms.items():
        if not is_right(table[key]):
            raise EmbedctlError(f"recipe {name}: {key} = {table[key]!r}", f"write {key} = {example}")


def _check_times(recipe: Recipe) -> None:
    low, high = recipe.epoch
    start, stop = recipe.window
    if not low <= start < stop <= high:
        raise EmbedctlError(
            f"recipe {recipe.name}: window {start}..{stop} s outside epoch {low}..{high} s", "widen epoch"
        )
    if recipe.baseline and not low <= recipe.baseline[0] <= recipe.baseline[1] <= high:
        raise EmbedctlError(f"recipe {recipe.name}: baseline outside epoch {low}..{high} s", "widen epoch")
