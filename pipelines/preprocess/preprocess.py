"""Stage two: recordings to whitened, image-ordered epochs, subject by subject.

All subjects are examined before the first is written, so a fault in the last one costs no work.
A subject that is complete is left alone; one that was interrupted goes on at its next block of images.
What a dataset has to say for itself is in `pipelines.preprocess.dataset`.
"""

import time

import numpy as np

from pipelines.cluster import check_cluster
from pipelines.cores import in_order, n_cores, n_threads
from pipelines.preprocess import distributed
from pipelines.preprocess.between_subjects import Channels, between_subjects
from pipelines.preprocess.dataset import (
    SPLITS,
    AnyRecipe,
    Dataset,
    Preflight,
    SubjectPlan,
    open_dataset,
    raise_first,
)
from pipelines.preprocess.identity import changed
from pipelines.preprocess.left_out import all_trials
from pipelines.preprocess.request import PreprocessReport, PreprocessRequest, SubjectReport
from pipelines.preprocess.resampling import one_thread
from pipelines.progress import SILENT, Progress
from stores.disk import bytes_free, require_room
from stores.epochs import EpochStore, SplitWriter
from stores.errors import BadRecording, EmbedctlError, StoreMismatch
from stores.names import counted, subject_name
from stores.versions import installed_version

__all__ = ["preprocess"]

_PER_BLOCK = 3  # blocks that a thread holds: one made, one in the making with its samples (measured: 2.4)


def preprocess(request: PreprocessRequest, progress: Progress = SILENT) -> PreprocessReport:
    """Examine the recordings of a dataset, and write their epochs.

    Parameters
    ----------
    request : PreprocessRequest
        What is asked.
    progress : Progress
        Hears what is going on.

    Returns
    -------
    PreprocessReport
        With ``check``, the problems that were found; otherwise the first one is raised.

    Raises
    ------
    UnknownName
        If there is no such dataset, recipe or subject.
    BadRecording
        If a recording cannot be used: the first problem, and how many there are.
    StoreMismatch
        If the store holds this dataset with another recipe, or a subject from other recordings.
    NotHere
        If mne is not installed.
    CannotWrite
        If the disk is full or read-only.
    """
    started = time.perf_counter()
    check_cluster(request.scheduler)
    if request.keep not in ("all", "mean"):
        raise EmbedctlError(f"--keep {request.keep}", "allowed: all, mean")
    dataset = open_dataset(request.dataset, request.raw_folder, request.recipe)
    if request.store.exists() and not request.check:
        EpochStore.open(request.store).check_recipe(request.dataset, dataset.recipe.as_dict())
    subjects = sorted(set(request.subjects or dataset.subjects()))
    flights = [dataset.preflight(subject) for subject in subjects]
    report = PreprocessReport(dataset=request.dataset, recipe=dataset.recipe.name, store=request.store)
    report.subjects = [_found(flight) for flight in flights]
    if request.check:
        lines = {line.subject: line for line in report.subjects}
        plans = []
        for flight in flights:
            _tell_found(flight, progress)
            plans.append(_check_plan(dataset, flight, lines[flight.subject], progress))
        for subject, problem in between_subjects([plan for plan in plans if plan]):
            _add(lines[subject], problem, progress)
    else:
        raise_first(flights)
        whole = [dataset.plan(flight) for flight in flights]
        for _, problem in between_subjects(whole, _stored_channels(request)):
            raise problem
        report.time_offset_ms = whole[0].time_offset_ms
        _write_all(request, whole, dataset.recipe, report, progress)
    report.seconds = time.perf_counter() - started
    return report


def _stored_channels(request: PreprocessRequest) -> Channels | None:
    """Return the channels that the dataset's subjects have in the store; None where there is none."""
    if not request.store.exists():
        return None
    store = EpochStore.open(request.store)
    stored = store.subjects(request.dataset)
    return (stored[0], store[request.dataset, stored[0]].ch_names) if stored else None


def _found(flight: Preflight) -> SubjectReport:
    return SubjectReport(
        subject=flight.subject,
        per_file=flight.counts,
        problems=[(str(problem), problem.fix) for problem in flight.problems],
        notes=list(flight.notes),
    )


def _tell_found(flight: Preflight, progress: Progress) -> None:
    """Tell the problems of a subject; what else is worth knowing waits until there are none."""
    for said in [f"{problem}; {problem.fix}" for problem in flight.problems] or flight.notes:
        progress.say(said)


def _check_plan(dataset: Dataset, flight: Preflight, line: SubjectReport, progress: Progress) -> SubjectPlan | None:
    """Add what only a plan brings to light, such as a session without anything to fit its whitening on."""
    if flight.problems:
        return None
    try:
        plan = dataset.plan(flight)
    except BadRecording as problem:
        _add(line, problem, progress)
        return None
    line.notes += plan.notes
    for note in plan.notes:
        progress.say(note)
    return plan


def _add(line: SubjectReport, problem: BadRecording, progress: Progress) -> None:
    line.problems.append((problem.what, problem.hint))
    progress.say(f"{problem}; {problem.hint}")


def _write_all(
    request: PreprocessRequest,
    plans: list[SubjectPlan],
    recipe: AnyRecipe,
    report: PreprocessReport,
    progress: Progress,
) -> None:
    """Write every subject that is not there yet, or with ``dry_run`` say what that would take."""
    store = EpochStore.open(request.store) if request.store.exists() else None
    todo = []
    for plan, line in zip(plans, report.subjects, strict=True):
        line.n_chans, line.n_times = (*plan.row_shape, 1)[:2]
        line.train, line.test = ((len(plan.splits[s].image_ids), plan.splits[s].n_repetitions) for s in SPLITS)
        line.counts = dict(plan.counts)
        line.notes += plan.notes
        begun = store.bytes_begun(request.dataset, plan.subject) if store else 0
        line.bytes = max(0, _bytes_of(plan, request.keep) - begun)
        line.state = "to do"
        if store and _is_there(store, request, plan):
            line.state, line.bytes = "already there", 0
        else:
            todo.append((plan, line))
    report.bytes_free = bytes_free(request.store)
    if not request.dry_run:
        require_room(request.store, report.bytes, report.bytes_free, "free some space, or --keep mean")
    for line in report.subjects:
        for note in line.notes:
            progress.say(note)
    if request.dry_run:
        return
    store = EpochStore.open(request.store, create=True)
    if not store.is_consolidated:
        store.consolidate()  # a run was killed after its last block and before its end
    n = _n_processes(todo)
    if request.scheduler or n > 1:
        steps = [(line, plan.n_examined + sum(len(plan.splits[s].image_ids) for s in SPLITS)) for plan, line in todo]
        distributed.write_elsewhere(request, steps, n, progress)
        return
    with one_thread():
        for plan, line in todo:
            with store.lock(request.dataset, plan.subject):  # before the first pass: minutes, for nothing if held
                store.check_recipe(request.dataset, recipe.as_dict())
                if _is_there(store, request, plan):  # another process has written it meanwhile
                    line.state, line.bytes = "already there", 0
                else:
                    _write(store, request, plan, recipe, line, progress)


def _n_processes(todo: list[tuple[SubjectPlan, SubjectReport]]) -> int:
    """Return in how many processes subjects are worth writing; 1 is this one."""
    busy = max((plan.n_at_once for plan, _ in todo), default=1)
    n_bytes = sum(line.bytes for _, line in todo)
    return distributed.n_processes(len(todo), n_bytes, n_cores(), busy, distributed.bytes_available)


def _is_there(store: EpochStore, request: PreprocessRequest, plan: SubjectPlan) -> bool:
    """Return whether the subject is complete, made from these very files, understood as they are now."""
    if plan.subject not in store.subjects(request.dataset):
        return False
    held = store[request.dataset, plan.subject]
    name = f"{request.dataset}/{subject_name(plan.subject)}"
    remedy = f"remove the folder {store.path / name}, or name another store with --store"
    differs = changed(held.info.get("sources", []), plan.sources)
    if differs:
        what = f"other recordings than those in {request.raw_folder} now: {differs} changed"
        raise StoreMismatch(f"{store.path} holds {name} from {what}", remedy)
    if held.train.keep == "mean" and request.keep == "all":
        raise StoreMismatch(f"{store.path} keeps of {name} the mean alone", remedy)
    return True


def _write(
    store: EpochStore,
    request: PreprocessRequest,
    plan: SubjectPlan,
    recipe: AnyRecipe,
    line: SubjectReport,
    progress: Progress,
) -> None:
    started = time.perf_counter()
    name = subject_name(plan.subject)
    progress.start(f"{name}: examine", plan.n_examined, "epochs")
    found = plan.examine(progress)
    line.counts |= found.counts
    line.notes += found.notes
    for note in found.notes:
        progress.say(note)
    info = {  # what a reader must know to use the epochs, and to make them again; no date of this run
        **found.info,
        "counts": dict(line.counts),
        "per_file": line.per_file,
        "notes": line.notes,
        "sources": plan.sources,
        "versions": {package: installed_version(package) for package in plan.packages},
    }
    tables = {split: plan.trials(found, split) for split in SPLITS}
    with store.writer(
        request.dataset,
        plan.subject,
        recipe=recipe.as_dict(),
        modality=plan.modality,
        info=info,
        arrays=found.arrays,
        keep=request.keep,
        trials=all_trials([*tables.values(), *plan.left_out], plan.order),
        is_locked=True,
    ) as writer:
        progress.start(f"{name}: whiten and write", sum(len(plan.splits[s].image_ids) for s in SPLITS), "images")
        for split in SPLITS:
            rows = plan.splits[split]
            to = writer.split(
                split, rows.image_ids, rows.concepts, rows.n_repetitions, plan.row_shape, plan.dtype, tables[split]
            )
            missing = to.missing()
            progress.advance(len(rows.image_ids) - sum(len(to.images(block)) for block in missing))

            def made(block: int, split: str = split, to: SplitWriter = to) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
                images = to.images(block)
                return plan.block(found, split, slice(images.start, images.stop))

            at_once = n_threads(_PER_BLOCK * to.block_images * _row_bytes(plan, rows.n_repetitions))
            for block, rows_of_block in zip(missing, in_order(made, missing, at_once), strict=True):
                to.write_block(block, *rows_of_block)
                progress.advance(len(to.images(block)))
        writer.done()
    if found.clipped:
        line.counts[f"values beyond {plan.dtype}"] = found.clipped
        line.notes.append(f"{name}: {counted(found.clipped, 'value')} cut to the largest that {plan.dtype} holds")
        progress.say(line.notes[-1])
    line.state, line.seconds = "written", time.perf_counter() - started


def _bytes_of(plan: SubjectPlan, keep: str) -> int:
    """Return the bytes of a subject: the mean in float32, and every repetition in the recipe's number type."""
    mean = 4 * int(np.prod(plan.row_shape))
    return sum(
        (mean + (_row_bytes(plan, rows.n_repetitions) if keep == "all" else 0)) * len(rows.image_ids)
        for rows in plan.splits.values()
    )


def _row_bytes(plan: SubjectPlan, n_repetitions: int) -> int:
    """Return the bytes of all repetitions of an image."""
    return n_repetitions * int(np.prod(plan.row_shape)) * np.dtype(plan.dtype).itemsize
