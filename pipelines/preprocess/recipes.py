"""How recordings become epochs, as data: the built-in recipes, and a reader for one's own.

A recipe is a TOML table (``recipes/*.toml``). A file of one's own names every field, or starts from
a built-in one (or another file) with ``based_on = "nice"`` and changes a few. The whole resolved table is stored with
the epochs, and a store holds one recipe per dataset.
"""

import math
import tomllib
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

from pipelines.preprocess.dataset import SPLITS
from stores.errors import EmbedctlError, UnknownName, suggest

__all__ = ["Recipe", "built_in_recipes", "read_recipe"]

_CHOICES = {
    "resample": ("exact", "mne-epochs"),
    "units": ("uV", "V"),
    "bad_channels": ("exclude", "keep"),
    "mvnn": ("epochs", "none"),
    "dtype": ("float16", "float32"),
    "compute": ("float32", "float64"),
}


_MOST_HZ, _MOST_SECONDS = 20_000, 60  # far beyond any recording: a slip of the unit must not ask for terabytes


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value < high


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(_is_number(x) and abs(x) <= _MOST_SECONDS for x in value)


def _is_draw(value: Any) -> bool:
    return isinstance(value, dict) and all(split in SPLITS and _is_count(n, 1, 10_000) for split, n in value.items())


def _are_names(value: Any) -> bool:
    texts = isinstance(value, list) and all(isinstance(name, str) and name.strip() for name in value)
    return texts and len(set(value)) == len(value)


# What each field looks like, and how it is written, for the reader who wrote something else.
_FORMS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "name": (lambda v: isinstance(v, str) and bool(v.strip()), 'a text, such as "mine"'),
    "channels": (_are_names, 'different names, such as ["O1", "Oz", "O2"], or [] for all'),
    "sfreq": (lambda v: _is_number(v) and 1 <= v <= _MOST_HZ, f"1 to {_MOST_HZ} Hz, such as 250.0"),
    "epoch": (_is_pair, f"two times within {_MOST_SECONDS} s of the image, such as [-0.2, 1.0]"),
    "window": (_is_pair, f"two times within {_MOST_SECONDS} s of the image, such as [0.0, 1.0]"),
    "baseline": (lambda v: v == [] or _is_pair(v), "two times such as [-0.2, 0.0], or [] for none"),
    "repetitions": (_is_draw, "{ train = 2, test = 20 }, or {} for all there are"),
    "seed": (lambda v: _is_count(v, 0, 2**32), "a whole number from 0 to 4294967295"),
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
    return sorted(file.name.removesuffix(".toml") for file in _folder().iterdir() if file.name.endswith(".toml"))


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
    return _read(name, Path(), ())


def _read(name: str, beside: Path, below: tuple[Path, ...]) -> Recipe:
    """Read a recipe that the files ``below`` are based on, each on the next."""
    if name in built_in_recipes():
        return _parse(tomllib.loads((_folder() / f"{name}.toml").read_text(encoding="utf-8")), name)
    path = beside / name
    if not path.is_file():
        asked = f", which recipe {below[-1]} is based on" if below else ""
        raise UnknownName(f"no preprocessing recipe '{name}'{asked}", suggest(name, built_in_recipes()))
    if any(path.samefile(other) for other in below):
        circle = " on ".join(f"'{file}'" for file in (*below, path))
        raise EmbedctlError(f"recipe files based on each other: {circle}", 'let one begin with based_on = "clean"')
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise EmbedctlError(f"cannot read {path}: {problem.strerror}", "name a recipe you may read") from None
    except (ValueError, RecursionError) as problem:  # not TOML, not UTF-8, or nested without end
        raise EmbedctlError(f"{path} is not TOML: {problem}", "correct the line it names") from None
    base = table.pop("based_on", None)
    if base is not None:
        if not isinstance(base, str):
            raise EmbedctlError(f"recipe {path}: based_on = {base!r}", 'write based_on = "clean"')
        table = {**_read(base, path.parent, (*below, path)).as_dict(), "name": path.stem, **table}
    return _parse(table, path.stem)


def _folder() -> Any:
    return files("pipelines.preprocess") / "recipes"


def _parse(table: dict[str, Any], name: str) -> Recipe:
    """Check a table field by field: a recipe decides numbers, so nothing in it is guessed."""
    table = {"name": name, **table}
    known = {field.name for field in fields(Recipe)}
    for key in sorted(table.keys() - known):
        raise EmbedctlError(f"recipe {name} has an unknown field {key!r}", suggest(key, {*known, "based_on"}))
    for key in sorted(known - table.keys()):
        raise EmbedctlError(f"recipe {name} lacks '{key}'", 'state it, or begin the file with based_on = "clean"')
    for key, allowed in _CHOICES.items():
        if table[key] not in allowed:
            raise EmbedctlError(f"recipe {name}: {key} = {_shown(table[key])}", f"allowed: {', '.join(allowed)}")
    for key, (is_right, form) in _FORMS.items():
        if not is_right(table[key]):
            raise EmbedctlError(f"recipe {name}: {key} = {_shown(table[key])}", f"write {form}")
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
    recipe = Recipe(**{**values, "sfreq": float(table["sfreq"])})
    _check_times(recipe)
    return recipe


def _shown(value: Any) -> str:
    """Return a value as it may stand in a line."""
    text = repr(value)
    return text if len(text) < 80 else f"{text[:76]} ..."


def _check_times(recipe: Recipe) -> None:
    low, high = recipe.epoch
    start, stop = recipe.window
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
