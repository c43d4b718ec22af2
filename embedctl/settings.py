"""Every setting there is: its default, what it means and how its text is read.

This one table feeds the options' help, ``embedctl init``, ``embedctl doctor`` and the reading of
configuration files, so none of them can say something else.

>>> SETTINGS["train.seed"].read("0..2,7")
(0, 1, 2, 7)
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stores.errors import EmbedctlError, suggest

__all__ = ["SETTINGS", "Setting", "is_all", "names", "numbers"]

MOST = 10_000
"""Numbers that a list may hold: more of them are a slip, which would fill the memory."""


def names(value: Any) -> tuple[str, ...]:
    """Read a list of names: commas and lists, in the order given, each once.

    Examples
    --------
    >>> names(["pixels,hog", "pixels"])
    ('pixels', 'hog')
    """
    parts = value if isinstance(value, (list, tuple)) else [value]
    if not all(isinstance(part, str) for part in parts):
        raise ValueError("names are text")
    return tuple(dict.fromkeys(word.strip() for part in parts for word in part.split(",") if word.strip()))


def numbers(value: Any) -> tuple[int, ...]:
    """Read a list of whole numbers: commas, lists, and ranges with both ends (``0..4``).

    Examples
    --------
    >>> numbers(["1", "3..5"]), numbers([0, 1]), numbers("sub-01")
    ((1, 3, 4, 5), (0, 1), (1,))
    """
    parts = value if isinstance(value, (list, tuple)) else [value]
    found: list[int] = []
    for word in (word.strip() for part in parts for word in str(part).split(",") if word.strip()):
        first, dots, last = (end.strip().removeprefix("sub-") for end in word.partition(".."))
        run = range(int(first), int(last if dots else first) + 1)
        if not run:  # nothing would come out of it, and no number at all means every one there is
            raise ValueError("a range goes upwards")
        if run[0] < 0 or run[-1] > sys.maxsize:
            raise ValueError("numbers count from 0, as far as PyTorch can")
        if len(found) + run[-1] - run[0] >= MOST:
            raise ValueError(f"more than {MOST:,} numbers")
        found += run
    return tuple(dict.fromkeys(found))


def is_all(value: Any) -> bool:
    """Say whether what was said is the word ``all`` alone: of a list, the same as to leave it out.

    Examples
    --------
    >>> is_all("all"), is_all(["all"]), is_all("all,3")
    (True, True, False)
    """
    return value == "all" or (isinstance(value, (list, tuple)) and list(value) == ["all"])


def _numbers_or_all(value: Any) -> tuple[int, ...]:
    return () if is_all(value) else numbers(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("not a text")
    return value


def _switch(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if not isinstance(value, str) or value.lower() not in words:
        raise ValueError("neither true nor false")
    return words[value.lower()]


def _count_or_auto(value: Any) -> int | str:
    if value == "auto":
        return "auto"
    if isinstance(value, bool) or int(value) < 1:
        raise ValueError("not a count")
    return int(value)


@dataclass(frozen=True, slots=True)
class Setting:
    """One thing a user can choose.

    Parameters
    ----------
    key : str
        ``name`` or ``command.name``, as in ``embedctl.toml``.
    default : Any
        What holds when nothing else was said, already read.
    about : str
        One line, shown in the help and in the file ``init`` writes.
    parse : callable
        Turns text or a TOML value into the value; raises ``ValueError``.
    expects : str
        What ``parse`` takes, for the error.
    choices : tuple of str
        The only values allowed, if there are only some.
    """

    key: str
    default: Any
    about: str
    parse: Callable[[Any], Any] = _text
    expects: str = "a text"
    choices: tuple[str, ...] = ()

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return "EMBEDCTL_" + self.key.upper().replace(".", "_").replace("-", "_")

    def read(self, value: Any, said_by: str = "") -> Any:
        """Read what a flag, a variable or a file says.

        Raises
        ------
        EmbedctlError
            If it cannot be read, naming who said it and what is expected.
        """
        by = f" ({said_by})" if said_by else ""
        try:
            parsed = self.parse(value)
        except (TypeError, ValueError):
            raise EmbedctlError(f"{self.key} cannot be {value!r}{by}", f"it takes {self.expects}") from None
        if self.choices and parsed not in self.choices:
            raise EmbedctlError(f"{self.key} cannot be {parsed!r}{by}", suggest(parsed, self.choices))
        return parsed


def _table(*settings: Setting) -> dict[str, Setting]:
    return {setting.key: setting for setting in settings}


_SWITCH = (_switch, "true or false")
_NAMES = (names, "names separated by commas, or a list of them")
_NUMBERS = (numbers, "whole numbers, ranges from a lower to a higher one (0..4), or a list of them: 10,000 at most")
_NUMBERS_OR_ALL = (_numbers_or_all, f"{_NUMBERS[1]}; or all")

SETTINGS: dict[str, Setting] = _table(
    Setting("images", "images", "folder of stimuli; an image's id is its path below it"),
    Setting("raw", "raw", "folder of recordings as downloaded, one folder per dataset"),
    Setting("embeddings", "embeddings.zarr", "store that extract writes and train reads"),
    Setting("epochs", "epochs.zarr", "store that preprocess writes and train reads"),
    Setting("runs", "runs", "folder of results: one folder per run, and results.parquet"),
    Setting("cards", "", "folder of TOML files that add encoders of your own"),
    Setting("device", "auto", "where networks run: auto, cpu or cuda"),
    Setting("extract.model", (), "embeddings to compute: ENCODER[:LAYER[.POOLING]][@VIEW], ...", *_NAMES),
    Setting("extract.weights", "published", "published, random:SEED, or a checkpoint file"),
    Setting(
        "extract.batch-size",
        "auto",
        "images per forward pass; adopted from the store once it was written",
        _count_or_auto,
        "a number of images, or auto",
    ),
    Setting("extract.dtype", "float16", "numbers in the store", choices=("float16", "float32")),
    Setting("extract.exact", False, "equal the library's own transform bit for bit, at its speed", *_SWITCH),
    Setting("extract.offline", False, "never fetch weights; say which are missing", *_SWITCH),
    Setting("preprocess.dataset", "", "which recordings; 'embedctl datasets' lists them"),
    Setting("preprocess.subject", (), "subjects to read; none given, or all, means all there are", *_NUMBERS_OR_ALL),
    Setting(
        "preprocess.recipe", "clean", "clean; for EEG also nice or gifford, for MEG and fMRI alignvis; or a recipe file"
    ),
    Setting("preprocess.keep", "all", "every repetition, or only their mean", choices=("all", "mean")),
    Setting("train.brain", "", "kind of recording: eeg, meg or fmri"),
    Setting("train.dataset", "", "needed only when the epoch store holds several"),
    Setting("train.model", (), "embeddings to train against; none given, or all, means all in the store", *_NAMES),
    Setting("train.subject", (), "subjects to train on; none given, or all, means all in the store", *_NUMBERS_OR_ALL),
    Setting("train.seed", (), "seeds, each a run of its own; none given means the recipe's, mostly 0", *_NUMBERS),
    Setting(
        "train.brain-encoder",
        "",
        "network from recordings to embeddings, also FILE.py:Class or braindecode:NAME; none given means the recipe's",
    ),
    Setting("train.recipe", "modern", "modern, paper, demo, or a recipe file"),
    Setting(
        "train.protocol",
        "within",
        "train on the subject that is tested, or on all others but one",
        choices=("within", "cross"),
    ),
    Setting("train.gallery", "test", "images that the one shown is told apart from", choices=("test", "train+test")),
    Setting("train.loss", "", "info-nce, soft-clip or FILE.py:function; none given means the recipe's"),
    Setting("train.image-head", "", "none, linear or mlp: what is trained on the image side; none given: the recipe's"),
    Setting("train.split", "", "what is held out for validation, concept or image; none given means the recipe's"),
    Setting(
        "train.train-on",
        "",
        "mean, trials or random-K (K repetitions, drawn anew in every pass); none given means the recipe's",
    ),
    Setting("train.join", "suffix", "how an epoch finds its image", choices=("suffix", "stem")),
    Setting(
        "interpret.method",
        "integrated-gradients",
        "how evidence is divided",
        choices=("integrated-gradients", "gradient-x-input", "paper-gradcam"),
    ),
    Setting("interpret.model", (), "embeddings to interpret; none given, or all, means all that have runs", *_NAMES),
    Setting(
        "interpret.subject", (), "subjects to interpret; none given, or all, means all that have runs", *_NUMBERS_OR_ALL
    ),
    Setting("interpret.seed", (), "seeds to interpret; none given, or all, means all that have runs", *_NUMBERS_OR_ALL),
)
