"""What each setting of a recipe can be; anything else is an error of one line that says what there is."""

import math
import re
from typing import Any

from pipelines.train.brain_encoders import BRAIN_ENCODERS, BRAINDECODE
from pipelines.train.brain_encoders.elsewhere import is_in_a_file
from stores.errors import EmbedctlError

__all__ = ["checked_value"]

CHOICES = {
    "trial_norm": ("none", "norm-then-mean", "mean-then-norm"),
    "split": ("concept", "image"),
    "choose_by": ("val_mrr", "val_loss"),
    "image_head": ("none", "linear", "mlp"),
    "several": ("concatenate", "route"),
    "brain_encoder": tuple(BRAIN_ENCODERS),
    "loss": ("info-nce", "soft-clip"),
    "lr_rule": ("constant", "val-loss-cosine"),
}
FROM_ELSEWHERE = ("brain_encoder", "loss")  # may be FILE.py:NAME
SWITCHES = ("unit_scale", "learn_temperature")

# From, to, both included. What must be above zero begins far below what anybody uses.
NUMBERS: dict[str, tuple[float, float]] = {
    "held_out": (0.001, 0.999),
    "temperature": (0.01, 100),  # the trainer takes none below
    "lr": (1e-9, 10),
    "weight_decay": (0, 100),
    "clip": (0, 1e6),
}
COUNTS: dict[str, tuple[int, int]] = {
    "held_out_at_most": (2, 10**6),  # one image alone is always found
    "dim": (0, 2**16),
    "batch": (2, 2**20),  # an image alone in its batch has nothing to be told apart from
    "passes": (1, 10**6),
    "val_batch": (0, 2**20),
    "patience": (0, 10**6),
}


def checked_value(key: str, value: Any) -> Any:
    """Return a setting as it is kept, equal for what means the same: ``1`` and ``1.0``, a list and a tuple.

    Raises
    ------
    EmbedctlError
        If it cannot be that.

    Examples
    --------
    >>> checked_value("window", [0, 0.5]), checked_value("lr", 1)
    ((0.0, 0.5), 1.0)
    """
    if key in FROM_ELSEWHERE and isinstance(value, str) and is_in_a_file(value):
        return value
    if key == "brain_encoder" and isinstance(value, str) and value.startswith(BRAINDECODE):
        return value
    if key == "train_on":
        if not isinstance(value, str) or not re.fullmatch(r"mean|trials|random-[1-9]\d{0,3}", value):
            raise EmbedctlError(
                f"train_on = {value!r} is no choice", "there are: mean, trials, random-K as in random-2"
            )
    elif key == "seeds":
        return _seeds(value)
    elif key in CHOICES:
        if not isinstance(value, str) or value not in CHOICES[key]:
            raise EmbedctlError(f"{key} = {value!r} is no choice", f"there are: {', '.join(CHOICES[key])}")
    elif key in SWITCHES:
        if not isinstance(value, bool):
            raise EmbedctlError(f"{key} = {value!r} is no switch", "it is true or false")
    elif key in COUNTS:
        low, high = COUNTS[key]
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise EmbedctlError(f"{key} = {value!r} is out of range", f"it is a whole number from {low} to {high:,}")
    elif key in NUMBERS:
        least, most = NUMBERS[key]
        if not _is_number(value) or not least <= value <= most:
            raise EmbedctlError(f"{key} = {value!r} is out of range", f"it is a number from {least:g} to {most:g}")
        return float(value)
    elif key == "window":
        return _window(value)
    elif key == "channels":
        return _channels(value)
    return value


def _window(value: Any) -> tuple[float, ...]:
    found = tuple(value) if isinstance(value, list | tuple) else (None,)
    fits = not found or (len(found) == 2 and all(map(_is_number, found)) and found[0] < found[1])
    if not fits:
        raise EmbedctlError(
            f"window = {value!r} is not a first and a later last time",
            "for example window = [0.0, 0.996], in seconds from image onset; [] takes all",
        )
    return tuple(map(float, found))


def _seeds(value: Any) -> tuple[int, ...]:
    found = tuple(value) if isinstance(value, list | tuple) else (None,)
    if not found or not all(isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0 for seed in found):
        raise EmbedctlError(f"seeds = {value!r} is not a list of whole numbers", "for example seeds = [0, 1, 2]")
    return found


def _channels(value: Any) -> tuple[str, ...]:
    found = tuple(value) if isinstance(value, list | tuple) else (None,)
    if not all(isinstance(name, str) and name for name in found) or len(set(found)) < len(found):
        raise EmbedctlError(
            f"channels = {value!r} is not a list of different names", 'for example ["O1", "Oz", "O2"]; [] takes all'
        )
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
