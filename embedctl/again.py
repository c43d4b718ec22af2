"""A request as the words of its command: what a user would type to have the same computed again, from any folder.

And back: what of the words that a store has noted may be shown to a person, who will paste them.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from shlex import quote
from typing import Any

from stores.again import STORE, Note, commands_for, from_workspace, note_command
from stores.layout import private
from stores.remote import is_remote

__all__ = ["note_embeddings", "note_runs", "note_subjects", "noted"]

# What changes no number, or is noted otherwise.
_LEFT_OUT = {
    "models", "subjects", "seeds", "name", "refresh", "overwrite", "offline", "shard", "workers", "scheduler",
    "memory_budget", "batch_size", "device", "dry_run", "check", "layers", "views", "store", "runs",
}  # fmt: skip
_OPTIONS = {"arrays": "npy"}
_DIFFERS = {
    "embeddings": {"extract": "--model", "import": "--name"},
    "epochs": {"preprocess": "--subject"},
    "runs": {"train": "--model"},
}
"""Which commands note themselves in what kind of store, and the option that their parts differ in."""
_NOTED_OTHERWISE = {"--batch-size", "--cards", "--device", "--runs", "--seed", "--store", "--subject"}
_CODE = re.compile(r"\.py(:|$)", re.IGNORECASE)


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


def noted(hidden: Path, parts: Iterable[str], store: Path, kind: str) -> tuple[list[str], list[str], list[str]]:
    """Return the lines to paste, the parts of which nobody knows, and what was noted and is not shown.

    A store is another's word, and so are its notes: what is shown is made of options of the commands that note
    themselves, with no file that would run, no address that would be obeyed and no character that drives a terminal.
    """
    left_out: dict[str, None] = {}

    def shown(note: Note) -> Note | None:
        command, words = note["words"][0], list(note["words"][1:])
        texts, option = [note["value"], *words], _DIFFERS[kind].get(command)
        kept = _shown_words(words, _options(command), left_out) if option else None
        if kept is None or note["option"] != option or _CODE.search(note["value"]) or not "".join(texts).isprintable():
            left_out["what somebody else noted, which is no command of embedctl"] = None
            return None
        return {**note, "words": [command, *kept]}

    lines, unknown = commands_for(hidden, parts, store, shown)
    return lines, unknown, list(left_out)


def _shown_words(words: list[str], options: Mapping[str, int], left_out: dict[str, None]) -> list[str] | None:
    """Return options and their values without those that name a file that would run; None if others are among them."""
    kept = []
    while words:
        option, n = words[0], options.get(words[0])
        if n is None or len(words) <= n or (option in ("--store", "--runs") and words[1] != STORE):
            return None
        value, words = words[1 : 1 + n], words[1 + n :]
        if any(map(_CODE.search, value)):
            left_out[f"{option} {quote(value[0])}: that file would run; look into it before you add this"] = None
        else:
            kept += [option, *value]
    return kept


def _options(command: str) -> dict[str, int]:
    """Return the options of a command that may be noted, and how many words follow each."""
    import typer

    from embedctl.cli import app

    params = typer.main.get_command(app).commands[command].params  # type: ignore[attr-defined]
    long = [(option, param) for param in params for option in param.opts if option.startswith("--")]
    never = {f"--{name.replace('_', '-')}" for name in _LEFT_OUT} | {"--json", "--model", "--name"}
    return {
        option: 0 if getattr(param, "is_flag", False) else 1
        for option, param in long
        if option in _NOTED_OTHERWISE or option not in never
    }
