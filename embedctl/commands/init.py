"""``embedctl init``: the settings of a folder, all of them, spelled out."""

from typing import Annotated

import typer

from embedctl import config, render
from embedctl.options import path
from stores.errors import EmbedctlError

__all__ = ["init"]


def init(
    folder: Annotated[str, typer.Argument(metavar="DIR", show_default=False, help="folder to settle in")] = ".",
) -> None:
    """Write embedctl.toml with every default spelled out.

    It changes nothing until you change it.

      embedctl init my-study && cd my-study
    """
    file = path(folder) / config.PROJECT_FILE
    if file.exists():
        raise EmbedctlError(f"{file} is there already", "edit it, or delete it first")
    from stores.commits import put_bytes

    put_bytes(file, config.written_out().encode())
    render.line(f"wrote {file}")
