"""A finished run as a network again: what its folder holds, read back."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import nn

from pipelines.train.brain_encoders import brain_encoder, prepare
from pipelines.train.brain_encoders.elsewhere import content, file_of, is_in_a_file, is_trusted
from pipelines.train.data import pick_window
from pipelines.train.image_head import ImageHead
from pipelines.train.image_side import ImageSide
from pipelines.train.losses import unit
from pipelines.train.recipes import MODALITIES, Recipe, read_recipe
from pipelines.train.trial import watched
from stores.errors import DamagedStore, EmbedctlError, StoreMismatch
from stores.results import read_array, read_checkpoint, read_config
from stores.sealed import TRAIN_AGAIN

__all__ = ["TrainedRun", "restore"]
ANOTHER_START = 1_000_003  # added to a run's seed


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """A trained brain encoder with its image side, as the run's chosen checkpoint left them.

    Parameters
    ----------
    run_id : str
        Name of the run.
    config : dict
        Everything that was decided.
    recipe : Recipe
        How its recordings are loaded (`pipelines.train.data.load_subject`).
    brain : Module
        The brain encoder, in evaluation mode.
    image : ImageHead
        The map on the image side.
    side : ImageSide
        What comes before it.
    scale : float
        Inverse temperature.
    shape : (int, int, int)
        Channels, times and width of the brain encoder.
    times : (n_times,)
        The moments it reads, in seconds; none for voxels.
    """

    run_id: str
    config: dict[str, Any]
    recipe: Recipe
    brain: nn.Module
    image: ImageHead
    side: ImageSide
    scale: float
    shape: tuple[int, int, int]
    times: np.ndarray

    def see(self, epochs: torch.Tensor) -> torch.Tensor:
        """Return the unit brain embeddings ``(n, dim)`` of epochs ``(n, n_chans, n_times)``, differentiably."""
        with watched(self.config["brain_encoder"]):
            return unit(self.brain(prepare(type(self.brain), epochs)))

    @torch.no_grad()
    def picture(self, values: np.ndarray) -> torch.Tensor:
        """Return the unit image embeddings ``(n, dim)`` of rows of the embedding store ``(n, n_features)``."""
        return unit(self.image(self.side(values, torch.device("cpu"))))

    def untrained(self) -> "TrainedRun":
        """Return the same run with random weights, not those it started from: training may not have led far away."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(ANOTHER_START + self.config["seed"])
            with watched(self.config["brain_encoder"]):
                fresh = type(self.brain)(*self.shape)
        return dataclasses.replace(self, brain=_frozen(fresh))


def restore(runs: Path, run_id: str) -> TrainedRun:
    """Read a finished run back from its folder, onto the CPU.

    Parameters
    ----------
    runs : Path
        Folder of all runs.
    run_id : str
        Name of the run.

    Raises
    ------
    EmbedctlError
        If there is no such run, it is not finished, or its brain encoder is in a file that the person has not named.
    StoreMismatch
        If its weights do not fit the brain encoder of that name, or a file of the user's that took part has changed.
    DamagedStore
        If a file is not the one that was written.
    """
    config = read_config(runs, run_id)
    if config["modality"] not in MODALITIES:
        raise DamagedStore(f"run '{run_id}' says nonsense of its 'modality'", TRAIN_AGAIN)
    kind = config["brain_encoder"]
    if is_in_a_file(kind) and not is_trusted(kind):
        raise EmbedctlError(
            f"run '{run_id}' names code, '{kind}': it runs only with --trust",
            f"look into '{file_of(kind)}'; --trust {quote(str(file_of(kind)))} runs it",
        )
    for name, digest in config["own"].items():
        if content(name) != digest:
            raise StoreMismatch(f"'{name}' has changed since run '{run_id}' was trained", "train it again")
    recipe = read_recipe("modern", config["modality"]).with_(**config["settings"] | {"name": config["recipe"]})
    try:
        state = load(read_checkpoint(runs, run_id))
        log_scale = state.pop("log_scale")
    except (SafetensorError, KeyError) as error:
        raise DamagedStore(f"the weights of run '{run_id}' cannot be read", TRAIN_AGAIN) from error
    stacked = len(state["image.route"]) if "image.route" in state else 0
    side = ImageSide(stacked, *(state.pop(name, None) for name in ("mean", "spread", "axes")))
    times = _times(config, recipe)
    shape = (len(config["ch_names"]), len(times) or 1, read_array(runs, run_id, "brain").shape[1])
    with watched(kind):
        brain = brain_encoder(kind)(*shape)
    model = nn.ModuleDict({"brain": brain, "image": ImageHead(recipe.image_head, shape[2], stacked)})
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise StoreMismatch(
            f"the weights of run '{run_id}' do not fit '{kind}': {reason}",
            "train it again, or use the version of embedctl that trained it",
        ) from None
    return TrainedRun(
        run_id=run_id,
        config=config,
        recipe=recipe,
        brain=_frozen(model["brain"]),
        image=_frozen(model["image"]),  # type: ignore[arg-type]
        side=side,
        scale=float(log_scale.exp()),
        shape=shape,
        times=times,
    )


def _frozen(module: nn.Module) -> nn.Module:
    return module.eval().requires_grad_(False)


def _times(config: dict[str, Any], recipe: Recipe) -> np.ndarray:
    """Return the moments of the stored epochs that lie in the recipe's window; none of voxels."""
    times = np.asarray(config["times"], dtype=np.float64)
    step = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 0.0
    window = pick_window(SimpleNamespace(times=times, sfreq=1 / step if step else 0.0), recipe)  # type: ignore[arg-type]
    return times[:0] if window is None else times[window]
