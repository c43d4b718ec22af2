"""A screen: which embeddings can be read from the recordings by a linear map, found out in one pass over the store.

Each subject's recordings are factorised once; every embedding then costs a few matrix products. Nothing is chosen on
the test images: the penalty is, on training concepts that were held out, and these give the score. Without ``test``
the recordings of the test images are not even read.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.memory import require
from pipelines.progress import SILENT, Progress
from pipelines.screen.request import ScreenReport, ScreenRequest, ScreenRow
from pipelines.screen.ridge import Ridge
from pipelines.train.data import load_test, load_training, pick_channels, pick_window
from pipelines.train.metrics import Retrieval, retrieve, to_length_one
from pipelines.train.origin import weights_of
from pipelines.train.plan import choose_dataset, choose_embeddings, choose_subjects, config_key
from pipelines.train.recipes import Recipe, read_recipe
from pipelines.train.several import Target
from pipelines.train.splits import Split, split_images
from pipelines.train.targets import Targets
from stores.disk import check_writable
from stores.embeddings import EmbeddingStore
from stores.epochs import EpochStore, SubjectEpochs
from stores.errors import EmbedctlError
from stores.names import counted
from stores.results import any_results
from stores.runs import check_place
from stores.screens import record_tested, seen

__all__ = ["PENALTIES", "Scored", "Screened", "held_out", "screen"]

PENALTIES = tuple(10.0**exponent for exponent in range(-2, 5))
"""Times the mean variance of the recordings and the number of epochs: from next to none to next to nothing left."""
N_CONCEPTS = 200  # held out, as many as the test of THINGS-EEG2 has
N_QUERIES = 600  # three images of each; all ten would cost more than everything else

Floats = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Scored:
    """What one embedding reaches in one subject: see `ScreenRow`."""

    penalty: float
    top1: float
    top5: float
    mrr: float
    test: Retrieval | None = None


class Screened:
    """One subject's recordings, factorised, with the queries that every embedding is asked.

    Parameters
    ----------
    epochs : (n_images, n_features)
        Mean recording of every training image.
    split : Split
        What to fit to, and the rounds that are held out; as many of them are used as make `N_QUERIES`.
    test : (n_queries, n_features), optional
        Recordings of test images.
    """

    def __init__(self, epochs: Floats, split: Split, test: Floats | None = None) -> None:
        n_rounds = -(-N_QUERIES // len(split.rounds[0]))
        self._train, self.rounds = split.train, split.rounds[:n_rounds]
        self._held = np.concatenate(self.rounds)
        self._weight = np.zeros(len(epochs), epochs.dtype)
        self._weight[self._train] = 1 / len(self._train)
        ridge = Ridge(epochs[self._train])
        queries = epochs[self._held] if test is None else np.concatenate((epochs[self._held], test))
        # From here on nothing depends on the recordings but these, a few hundred rows for each penalty.
        self._smoothers = list(ridge.smoothers(queries, [penalty * ridge.scale for penalty in PENALTIES]))

    def score(self, images: Floats, test: tuple[Floats, NDArray[np.int64]] | None = None) -> Scored:
        """Score one embedding: the penalty with the highest mean reciprocal rank over all rounds.

        A query is compared with each image by the cosine between predicted and true embedding, both minus the mean
        over the images fitted to. The length of the prediction is the same for all images and is left out.

        Parameters
        ----------
        images : (n_images, dim)
            Embedding of every training image.
        test : ((n_gallery, dim), (n_queries,)), optional
            Embedding of every test image, and which of them each query shows.
        """
        mean = self._weight @ images
        near = self._near(images, mean, images[self._held])
        best, best_mrr, found = 0, -1.0, list[Retrieval]()
        for place, smoother in enumerate(self._smoothers):
            rounds = self._ranked(smoother, near)
            if (mrr := float(np.mean([one.mrr for one in rounds]))) >= best_mrr:
                best, best_mrr, found = place, mrr, rounds
        tested = None
        if test is not None:
            gallery, own = test
            tested = retrieve(self._smoothers[best][len(self._held) :] @ self._near(images, mean, gallery), own)
        top1, top5 = (float(np.mean([one.top(k) for one in found])) for k in (1, 5))
        return Scored(PENALTIES[best], top1, top5, best_mrr, tested)

    def _near(self, images: Floats, mean: Floats, gallery: Floats) -> Floats:
        """Return how alike the images fitted to, minus their mean, are to each direction of a gallery."""
        directions = gallery - mean
        to_length_one(directions)
        # All images at once: to pick those fitted to before, and not after, would copy the embedding.
        near: Floats = (images @ directions.T)[self._train] - mean @ directions.T
        return near

    def _ranked(self, smoother: Floats, near: Floats) -> list[Retrieval]:
        ends = np.cumsum([len(rows) for rows in self.rounds])
        parts = [slice(int(end) - len(rows), int(end)) for end, rows in zip(ends, self.rounds, strict=True)]
        return [retrieve(smoother[part] @ near[:, part]) for part in parts]


def screen(request: ScreenRequest, progress: Progress = SILENT) -> ScreenReport:
    """Score every embedding on training concepts that were held out, and on request on the test images.

    Parameters
    ----------
    request : ScreenRequest
        What to do.
    progress : Progress
        Who listens.

    Returns
    -------
    ScreenReport
        The embeddings, best first.

    Raises
    ------
    EmbedctlError
        If the request cannot be carried out; nothing is computed then.
    """
    started = time.perf_counter()
    if request.test:
        check_place(request.runs)
    epochs, embeddings = EpochStore.open(request.epochs), EmbeddingStore.open(request.embeddings)
    modalities = {name: epochs[name, epochs.subjects(name)[0]].modality for name in epochs.datasets()}
    dataset = choose_dataset(modalities, request.brain, request.dataset)
    recipe = read_recipe(request.recipe, request.brain).with_(train_on="mean")
    chosen, notes = choose_embeddings(embeddings.entries(), request.models or (), embeddings.resolve)
    if several := [target.name for target in chosen if len(target.parts) > 1]:
        raise EmbedctlError(f"screen takes embeddings one by one, not '{several[0]}'", "name them with commas between")
    subjects = choose_subjects(epochs.subjects(dataset), request.subjects or ())
    targets = Targets(embeddings, request.join)
    for recordings in (epochs[dataset, subject] for subject in subjects):
        n_bytes = memory_of(recordings, recipe)
        require(
            n_bytes, "the recordings of a subject need", "name fewer channels in a recipe of your own: --recipe FILE"
        )
        for target in chosen:
            targets.check(target, recordings.train.image_ids, recordings.test.image_ids)
    report = ScreenReport(dataset=dataset, recipe=recipe.name, notes=notes + targets.notes)
    for note in report.notes:
        progress.say(note)
    if request.test:
        check_writable(request.runs)
    n, each = len(subjects) * len(chosen), f" {counted(len(chosen), 'embedding')} in {len(subjects)} subjects"
    progress.start("screening" + each * (len(subjects) > 1), n, "embeddings" if len(subjects) == 1 else "scores")
    scored = dict[int, list[Scored]]()
    for subject in subjects:
        scored[subject] = []
        for one in _of_subject(epochs[dataset, subject], recipe, chosen, targets, request.test, report, progress):
            scored[subject].append(one)
            progress.advance(1, **{"top-1": f"{100 * one.top1:.1f} %"})
    report.chance, report.test_chance = report.chance / len(subjects), report.test_chance / len(subjects)
    report.rows = [
        _row(target, {subject: found[place] for subject, found in scored.items()})
        for place, target in enumerate(chosen)
    ]
    report.rows.sort(key=lambda row: (-row.top1, -row.mrr))
    if request.test:
        config = config_key(recipe, "within", epochs.recipe(dataset) or {}, by="ridge")
        record_tested(request.runs, [(dataset, target.name, target.key, config) for target in chosen])
        report.seen = seen(request.runs, any_results(request.runs))[dataset]
    report.seconds = time.perf_counter() - started
    return report


def _of_subject(
    epochs: SubjectEpochs,
    recipe: Recipe,
    chosen: list[Target],
    targets: Targets,
    with_test: bool,
    report: ScreenReport,
    progress: Progress,
) -> Iterator[Scored]:
    """Load a subject, factorise its recordings, and yield what each embedding reaches."""
    data = load_training(epochs, recipe)
    test, notes = load_test(epochs, recipe, data.scale) if with_test else (None, [])
    if test is not None and test.noise_ceiling is not None:
        report.noise_ceilings[epochs.subject] = test.noise_ceiling
    report.simulated += [epochs.subject] if epochs.info.get("simulated") else []
    split, note = held_out(data.image_ids, data.concepts, recipe)
    for text in [*data.notes, *notes, note]:
        if text not in report.notes:
            report.notes.append(text)
            progress.say(text)
    screened = Screened(_flat(data.mean), split, None if test is None else _flat(test.epochs))
    sizes = [len(rows) for rows in screened.rounds]
    report.n_way, report.n_queries = max(report.n_way, *sizes), max(report.n_queries, sum(sizes))
    report.chance += float(np.mean([1 / size for size in sizes]))
    report.test_chance += 0.0 if test is None else 1 / len(test.image_ids)
    for target in chosen:
        images = _vectors(targets, target, data.image_ids)
        if test is None:
            yield screened.score(images)
        else:
            yield screened.score(images, (_vectors(targets, target, test.image_ids), test.target))


def memory_of(subject: SubjectEpochs, recipe: Recipe) -> float:
    """Return about the bytes that screening a subject takes: its recordings three times, and their factorisation."""
    window, n_images = pick_window(subject, recipe), int(np.asarray(subject.train.valid).any(axis=1).sum())
    n_features = len(pick_channels(subject, recipe)[0]) * (1 if window is None else len(window))
    return 4.0 * 3 * n_images * n_features + 8.0 * 4 * min(n_images, n_features) ** 2


def held_out(image_ids: list[str], concepts: list[str], recipe: Recipe) -> tuple[Split, str]:
    """Hold out concepts, or images where these have none, and say how many.

    Parameters
    ----------
    image_ids, concepts : list of str
        The training images and their concepts.
    recipe : Recipe
        What share of them.
    """
    kind = "concept" if all(concepts) else "image"
    split = split_images(image_ids, concepts, kind, share=recipe.held_out, at_most=N_CONCEPTS, seed=0)
    n_held, n_all = len(split.rounds[0]), len(set(concepts if kind == "concept" else image_ids))
    few = "" if n_held == N_CONCEPTS else f", fewer than {N_CONCEPTS} because there are few"
    none = "" if kind == "concept" else " (these have no concepts)"
    return split, f"{n_held} of {n_all:,} training {kind}s{none} are held out to choose the penalty and to score{few}"


def _vectors(targets: Targets, target: Target, image_ids: list[str]) -> Floats:
    """Return embeddings, each centred over its features and of length one, as the losses see them.

    In place: to have and to give back fifty megabytes several times for every embedding costs as much as the products.
    """
    values = targets.rows(target, image_ids)
    values -= values.mean(axis=1, keepdims=True)
    to_length_one(values)
    return values


def _flat(epochs: torch.Tensor) -> Floats:
    return np.asarray(epochs.reshape(len(epochs), -1))


def _row(target: Target, found: dict[int, Scored]) -> ScreenRow:
    def mean(figures: list[float]) -> float | None:
        return float(np.mean(figures)) if figures else None

    tests = [one.test for one in found.values() if one.test is not None]
    return ScreenRow(
        embedding=target.name,
        embedding_key=target.key,
        aligned_by=target.said_of()["aligned_by"],
        weights=weights_of(target),
        per_subject={subject: one.top1 for subject, one in found.items()},
        penalties={subject: one.penalty for subject, one in found.items()},
        top1=float(np.mean([one.top1 for one in found.values()])),
        top5=float(np.mean([one.top5 for one in found.values()])),
        mrr=float(np.mean([one.mrr for one in found.values()])),
        test_top1=mean([test.top(1) for test in tests]),
        test_top5=mean([test.top(5) for test in tests]),
    )
