"""What the recipe's weights and probe images give in embedctl, beside what they gave in Keras."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pipelines.encoders.build import Encoder, build
from pipelines.encoders.registry import EncoderSpec, registry
from stores.names import EmbeddingName
from tests.references.harmonization import recipe

REFERENCES = json.loads((recipe.HERE / "references.json").read_text(encoding="utf-8"))
HARMONISED = [spec.id for spec in registry().values() if spec.aligned_by == "harmonization"]


def build_from_recipe(spec: EncoderSpec, folder: Path) -> Encoder:
    """The encoder with the recipe's weights, tapped at its embedding and at the hidden layer of the references."""
    network = spec.model["name"]
    path = recipe.write_h5(folder / "weights.h5", network)
    hidden = EmbeddingName(spec.id, REFERENCES[network]["hidden"])
    encoder = build(spec, weights=str(path), taps=[EmbeddingName(spec.id), hidden])
    path.unlink()  # VGG's is 0.5 GB
    return encoder


def probes(spec: EncoderSpec, folder: Path) -> torch.Tensor:
    """The probe images as the network sees them, from files."""
    from pipelines.encoders.preprocessing import exact_transform

    transform = exact_transform(spec.preprocessing)
    return torch.stack([transform(Image.open(path)) for path in recipe.write_probes(folder)])


def misfit(rows: torch.Tensor, expected: list[dict]) -> float:
    """Largest difference from the reference, in standard deviations of the embedding; not finite counts as infinite."""
    worst = []
    for row, reference in zip(rows.double().numpy(), expected, strict=False):  # perhaps the first images only
        assert row.size == reference["dim"]
        kept = row[np.linspace(0, row.size - 1, len(reference["values"])).round().astype(int)]
        differences = [*(kept - reference["values"]), row.mean() - reference["mean"], row.std() - reference["std"]]
        worst.append(np.abs(differences).max() / reference["std"])
    return float(np.nan_to_num(max(worst), nan=np.inf))
