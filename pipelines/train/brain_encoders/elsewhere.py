"""Brain encoders and losses from elsewhere: a lab's own, ``FILE.py:Class``, and braindecode's, ``braindecode:NAME``.

A file is code, and it runs only where the person named it on the command line (`trust`). A setting, a recipe or a run
may have come from anybody: what they name and the person did not is refused.
"""

from __future__ import annotations

import hashlib
from importlib import import_module
from pathlib import Path
from shlex import quote
from traceback import extract_tb
from types import ModuleType
from typing import TYPE_CHECKING, Any

from stores.errors import EmbedctlError, NotHere, Terminated, UnknownName, suggest

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = [
    "NOT_THEIRS",
    "content",
    "file_of",
    "from_braindecode",
    "from_file",
    "is_in_a_file",
    "is_trusted",
    "line_of",
    "said",
    "trust",
]

NOT_THEIRS = (KeyboardInterrupt, Terminated)
"""What comes from outside while a file of the user's runs; all else, ``sys.exit`` too, the file has raised."""

_trusted: set[Path] = set()


def is_in_a_file(name: str) -> bool:
    """Say whether a name means something in a file: ``FILE.py:NAME``.

    Examples
    --------
    >>> is_in_a_file("mine/net.py:Net"), is_in_a_file("braindecode:EEGNet"), is_in_a_file("nice")
    (True, False, False)
    """
    return name.rpartition(":")[0].endswith(".py")


def file_of(name: str) -> Path:
    """Return the file that ``FILE.py:NAME`` names.

    Examples
    --------
    >>> str(file_of("nets/mine.py:Net"))
    'nets/mine.py'
    """
    return Path(name.rpartition(":")[0])


def trust(*names: str) -> None:
    """Let files run in this process: those that a person named, ``FILE.py`` or ``FILE.py:NAME``, never what a file did.

    Other names, such as those of our own brain encoders, are left alone.
    """
    files = [file_of(name) if is_in_a_file(name) else Path(name) for name in names]
    _trusted.update(file.resolve() for file in files if file.suffix == ".py")


def is_trusted(name: str) -> bool:
    """Say whether the file that ``FILE.py:NAME`` names may run."""
    return file_of(name).resolve() in _trusted


def from_file(name: str, option: str) -> Any:
    """Run a file and return what it calls by a name.

    The text is what runs, and no ``__pycache__`` beside it: a person looks into the text.

    Parameters
    ----------
    name : str
        ``FILE.py:NAME``.
    option : str
        Of the command line, where it can be named.

    Raises
    ------
    EmbedctlError
        If the person has not named the file, there is none, it cannot be run, or has no such name.
    """
    path, attribute = file_of(name), name.rpartition(":")[2]
    if not is_trusted(name):
        raise EmbedctlError(
            f"'{name}' is code, and the command line does not name it",
            f"look into '{path}'; {option} {quote(name)} runs it",
        )
    if not path.is_file():
        raise EmbedctlError(f"no file '{path}'", "name it as FILE.py:NAME, from the current folder")
    module = ModuleType(path.stem)
    module.__file__ = str(path)
    try:
        exec(compile(path.read_bytes(), path, "exec"), vars(module))
    except NOT_THEIRS:
        raise
    except BaseException as problem:  # whatever a person's own code raises
        where = f" in line {line}" if (line := line_of(problem, path)) else ""
        raise EmbedctlError(f"'{path}' cannot be run: {said(problem)}{where}", f"try it: python {path}") from problem
    if not callable(getattr(module, attribute, None)):
        names = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UnknownName(f"'{path}' has no '{attribute}'", suggest(attribute, names))
    return getattr(module, attribute)


def content(name: str) -> str:
    """Return a digest of the file that ``FILE.py:NAME`` names, and nothing for other names: it changes the numbers."""
    if not is_in_a_file(name):
        return ""
    path = file_of(name)
    if not path.is_file():
        raise EmbedctlError(f"no file '{path}'", "name it as FILE.py:NAME, from the current folder")
    return hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()


def from_braindecode(name: str) -> type[nn.Module]:
    """Return a model of braindecode as a brain encoder: its outputs are the embedding.

    Parameters
    ----------
    name : str
        Name of its class, for example ``EEGNet``.

    Raises
    ------
    NotHere
        If braindecode is not installed, or does not import beside this torch.
    UnknownName
        If it has no such model.
    """
    from torch import nn

    try:
        models = import_module("braindecode.models")
    except ModuleNotFoundError:
        raise NotHere("braindecode is not installed", 'pip install "embedctl[braindecode]"') from None
    except Exception as problem:  # torchaudio of another build raises a RuntimeError, others an OSError
        raise NotHere(f"braindecode does not import: {said(problem)}", "embedctl doctor examines torchaudio") from None
    kinds = {key: kind for key, kind in vars(models).items() if isinstance(kind, type) and issubclass(kind, nn.Module)}
    if name not in kinds:
        raise UnknownName(f"braindecode has no model called '{name}'", suggest(name, kinds))

    class FromBraindecode(nn.Module):
        """A braindecode model whose outputs are the embedding."""

        def __init__(self, n_chans: int, n_times: int, dim: int) -> None:
            super().__init__()
            try:
                self.model = kinds[name](n_chans=n_chans, n_times=n_times, n_outputs=dim)
            except Exception as problem:
                raise EmbedctlError(
                    f"braindecode's {name} cannot be built for {n_chans} channels and {n_times} samples: "
                    f"{said(problem)}",
                    "choose another window in the recipe, or another brain encoder",
                ) from problem

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.model(x)
            return out

    return FromBraindecode


def line_of(problem: BaseException, path: Path) -> int:
    """Return the last line of a file of the user's own that took part in what was raised; 0 where none did."""
    lines = [at.lineno for at in extract_tb(problem.__traceback__) if at.filename == str(path)]
    return lines[-1] or 0 if lines else 0


def said(problem: BaseException) -> str:
    """Return what was raised as one line."""
    text = " ".join(str(problem).split())[:200]
    return f"{type(problem).__name__}: {text}" if text else type(problem).__name__
