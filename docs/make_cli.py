"""Write ``docs/cli.md`` from the program itself: ``python docs/make_cli.py``. A test fails when the page is stale."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from embedctl.cli import app
from embedctl.group import __doc__ as ending

PAGE = Path(__file__).parent / "cli.md"
WIDTH = 100
HEAD = """# The command line

Written by `python docs/make_cli.py` from the program itself. Results go to stdout, everything else to
stderr; `--json` prints one object with `schema_version`. A flag wins over an environment variable
(`EMBEDCTL_TRAIN_SEED=0..4`), a variable over `./embedctl.toml`, that over the user's own file, and that
over the default. Lists are commas, ranges (`0..4`, both ends) and repeated options.
"""


def page() -> str:
    """Return the whole page."""
    parts = [HEAD, "## Exit codes\n", _exit_codes()]
    for command, help_text in _commands(typer.main.get_command(app), "embedctl", None):
        parts += [f"## `{command}`\n", f"```text\n{help_text.strip()}\n```\n"]
    return "\n".join(parts)


def _exit_codes() -> str:
    rows = [line.split(maxsplit=1) for line in (ending or "").splitlines() if line[:1].isdigit()]
    return "\n".join(["| code | when |", "|--:|---|", *(f"| {code} | {when} |" for code, when in rows), ""])


def _commands(command: Any, name: str, parent: Any) -> Iterator[tuple[str, str]]:
    context = typer.Context(command, info_name=name.rpartition(" ")[2], parent=parent, terminal_width=WIDTH)
    yield name, command.get_help(context)
    for child, inner in getattr(command, "commands", {}).items():
        yield from _commands(inner, f"{name} {child}", context)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
