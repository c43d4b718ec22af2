"""Which runs a sweep consists of: pure tables in, tables out, no torch."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.train.recipes import Recipe
from pipelines.train.request import Job
from pipelines.train.several import Target, find_target
from stores.embedding import Entry
from stores.errors import EmbedctlError, UnknownName
from stores.names import subject_name

__all__ = ["choose_dataset", "choose_embeddings", "choose_subjects", "config_key", "grouped", "run_id", "width_of"]

# Part of every key: raised when the trainer computes other numbers from the same settings.
TRAINER = 4
ALL = "all"  # of an option: as leaving it out
WIDEST = 8192  # features of an embedding that can be trained against


def choose_dataset(modalities: Mapping[str, str], brain: str, asked: str = "") -> str:
    """Return the dataset to train on.

    Parameters
    ----------
    modalities : mapping of str to str
        Kind of recording of every stored dataset.
    brain : str
        Kind asked for.
    asked : str
        Dataset asked for; empty when there is only one to choose.

    Raises
    ------
    EmbedctlError
        If none fits, several do, or the one asked for is of another kind.

    Examples
    --------
    >>> choose_dataset({"things-eeg2": "eeg", "things-meg": "meg"}, "meg")
    'things-meg'
    """
    if brain not in ("eeg", "meg", "fmri"):
        raise UnknownName(f"no kind of recording called '{brain}'", "there are: eeg, meg, fmri")
    if asked:
        if asked not in modalities:
            raise UnknownName(f"no dataset called '{asked}' in the epoch store", f"stored: {_list(modalities)}")
        if modalities[asked] != brain:
            raise EmbedctlError(f"'{asked}' is {modalities[asked]}, not {brain}", f"use --brain {modalities[asked]}")
        return asked
    fitting = sorted(name for name, modality in modalities.items() if modality == brain)
    if not fitting:
        raise EmbedctlError(f"the epoch store has no {brain} dataset", f"stored: {_list(modalities)}")
    if len(fitting) > 1:
        raise EmbedctlError(f"the epoch store has several {brain} datasets", f"choose with --dataset: {_list(fitting)}")
    return fitting[0]


def choose_subjects(stored: Sequence[int], asked: Sequence[int]) -> list[int]:
    """Return the subjects to train on, ascending and once each; all of them when none is asked for.

    Raises
    ------
    UnknownName
        If one is not stored.

    Examples
    --------
    >>> choose_subjects([1, 2, 3], [3, 1, 3])
    [1, 3]
    """
    for subject in asked:
        if subject not in stored:
            raise UnknownName(f"no subject {subject} in the epoch store", f"stored: {_list(map(str, stored))}")
    if not stored:
        raise EmbedctlError("the epoch store has no subject", "embedctl preprocess puts them there")
    return sorted(set(asked) or stored)


def choose_embeddings(entries: Sequence[Entry], asked: Sequence[str], resolve: Any) -> tuple[list[Target], list[str]]:
    """Return what to train against, and a note on each embedding that is left out.

    All are taken when none is asked for, or `ALL` and none is called so, but for those too wide to train against, such
    as flattened tokens.

    Parameters
    ----------
    entries : sequence of Entry
        What the store has.
    asked : sequence of str
        ``NAME`` or ``NAME#KEY``, or several of these joined by ``+``.
    resolve : callable
        From one name to the entry, as `EmbeddingStore.resolve`.

    Raises
    ------
    EmbedctlError
        If there are none, or one asked for is too wide.
    """
    if list(asked) == [ALL] and not any(str(entry.name) == ALL for entry in entries):
        asked = ()
    chosen: dict[tuple[str, str], Target] = {}
    notes: list[str] = []
    for target in [find_target(text, resolve) for text in asked] or [Target((entry,)) for entry in entries]:
        name = target.name
        if target.dim > WIDEST:
            if asked:
                raise EmbedctlError(
                    f"'{name}' has {target.dim} features, too many to train against",
                    "pool it: for example ENCODER:LAYER.mean",
                )
            notes.append(f"{name} is left out: its {target.dim} features are too many to train against")
        elif not target.n_committed and not asked:
            notes.append(f"{name} is left out: none of its rows is computed")
        else:
            chosen[name, target.key] = target
    if not chosen:
        raise EmbedctlError(
            "the embedding store has nothing to train against", "embedctl extract puts embeddings there"
        )
    return list(chosen.values()), notes


def width_of(target: Target, recipe: Recipe) -> int:
    """Return the features that a recipe makes of a target, before it narrows them.

    Raises
    ------
    EmbedctlError
        If it routes embeddings of different widths.
    """
    if recipe.several == "concatenate" or len(target.widths) == 1:
        return target.dim
    if len(set(target.widths)) > 1:
        raise EmbedctlError(
            f"'{target.name}' cannot be routed: its parts have {', '.join(map(str, target.widths))} features",
            'take layers of one width, or several = "concatenate" in the recipe',
        )
    return target.widths[0]


def grouped(jobs: Sequence[Job], at_most: int, embeddings: Mapping[tuple[str, str], Target]) -> list[list[Job]]:
    """Divide runs into those that may be trained in one pass: of one subject and seed, on embeddings of one width.

    Parameters
    ----------
    jobs : sequence of Job
        The runs, subject by subject.
    at_most : int
        How many in one pass; with 1 every run is alone, in the order given.
    embeddings : mapping
        What is trained against, by name and key.
    """
    if at_most == 1:
        return [[job] for job in jobs]
    alike: dict[tuple[Any, ...], list[Job]] = {}
    for job in jobs:
        widths = embeddings[job.embedding, job.embedding_key].widths
        alike.setdefault((job.subject, job.seed, widths), []).append(job)
    parts = [some[at : at + at_most] for some in alike.values() for at in range(0, len(some), at_most)]
    return sorted(parts, key=lambda part: part[0].subject)


def config_key(
    recipe: Recipe,
    protocol: str,
    preprocessing: Mapping[str, Any],
    own: Mapping[str, str] | None = None,
    gallery: str = "test",
    by: str = "",
) -> str:
    """Return twelve hex digits shared by the runs that differ only in embedding, subject and seed.

    Recordings that were preprocessed by another recipe are another configuration: what was trained on them is never
    ranked with these, and neither is what was tested with another ``gallery``. ``own`` has a digest of every file of
    the user's that took part; ``by`` is what computes where it is not the recipe's brain encoder.

    Examples
    --------
    >>> from pipelines.train.recipes import read_recipe
    >>> modern, clean = read_recipe("modern", "eeg"), {"name": "clean", "sfreq": 250.0}
    >>> key = config_key(modern, "within", clean)
    >>> key == config_key(modern.with_(name="mine"), "within", clean)
    True
    >>> key == config_key(modern, "within", clean | {"sfreq": 100.0})
    False
    """
    return _hash(
        {
            "trainer": TRAINER,
            "recipe": recipe.settings(),
            "brain_encoder": by or recipe.brain_encoder,
            "protocol": protocol,
            "preprocessing": preprocessing,
        }
        | ({"own": dict(own)} if own else {})
        | ({"gallery": gallery} if gallery != "test" else {})
        | ({"rounds": "dealt"} if recipe.split == "concept" and recipe.val_batch else {})
    )


def run_id(
    dataset: str,
    subject: int,
    embedding: str,
    brain_encoder: str,
    recipe: str,
    seed: int,
    decided_by: Mapping[str, str],
) -> str:
    """Name a run so that a person can read it and the same work always gets the same name.

    Parameters
    ----------
    dataset, subject, embedding, brain_encoder, recipe, seed
        What a person looks for.
    decided_by : mapping of str to str
        Keys of everything that changes the numbers.

    Examples
    --------
    >>> run_id("things-eeg2", 1, "clip-rn50:layer3.gap", "nice", "modern", 0, {"epochs": "ab"})
    'things-eeg2_sub-01_clip-rn50~layer3.gap_nice_modern_seed-0_28e79515'
    """
    readable = f"{dataset}_{subject_name(subject)}_{embedding.replace(':', '~')}_{brain_encoder}_{recipe}_seed-{seed}"
    what = {"dataset": dataset, "subject": subject, "embedding": embedding, "seed": seed, **decided_by}
    return f"{re.sub(r'[^A-Za-z0-9._@+~-]', '-', readable)[:119]}_{_hash(what)[:8]}"


def _hash(value: Mapping[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=6).hexdigest()


def _list(names: Any) -> str:
    return ", ".join(sorted(names)) or "nothing"
