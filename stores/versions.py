"""Which version of a package is installed, asked without importing it."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version

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
    except PackageNotFoundError:  # also embedctl itself, run from a checkout that was not installed
        return ""
