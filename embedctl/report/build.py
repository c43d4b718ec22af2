"""The report from beginning to end: gather, ask every question, write it down."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from embedctl.outfile import put_file
from embedctl.report.accuracy import accuracy, best_said, pairs_said, ranking_table
from embedctl.report.embeddings import embeddings
from embedctl.report.evidence import evidence
from embedctl.report.gallery import gallery
from embedctl.report.gather import Answers, Material, ReportRequest, gather
from embedctl.report.page import page
from embedctl.report.parts import Report, Section, Table
from embedctl.report.provenance import provenance
from embedctl.report.repetitions import repetitions
from embedctl.report.training import looks, training
from embedctl.report.variation import variation
from pipelines.progress import SILENT, Progress

__all__ = ["build", "write_page"]


def build(request: ReportRequest, progress: Progress = SILENT) -> Report:
    """Build a report of a folder of runs.

    Parameters
    ----------
    request : ReportRequest
        Which runs, and the stores they were made from.
    progress : Progress
        Who listens.

    Raises
    ------
    EmbedctlError
        If there are no runs.
    DamagedStore
        If a file of a run is not the one that was written.
    """
    material = gather(request)
    progress.start("drawing the report", len(material.answers) + 1, "parts")
    sections: list[Section] = []
    for place in range(len(material.answers)):
        sections += _of_condition(place, material)
        progress.advance()
    sections += [looks(material), embeddings(material), provenance(material)]
    progress.advance()
    verdicts = [text for place in range(len(material.answers)) for text in _verdicts(place, material)]
    datasets = ", ".join(dict.fromkeys(str(answers.condition["dataset"]) for answers in material.answers))
    return Report(
        title=f"What brain encoders find: {datasets}",
        verdicts=verdicts,
        notes=material.notes,
        sections=sections,
        ranking=_ranking(material.answers),
        command=_command(request),
    )


def write_page(request: ReportRequest, file: Path, progress: Progress = SILENT) -> int:
    """Build a report, put its page in place of what was there, and return its size in bytes; raises as `build`."""
    data = page(build(request, progress)).encode("utf-8", "replace")
    put_file(file, data)
    return len(data)


def _of_condition(place: int, material: Material) -> list[Section]:
    answers = material.answers[place]
    sections = [
        accuracy(answers),
        _varied(answers, material),
        gallery(answers, material),
        evidence(answers, material.request.runs),
        training(answers),
    ]
    if len(material.answers) == 1:
        return sections
    return [Section(f"{place + 1}. {section.title}", section.text, section.figures) for section in sections]


def _varied(answers: Answers, material: Material) -> Section:
    """Return layers, seeds and repetitions as one section: a picture each, beside one another."""
    parts = variation(answers), repetitions(answers, material.request.runs)
    text = [sentence for part in parts for sentence in part.text]
    figures = [figure for part in parts for figure in part.figures]
    return Section("Layers, seeds and repetitions", text, figures)


def _verdicts(place: int, material: Material) -> list[str]:
    """Return the answers of a condition, numbered as its sections where there are several."""
    answers = material.answers[place]
    number = f"{place + 1}. " if len(material.answers) > 1 else ""
    return [f"{number}{text}" for text in (best_said(answers), pairs_said(answers)) if text]


def _ranking(answers: Sequence[Answers]) -> Table:
    """Return the rankings of all conditions one below the other."""
    tables = [(one.condition, ranking_table(one.ranks)) for one in answers]
    names = ("dataset", "preprocessing", "brain_encoder", "recipe", "config_key", "n_way")
    columns = (*((name.replace("_", " "), "text") for name in names), *(tables[0][1].columns if tables else ()))
    rows = [(*(condition[name] for name in names), *row) for condition, table in tables for row in table.rows]
    return Table(columns, rows)


def _command(request: ReportRequest) -> str:
    """Return the command that builds the report again, wherever it is typed."""
    words = ["embedctl", "report"]
    for name in ("runs", "embeddings", "images"):
        words += [f"--{name}", str(getattr(request, name).absolute())]
    words += ["--pairing", request.pairing] if request.pairing != "matched_base" else []
    setting = f"EMBEDCTL_CARDS={shlex.quote(str(request.cards.absolute()))} " if request.cards else ""
    return setting + shlex.join(words)
