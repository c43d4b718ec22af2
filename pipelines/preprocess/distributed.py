"""Subjects on a dask cluster: a worker reads, whitens and writes a whole one, and answers with its line of the report.

Every computer of the cluster sees recordings and store under the same paths. Subjects are locked in the store one by
one, so that workers meet nowhere else; a lost worker's subject goes on at its next block of images on another.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pipelines.cluster import connected
from pipelines.preprocess.request import PreprocessRequest, SubjectReport
from pipelines.progress import Progress

__all__ = ["write_on_cluster"]


def write_on_cluster(request: PreprocessRequest, lines: Sequence[SubjectReport], progress: Progress) -> None:
    """Write subjects on the workers of ``request.scheduler``, and complete their lines of the report.

    Raises
    ------
    EmbedctlError
        If no scheduler answers.
    """
    alone = replace(
        request,
        raw=request.raw_folder.resolve(),
        store=request.store.resolve(),
        recipe=str(Path(request.recipe).resolve()) if Path(request.recipe).is_file() else request.recipe,
        scheduler="",
    )
    progress.start("subjects on the cluster", len(lines), "subjects")
    with connected(request.scheduler) as client:
        from distributed import as_completed

        asked = {
            client.submit(_write_one, replace(alone, subjects=(line.subject,)), pure=False): line for line in lines
        }
        for future in as_completed(asked, loop=client.loop):
            line, made = asked[future], future.result()
            line.state, line.seconds, line.counts, line.notes = made.state, made.seconds, made.counts, made.notes
            progress.advance()


def _write_one(request: PreprocessRequest) -> SubjectReport:
    from pipelines.preprocess.preprocess import preprocess

    return preprocess(request).subjects[0]
