"""Whose a folder is: what lies in it names its embedding, subject or run as well, since folders are renamed by hand."""

from collections.abc import Mapping
from typing import Any

from stores.names import subject_name

__all__ = ["is_of_embedding", "is_of_subject"]


def is_of_embedding(folder: str, ours: Mapping[str, Any]) -> bool:
    """Say whether what a group says of itself is of the embedding its folder is named after.

    Examples
    --------
    >>> said = {"encoder": "hog", "key": "0a1b"}
    >>> is_of_embedding("hog~cells-0a1b", said), is_of_embedding("pixels-0a1b", said), is_of_embedding("hog-ffff", said)
    (True, False, False)
    """
    name, _, key = folder.rpartition("-")
    encoder = name.partition("@")[0].partition("~")[0]
    return ours.get("key", key) == key and ours.get("encoder", encoder) == encoder


def is_of_subject(folder: str, ours: Mapping[str, Any]) -> bool:
    """Say whether what a subject says of itself is what its folder ``DATASET/sub-NN`` is named after.

    Examples
    --------
    >>> is_of_subject("things-eeg2/sub-07", {"dataset": "things-eeg2", "subject": 1})
    False
    """
    number = ours.get("subject")
    return type(number) is int and number >= 0 and f"{ours.get('dataset')}/{subject_name(number)}" == folder
