"""Brain encoders and losses from elsewhere: a lab's own, ``FILE.py:Class``, and braindecode's, ``braindecode:NAME``."""

from __future__ import annotations

import hashlib
from importlib import import_module, util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stores.errors import EmbedctlError, NotHere, UnknownName, suggest

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["content", "from_braindecode", "from_file", "is_in_a_file"]


def is_in_a_file(name: str) -> bool:
    """Say whether a name means something in a file: ``FILE.py:NAME``.

    Examples
    --------
    >>> is_in_a_file("mine/net.py:Net"), is_in_a_file("braindecode:EEGNet"), is_in_a_file("nice")
    (True, False, False)
    """
    return name.rpartition(":")[0].endswith(".py")


def from_file(name: str) -> Any:
    """Run a file and return what it calls by a name.

    Parameters
    ----------
    name : str
        ``FILE.py:NAME``.

    Raises
    ------
    EmbedctlError
        If there is no such file, it cannot be run, or has no such name.
    """
    path, _, attribute = name.rpartition(":")
    spec = util.spec_from_file_location(Path(path).stem, path)
    if not Path(path).is_file() or spec is None or spec.loader is None:
        raise EmbedctlError(f"no file '{path}'", "name it as FILE.py:NAME, from the current folder")
    module = util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as problem:  # whatever a person's own code raises
        raise EmbedctlError(f"'{path}' cannot be run: {_line(problem)}", f"try it: python {path}") from problem
    if not callable(getattr(module, attribute, None)):
        names = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UnknownName(f"'{path}' has no '{attribute}'", suggest(attribute, names))
    return getattr(module, attribute)


def content(name: str) -> str:
    """Return a digest of the file that ``FILE.py:NAME`` names, and nothing for other names: it changes the numbers."""
    if not is_in_a_file(name):
        return ""
    path = Path(name.rpartition(":")[0])
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
        raise NotHere(f"braindecode does not import: {_line(problem)}", "embedctl doctor examines torchaudio") from None
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
                    f"{_line(problem)}",
                    "choose another window in the recipe, or another brain encoder",
                ) from problem

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.model(x)
            return out

    return FromBraindecode


def _line(problem: Exception) -> str:
    return f"{type(problem).__name__}: {' '.join(str(problem).split())[:200]}"
