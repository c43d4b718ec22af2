"""Options that several commands share, and the one way an option is made from a setting."""

from pathlib import Path
from typing import Annotated, Any

import typer

from embedctl.settings import SETTINGS

__all__ = ["Cards", "DryRun", "Json", "add_cards", "option", "path", "switch"]


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


Cards = Annotated[
    str, typer.Option("--cards", metavar="DIR", help="folder of *.toml with encoders of your own", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="print one JSON object instead of a table", show_default=False)]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="say what is to do and what is done, and do nothing", show_default=False)
]
Embeddings = Annotated[str | None, option("embeddings", "--embeddings", metavar="PATH")]
EmbeddingStorePath = Annotated[str | None, option("embeddings", "--store", metavar="PATH")]
EpochStorePath = Annotated[str | None, option("epochs", "--store", metavar="PATH")]
Epochs = Annotated[str | None, option("epochs", "--epochs", metavar="PATH")]
Images = Annotated[str | None, option("images", "--images", metavar="DIR")]
Runs = Annotated[str | None, option("runs", "--runs", metavar="DIR")]
Device = Annotated[str | None, option("device", "--device", metavar="D")]


def path(value: str) -> Path:
    """Read a path as a shell would have: ``~`` is the home folder."""
    return Path(value).expanduser()


def add_cards(folder: str) -> None:
    """Register the encoders that ``--cards`` names, if it names any."""
    if folder:
        from pipelines.encoders.registry import add_cards as add

        add(path(folder))
