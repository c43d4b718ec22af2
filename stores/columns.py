"""The columns of the table of results, and how the summaries of runs fill them."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["COLUMNS", "MAY_BE_EMPTY", "results_schema", "rows_table", "unsaid"]

COLUMNS: dict[str, str] = {
    **dict.fromkeys(("run_id", "dataset", "modality"), "string"),
    "subject": "int64",
    **dict.fromkeys(("protocol", "train_subjects", "embedding", "encoder", "aligned_by", "base"), "string"),
    **dict.fromkeys(("matched_base", "match", "weights", "brain_encoder", "image_head", "recipe"), "string"),
    "seed": "int64",
    **dict.fromkeys(("split", "checkpoint", "channels", "window", "trial_norm", "train_on"), "string"),
    "test_repetitions": "int64",
    "gallery": "string",
    "n_way": "int64",
    **dict.fromkeys(("top1", "top3", "top5", "median_rank", "mrr", "val_top1", "concept_top1"), "float64"),
    **dict.fromkeys(("last_top1", "csls_top1", "sinkhorn_top1", "noise_ceiling", "chance"), "float64"),
    **dict.fromkeys(("n_queries", "steps"), "int64"),
    "seconds": "float64",
    **dict.fromkeys(("embedding_key", "epochs_key", "images_key", "config_key", "version", "started"), "string"),
    "preprocessing": "string",
    "simulated": "bool",
}
"""Columns of the results table, in order, with their Arrow types. Accuracies are fractions in [0, 1]."""
MAY_BE_EMPTY = {
    *("train_subjects", "split", "checkpoint", "channels", "window", "trial_norm", "train_on", "test_repetitions"),
    *("concept_top1", "last_top1", "csls_top1", "sinkhorn_top1", "noise_ceiling", "preprocessing", "simulated"),
}
"""What is shown where it is there. All else has a value in every row: runs are told apart, grouped and ranked by it."""
_ROUNDING = 1e-9
_BEYOND_ONE = {"median_rank", "seconds"}
_POSITIVE = {"n_way", "test_repetitions"}


def results_schema() -> "pa.Schema":
    """Return the Arrow schema of the results table."""
    import pyarrow as pa

    return pa.schema([(name, pa.type_for_alias(kind)) for name, kind in COLUMNS.items()])


def rows_table(summaries: Sequence[Mapping[str, Any]]) -> "pa.Table":
    """Return one row per summary.

    Raises
    ------
    ValueError
        If a summary does not fit the columns.
    """
    import pyarrow as pa

    columns = []
    for field in results_schema():
        try:
            columns.append(pa.array([summary.get(field.name) for summary in summaries], field.type))
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            raise ValueError(f"the summary's {field.name} is not {field.type}: {error}") from error
    return pa.Table.from_arrays(columns, schema=results_schema())


def unsaid(table: "pa.Table") -> tuple[int, str] | None:
    """Return the first row, and its column, where a value is missing or impossible; else None.

    A figure that is no finite number is none, nor is a fraction above one, nor a gallery of no images.
    """
    for name, kind in COLUMNS.items():
        column, lacks = table[name], name not in MAY_BE_EMPTY
        if kind != "float64" and name not in _POSITIVE and not (lacks and column.null_count):
            continue  # it is not looked at value by value, nor by functions of Arrow, which import pandas
        for row, value in enumerate(column.to_pylist()):
            is_wrong = lacks if value is None else not _can_be(name, value)
            if is_wrong:
                return row, name
    return None


def _can_be(name: str, value: Any) -> bool:
    if name in _POSITIVE:
        return bool(value > 0)
    if COLUMNS[name] != "float64":
        return True
    return bool(0 <= value <= 1 + _ROUNDING) or (name in _BEYOND_ONE and math.isfinite(value))
