"""How recordings become epochs, as data: the built-in recipes, and a reader for one's own.

A recipe is a TOML table (``recipes/*.toml``). A file of one's own names every field, or starts from
a built-in one (or another file) with ``base = "nice"`` and changes a few. The whole resolved table is stored with
the epochs, and a store holds one recipe per dataset.
"""

import math
import tomllib
from collections.abc import Callable, Mapping, Set
from dataclasses import asdict, dataclass, fields
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from pipelines.preprocess.dataset import SPLITS
from stores.errors import EmbedctlError, UnknownName, suggest
from stores.files import read_file

__all__ = [
    "Recipe",
    "are_names",
    "built_in_folder",
    "built_in_recipes",
    "check_fields",
    "is_number",
    "names_in",
    "read_recipe",
    "read_table",
]

_CHOICES = {
    "resample": ("exact", "mne-epochs"),
    "units": ("uV", "V"),
    "bad_channels": ("exclude", "keep"),
    "mvnn": ("epochs", "time", "none"),
    "fit": ("train", "all"),
    "dtype": ("float16", "float32"),
    "compute": ("float32", "float64"),
}


_MOST_HZ, _MOST_SECONDS = 20_000, 60  # far beyond any recording: a slip of the unit must not ask for terabytes


def is_number(value: Any) -> bool:
    """Say whether a value is a number, and a finite one: TOML has ``true``, ``nan`` and ``inf`` as well."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value < high


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(is_number(x) and abs(x) <= _MOST_SECONDS for x in value)


def _is_draw(value: Any) -> bool:
    return isinstance(value, dict) and all(split in SPLITS and _is_count(n, 1, 10_000) for split, n in value.items())


def are_names(value: Any) -> bool:
    """Say whether a value is a list of different names."""
    texts = isinstance(value, list) and all(isinstance(name, str) and name.strip() for name in value)
    return texts and len(set(value)) == len(value)


# What each field looks like, and an example for the reader who wrote something else.
_FORMS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "channels": (are_names, '["O1", "Oz", "O2"], each once; [] for all'),
    "sfreq": (lambda v: is_number(v) and 1 <= v <= _MOST_HZ, f"250.0, from 1 to {_MOST_HZ} Hz"),
    "epoch": (_is_pair, f"[-0.2, 1.0], within {_MOST_SECONDS} s of the image"),
    "window": (_is_pair, f"[0.0, 1.0], within {_MOST_SECONDS} s of the image"),
    "baseline": (lambda v: v == [] or _is_pair(v), "[-0.2, 0.0]; [] for none"),
    "repetitions": (_is_draw, "{ train = 2, test = 20 }; {} for all there are"),
    "seed": (lambda v: _is_count(v, 0, 2**32), "0, or a whole number up to 4294967295"),
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
    mvnn : {"epochs", "time", "none"}
        Multivariate noise normalisation, per session: from the covariance of each epoch over its samples, or of each
        image over its repetitions at each time.
    fit : {"train", "all"}
        Which split it is fitted on; of ``all``, both count the same.
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
    fit: str
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
    ['clean', 'gifford', 'nice']
    """
    return names_in(built_in_folder())


def read_recipe(name: str) -> Recipe:
    """Return the built-in recipe ``name``, or the one in the TOML file it names.

    A file that a file is based on is looked for beside it.

    Raises
    ------
    UnknownName
        If there is neither such a recipe nor such a file.
    EmbedctlError
        If the file is not a complete, well-formed recipe, or is based on itself.
    """
    table = read_table(name, built_in_folder())
    check_fields(table, {field.name for field in fields(Recipe)}, _CHOICES, _FORMS)
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
    recipe = Recipe(**{**values, "sfreq": float(table["sfreq"])})
    if (recipe.mvnn, recipe.units, recipe.dtype) == ("none", "V", "float16"):
        raise EmbedctlError(
            f"recipe {recipe.name}: dtype = 'float16' of volts that are not whitened loses digits below its range",
            'write units = "uV", or dtype = "float32"',
        )
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

    A file that a file is based on is looked for beside it.

    Raises
    ------
    UnknownName
        If there is neither such a recipe nor such a file.
    EmbedctlError
        If the file is not TOML, or is based on itself.
    """
    return _read(name, folder, Path(), ())


def _read(name: str, folder: Traversable, beside: Path, below: tuple[Path, ...]) -> dict[str, Any]:
    """Read a recipe that the files ``below`` are based on, each on the next."""
    if name in names_in(folder):
        return {"name": name, **tomllib.loads((folder / f"{name}.toml").read_text(encoding="utf-8"))}
    path = beside / name
    if not path.is_file():
        asked = f", which recipe {below[-1]} is based on" if below else ""
        raise UnknownName(f"no preprocessing recipe '{name}'{asked}", suggest(name, names_in(folder)))
    if any(path.samefile(other) for other in below):
        circle = " on ".join(f"'{file}'" for file in (*below, path))
        raise EmbedctlError(f"recipe files based on each other: {circle}", "let one of them state every field")
    try:
        table = tomllib.loads(read_file(path).decode())
    except OSError as problem:
        raise EmbedctlError(f"cannot read {path}: {problem.strerror}", "name a recipe you may read") from None
    except (ValueError, RecursionError) as problem:  # not TOML, not UTF-8, or nested without end
        raise EmbedctlError(f"{path} is not TOML: {problem}", "correct the line it names") from None
    base = table.pop("base", None)
    if base is None:
        return {"name": path.stem, **table}
    if not isinstance(base, str):
        raise EmbedctlError(f"recipe {path}: base = {base!r}", f"for example base = {names_in(folder)[0]!r}")
    return {**_read(base, folder, path.parent, (*below, path)), "name": path.stem, **table}


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
    if not (isinstance(name, str) and name.strip()):
        raise EmbedctlError(f"a recipe cannot have name = {_shown(name)}", 'write name = "mine", or leave it out')
    for key in sorted(table.keys() - known):
        raise EmbedctlError(f"recipe {name} has an unknown field {key!r}", suggest(key, {*known, "base"}))
    for key in sorted(known - table.keys()):
        raise EmbedctlError(f"recipe {name} lacks '{key}'", 'state it, or begin the file with base = "clean"')
    for key, allowed in choices.items():
        if table[key] not in allowed:
            raise EmbedctlError(f"recipe {name}: {key} = {_shown(table[key])}", f"allowed: {', '.join(allowed)}")
    for key, (is_right, example) in forms.items():
        if not is_right(table[key]):
            raise EmbedctlError(f"recipe {name}: {key} = {_shown(table[key])}", f"write {key} = {example}")


def _shown(value: Any) -> str:
    """Return a value as it may stand in a line."""
    text = repr(value)
    return text if len(text) < 80 else f"{text[:76]} ..."


def _check_times(recipe: Recipe) -> None:
    low, high = recipe.epoch
    start, stop = recipe.window
    if start >= stop:
        raise EmbedctlError(
            f"recipe {recipe.name}: window = [{start}, {stop}] does not end after it begins",
            "write its beginning first, then its end",
        )
    if not low <= start < stop <= high:
        raise EmbedctlError(
            f"recipe {recipe.name}: window {start}..{stop} s outside epoch {low}..{high} s", "widen epoch"
        )
    if not recipe.n_times:
        raise EmbedctlError(
            f"recipe {recipe.name}: no sample between {start} and {stop} s at {recipe.sfreq:g} Hz", "widen window"
        )
    if recipe.baseline and not low <= recipe.baseline[0] <= recipe.baseline[1] <= high:
        raise EmbedctlError(f"recipe {recipe.name}: baseline outside epoch {low}..{high} s", "widen epoch")
