"""R12: the same inputs give the same bytes; another batch size changes the last bits, and how much is stated here.

That training gives the same bits twice and on any number of threads is proved in `tests/train/test_train.py`, that an
extraction does so on any number of cores, and when it is resumed, in `tests/extract/test_recorded.py`.
"""

import numpy as np
import pytest

from pipelines.encoders import registry
from pipelines.extract.extract import extract
from pipelines.extract.request import ExtractRequest
from stores.embeddings import EmbeddingStore
from tests.photos import write_photographs

CARD = """
[small]
family = "torchvision"
model = { name = "resnet18" }
tap = "avgpool"
pooling = "flatten"
dim = 512
input = { resize = "bilinear", fit = "shortest", resize_to = 64, size = 64, norm = "imagenet" }
licence = "BSD-3-Clause"
fitted_on = []
reference = "https://arxiv.org/abs/1512.03385"
"""


@pytest.mark.slow
def test_twice_is_bitwise_and_batches_of_1_7_and_64_agree_to_rounding(tmp_path, monkeypatch):
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "small.toml").write_text(CARD)
    known = registry.registry() | registry.read_cards(tmp_path / "cards")
    monkeypatch.setattr(registry, "registry", lambda: known)
    write_photographs(tmp_path / "images", 40)

    def values(batch_size, again=0):
        store = tmp_path / f"{batch_size}-{again}.zarr"
        extract(
            ExtractRequest(
                models=("small",), images=tmp_path / "images", store=store, weights="random:7", batch_size=batch_size,
                dtype="float32", device="cpu",
            )
        )  # fmt: skip
        return EmbeddingStore.open(store)["small"].values

    first = values(7)
    assert first.tobytes() == values(7, again=1).tobytes()
    for batch_size in (1, 64):
        other = values(batch_size)
        cosine = (first * other).sum(1) / np.linalg.norm(first, axis=1) / np.linalg.norm(other, axis=1)
        assert cosine.min() >= 0.9999
        assert np.abs(first - other).max() <= 1e-5 * np.abs(first).max()
