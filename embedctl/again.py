"""A request as the words of its command: what a user would type to have the same computed again, from any folder."""

from collections.abc import Collection, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from stores.again import STORE, from_workspace, note_command
from stores.layout import private
from stores.remote import is_remote

__all__ = ["note_embeddings", "note_runs", "note_subjects"]

# What changes no number, or is noted otherwise.
_LEFT_OUT = {
    "models", "subjects", "seeds", "name", "refresh", "overwrite", "offline", "shard", "workers", "scheduler",
    "memory_budget", "batch_size", "device", "dry_run", "check", "layers", "views", "store", "runs",
}  # fmt: skip
_OPTIONS = {"arrays": "npy"}


def words_of(command: str, request: Any, place: Path, *left_out: str) -> list[str]:
    """Return the words of a command, but for the option that its parts differ in; the place it writes to stands open.

    Examples
    --------
    >>> from pipelines.extract.request import ExtractRequest
    >>> words_of("extract", ExtractRequest(models=("hog",), images=Path("/lab/i"), exact=True), Path("/lab"))
    ['extract', '--store', '{store}', '--images', '{workspace}/i', '--exact']
    """
    words = [command, "--runs" if command == "train" else "--store", STORE]
    for field in fields(request):
        value = getattr(request, field.name)
        if field.name in {*_LEFT_OUT, *left_out} or (value == field.default and not isinstance(value, Path)):
            continue
        option = f"--{_OPTIONS.get(field.name, field.name).replace('_', '-')}"
        if value is True:
            words.append(option)
        else:
            for one in value if isinstance(value, tuple) else (value,):
                words += [option, _noted(one, place)]
    return words


def _noted(value: Any, place: Path) -> str:
    """Return a value as it is noted: a file, also one of which a part is named, so that it is found from anywhere."""
    if isinstance(value, Path) and not is_remote(value):
        return from_workspace(value, place)
    file, colon, rest = str(value).partition(":")
    is_file = (Path(file).suffix or "/" in file) and Path(file).exists()
    return from_workspace(Path(file), place) + colon + rest if is_file else str(value)


def note_embeddings(
    command: str,
    request: Any,
    parts: Collection[tuple[str, str]],
    cards: str = "",
    sizes: Mapping[str, int] | None = None,
) -> None:
    """Note what computed embeddings: their names and ``NAME#KEY``; and how many images went through each at a time.

    The store records that, and the device, as long as it has the embedding: this is for when it has lost it.
    """
    if is_remote(request.store):
        return
    words = words_of(command, request, request.store.absolute().parent)
    words += ["--cards", _noted(Path(cards), request.store.absolute().parent)] if cards else []
    words += ["--device", request.device] if getattr(request, "device", "auto") != "auto" else []
    hidden = private(request.store / "image")
    anew = bool(getattr(request, "refresh", False) or getattr(request, "overwrite", False))
    for name, part in parts:
        batches = ["--batch-size", str(sizes[name])] if sizes else []
        note_command(hidden, part, words + batches, "--name" if command == "import" else "--model", name, anew)


def note_subjects(request: Any, subjects: Collection[int]) -> None:
    """Note what wrote subjects."""
    from stores.names import subject_name

    words, hidden = words_of("preprocess", request, request.store.absolute().parent), private(request.store / "subject")
    for subject in subjects:
        part = f"{request.dataset}/{subject_name(subject)}"
        note_command(hidden, part, words, "--subject", str(subject), anew=True)


def note_runs(request: Any, plan: Any) -> None:
    """Note what trains the runs of a plan that are not finished; before it does, so that a kill leaves none without."""
    words, hidden = words_of("train", request, request.runs.absolute().parent, "dataset"), request.runs / ".embedctl"
    keys_of: dict[str, set[str]] = {}
    for job in plan.jobs:
        keys_of.setdefault(job.embedding, set()).add(job.embedding_key)
    with_key = {name for name, keys in keys_of.items() if len(keys) > 1 or f"{name}#" in " ".join(request.models or ())}
    for job in (job for job in plan.jobs if not job.finished):
        here = [*words, "--dataset", plan.dataset, "--subject", str(job.subject), "--seed", str(job.seed)]
        name = f"{job.embedding}#{job.embedding_key}" if job.embedding in with_key else job.embedding
        note_command(hidden, job.run_id, here, "--model", name, anew=True)
