"""Which value holds, and who said so: flag > environment > ./embedctl.toml > user file > default.

>>> config = load(environ={"EMBEDCTL_TRAIN_SEED": "0..4"}, files=())
>>> config.value("train.seed"), config.origin("train.seed")
((0, 1, 2, 3, 4), 'EMBEDCTL_TRAIN_SEED')
>>> config.value("train.seed", flag="7")
(7,)
"""

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedctl.settings import SETTINGS, Setting, is_all
from stores.errors import EmbedctlError, suggest

__all__ = ["PROJECT_FILE", "Config", "load", "user_file", "written_out"]

PROJECT_FILE = "embedctl.toml"
DEFAULT = "default"


def user_file() -> Path:
    """Return the file that holds a user's own defaults, whether or not it exists."""
    from platformdirs import user_config_path

    return user_config_path("embedctl") / PROJECT_FILE


@dataclass(frozen=True)
class Config:
    """The settings that hold in this folder, each with its origin.

    Parameters
    ----------
    said : dict
        Key to (value as it was said, who said it); a key nobody spoke of is absent.
    """

    said: Mapping[str, tuple[Any, str]]

    def value(self, key: str, flag: Any = None) -> Any:
        """Return the value of ``key``; what the command line says wins.

        Raises
        ------
        EmbedctlError
            If what was said cannot be read, or a flag names nothing.
        """
        setting = SETTINGS[key]
        if flag is not None and flag != []:
            name = "--" + key.rpartition(".")[2]
            value = setting.read(flag, name)
            # An empty shell variable, as a rule: it must not turn into everything there is.
            if value == () and not is_all(flag):
                raise EmbedctlError(f"{name} names nothing", f"it takes {setting.expects}; left out, the default holds")
            return value
        if key in self.said:
            return setting.read(*self.said[key])
        return setting.default

    def origin(self, key: str) -> str:
        """Return who decided ``key``: a variable, a file, or ``default``."""
        return self.said[key][1] if key in self.said else DEFAULT


def load(environ: Mapping[str, str] | None = None, files: Sequence[Path] | None = None) -> Config:
    """Read what holds here.

    Parameters
    ----------
    environ : mapping, optional
        Environment; this process's own by default.
    files : sequence of Path, optional
        Configuration files, the strongest first; ``./embedctl.toml`` and the user's by default.

    Raises
    ------
    EmbedctlError
        For a file that is not TOML, and for a key or a variable nobody knows.
    """
    said: dict[str, tuple[Any, str]] = {}
    for file in reversed([Path(PROJECT_FILE), user_file()] if files is None else files):
        if file.is_file():
            said |= {key: (value, str(file)) for key, value in _read(file).items()}
    by_variable = {setting.variable: setting for setting in SETTINGS.values()}
    for variable, text in sorted((os.environ if environ is None else environ).items()):
        if variable.startswith("EMBEDCTL_"):
            if variable not in by_variable:
                raise EmbedctlError(f"no setting is called {variable}", suggest(variable, by_variable))
            said[by_variable[variable].key] = (text, variable)
    return Config(said)


def _read(file: Path) -> dict[str, Any]:
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as problem:
        raise EmbedctlError(f"{file} is not TOML: {problem}", "'embedctl init' writes one to start from") from None
    found: dict[str, Any] = {}
    for name, value in tables.items():
        section = value if isinstance(value, dict) else {}
        found |= {f"{name}.{key}": inner for key, inner in section.items()} if section else {name: value}
    for key, value in found.items():
        if key not in SETTINGS and value != {}:
            raise EmbedctlError(f"{file}: no setting is called '{key}'", suggest(key, SETTINGS))
    return {key: value for key, value in found.items() if key in SETTINGS}


def written_out() -> str:
    """Return ``embedctl.toml`` with every default spelled out and explained."""
    lines = [
        "# Settings of this folder. A flag wins over an environment variable (EMBEDCTL_TRAIN_SEED=0..4),",
        "# a variable over this file, this file over the user's own, and that over the default.",
        "# Every value below is the default: change it, or delete the line.",
    ]
    section = ""
    for setting in SETTINGS.values():
        head, dot, name = setting.key.rpartition(".")
        if head != section or len(lines) == 3:
            lines += ["", f"[{head}]"] if dot else [""]
            section = head
        choices = f" ({' or '.join(setting.choices)})" if setting.choices else ""
        lines += [f"# {setting.about}{choices}", f"{name} = {_toml(setting)}"]
    return "\n".join(lines) + "\n"


def _toml(setting: Setting) -> str:
    value = setting.default
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return "[" + ", ".join(f'"{item}"' if isinstance(item, str) else str(item) for item in value) + "]"
    return f'"{value}"'
