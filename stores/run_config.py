"""What the ``config.json`` of a run says, and of which kind: what a stranger wrote there is damage, not a surprise."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from stores.columns import COLUMNS
from stores.errors import DamagedStore
from stores.sealed import TRAIN_AGAIN

__all__ = ["check_config"]


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_list_of(is_one: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, list) and all(map(is_one, value))


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


_OF_COLUMN = {"string": _is_text, "int64": _is_count}
_KINDS: dict[str, Callable[[object], bool]] = {
    **{name: _OF_COLUMN[kind] for name, kind in COLUMNS.items() if kind in _OF_COLUMN},
    "preprocessing": lambda value: value is None or isinstance(value, dict | str),
    **dict.fromkeys(("join", "embeddings", "epochs", "device"), _is_text),
    **dict.fromkeys(("ch_names", "gallery_ids", "gallery_concepts", "parts"), _is_list_of(_is_text)),
    "times": _is_list_of(_is_finite),
    "scale": _is_finite,
    **dict.fromkeys(("own", "settings"), _is_object),
}


def check_config(config: Mapping[str, Any], path: Path) -> None:
    """Compare what a configuration says with what embedctl writes; what it does not say is no matter here.

    Raises
    ------
    DamagedStore
        If a value is of another kind.

    Examples
    --------
    >>> check_config({"seed": 0, "times": [0.0, 0.5]}, Path("config.json"))
    >>> check_config({"seed": "0"}, Path("config.json"))
    Traceback (most recent call last):
        ...
    stores.errors.DamagedStore: 'config.json' says nonsense of its 'seed'
    hint: remove the run and train it again
    """
    for name, value in config.items():
        if name in _KINDS and not _KINDS[name](value):
            raise DamagedStore(f"'{path}' says nonsense of its '{name}'", TRAIN_AGAIN)
