"""``embedctl models``: the encoders there are, and what is known about each."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedctl import config, render
from embedctl.group import DefaultList
from embedctl.options import Cards, Json, option, path, switch, use_cards
from embedctl.settings import names
from stores.errors import NotHere, UnknownName, suggest
from stores.names import counted

if TYPE_CHECKING:
    from pipelines.encoders.registry import EncoderSpec

__all__ = ["models"]

models = typer.Typer(cls=DefaultList, rich_markup_mode=None, help="List the image encoders, show, fetch, examine them.")

WRONG = 4  # integrity failure found
WEIGHTS = option("extract.weights", "--weights", metavar="W")


@models.command("list")
def _list(
    family: Annotated[str, typer.Option(metavar="F", help="only this family", show_default=False)] = "",
    aligned_by: Annotated[str, typer.Option(metavar="M", help="only what method M aligned", show_default=False)] = "",
    pairs: Annotated[
        bool, typer.Option("--pairs", help="aligned encoders beside their bases", show_default=False)
    ] = False,
    cards: Cards = None,
    json: Json = False,
) -> None:
    """List every encoder of the registry.

    \b
      embedctl models
      embedctl models --family classical
      embedctl models --pairs
      embedctl models list --json
    """
    from pipelines.encoders.registry import registry

    use_cards(config.load(), cards)
    specs = list(registry().values())
    specs = _only(specs, "family", family)
    specs = _only(specs, "aligned_by", aligned_by)
    if pairs:
        specs = [spec for spec in specs if spec.aligned_by]
    if json:
        render.as_json(models=[spec.table() for spec in specs])
    elif pairs:
        leak = {True: "THINGS or brain data", False: ""}
        render.table(
            ("encoder", "aligned by", "base in the literature", "matched base", "match", "control", "leakage"),
            [(s.id, s.aligned_by, s.base, s.matched_base, s.match, s.control, leak[s.contaminated]) for s in specs],
        )
        render.note("only exact matches differ in nothing but the alignment: 'embedctl compare' uses those")
    else:
        columns = ("encoder", "family", "dim", "aligned by", "licence")
        render.table(columns, [(s.id, s.family, s.dim, s.aligned_by, s.licence) for s in specs], right=("dim",))
        render.note(f"{counted(len(specs), 'encoder')}; 'embedctl models show ID' tells more about one")


def _only(specs: "list[EncoderSpec]", field: str, wanted: str) -> "list[EncoderSpec]":
    if not wanted:
        return specs
    known = {getattr(spec, field) for spec in specs} - {""}
    if wanted not in known:
        what = {"family": "of the family", "aligned_by": "aligned by"}[field]
        raise UnknownName(f"no encoder is {what} '{wanted}'", suggest(wanted, known))
    return [spec for spec in specs if getattr(spec, field) == wanted]


@models.command()
def show(
    encoder: Annotated[str, typer.Argument(metavar="ID", show_default=False, help="an encoder's id")],
    cards: Cards = None,
    json: Json = False,
) -> None:
    """Show everything the registry knows about one encoder.

    \b
      embedctl models show resnet50-tv
    """
    from pipelines.encoders.registry import find

    use_cards(config.load(), cards)
    known = find(encoder).table()
    if json:
        render.as_json(model=known)
        return
    width = max(map(len, known))
    for field, value in known.items():
        if value not in ("", None, (), {}):
            for index, text in enumerate(_said(value)):
                render.line(f"{field if not index else '':{width}}  {text}")


@models.command()
def pull(
    encoders: Annotated[list[str], typer.Argument(metavar="ID...", show_default=False, help="encoders' ids")],
    to: Annotated[
        str,
        typer.Option(
            "--to", metavar="DIR", help="folder to fill, for embedctl extract --weights DIR", show_default=False
        ),
    ] = "",
    cards: Cards = None,
    json: Json = False,
) -> None:
    """Fetch published weights ahead, for a computer that will be offline.

    Without --to they go where torch and the hub keep theirs, and every later run finds them.

    \b
      embedctl models pull clip-vitb32 resnet50-tv
      embedctl models pull clip-vitb32 --to /scratch/weights
    """
    from embedctl.progress import shown
    from pipelines.encoders.registry import find
    from pipelines.encoders.weights import pull as fetch

    use_cards(config.load(), cards)
    specs = [find(name) for name in names(encoders)]
    folder = path(to) if to else None
    files = {}
    with shown() as progress:
        for spec in specs:
            try:
                files[spec.id] = [str(file) for file in fetch(spec, folder, progress=progress)]
            except NotHere as problem:
                hint = f"try it where there is internet; 'embedctl models show {spec.id}' says where the weights are"
                raise NotHere(problem.what, problem.hint or hint) from problem
    if json:
        render.as_json(files=files)
        return
    for encoder, found in files.items():
        for file in found or ["needs no weights"]:
            render.line(f"{encoder}: {file}")


@models.command()
def doctor(
    encoder: Annotated[str, typer.Argument(metavar="ID", show_default=False, help="an encoder's id")],
    weights: Annotated[str | None, WEIGHTS] = None,
    offline: Annotated[bool | None, switch("extract.offline", "--offline")] = None,
    cards: Cards = None,
    json: Json = False,
) -> None:
    """Build one encoder, and check its weights, pixels and numbers.

    It ends with code 4 when something is not as the registry says. The numbers of a probe image are known for the
    random weights of seed 0.

    \b
      embedctl models doctor resnet50-tv
      embedctl models doctor resnet50-tv --weights random:0
    """
    from embedctl.progress import shown
    from pipelines.encoders.doctor import examine
    from pipelines.encoders.registry import find

    chosen = config.load()
    use_cards(chosen, cards)
    with shown() as progress:
        checks = examine(
            find(encoder),
            chosen.value("extract.weights", weights),
            offline=chosen.value("extract.offline", offline),
            progress=progress,
        )
    wrong = [check for check in checks if check.problem]
    if json:
        render.as_json(encoder=find(encoder).id, checks=[asdict(check) for check in checks])
    else:
        render.table(("check", "found", ""), [(c.what, c.found, "wrong" if c.problem else "") for c in checks])
        for check in wrong:
            render.note(f"wrong: {check.what}: {check.problem}")
    raise typer.Exit(WRONG if wrong else 0)


def _said(value: Any) -> list[str]:
    """Return a value as lines: a table on one, a list on several."""
    if isinstance(value, dict):
        return [
            ", ".join(f"{key} {inner}" for key, inner in value.items() if inner is False or inner not in ("", None, 0))
        ]
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], (dict, list, tuple)):
        return [text for inner in value for text in _said(inner)]
    if isinstance(value, (list, tuple)):
        return [", ".join(map(str, value))]
    return ["yes" if value is True else str(value)]
