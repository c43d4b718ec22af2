"""Stage two: recordings to whitened, image-ordered epochs, one subject after the other.

All subjects are examined before the first is written, so a fault in the last one costs no work.
A subject that is complete is left alone; one that was interrupted goes on at its next block of images.
"""

import hashlib
import time
from typing import Any

import numpy as np

from pipelines.preprocess.preflight import Preflight, preflight
from pipelines.preprocess.recipes import Recipe, read_recipe
from pipelines.preprocess.request import PreprocessReport, PreprocessRequest, SubjectReport
from pipelines.preprocess.resampling import import_mne, one_thread
from pipelines.preprocess.subject import (
    Examination,
    SubjectPlan,
    block_of_epochs,
    examine,
    plan_subject,
    trials_table,
)
from pipelines.preprocess.things_eeg2 import SPLITS, ImageList, Recording, find_subjects, read_image_lists
from pipelines.progress import SILENT, Progress
from stores.disk import bytes_free
from stores.epochs import EpochStore
from stores.errors import CannotWrite, EmbedctlError, StoreMismatch, UnknownName, suggest
from stores.versions import installed_version

__all__ = ["DATASETS", "preprocess"]

DATASETS = ("things-eeg2",)


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
        If a recording cannot be used; every problem of every subject has been told to ``progress``.
    StoreMismatch
        If the store holds this dataset with another recipe, or a subject from other recordings.
    NotHere
        If mne is not installed.
    CannotWrite
        If the disk is full or read-only.
    """
    started = time.perf_counter()
    if request.dataset not in DATASETS:
        raise UnknownName(f"no dataset '{request.dataset}' can be preprocessed", suggest(request.dataset, DATASETS))
    if request.keep not in ("all", "mean"):
        raise EmbedctlError(f"--keep {request.keep}", "allowed: all, mean")
    recipe = read_recipe(request.recipe)
    raw = request.raw_folder
    subjects = sorted(set(request.subjects or find_subjects(raw)))
    images = read_image_lists(raw)
    flights = [preflight(raw, subject, images, recipe.channels) for subject in subjects]
    report = PreprocessReport(dataset=request.dataset, recipe=recipe.name, store=request.store)
    report.subjects = [_checked(flight, request.check, progress) for flight in flights]
    if not request.check:
        for flight in flights:
            flight.raise_if_bad()
        plans = [plan_subject(flight, recipe) for flight in flights]
        report.time_offset_ms = plans[0].cutter.matrix.time_offset_ms
        _write_all(request, plans, images, report, progress)
    report.seconds = time.perf_counter() - started
    return report


def _checked(flight: Preflight, is_check: bool, progress: Progress) -> SubjectReport:
    for note in flight.notes:
        progress.say(note)
    # A single problem is the error itself, unless nothing but a list was asked for.
    for problem in flight.problems if is_check or len(flight.problems) > 1 else ():
        progress.say(f"{problem}; {problem.fix}")
    return SubjectReport(
        subject=flight.subject,
        per_file=flight.counts,
        problems=[(str(problem), problem.fix) for problem in flight.problems],
        notes=list(flight.notes),
    )


def _write_all(
    request: PreprocessRequest,
    plans: list[SubjectPlan],
    images: dict[str, ImageList],
    report: PreprocessReport,
    progress: Progress,
) -> None:
    """Write every subject that is not there yet, or with ``dry_run`` say what that would take."""
    recipe = plans[0].recipe
    store = None
    if not request.dry_run or request.store.exists():
        store = EpochStore.open(request.store, create=not request.dry_run)
        _refuse_other_recipe(store, request.dataset, recipe)
    todo = []
    for plan, line in zip(plans, report.subjects, strict=True):
        line.n_chans, line.n_times = len(plan.cutter.channels), recipe.n_times
        line.train, line.test = ((len(plan.slots[s].codes), plan.slots[s].n_repetitions) for s in SPLITS)
        line.counts = dict(plan.counts)
        line.notes += plan.notes
        for note in plan.notes:
            progress.say(note)
        line.bytes = _bytes_of(plan, request.keep)
        sources = _sources(plan)
        line.state = "to do"
        if store and _is_there(store, request, plan.flight.subject, sources):
            line.state, line.bytes = "already there", 0
        else:
            todo.append((plan, sources, line))
    report.bytes_free = bytes_free(request.store)
    if request.dry_run or store is None:
        return
    if report.bytes > report.bytes_free:
        raise CannotWrite(
            f"{report.bytes / 1e9:.1f} GB of epochs, {report.bytes_free / 1e9:.1f} GB free",
            "free some space, or --keep mean",
        )
    with one_thread():
        for plan, sources, line in todo:
            _write(store, request, plan, images, sources, line, progress)


def _refuse_other_recipe(store: EpochStore, dataset: str, recipe: Recipe) -> None:
    stored = store.recipe(dataset)
    if stored is not None and stored != recipe.as_dict():
        differing = ", ".join(sorted(key for key, value in recipe.as_dict().items() if stored.get(key) != value))
        raise StoreMismatch(
            f"{store.path} holds {dataset} with recipe '{stored.get('name')}', which differs in {differing}",
            "a store holds one recipe per dataset: name another with --store",
        )


def _is_there(store: EpochStore, request: PreprocessRequest, subject: int, sources: list[dict[str, Any]]) -> bool:
    """Return whether the subject is complete, made from these very recordings."""
    if subject not in store.subjects(request.dataset):
        return False
    held = store[request.dataset, subject]
    name = f"{request.dataset}/sub-{subject:02d}"
    remedy = f"remove the folder {store.path / name}, or name another store with --store"
    if held.info.get("sources") != sources:
        raise StoreMismatch(
            f"{store.path} holds {name} from other recordings than those in {request.raw_folder}", remedy
        )
    if held.train.keep == "mean" and request.keep == "all":
        raise StoreMismatch(f"{store.path} keeps of {name} the mean alone", remedy)
    return True


def _write(
    store: EpochStore,
    request: PreprocessRequest,
    plan: SubjectPlan,
    images: dict[str, ImageList],
    sources: list[dict[str, Any]],
    line: SubjectReport,
    progress: Progress,
) -> None:
    started = time.perf_counter()
    recipe, subject = plan.recipe, plan.flight.subject
    name = f"sub-{subject:02d}"
    progress.start(f"{name}: examine", sum(len(plan.used(*key)) for key in plan.events), "epochs")
    found = examine(plan, progress)
    line.counts |= found.counts
    line.notes += found.notes
    for note in found.notes:
        progress.say(note)
    whiteners = {"whitener": np.stack([found.whiteners[session] for session in plan.sessions])}
    info = _info(plan, found, sources)
    with store.writer(
        request.dataset,
        subject,
        recipe=recipe.as_dict(),
        modality="eeg",
        info=info,
        arrays=whiteners,
        keep=request.keep,
    ) as writer:
        progress.start(f"{name}: whiten and write", sum(len(plan.slots[split].codes) for split in SPLITS), "images")
        for split in SPLITS:
            slots = plan.slots[split]
            to = writer.split(
                split,
                [images[split].ids[code - 1] for code in slots.codes.tolist()],
                [images[split].concepts[code - 1] for code in slots.codes.tolist()],
                slots.n_repetitions,
                (line.n_chans, line.n_times),
                recipe.dtype,
                trials_table(plan, found, split, images[split]),
            )
            missing = to.missing()
            progress.advance(len(slots.codes) - sum(len(to.images(block)) for block in missing))
            for block in missing:
                rows = to.images(block)
                to.write_block(block, *block_of_epochs(plan, found, split, slice(rows.start, rows.stop)))
                progress.advance(len(rows))
        writer.done()
    line.state, line.seconds = "written", time.perf_counter() - started


def _info(plan: SubjectPlan, found: Examination, sources: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what a reader must know to use the epochs, and to make them again; nothing in it is a date."""
    recipe, channels = plan.recipe, plan.cutter.channels
    whitened = recipe.mvnn != "none"
    return {
        "ch_names": list(channels),
        "ch_pos": _positions(channels),
        "montage": "standard_1020",
        "times": recipe.times,
        "sfreq": recipe.sfreq,
        "units": "sd of noise" if whitened else recipe.units,
        "time_offset_ms": plan.cutter.matrix.time_offset_ms,
        "sessions": plan.sessions,
        "counts": {**plan.counts, **found.counts},
        "per_file": plan.flight.counts,
        "notes": plan.flight.notes + plan.notes + found.notes,
        "sources": sources,
        "versions": {package: installed_version(package) for package in ("embedctl", "numpy", "mne")},
    }


def _positions(channels: tuple[str, ...]) -> list[list[float] | None]:
    """Return the position of every channel in head coordinates, m; None for one the 10-20 system does not know."""
    mne = import_mne()
    # mne 1.13 gave standard_1020 the name of the head it was measured on, and warns of the old one.
    new, old = "colin27_1020", "standard_1020"
    montage = mne.channels.make_standard_montage(new if new in mne.channels.get_builtin_montages() else old)
    known = [name for name in channels if name in montage.ch_names]
    info = mne.create_info(known, 1000.0, "eeg")
    info.set_montage(montage, verbose="error")
    places = {channel["ch_name"]: [round(float(x), 6) for x in channel["loc"][:3]] for channel in info["chs"]}
    return [places.get(name) for name in channels]


def _sources(plan: SubjectPlan) -> list[dict[str, Any]]:
    """Return what identifies the recordings a subject was made from: their events, and a sample of their samples."""
    described = []
    for key in sorted(plan.flight.recordings):
        recording = plan.flight.recordings[key]
        path = recording.path
        described.append(
            {
                "file": "/".join(path.parts[-3:]),
                "bytes": path.stat().st_size,
                "fingerprint": _fingerprint(recording, plan.flight.events[key].onsets, plan.flight.events[key].codes),
            }
        )
    return described


def _fingerprint(recording: Recording, onsets: np.ndarray, codes: np.ndarray) -> str:
    """Hash all events and every channel at a hundred places: hashing 14 GB would cost more than the work."""
    places = np.linspace(0, recording.n_samples - 1, 100).astype(int)
    state = hashlib.blake2b(digest_size=16)
    for part in (onsets.astype("<i8"), codes.astype("<i8"), np.asarray(recording.samples[:, places], "<f8")):
        state.update(np.ascontiguousarray(part).tobytes())
    return state.hexdigest()


def _bytes_of(plan: SubjectPlan, keep: str) -> int:
    sample = np.dtype(plan.recipe.dtype).itemsize
    epoch = len(plan.cutter.channels) * plan.recipe.n_times
    per_image = [4 + (sample * slots.n_repetitions if keep == "all" else 0) for slots in plan.slots.values()]
    return sum(epoch * size * len(slots.codes) for size, slots in zip(per_image, plan.slots.values(), strict=True))
