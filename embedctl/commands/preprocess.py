"""``embedctl preprocess``: recordings to epochs."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from embedctl import config, options, render
from embedctl.again import note_subjects
from embedctl.options import option, path
from stores.errors import EmbedctlError

if TYPE_CHECKING:
    from pipelines.preprocess.request import PreprocessReport

__all__ = ["preprocess", "tell"]

DATASET = option("preprocess.dataset", "--dataset", "-d", metavar="D")
RAW = typer.Option("--raw", metavar="DIR", help="folder of the recordings [default: raw/DATASET]", show_default=False)
SUBJECT = option("preprocess.subject", "--subject", "-s", metavar="S[,S...]")
RECIPE = option("preprocess.recipe", "--recipe", metavar="R|FILE")
KEEP = option("preprocess.keep", "--keep", metavar="K")
CHECK = typer.Option("--check", help="examine the recordings and write nothing", show_default=False)

SCHEDULER = typer.Option(
    "--scheduler", metavar="ADDRESS", help="write subjects on this dask cluster, tcp://host:8786", show_default=False
)

FOUND_PROBLEMS = 2


def preprocess(
    dataset: Annotated[str | None, DATASET] = None,
    raw: Annotated[str | None, RAW] = None,
    store: options.EpochStorePath = None,
    subject: Annotated[list[str] | None, SUBJECT] = None,
    recipe: Annotated[str | None, RECIPE] = None,
    keep: Annotated[str | None, KEEP] = None,
    check: Annotated[bool, CHECK] = False,
    scheduler: Annotated[str | None, SCHEDULER] = None,
    dry_run: options.DryRun = False,
    json: options.Json = False,
) -> None:
    """Turn recordings into epochs, whitened, in image order.

    Every recording is examined before the first is written. It goes on where it was interrupted, and ends with a
    picture of every subject: evoked response, reliability, whitening.

    \b
      embedctl preprocess --dataset things-eeg2 --check
      embedctl preprocess --dataset things-eeg2 --subject 1..4
    """
    chosen = config.load()
    wanted = chosen.value("preprocess.dataset", dataset)
    if not wanted:
        raise EmbedctlError(
            "preprocess needs to know which dataset",
            "for example --dataset things-eeg2; 'embedctl datasets' lists them",
        )
    from embedctl.progress import shown
    from embedctl.quality_page import draw_pages
    from pipelines.preprocess.preprocess import preprocess as run
    from pipelines.preprocess.request import PreprocessRequest

    request = PreprocessRequest(
        dataset=wanted,
        raw=path(raw) if raw else path(chosen.value("raw")) / wanted,
        store=path(chosen.value("epochs", store)),
        subjects=chosen.value("preprocess.subject", subject) or None,
        recipe=chosen.value("preprocess.recipe", recipe),
        keep=chosen.value("preprocess.keep", keep),
        check=check,
        dry_run=dry_run,
        scheduler=scheduler or "",
    )
    with shown() as progress:
        report = run(request, progress)
        note_subjects(request, [line.subject for line in report.subjects if line.state == "written"])
        pictures = draw_pages(report, progress)
    if json:
        render.as_json(**asdict(report), pictures=pictures)
    else:
        tell(report)
        if pictures:
            render.line(f"{pictures[0].parent}: a picture of how good the epochs are, per subject")
    raise typer.Exit(FOUND_PROBLEMS if report.problems else 0)


def tell(report: "PreprocessReport") -> None:
    """Show what a preprocessing did, found or would do."""
    if all(subject.state == "checked" for subject in report.subjects):
        _tell_found(report)
        return
    columns = ("subject", "state", "train", "test", "channels", "times", "left out", "size")
    rows = [
        (
            s.subject,
            s.state,
            f"{s.train[0]:,} x {s.train[1]}",
            f"{s.test[0]:,} x {s.test[1]}",
            s.n_chans,
            s.n_times,
            ", ".join(f"{n:,} {why}" for why, n in s.counts.items() if n) or "nothing",
            render.size(s.bytes),
        )
        for s in report.subjects
    ]
    render.table(columns, rows, right=("subject", "train", "test", "channels", "times", "size"))
    if any(subject.state == "to do" for subject in report.subjects):
        needed, free = render.size(report.bytes), render.size(report.bytes_free)
        render.line(f"{needed} needed, {free} free; time: unknown")
    render.line(f"{report.store}: {report.dataset}, recipe {report.recipe}, {report.seconds:.1f} s")


def _tell_found(report: "PreprocessReport") -> None:
    """Show what is in every recording, and how many problems there are: they were told on the way."""
    files = [(s.subject, name, counts) for s in report.subjects for name, counts in s.per_file.items()]
    names = list(dict.fromkeys(name for _, _, counts in files for name in counts))
    rows = [(subject, file, *(counts.get(name) for name in names)) for subject, file, counts in files]
    render.table(("subject", "recording", *names), rows, right=("subject", *names))
    n_problems = len(report.problems)
    render.line("no problems" if not n_problems else f"{n_problems} problem{'s' if n_problems > 1 else ''}, see above")
