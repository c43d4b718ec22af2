"""Options that several commands share, and the one way an option is made from a setting."""

from pathlib import Path
from typing import Annotated, Any

import typer

from embedctl.config import Config
from embedctl.settings import SETTINGS, names
from stores.errors import EmbedctlError
from stores.remote import is_remote, locate, on_disk

__all__ = ["DryRun", "Json", "listed", "one_or_more", "option", "path", "place", "switch", "use_cards", "use_code"]


def option(key: str, *flags: str, metavar: str) -> Any:
    """Return the option that overrides a setting: its help and its default come from the table.

    Examples
    --------
    >>> option("extract.dtype", "--dtype", metavar="T").help
    'numbers in the store: float16 or float32 [default: float16]'
    """
    setting = SETTINGS[key]
    choices = f": {' or '.join(setting.choices)}" if setting.choices else ""
    default = setting.default
    if isinstance(default, tuple):
        default = ",".join(map(str, default))
    shown = f" [default: {default}]" if default not in ("", False) else ""
    return typer.Option(*flags, metavar=metavar, help=f"{setting.about}{choices}{shown}", show_default=False)


def switch(key: str, flag: str) -> Any:
    """Return the option that turns a setting on; without it the configuration decides."""
    return typer.Option(flag, help=SETTINGS[key].about, show_default=False)


def listed(flag: str, words: list[str] | None) -> tuple[str, ...]:
    """Return the names that ``flag`` was given; none where it was not given.

    Raises
    ------
    EmbedctlError
        If it was given and names nothing.
    """
    found = names(words or ())
    if words and not found:
        raise EmbedctlError(f"{flag} names nothing", "it takes names separated by commas; leave it out for the default")
    return found


Json = Annotated[bool, typer.Option("--json", help="print one JSON object instead of a table", show_default=False)]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="say what is to do and what is done, and do nothing", show_default=False)
]
Brain = Annotated[str | None, option("train.brain", "--brain", "-b", metavar="KIND")]
Dataset = Annotated[str | None, option("train.dataset", "--dataset", "-d", metavar="D")]
Model = Annotated[list[str] | None, option("train.model", "--model", "-m", metavar="E[,E...]")]
Subject = Annotated[list[str] | None, option("train.subject", "--subject", "-s", metavar="S[,S...]")]
Recipe = Annotated[str | None, option("train.recipe", "--recipe", metavar="R|FILE")]
Join = Annotated[str | None, option("train.join", "--join", metavar="J")]
Embeddings = Annotated[str | None, option("embeddings", "--embeddings", metavar="PATH")]
EmbeddingStorePath = Annotated[str | None, option("embeddings", "--store", metavar="PATH")]
EpochStorePath = Annotated[str | None, option("epochs", "--store", metavar="PATH")]
Epochs = Annotated[str | None, option("epochs", "--epochs", metavar="PATH")]
Images = Annotated[str | None, option("images", "--images", metavar="DIR")]
Runs = Annotated[str | None, option("runs", "--runs", metavar="DIR")]
Cards = Annotated[str | None, option("cards", "--cards", metavar="DIR")]
Device = Annotated[str | None, option("device", "--device", metavar="D")]
Trust = Annotated[
    list[str] | None,
    typer.Option("--trust", metavar="FILE.py", help="run this file, if a run's brain encoder is in it: it is code"),
]


def one_or_more(flag: str, number: int | None) -> int:
    """Return the number that ``flag`` was given, 1 or more; 0 where it was not given.

    Raises
    ------
    EmbedctlError
        If it is less.
    """
    if number is not None and number < 1:
        raise EmbedctlError(f"{flag} {number}", "allowed: 1 or more; leave it out to compute in this process")
    return number or 0


def use_cards(chosen: Config, cards: str | None = None) -> None:
    """Add the encoders of the user's own folder to the registry, where one was named.

    Raises
    ------
    EmbedctlError
        If it holds no cards, or one of them cannot be used.
    """
    if folder := chosen.value("cards", cards):
        from pipelines.encoders.registry import add_cards

        add_cards(path(folder))


def use_code(files: list[str] | None) -> None:
    """Let the files of code that were named run."""
    from pipelines.train.brain_encoders.elsewhere import trust

    trust(*(str(path(file)) for file in files or ()))


def path(value: str) -> Path:
    """Read a path as a shell would have: ``~`` is the home folder.

    Raises
    ------
    EmbedctlError
        If it is an address.
    """
    return on_disk(value).expanduser()


def place(value: str) -> Path:
    """Read where an embedding store is: a path, or an address of an object store.

    Examples
    --------
    >>> place("s3://bucket/embeddings.zarr").name
    'embeddings.zarr'
    """
    found = locate(value)
    return found if is_remote(found) else path(value)
