"""What is known of the datasets that can be downloaded: ``datasets.toml``, a table per dataset."""

import tomllib
from importlib.resources import files
from typing import Any

__all__ = ["known_datasets"]


def known_datasets() -> dict[str, dict[str, Any]]:
    """Return what is known of every dataset, by its id.

    Examples
    --------
    >>> known_datasets()["things-eeg2"]["images_per_s"]
    5.0
    """
    return tomllib.loads(files("pipelines").joinpath("datasets.toml").read_text(encoding="utf-8"))
