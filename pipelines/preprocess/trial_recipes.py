"""Recipes for epochs and betas that were cut already: choose, scale, clip. The files are in ``recipes/KIND/``."""

from dataclasses import asdict, dataclass, fields
from typing import Any

from pipelines.preprocess.recipes import are_names, built_in_folder, check_fields, is_number, read_table
from stores.errors import EmbedctlError

__all__ = ["TrialRecipe", "read_trial_recipe"]

_CHOICES = {
    "bad_channels": ("exclude", "keep"),
    "scale": ("none", "mvnn", "robust", "zscore"),
    "fit": ("train", "all"),
    "dtype": ("float16", "float32"),
}


_FORMS = {
    "channels": (are_names, '["O1", "Oz", "O2"], each once; [] for all'),
    "window": (
        lambda v: isinstance(v, list) and len(v) in (0, 2) and all(map(is_number, v)) and v == sorted(v),
        "[0.0, 1.0]",
    ),
    "sessions": (lambda v: isinstance(v, int) and not isinstance(v, bool) and v >= 0, "37"),
    "clip": (lambda v: is_number(v) and v >= 0, "20"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecipe:
    """What becomes of epochs or betas that others have cut.

    Parameters
    ----------
    name : str
        What the recipe is called.
    channels : tuple of str
        Channels in the order they are stored; empty for all. Voxels have no names: leave it empty.
    window : (float, float) or ()
        What is stored, both ends included, s; empty for every sample.
    sessions : int
        Only sessions up to this number; 0 for all.
    bad_channels : {"exclude", "keep"}
        Whether flat and non-finite channel-epochs are found, their epochs left out and counted. With ``keep`` a
        sample that is not finite is an error.
    scale : {"none", "mvnn", "robust", "zscore"}
        Per session. ``mvnn`` whitens the channels, ``robust`` takes off each channel's median and divides by its
        interquartile range, ``zscore`` takes off the mean and divides by the standard deviation; each per channel or
        voxel.
    fit : {"train", "all"}
        Which trials the statistics of ``scale`` come from.
    clip : float
        Largest absolute value after scaling; larger ones become it and are counted. 0 for none.
    dtype : {"float16", "float32"}
        Number type of the stored epochs.
    """

    name: str
    channels: tuple[str, ...]
    window: tuple[float, ...]
    sessions: int
    bad_channels: str
    scale: str
    fit: str
    clip: float
    dtype: str

    def as_dict(self) -> dict[str, Any]:
        """Return the recipe as plain JSON values, the form in which a store keeps it."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def read_trial_recipe(name: str, kind: str) -> TrialRecipe:
    """Return the built-in recipe ``name`` of a ``kind`` of dataset, or the one in the TOML file it names.

    Raises
    ------
    UnknownName
        If there is neither such a recipe nor such a file.
    EmbedctlError
        If the file is not a complete, well-formed recipe, or would lose what it stores.

    Examples
    --------
    >>> read_trial_recipe("clean", "arrays").scale
    'none'
    """
    table = read_table(name, built_in_folder(kind))
    check_fields(table, {field.name for field in fields(TrialRecipe)}, _CHOICES, _FORMS)
    if table["scale"] == "none" and table["dtype"] == "float16":
        raise EmbedctlError(
            f"recipe {table['name']}: dtype = 'float16' without scaling loses volts and teslas below its range",
            'write dtype = "float32"',
        )
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
    return TrialRecipe(**values)
