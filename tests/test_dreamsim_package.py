"""DreamSim computed natively equals the dreamsim package on checkpoints in its published layout.

pytest -m slow -n 0 -s tests/test_dreamsim_package.py      # prints the largest difference of every type
"""

import gc

import numpy as np
import pytest
import torch

from pipelines.encoders.build import build
from pipelines.encoders.preprocessing import exact_transform
from pipelines.encoders.registry import find, registry
from stores.names import EmbeddingName
from tests.dreamsim_reference import fabricate, package

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # peft and torch.nn.utils.weight_norm warn about themselves
]

TYPES = {
    "dreamsim-clip-vitb32": "clip_vitb32",
    "dreamsim-openclip-vitb32": "open_clip_vitb32",
    "dreamsim-dino-vitb16": "dino_vitb16",
    "dreamsim-dinov2-vitb14": "dinov2_vitb14",
    "dreamsim-synclr-vitb16": "synclr_vitb16",
    "dreamsim-ensemble": "ensemble",
    "dreamsim-dino-vitb16-patch": "dino_vitb16_patch",
    "dreamsim-dinov2-vitb14-patch": "dinov2_vitb14_patch",
}


def test_every_dreamsim_table_is_compared():
    assert set(TYPES) == {spec.id for spec in registry().values() if spec.aligned_by == "dreamsim"}


def native(spec, folder, pixels):
    """Return our rows (n, dim) and the shape of their tokens."""
    encoder, p = build(spec, weights=str(folder)), spec.preprocessing
    normalised = (pixels - torch.tensor(p.mean).view(-1, 1, 1)) / torch.tensor(p.std).view(-1, 1, 1)
    name = EmbeddingName(spec.id)
    return encoder(normalised)[name], encoder.token_shapes.get(name)


@pytest.mark.parametrize("id_", TYPES)
def test_aligned_and_base_equal_the_package(id_, tmp_path, capsys):
    fabricate(tmp_path, TYPES[id_])
    pixels = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    aligned = find(id_)
    rows = {}
    for spec in (aligned, find(aligned.matched_base)):
        ours, token_shape = native(spec, tmp_path, pixels)
        rows[spec.id] = ours
        gc.collect()  # one network at a time: three backbones take a gigabyte
        theirs = package(tmp_path, TYPES[id_], pixels, baseline=spec is not aligned)
        gc.collect()
        if token_shape:
            assert theirs.shape[1:] == token_shape
        assert ours.shape == (2, spec.dim)
        difference = float(np.abs(ours.numpy() - theirs.flatten(1).numpy()).max())
        with capsys.disabled():
            print(f"\n{spec.id}: largest difference {difference:.1e}, standard deviation {ours.std():.2f}", end="")
        torch.testing.assert_close(ours, theirs.flatten(1), atol=1e-5, rtol=1e-5)
    assert (rows[id_] - rows[aligned.matched_base]).abs().max() > 0.1  # the adapter does something


@pytest.mark.parametrize("id_", TYPES)
def test_pixels_equal_the_package(id_):
    from PIL import Image
    from torchvision import transforms

    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 401, 3), np.uint8))
    spec = find(id_)
    # dreamsim.model.dreamsim's `t`, then PerceptualModel._preprocess
    steps = [
        transforms.Resize((224, 224), interpolation=transforms.InterpolationMode.BICUBIC),
        transforms.ToTensor(),
        transforms.Normalize(spec.preprocessing.mean, spec.preprocessing.std),
    ]
    ours = exact_transform(spec.preprocessing)(image)
    assert torch.equal(ours, transforms.Compose(steps)(image))
