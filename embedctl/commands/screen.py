"""``embedctl screen``: every embedding in seconds, by ridge regression."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from embedctl import config, options, render
from embedctl.options import path, place
from embedctl.seen import say_seen, say_simulated
from stores.errors import EmbedctlError

if TYPE_CHECKING:
    from pipelines.screen.request import ScreenReport

__all__ = ["screen"]

TEST = typer.Option("--test", help="score on the test images too, and count who has seen them", show_default=False)


def screen(
    brain: options.Brain = None,
    dataset: options.Dataset = None,
    model: options.Model = None,
    subject: options.Subject = None,
    recipe: options.Recipe = None,
    join: options.Join = None,
    test: Annotated[bool, TEST] = False,
    embeddings: options.Embeddings = None,
    epochs: options.Epochs = None,
    runs: options.Runs = None,
    json: options.Json = False,
) -> None:
    """Rank all embeddings in seconds, without training.

    Ridge regression from recordings to each embedding, its penalty chosen on training concepts that are held out, and
    scored on these. The recipe says which channels and times are used.

    \b
      embedctl screen --brain eeg
      embedctl screen --brain eeg --subject 1 --test
    """
    chosen = config.load()
    options.use_cards(chosen)
    kind = chosen.value("train.brain", brain)
    if not kind:
        raise EmbedctlError("screen needs to know the kind of recording", "--brain eeg, --brain meg or --brain fmri")
    from embedctl.progress import shown
    from pipelines.screen.request import ScreenRequest
    from pipelines.screen.screen import screen as run

    request = ScreenRequest(
        brain=kind,
        models=chosen.value("train.model", model) or None,
        subjects=chosen.value("train.subject", subject) or None,
        recipe=chosen.value("train.recipe", recipe),
        dataset=chosen.value("train.dataset", dataset),
        embeddings=place(chosen.value("embeddings", embeddings)),
        epochs=path(chosen.value("epochs", epochs)),
        runs=path(chosen.value("runs", runs)),
        join=chosen.value("train.join", join),
        test=test,
    )
    with shown() as progress:
        report = run(request, progress)
    if json:
        render.as_json(**asdict(report))
    else:
        tell(report)


def tell(report: "ScreenReport") -> None:
    """Show what a screen found, best first."""
    from pipelines.screen.screen import PENALTIES
    from pipelines.train.origin import marked

    figures = ["subjects", "top-1", *_top5(report.n_way), "chance", "penalty"]
    n_test = round(1 / report.test_chance) if report.seen and report.test_chance else 0
    figures += ["TEST top-1", *(f"TEST {one}" for one in _top5(n_test)), "TEST chance"] if report.seen else []
    rows = [
        (
            place,
            marked(row.embedding, row.weights),
            row.aligned_by,
            len(row.per_subject),
            render.percent(row.top1),
            *(render.percent(row.top5) for _ in _top5(report.n_way)),
            render.percent(report.chance),
            " to ".join(f"{one:g}" for one in sorted({min(row.penalties.values()), max(row.penalties.values())})),
            *((render.percent(row.test_top1),) if report.seen else ()),
            *(render.percent(row.test_top5) for _ in _top5(n_test) if report.seen),
            *((render.percent(report.test_chance),) if report.seen else ()),
        )
        for place, row in enumerate(report.rows, start=1)
    ]
    up_to = "" if abs(report.chance * report.n_way - 1) < 1e-9 else "up to "  # all rounds are of one size, or not
    render.line(
        f"{report.dataset}, ridge regression, recipe {report.recipe}, {up_to}{report.n_way}-way retrieval: "
        f"{report.n_queries} training images per subject, held out by concept"
    )
    render.table(("", "embedding", "aligned by", *figures), rows, right=("", *figures))
    ends = {PENALTIES[0], PENALTIES[-1]}
    if any(ends & set(row.penalties.values()) for row in report.rows):
        render.note(f"a penalty of {PENALTIES[0]:g} or {PENALTIES[-1]:g} is the last that was tried")
    if report.noise_ceilings:
        found = list(report.noise_ceilings.values())
        span = " to ".join(dict.fromkeys(map(render.percent, (min(found), max(found)))))
        render.note(f"split-half reliability of the test recordings {span}; no bound")
    if report.seen:
        say_seen({report.dataset: report.seen})
    if report.simulated:
        say_simulated({report.dataset: report.simulated})
    render.note(f"{report.seconds:.1f} s; 'embedctl train --brain KIND --model E' trains a brain encoder on the best")


def _top5(n_way: int) -> list[str]:
    """Return the heading of top-5, where it says anything: among five or fewer it is 100 % of a guess."""
    return ["top-5"] if n_way > 5 else []
