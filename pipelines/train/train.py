"""One training run, read from top to bottom: a brain encoder learns to point at frozen image embeddings.

A run is a function of its configuration and its data. On one machine the same seed gives the same bits: a run on
the CPU uses one thread, so its sums do not depend on how many cores there are.
"""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from pipelines.train.brain_encoders import brain_encoder
from pipelines.train.data import Recordings
from pipelines.train.draws import Draws
from pipelines.train.evaluation import embed, retrieval_figures, validate
from pipelines.train.image_head import FASTER, ImageHead
from pipelines.train.image_side import fit_image_side
from pipelines.train.losses import loss_function
from pipelines.train.metrics import centre_scores, retrieve
from pipelines.train.recipes import Recipe
from pipelines.train.splits import split_images
from stores.errors import EmbedctlError

__all__ = ["RunConfig", "RunOutcome", "train_run"]

HIGHEST_SCALE = 100.0  # of the learned inverse temperature, as in CLIP
LOWEST_LR = 1e-7  # of the rule val-loss-cosine, as in AlignVis


@dataclass(frozen=True, slots=True)
class RunConfig:
    """What a run is asked to do, its data apart.

    Parameters
    ----------
    recipe : Recipe
        Every setting.
    brain_encoder : str
        Name of the brain encoder.
    seed : int
        Of the initial weights, the order of the batches, dropout and the validation split.
    """

    recipe: Recipe
    brain_encoder: str
    seed: int


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """What a run leaves behind.

    Parameters
    ----------
    figures : dict
        Test and validation figures of the chosen checkpoint, by column of the results; ``checkpoint`` names the
        validation figure that chose it, and the pass; ``top1_by_repetitions`` is the top-1 of means over fewer
        repetitions, by their number; ``route`` is what each of a stack of embeddings weighs.
    last : dict
        The same test figures of the last step.
    arrays : dict
        ``scores`` and ``scores_last`` (n_queries, n_gallery), ``brain`` (n_queries, dim), ``hits`` and ``target``
        (n_queries,).
    state : dict
        Weights of the chosen checkpoint: ``brain.*``, ``image.*``, ``log_scale``, and what
        `ImageSide` keeps.
    metrics : list of dict
        One row per pass.
    """

    figures: dict[str, Any]
    last: dict[str, float]
    arrays: dict[str, np.ndarray]
    state: dict[str, torch.Tensor]
    metrics: list[dict[str, float]]


def train_run(
    config: RunConfig, data: Recordings, target: np.ndarray, gallery: np.ndarray, widths: Sequence[int] = ()
) -> RunOutcome:
    """Train one brain encoder on one embedding, choose its checkpoint on validation, and test it once.

    Parameters
    ----------
    config : RunConfig
        What to do.
    data : Recordings
        One subject, `Recordings.ready` for the brain encoder, on the device to train on.
    target : (n_images, dim)
        Embedding of every training image.
    gallery : (n_gallery, dim)
        Embedding of every test image.
    widths : sequence of int
        Features of each embedding, where several stand side by side.

    Returns
    -------
    RunOutcome
        Scores, checkpoint and figures.

    Raises
    ------
    EmbedctlError
        If nothing is left to train on, or training leaves the finite numbers.
    """
    recipe, device = config.recipe, data.mean.device
    started = time.perf_counter()
    with _reproducible(config.seed, device):
        # ------------------------------------------------------------------ data on the device
        split = split_images(
            data.image_ids,
            data.concepts,
            recipe.split,
            share=recipe.held_out,
            at_most=recipe.held_out_at_most,
            seed=config.seed,
            round_of=recipe.val_batch,
        )
        side, images = fit_image_side(target, split.train, widths, recipe, device)
        trained_on = torch.zeros(len(images), dtype=torch.bool, device=device)
        trained_on[torch.from_numpy(split.train)] = True
        rows = torch.nonzero(trained_on[data.shown]).flatten()
        rounds = [there for one in split.rounds if len(there := one[one < len(data.mean)]) > 1]
        if not rounds:
            raise EmbedctlError("the subject to validate on saw none of the images held out", "use more images")
        held = torch.from_numpy(np.concatenate(rounds)).to(device)
        held_epochs, held_images, round_sizes = data.mean[held], images[held], [len(r) for r in rounds]
        one_of = data.shown if data.whose is None else data.shown + len(images) * data.whose
        draws = Draws(one_of, rows, recipe.n_random)
        batch = min(recipe.batch, len(draws))
        if batch < 2:
            raise EmbedctlError(f"{len(draws)} rows leave nothing to train on", "use more images or hold fewer out")

        # ------------------------------------------------------------------ model
        kind = brain_encoder(config.brain_encoder)
        dim = images.shape[-1]
        brain_side = kind(data.rows.shape[1], data.n_times, dim)
        model = nn.ModuleDict({"brain": brain_side, "image": ImageHead(recipe.image_head, dim, side.stacked)}).to(
            device
        )
        log_scale = nn.Parameter(torch.tensor(1 / recipe.temperature, device=device).log())
        log_scale.requires_grad_(recipe.learn_temperature)
        loss_of = loss_function(recipe.loss)

        # ------------------------------------------------------------------ optimiser
        weights = list(model.parameters())
        groups: list[dict[str, Any]] = [{"params": weights}]
        if recipe.learn_temperature:
            groups.append({"params": [log_scale], "weight_decay": 0.0})
        optimiser = torch.optim.AdamW(groups, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)

        # ------------------------------------------------------------------ loop
        metrics: list[dict[str, float]] = []
        chosen, chosen_pass = dict[str, torch.Tensor](), 0
        order_of = torch.Generator().manual_seed(config.seed)
        x = torch.empty((batch, *data.rows.shape[1:]), device=device)
        for n_pass in range(1, recipe.passes + 1):
            model.train()
            lr = optimiser.param_groups[0]["lr"]
            picked, share = draws.of_pass(order_of)
            order = torch.randperm(len(draws), generator=order_of).to(device)
            total = torch.zeros((), device=device)
            n_batches = len(order) // batch  # what is left over takes part in another pass's order
            for step in range(n_batches):
                now = order[step * batch : (step + 1) * batch]
                shown = data.shown[picked[now, 0]]
                _gather(data.rows, picked[now], share[now], x)
                loss = loss_of(model["brain"](x), model["image"](images[shown]), _scale(log_scale), shown)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                if recipe.clip:
                    nn.utils.clip_grad_norm_(weights, recipe.clip)
                optimiser.step()
                total += loss.detach()
            seen = validate(model, loss_of, _scale(log_scale), held_epochs, held_images, round_sizes)
            row = {"pass": n_pass, "lr": lr, "loss": total.item() / n_batches} | seen
            metrics.append(row)
            if not np.isfinite(row["loss"]) or not np.isfinite(row["val_loss"]):
                raise EmbedctlError(f"the loss left the finite numbers in pass {n_pass}", "lower lr in the recipe")
            if n_pass == 1 or _as_good(
                row, metrics[chosen_pass - 1], recipe.choose_by
            ):  # of equals, the longest trained
                chosen, chosen_pass = _copy(model, log_scale), n_pass
            if recipe.patience and n_pass - chosen_pass >= recipe.patience:
                break
            if recipe.lr_rule == "val-loss-cosine":
                for group in optimiser.param_groups:
                    group["lr"] = val_loss_cosine(recipe.lr, row["val_loss"])
        states = {"last": _copy(model, log_scale), "chosen": chosen}

        # ------------------------------------------------------------------ evaluation: the test set is read here, once
        test, brain = data.test.epochs, dict[str, torch.Tensor]()
        pictures, shown_in_test = dict[str, torch.Tensor](), side(gallery, device)
        for name, state in states.items():
            model.load_state_dict({key: value for key, value in state.items() if key != "log_scale"})
            brain[name] = embed(model["brain"], test)
            pictures[name] = embed(model["image"], shown_in_test)
        scores = {name: (brain[name] @ pictures[name].T).cpu().numpy() for name in brain}
        from_fewer = {  # by the network that was restored last, the chosen one
            n: (embed(model["brain"], few) @ pictures["chosen"].T).cpu().numpy() for n, few in data.test.fewer.items()
        }
    own = data.test.target
    found = retrieve(scores["chosen"], own)
    concept_top1 = None
    if all(data.test.concepts):  # images without a concept would all be of one, and always found
        centres = centre_scores(brain["chosen"].cpu(), pictures["chosen"].cpu(), data.test.concepts, own)
        concept_top1 = retrieve(*centres).top(1)
    last = retrieval_figures(scores["last"], own)
    figures = retrieval_figures(scores["chosen"], own) | {
        "concept_top1": concept_top1,
        "last_top1": last["top1"],
        "top1_by_repetitions": {str(n): retrieve(one, own).top(1) for n, one in from_fewer.items()},
        "val_top1": metrics[chosen_pass - 1]["val_top1"],
        "noise_ceiling": data.test.noise_ceiling,
        "chance": 1 / found.n_way,
        "n_way": found.n_way,
        "n_queries": len(own),
        "steps": len(metrics) * n_batches,
        "checkpoint": f"{recipe.choose_by}:{chosen_pass}",
        "seconds": time.perf_counter() - started,
    }
    if side.stacked:
        figures["route"] = (FASTER * chosen["image.route"]).softmax(dim=0).tolist()
    arrays = {
        "scores": scores["chosen"],
        "scores_last": scores["last"],
        "brain": brain["chosen"].cpu().numpy(),
        "hits": found.hits(1),
        "target": own,
    }
    return RunOutcome(figures, last, arrays, chosen | side.state(), metrics)


def val_loss_cosine(lr: float, val_loss: float) -> float:
    """Return the learning rate of the next pass, as in AlignVis.

    Its scheduler, a cosine with warm restarts every ten passes, is told the validation loss instead of the pass.

    Examples
    --------
    >>> [round(val_loss_cosine(1.0, loss), 3) for loss in (4.2, 2.6)]
    [0.624, 0.842]
    """
    return LOWEST_LR + (lr - LOWEST_LR) * (1 + math.cos(math.pi * (val_loss % 10) / 10)) / 2


def _gather(rows: torch.Tensor, picked: torch.Tensor, share: torch.Tensor, out: torch.Tensor) -> None:
    """Put the weighted mean of the picked rows into ``out``."""
    if rows.dtype == out.dtype:
        torch.index_select(rows, 0, picked[:, 0], out=out)
    else:  # rows of many subjects are halves
        out.copy_(rows[picked[:, 0]])
    if picked.shape[1] > 1:
        shares = share.reshape(*share.shape, *[1] * (rows.ndim - 1))
        out *= shares[:, 0]
        for k in range(1, picked.shape[1]):
            out += shares[:, k] * rows[picked[:, k]]


@contextmanager
def _reproducible(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch and use one CPU thread, and leave both as they were."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        if device.type == "cpu":
            torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def _as_good(row: dict[str, float], best: dict[str, float], by: str) -> bool:
    return row[by] <= best[by] if by == "val_loss" else row[by] >= best[by]


def _scale(log_scale: torch.Tensor) -> torch.Tensor:
    return log_scale.exp().clamp(max=HIGHEST_SCALE)


def _copy(model: nn.ModuleDict, log_scale: torch.Tensor) -> dict[str, torch.Tensor]:
    state = {key: value.detach().clone() for key, value in model.state_dict().items()}
    return state | {"log_scale": log_scale.detach().clone()}
