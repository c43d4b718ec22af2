"""A trained run applied to recordings it was not tested with: another subject, store or split."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from pipelines.train.data import pick_window
from pipelines.train.metrics import retrieve
from pipelines.train.repetitions import Pick, means, split_half
from pipelines.train.restore import TrainedRun, restore
from pipelines.train.several import target_of
from pipelines.train.targets import Targets
from stores.embeddings import EmbeddingStore
from stores.epochs import EpochStore, SplitEpochs, SubjectEpochs
from stores.errors import EmbedctlError, StoreMismatch
from stores.names import counted

__all__ = ["Prediction", "gallery_of", "predict"]

AT_ONCE = 1024  # epochs through the network, as in training


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a run makes of recordings.

    Parameters
    ----------
    brain : (n_queries, dim)
        Unit embeddings of the recordings, float32.
    gallery : (n_gallery, dim)
        Unit embeddings of the images, in the same space: after the run's image head.
    scores : (n_queries, n_gallery)
        Their cosine similarities.
    queries, gallery_ids : list of str
        The image that each recording shows, and each column of the scores.
    figures : dict
        ``top1``, ``top5``, ``chance``, and of test images the ``noise_ceiling`` (`split_half`).
    """

    brain: np.ndarray
    gallery: np.ndarray
    scores: np.ndarray
    queries: list[str]
    gallery_ids: list[str]
    figures: dict[str, float | None] = field(default_factory=dict)


def predict(
    runs: Path,
    run_id: str,
    *,
    epochs: Path,
    embeddings: Path,
    dataset: str = "",
    subject: int | None = None,
    training: bool = False,
) -> Prediction:
    """Apply a run to recordings, averaged over the repetitions of each image, and score it among their images.

    They are loaded as the run's own were: its channels by name, its window, normalisation and scale.

    Parameters
    ----------
    runs : Path
        Folder of all runs.
    run_id : str
        A finished run.
    epochs, embeddings : Path
        The stores. The embedding must be the very one that was trained on.
    dataset : str
        Empty for the run's own.
    subject : int, optional
        None for the run's own.
    training : bool
        Whether to take the training images instead of the test images.

    Raises
    ------
    EmbedctlError
        If the recordings lack a channel or a moment that the run reads.
    StoreMismatch
        If the embedding store holds another version of the embedding.
    """
    trained = restore(runs, run_id)
    config = trained.config
    which = dataset or config["dataset"], config["subject"] if subject is None else subject
    recordings = EpochStore.open(epochs)[which]
    split = recordings.train if training else recordings.test
    mean, shown, pick = _as_in_training(trained, recordings, split)
    gallery_ids = list(split.image_ids)
    gallery = gallery_of(trained, embeddings, gallery_ids)
    with torch.inference_mode():
        brain = torch.cat([trained.see(part) for part in torch.split(torch.from_numpy(mean), AT_ONCE)])
        scores = (brain @ torch.from_numpy(gallery).T).numpy()
    found = retrieve(scores, shown)
    return Prediction(
        brain=brain.numpy(),
        gallery=gallery,
        scores=scores,
        queries=[gallery_ids[row] for row in shown],
        gallery_ids=gallery_ids,
        figures={
            "top1": found.top(1),
            "top5": found.top(5),
            "chance": 1 / len(gallery_ids),
            "noise_ceiling": None if training else split_half(split, pick),
        },
    )


def gallery_of(trained: TrainedRun, embeddings: Path, image_ids: list[str]) -> np.ndarray:
    """Return images in the space of a run's brain embeddings, ``(n_images, dim)`` float32.

    Raises
    ------
    StoreMismatch
        If the store does not hold the embedding that was trained on.
    EmbedctlError
        If it lacks an image.
    """
    store, config = EmbeddingStore.open(embeddings), trained.config
    target = target_of(config, store.entries())
    if target is None:
        raise StoreMismatch(
            f"'{embeddings}' does not hold {config['embedding']}#{config['embedding_key']}, "
            f"which run '{trained.run_id}' was trained on",
            "name the store that does with --embeddings",
        )
    targets = Targets(store, config["join"])
    targets.require(target, image_ids)
    return trained.picture(targets.rows(target, image_ids)).numpy()


def _as_in_training(
    trained: TrainedRun, recordings: SubjectEpochs, split: SplitEpochs
) -> tuple[np.ndarray, np.ndarray, Pick]:
    """Return the mean recording of each image, the images that have one, and which channels and moments are read."""
    config, recipe = trained.config, trained.recipe
    if recordings.modality != config["modality"]:
        raise EmbedctlError(
            f"run '{trained.run_id}' reads {config['modality']}, these are {recordings.modality}", "name other epochs"
        )
    if "scale" not in config:
        raise StoreMismatch(f"run '{trained.run_id}' is of another version of embedctl", "train it again")
    names = list(recordings.ch_names) or [f"voxel {i}" for i in range(split.mean_shape[1])]
    if lacking := [name for name in config["ch_names"] if name not in names]:
        raise EmbedctlError(
            f"these epochs lack {counted(len(lacking), 'channel')} that run '{trained.run_id}' reads: "
            f"{', '.join(lacking[:5])}",
            "name epochs of the same channels",
        )
    window = pick_window(recordings, recipe)
    moments = np.empty(0) if window is None else recordings.times[window]
    if moments.shape != trained.times.shape or not np.allclose(moments, trained.times, atol=1e-6):
        raise EmbedctlError(
            f"these epochs have other moments than the {len(trained.times)} that run '{trained.run_id}' reads",
            "name epochs preprocessed as the run's were",
        )
    if window is None and len(names) != trained.shape[0]:
        raise EmbedctlError(
            f"run '{trained.run_id}' reads {counted(trained.shape[0], 'voxel')}, these are {len(names)}",
            "voxels of another subject are other voxels: train on that subject",
        )
    pick = np.array([names.index(n) for n in config["ch_names"]]), window
    mean, shown = means(split, recipe.trial_norm, pick)
    return np.asarray(mean / np.float32(config["scale"])), shown, pick
