"""Interpretation of a folder of runs: each run explained once, then read per embedding and subject, and in pairs."""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.interpret.chain import chain_of
from pipelines.interpret.methods import METHODS
from pipelines.interpret.notes import notes_of
from pipelines.interpret.over_subjects import is_found
from pipelines.interpret.pairs import paired
from pipelines.interpret.profile import Profile, profile_of
from pipelines.interpret.request import InterpretReport, InterpretRequest
from pipelines.interpret.run import Recorded, explain_run, is_explained
from pipelines.interpret.sensors import sensor_groups
from pipelines.progress import SILENT, Progress
from pipelines.train.cells import Cell, conditions
from pipelines.train.compare import check_pairing, pairs
from pipelines.train.data import load_subject, pick_window
from pipelines.train.plan import ALL
from pipelines.train.recipes import Recipe
from pipelines.train.restore import restore
from pipelines.train.several import target_of
from pipelines.train.targets import Targets
from stores.disk import check_writable
from stores.embeddings import EmbeddingStore
from stores.epochs import EpochStore, SubjectEpochs
from stores.errors import EmbedctlError, StoreLocked, StoreMismatch, UnknownName, suggest
from stores.inside import refuse_links
from stores.locks import lock
from stores.names import counted
from stores.results import read_results

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["interpret"]

Row = Mapping[str, Any]


def interpret(request: InterpretRequest, progress: Progress = SILENT) -> InterpretReport:
    """Explain every run that is asked for and was not explained before, and read what all of them say.

    Parameters
    ----------
    request : InterpretRequest
        Which runs, and how.
    progress : Progress
        Who listens.

    Returns
    -------
    InterpretReport
        Profiles and pairs; runs that cannot be explained are listed with the reason.

    Raises
    ------
    UnknownName
        If there is no such method or embedding.
    EmbedctlError
        If there is no such pairing, or none of the runs can be explained.
    """
    started = time.perf_counter()
    if request.method not in METHODS:
        raise UnknownName(f"no method called '{request.method}'", suggest(request.method, METHODS))
    check_pairing(request.pairing)
    table = _chosen(read_results(request.runs), request)
    rows = table.to_pylist()
    report = InterpretReport(method=request.method, runs=request.runs, dry_run=request.dry_run)
    to_do = [row for row in rows if not is_explained(request.runs, row["run_id"], request.method)]
    report.to_do = [row["run_id"] for row in to_do]
    report.already = [row["run_id"] for row in rows if row["run_id"] not in set(report.to_do)]
    if not request.dry_run:
        hint = _explain(to_do, request, report, progress)
        report.to_do = [run_id for run_id in report.to_do if run_id not in report.skipped]
        if not report.to_do and not report.already:
            what = next(iter(report.skipped.values()))
            hint = hint or "train again, or choose other runs with --model, --subject and --seed"
            raise EmbedctlError(f"none of {counted(len(rows), 'run')} can be interpreted: {what}", hint)
        _read(_without(table, report.skipped), request, report)
    report.notes = notes_of([vars(profile) for profile in report.profiles])
    report.seconds = time.perf_counter() - started
    return report


def _chosen(results: "pa.Table", request: InterpretRequest) -> "pa.Table":
    """Return the rows that were asked for."""
    known = set(results["embedding"].to_pylist())
    models = () if request.models == (ALL,) and ALL not in known else request.models
    for model in models:
        if model not in known:
            raise UnknownName(f"no run with the embedding '{model}'", suggest(model, known))
    asked = {"embedding": models, "subject": request.subjects, "seed": request.seeds}
    mask = [all(not some or row[name] in some for name, some in asked.items()) for row in results.to_pylist()]
    if not any(mask):
        raise EmbedctlError("no finished run is of these subjects and seeds", "embedctl results lists the runs")
    return results.filter(mask)


def _without(results: "pa.Table", skipped: Iterable[str]) -> "pa.Table":
    left_out = set(skipped)
    return results.filter([run_id not in left_out for run_id in results["run_id"].to_pylist()])


def _explain(rows: Sequence[Row], request: InterpretRequest, report: InterpretReport, progress: Progress) -> str:
    """Explain runs, subject by subject, each subject's recordings loaded once per way of loading them.

    Returns
    -------
    str
        What to do about the first run that was skipped.
    """
    if not rows:
        return ""
    progress.start("interpreting", len(rows), "runs")
    hints: list[str] = []
    epochs, embeddings = EpochStore.open(request.epochs), EmbeddingStore.open(request.embeddings)
    targets = Targets(embeddings, request.join)
    by_subject: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        by_subject.setdefault((row["dataset"], row["subject"]), []).append(row)
    refuse_links(request.runs)
    check_writable(request.runs)
    for (dataset, subject), mine in by_subject.items():
        loaded: dict[str, Recorded] = {}
        for row in mine:
            run_id = row["run_id"]
            try:
                if row["protocol"] != "within":
                    raise EmbedctlError(
                        "it was trained on other subjects: only runs within a subject are interpreted", ""
                    )
                recordings = epochs[dataset, subject]
                if recordings.key != row["epochs_key"]:
                    raise EmbedctlError("it was trained on other epochs than the store holds now", "train it again")
                trained = restore(request.runs, run_id)
                target = target_of(trained.config, embeddings.entries())
                if target is None:
                    raise UnknownName(
                        f"the embedding store does not hold {row['embedding']}#{row['embedding_key']}",
                        "name the store that does with --embeddings",
                    )
                as_loaded = json.dumps([trained.recipe.settings()[name] for name in _LOADING])
                if as_loaded not in loaded:
                    loaded[as_loaded] = _recorded(recordings, trained.recipe)
                gallery = targets.rows(target, loaded[as_loaded].test.image_ids)
                with lock(request.runs / ".embedctl" / "locks", f"{run_id}.interpret"):
                    explain_run(request.runs, trained, loaded[as_loaded], gallery, request.method)
            except StoreLocked as problem:
                report.skipped[run_id] = problem.what
                hints.append(problem.hint)
            except EmbedctlError as problem:
                if problem.exit_code != EmbedctlError.exit_code:  # damage, a full disk: nothing to go on after
                    raise
                report.skipped[run_id] = problem.what
                hints.append(problem.hint)
            progress.advance()
    return hints[0] if hints else ""


_LOADING = ("channels", "window", "trial_norm", "unit_scale", "train_on")  # what decides how recordings are loaded


def _recorded(recordings: SubjectEpochs, recipe: Recipe) -> Recorded:
    loaded, window = load_subject(recordings, recipe), pick_window(recordings, recipe)
    n_sensors = recordings.test.mean_shape[1]
    names = list(recordings.ch_names) or [f"voxel {i}" for i in range(n_sensors)]
    positions = recordings.info.get("ch_pos") or []
    chain = chain_of(recordings, recipe, loaded.scale)
    if not np.allclose(chain.input(), loaded.test.epochs.numpy(), atol=0.01 * float(loaded.test.epochs.std())):
        raise StoreMismatch(
            f"recordings of subject {recordings.subject} of '{recordings.dataset}', unmixed to sensors and mixed "
            "again, are others than the run was tested on",
            "embedctl preprocess makes them anew",
        )
    return Recorded(
        chain=chain,
        test=loaded.test,
        times=recordings.times[:0] if window is None else recordings.times[window],
        sfreq=float(recordings.sfreq),
        sensors=names,
        positions=positions,
        groups=sensor_groups(names, positions, recordings.info.get("rois")),
    )


def _read(results: "pa.Table", request: InterpretRequest, report: InterpretReport) -> None:
    """Read profiles and pairs from what lies beside the runs."""
    found: dict[tuple[str, str], tuple[Cell, list[Profile]]] = {}
    for condition, cells in conditions(results):
        times: np.ndarray | None = None
        for cell in cells:
            mine: list[Profile] = []
            for seeds in cell.runs.values():
                profile = profile_of(request.runs, list(seeds.values()), condition, cell.label, request.method)
                times = profile.times if times is None else times
                if np.array_equal(times, profile.times):
                    mine.append(profile)
                else:  # there is no mean over subjects, nor a picture of them
                    _leave_out(profile.run_ids, "its recordings have other times than those of other subjects", report)
            shown = is_found([profile.evidence for profile in mine], [profile.p for profile in mine])
            mine = [replace(profile, is_found=shown) for profile in mine]
            report.profiles += mine
            found[_name(condition), cell.label] = cell, mine
    for pair in pairs(results, request.pairing):
        ours, theirs = (found[_name(pair.condition), label] for label in (pair.embedding, pair.base))
        aligned, base = _on_shared_seeds(*ours, theirs[0], request), _on_shared_seeds(*theirs, ours[0], request)
        if {profile.subject for profile in aligned} & {profile.subject for profile in base}:
            report.pairs.append(paired(aligned, base, pair.note))


def _on_shared_seeds(cell: Cell, profiles: Sequence[Profile], other: Cell, request: InterpretRequest) -> list[Profile]:
    """Return profiles of the seeds that the other side has too: more seeds leave less noise in a map."""
    shared = []
    for profile in profiles:
        seeds, theirs = cell.runs[profile.subject], other.runs.get(profile.subject, {})
        rows = [row for seed, row in seeds.items() if seed in theirs]
        if len(rows) == len(seeds):
            shared.append(profile)
        elif rows:
            shared.append(profile_of(request.runs, rows, profile.condition, profile.embedding, request.method))
    return shared


def _leave_out(run_ids: Iterable[str], why: str, report: InterpretReport) -> None:
    report.skipped |= dict.fromkeys(run_ids, why)
    report.to_do, report.already = (
        [run_id for run_id in some if run_id not in report.skipped] for some in (report.to_do, report.already)
    )


def _name(condition: Mapping[str, Any]) -> str:
    return json.dumps(condition, sort_keys=True)
