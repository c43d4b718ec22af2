"""Which version of a package is installed, asked without importing it."""

import tomllib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["installed_version"]


@cache  # every file of provenance asks for a dozen, and what is installed stays as it is
def installed_version(package: str) -> str:
    """Return the version of a package, or an empty text where it is not installed.

    Examples
    --------
    >>> installed_version("numpy") > "1", installed_version("no-such-package")
    (True, '')
    """
    try:
        return version(package)
    except PackageNotFoundError:
        return _of_checkout() if package == "embedctl" else ""


def _of_checkout() -> str:
    """Return the version of embedctl where it runs from a checkout that was not installed."""
    path = Path(__file__).parents[1] / "pyproject.toml"
    return str(tomllib.loads(path.read_text())["project"]["version"]) if path.is_file() else ""
