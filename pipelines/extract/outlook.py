"""What an extraction will take, told before it begins: room on the disk, weights to fetch."""

from collections.abc import Mapping

import numpy as np

from pipelines.encoders.fetch import here
from pipelines.extract.plan import bytes_needed
from pipelines.extract.request import ExtractReport, ExtractRequest
from pipelines.extract.survey import Survey
from stores.disk import bytes_free, require_room
from stores.names import EmbeddingName

__all__ = ["check_room", "look_ahead"]


def look_ahead(
    request: ExtractRequest, found: Survey, report: ExtractReport, seconds_per_image: Mapping[str, float]
) -> None:
    """Fill the report of a dry run. Nothing is written or fetched.

    Parameters
    ----------
    request : ExtractRequest
        What is asked.
    found : Survey
        What is to do.
    report : ExtractReport
        To fill.
    seconds_per_image : mapping of str to float
        How long an image took last time, by group.
    """
    lacking = [target.group for target in found.lacking]
    if all(group in seconds_per_image for group in lacking):
        report.seconds_expected = sum(seconds_per_image[group] * int(found.to_do[group].sum()) for group in lacking)
    widths = {target.name: target.dim for target in found.targets if target.dim}
    for target in found.targets:
        if target.name not in widths:
            from pipelines.encoders.build import build  # torch: nobody wrote down how wide a layer is

            shapes = build(target.spec, weights="random:0", taps=[target.name], device="meta")
            widths[target.name] = shapes.dims[target.name]
    for line, target in zip(report.embeddings, found.targets, strict=True):
        line.dim = widths[target.name]
    _measure(report, found, widths)
    if request.weights == "published":
        missing = {t.spec.id: [file for file in t.spec.weights if not here(file)] for t in found.targets}
        report.to_fetch = {encoder: sum(file.bytes for file in files) for encoder, files in missing.items() if files}


def check_room(report: ExtractReport, found: Survey, widths: Mapping[EmbeddingName, int]) -> None:
    """Compare what the rows take with what is free.

    Raises
    ------
    CannotWrite
        If that is too little.
    """
    _measure(report, found, widths)
    hint = "free some space, or name a store on another disk"
    require_room(report.store, report.bytes_needed, report.bytes_free, hint)


def _measure(report: ExtractReport, found: Survey, widths: Mapping[EmbeddingName, int]) -> None:
    sizes = {t.group: widths[t.name] * np.dtype(t.dtype).itemsize for t in found.targets if t.name in widths}
    tasks = [task for _, tasks in found.passes() for task in tasks]
    report.bytes_needed = bytes_needed(tasks, sizes, found.started, found.block_rows)
    report.bytes_free = bytes_free(report.store)
