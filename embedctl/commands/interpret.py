"""``embedctl interpret``: when, at which frequencies and where the evidence for the right image lies."""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from json import loads as parse_json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedctl import config, options, render
from embedctl.commands.compare import PAIRING, said
from embedctl.options import option, path, place
from stores.commits import put_json

if TYPE_CHECKING:
    from pipelines.interpret.clusters import Cluster
    from pipelines.interpret.pairs import PairedProfile, PairTest
    from pipelines.interpret.profile import Profile
    from pipelines.interpret.request import InterpretReport

__all__ = ["found_at", "interpret"]

METHOD = option("interpret.method", "--method", metavar="M")
MODEL = option("interpret.model", "--model", "-m", metavar="E[,E...]")
SUBJECT = option("interpret.subject", "--subject", "-s", metavar="S[,S...]")
SEED = option("interpret.seed", "--seed", metavar="N[,N...]")
JOIN = option("train.join", "--join", metavar="J")
HALF = "half by, ms"  # later than the base


def interpret(
    method: Annotated[str | None, METHOD] = None,
    model: Annotated[list[str] | None, MODEL] = None,
    subject: Annotated[list[str] | None, SUBJECT] = None,
    seed: Annotated[list[str] | None, SEED] = None,
    pairing: Annotated[str, PAIRING] = "matched_base",
    join: Annotated[str | None, JOIN] = None,
    embeddings: options.Embeddings = None,
    epochs: options.Epochs = None,
    runs: options.Runs = None,
    dry_run: options.DryRun = False,
    json: options.Json = False,
) -> None:
    """Show when, at which frequencies and where the evidence lies.

    Each run's evidence for the right image is divided over times, bands and sensors, checked against random weights,
    and taken away part by part. Aligned encoders are compared with their bases. Pictures go to RUNS/interpret.

    \b
      embedctl interpret
      embedctl interpret --model gabor-pyramid,hog --subject 1
      embedctl interpret --method paper-gradcam
    """
    from embedctl.progress import shown
    from pipelines.interpret.interpret import interpret as run
    from pipelines.interpret.request import InterpretRequest

    chosen = config.load()
    request = InterpretRequest(
        method=chosen.value("interpret.method", method),
        models=chosen.value("interpret.model", model),
        subjects=chosen.value("interpret.subject", subject),
        seeds=chosen.value("interpret.seed", seed),
        pairing=pairing,
        embeddings=place(chosen.value("embeddings", embeddings)),
        epochs=path(chosen.value("epochs", epochs)),
        runs=path(chosen.value("runs", runs)),
        join=chosen.value("train.join", join),
        dry_run=dry_run,
    )
    with shown() as progress:
        report = run(request, progress)
    asked = [*request.models, *(f"subject-{s}" for s in request.subjects), *(f"seed-{s}" for s in request.seeds)]
    pictures = [] if dry_run else _draw(report, asked)
    if not dry_run:
        _keep(report)
    if json:
        render.as_json(**_plain(report), pictures=[str(picture) for picture in pictures])
    else:
        _tell(report, pictures)
    render.skipped(report.skipped, len(report.to_do) + len(report.already) + len(report.skipped), "runs")
    raise typer.Exit(3 if report.skipped else 0)


def _tell(report: "InterpretReport", pictures: Sequence[Path]) -> None:
    n = len(report.to_do) + len(report.already)
    if report.dry_run:
        render.line(f"{n:,} runs: {len(report.already):,} interpreted already, {len(report.to_do):,} to do")
        return
    for condition, profiles in groupby(report.profiles, key=lambda profile: profile.condition):
        render.line(said(condition))
        _profiles(list(profiles), report.method)
        _pairs([pair for pair in report.pairs if pair.condition == condition])
    for text in report.notes:
        render.note(f"note: {text}")
    render.note(f"{report.runs}: {n:,} runs, {len(report.to_do):,} of them interpreted now, in {report.seconds:.1f} s")
    if pictures:
        render.note(f"pictures are in {pictures[0].parent}")


def _profiles(profiles: "Sequence[Profile]", method: str) -> None:
    paper = method == "paper-gradcam"
    timed = bool(len(profiles[0].times))
    when = ("peak as drawn", "peak in truth") if paper else ("clusters above zero", "half by")
    columns = ["embedding", "subject", "top-1", "evidence"]
    columns += [*when, "strongest band"] if timed else []
    columns += [] if paper else ["strongest sensors", "most lost without"]
    rows = []
    for p in profiles:
        row: list[object] = [p.embedding, p.subject, render.percent(p.top1), "" if paper else f"{p.evidence:.2f} nats"]
        if timed:
            first = (
                (_ms(p.peak), _ms(p.corrected_peak))
                if paper
                else (_windows(p.windows), _ms(p.half) if p.windows else "")
            )
            row += [*first, _strongest(p.bands, p.band_p)]
        if not paper:
            row += [_strongest(p.groups, p.group_p) if p.groups else _strongest(p.sensors, p.sensor_p)]
            row.append(_most_lost(p.occlusion) if p.is_found else "")
        rows.append(row)
    render.table(
        columns, rows, right=("subject", "top-1", "evidence", "half by", *when) if timed else ("subject", "top-1")
    )


def _pairs(pairs: "Sequence[PairedProfile]") -> None:
    if not pairs:
        return
    render.line()
    columns = ("aligned", "base", "over", "n", "aligned has more", "has less", HALF, "bands (p corrected)", "regions")
    rows = []
    for pair in pairs:
        for test in pair.tests:
            over = f"{test.over}{', both found' if test.matched else ''}"
            more, less, bands, groups = _differs(test)
            rows.append((pair.embedding, pair.base, over, test.n, more, less, _later(pair, test), bands, groups))
    render.table(columns, rows, right=("n", HALF))
    for pair in pairs:
        for text in filter(None, (pair.note, *pair.notes)):
            render.note(f"{pair.embedding} and {pair.base}: {text}")


def _differs(test: "PairTest") -> tuple[str, ...]:
    """Say where the aligned side has more, and where less."""
    more, less = ([w for w in test.windows if w.sign == sign] for sign in (1, -1))
    parts = (
        ", ".join(
            f"{name} {100 * p.difference:+.1f} points ({p.p_holm:.2g})" for name, p in found.items() if p.p_holm <= 0.05
        )
        for found in (test.bands, test.groups)
    )
    return (_windows(more), _windows(less), *(text or "no difference shown" for text in parts))


def _later(pair: "PairedProfile", test: "PairTest") -> str:
    """Say by how much later half of the aligned side's evidence has come, of all images."""
    alone = {f"images of subject {subject}": later for subject, later in pair.half.items()}
    later = [alone[test.over]] if test.over in alone else list(pair.half.values())
    if test.matched or not later or (test.over not in alone and test.over != "subjects"):
        return ""
    return f"{1000 * sum(later) / len(later):+.0f}"


def _windows(windows: "Sequence[Cluster]") -> str:
    return ", ".join(f"{1000 * w.first:.0f} to {1000 * w.last:.0f} ms" for w in windows) or "nowhere"


def _ms(seconds: float | None) -> str:
    return "" if seconds is None else f"{1000 * seconds:.0f} ms"


def _strongest(shares: dict[str, float], p: dict[str, float]) -> str:
    """Name the largest share of those that are shown to be above zero, or of all where nothing was tested."""
    found = {name: value for name, value in shares.items() if p.get(name, float(bool(p))) <= 0.05}
    if not found:
        return "none"
    name = max(found, key=found.__getitem__)
    return f"{name} {100 * found[name]:.0f} %"


def _most_lost(parts: Sequence[dict[str, Any]]) -> str:
    """Name, of each kind, the part whose absence costs most."""
    kinds: dict[str, dict[str, Any]] = {}
    for part in parts:
        if part["kind"] not in kinds or part["lost"] > kinds[part["kind"]]["lost"]:
            kinds[part["kind"]] = part
    return ", ".join(part["part"] for part in kinds.values() if part["lost"] > 0)


def _draw(report: "InterpretReport", asked: Sequence[str]) -> list[Path]:
    """Write the pictures of every condition, and return where they are: those of a narrower call beside the whole's."""
    from embedctl.figures import bands_figure, pair_figure, png, sensors_figure, time_figure
    from stores.commits import digest, put_bytes

    only, written = "_".join(asked), []
    if len(only) > 60:
        only = f"{only[:40]}-{digest(only.encode())[:8]}"
    for condition, same in groupby(report.profiles, key=lambda profile: profile.condition):
        profiles = list(same)
        name = "_".join(str(condition[part]) for part in ("dataset", "brain_encoder", "recipe", "config_key"))
        folder = report.runs / "interpret" / report.method / name.replace("/", "-")
        folder = folder / f"only-{only}".replace("/", "-").replace(":", "~") if only else folder
        timed, placed = bool(len(profiles[0].times)), bool(profiles[0].sensors)
        drawn = {"time.png": time_figure(profiles), "bands.png": bands_figure(profiles)} if timed else {}
        drawn |= {"sensors.png": sensors_figure(profiles)} if placed else {}
        for pair in report.pairs:
            if pair.condition == condition and timed:
                drawn[f"{pair.embedding}-minus-{pair.base}.png".replace(":", "~")] = pair_figure(pair)
        for file, figure in drawn.items():
            put_bytes(folder / file, png(figure))
            written.append(folder / file)
    return written


def found_at(runs: Path, method: str) -> Path:
    """Return the file that keeps what the last interpretation found, for the report."""
    return runs / "interpret" / method / "found.json"


def _keep(report: "InterpretReport") -> None:
    """Keep what was found for the report: beside it stays what is known of runs that were not asked about now."""
    from pipelines.interpret.notes import notes_of
    from pipelines.interpret.over_subjects import is_found

    file, new = found_at(report.runs, report.method), _plain(report)
    names = {"profiles": ("condition", "embedding", "subject"), "pairs": ("condition", "embedding", "base")}
    try:
        known = parse_json(file.read_text(encoding="utf-8"))
        for kind, parts in names.items():
            new[kind] = [_with_most_runs(one, known[kind], parts) for one in new[kind]]
            here = [[one[part] for part in parts] for one in new[kind]]
            new[kind] += [one for one in known[kind] if [one[part] for part in parts] not in here]
        for mine in _by_embedding(new["profiles"]):  # subjects of earlier calls take part
            shown = is_found([one["evidence"] for one in mine], [one["p"] for one in mine])
            for one in mine:
                one["is_found"] = shown
        notes = notes_of(new["profiles"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # nothing, or nothing that can be used
        new = _plain(report)
        notes = new["notes"]
    put_json(file, {kind: new[kind] for kind in names} | {"notes": notes})


def _with_most_runs(new: dict[str, Any], known: list[dict[str, Any]], parts: Sequence[str]) -> dict[str, Any]:
    """Return what was known where it is of these runs and more: a call for one seed does not replace all."""
    same = (one for one in known if all(one[part] == new[part] for part in parts))
    return next((one for one in same if set(one["run_ids"]) > set(new["run_ids"])), new)


def _by_embedding(profiles: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for one in profiles:
        found.setdefault(str((sorted(one["condition"].items()), one["embedding"])), []).append(one)
    return list(found.values())


def _plain(report: "InterpretReport") -> dict[str, Any]:
    """Return everything but the evidence per image, which lies beside the runs."""
    fields = asdict(report)
    for profile in fields["profiles"]:
        del profile["table"]
    plain: dict[str, Any] = _lists(fields)
    return plain


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _lists(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_lists(inner) for inner in value]
    return value.tolist() if hasattr(value, "tolist") else value
