"""The ways in which an environment is known to be broken although every package of it is installed, with the cure.

A conflict keeps encoders from running, or lets a stranger's file run code; a trap is something else that people stumble
over. Nothing is imported in this process that could bring it down.
"""

import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from embedctl.findings import Finding
from stores.versions import installed_version

__all__ = ["attempt", "conflicts", "last_line", "traps"]

_SECONDS = 120
_HOME = str(Path(__file__).parent.parent)
_OURS = "from pipelines.encoders import torchvision_import"
_SAME_INDEX = "install torch and torchvision of the same release from the same index"
_FLOOR = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?>=([0-9.]+)")


def conflicts() -> list[Finding]:
    """Return what is broken here."""
    found = _too_old() + _dask()
    torch, audio = installed_version("torch"), installed_version("torchaudio")
    # `transformers` and `dreamsim` import torchaudio whenever it is installed; it names no torch it needs.
    if torch and audio and _release(audio) != _release(torch) and attempt("import torchaudio").returncode:
        hint = "pip uninstall torchaudio: embedctl does not use it, and transformers and dreamsim trip over it"
        found.append(Finding("torchaudio", f"{audio} does not import beside torch {torch}", hint))
    if torch and installed_version("torchvision"):
        done = attempt(_OURS)
        if done.returncode:
            found.append(Finding("torchvision", last_line(done.stderr), _SAME_INDEX))
    return found


def traps() -> list[Finding]:
    """Return what does not keep embedctl from working here, and others, or embedctl elsewhere."""
    found = []
    torch = installed_version("torch")
    if torch and installed_version("torchvision"):
        done = attempt("import torchvision")
        if done.returncode and "nms" in done.stderr:
            what = "its compiled operators are for another torch: embedctl does without, transformers does not"
            found.append(Finding("torchvision", what, _SAME_INDEX))
    if torch and installed_version("braindecode"):
        done = attempt("import braindecode.models")
        if done.returncode:
            hint = "pip install 'torch<2.15' and its torchvision and torchaudio: the last torchaudio is of 2.11"
            found.append(Finding("braindecode", f"does not import: {last_line(done.stderr)}", hint))
    if _release(installed_version("numpy")) < (2,) and installed_version("thingsvision"):
        hint = "an environment of its own for thingsvision: it pins numpy<2, which holds zarr back"
        found.append(Finding("thingsvision", f"keeps numpy at {installed_version('numpy')}", hint))
    if sys.version_info < (3, 12):
        what = f"is too old for the newest zarr (here {installed_version('zarr')}); stores are the same"
        found.append(Finding("python 3.11", what, "Python 3.12 or newer, if another program needs the newest zarr"))
    return found


def _too_old() -> list[Finding]:
    """Return the packages that are older than embedctl needs: numcodecs below 0.16.6 unpickles what a store says."""
    try:
        floors = [_FLOOR.match(line) for line in requires("embedctl") or []]
    except PackageNotFoundError:  # run from a checkout that was not installed
        floors = [_FLOOR.match("numcodecs>=0.16.6")]
    found = []
    for floor in filter(None, floors):
        version = installed_version(floor[1])
        if version and _release(version) < _release(floor[2]):
            why = " and lets a stranger's Zarr store run code" if floor[1] == "numcodecs" else ""
            what = f"{version} is older than {floor[2]}{why}"
            found.append(Finding(floor[1], what, f"pip install '{floor[1]}>={floor[2]}'"))
    return found


def _dask() -> list[Finding]:
    """Return whether dask and its scheduler are of one release: they change together."""
    dask, distributed = installed_version("dask"), installed_version("distributed")
    if dask and dask != distributed:
        what = f"dask {dask} beside distributed {distributed or '(not installed)'}"
        return [Finding("distributed", what, f"pip install 'dask[array,distributed]=={dask}'")]
    return []


def _release(version: str) -> tuple[int, ...]:
    """Return the first two or three numbers of a version.

    Examples
    --------
    >>> _release("2.13.0+cpu"), _release("0.16.6") < _release("0.16.10"), _release("")
    ((2, 13, 0), True, ())
    """
    numbers = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, numbers[0].split(".")))[:3] if numbers else ()


def attempt(code: str) -> "subprocess.CompletedProcess[str]":
    """Run a line of Python in a process of its own, which imports nothing from the working folder."""
    code = f"import sys; sys.path.append({_HOME!r}); {code}"
    return subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=_SECONDS)


def last_line(text: str) -> str:
    """Return the last line of what a process said."""
    return (text.strip().splitlines() or ["it ended without a word"])[-1]
