"""What was shown and has no epoch: targets, catch trials, presentations that a recipe does not draw or that were lost.

Each is a row of the subject's table of trials, beside those that became epochs: its column ``kind`` says what it was,
``left_out`` why it has no epoch, null where it has one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

__all__ = ["all_trials", "left_out", "text_column", "why_column"]

UNUSABLE = "unusable channel"


def left_out(kind: str, why: str, session: np.ndarray, columns: Mapping[str, Any]) -> pa.Table:
    """Return a row for each of some events that became no epoch.

    Parameters
    ----------
    kind : str
        ``image``, ``target``, ``catch``, or ``event`` where nobody says what it was.
    why : str
        Why it was left out.
    session : (n,) of int
        Of each.
    columns : mapping
        What else is known of each, by the names of the table of trials.

    Examples
    --------
    >>> left_out("target", "target", np.array([1, 1]), {"onset_sample": [200, 4000]}).to_pylist()[1]
    {'kind': 'target', 'left_out': 'target', 'session': 1, 'valid': False, 'onset_sample': 4000}
    """
    n = len(session)
    own = {"kind": text_column(kind, n), "left_out": text_column(why, n), "session": np.asarray(session, np.int16)}
    return pa.table({**own, "valid": np.zeros(n, bool), **columns})


def text_column(text: str, n: int) -> pa.Array:
    """Return a column that says the same in every row."""
    return pa.array([text] * n, pa.string())


def why_column(valid: np.ndarray) -> pa.Array:
    """Return why trials that were to become epochs did not: null where they did."""
    return pa.array([None if good else UNUSABLE for good in valid.tolist()], pa.string())


def all_trials(tables: Sequence[pa.Table], order: Sequence[str]) -> pa.Table:
    """Return tables of trials as one, sorted by columns; what a table does not say is null.

    Examples
    --------
    >>> shown = pa.table({"image_id": ["a.jpg"], "onset_sample": [300]})
    >>> buzz = left_out("target", "target", np.array([1]), {"onset_sample": [200]})
    >>> all_trials([shown, buzz], ["onset_sample"])["image_id"].to_pylist()
    [None, 'a.jpg']
    """
    whole = pa.concat_tables(tables, promote_options="permissive")
    return whole.sort_by([(name, "descending" if name == "split" else "ascending") for name in order])
