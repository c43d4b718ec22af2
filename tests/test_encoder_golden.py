"""The first numbers of the probe image, for random weights: what a new version of a library must not change unseen.

After a change that is meant, write the table again: ``python tests/test_encoder_golden.py ID...`` (all rows without).
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.encoders.build import build
from pipelines.encoders.registry import find
from stores.names import EmbeddingName

TABLE = Path(__file__).parent / "references" / "encoders.json"
PACKAGES = ("torch", "torchvision", "timm", "open_clip_torch", "pillow")
GOLDEN = json.loads(TABLE.read_text(encoding="utf-8")) if TABLE.exists() else {"versions": {}, "rows": {}}
CONTROLS = {"pixels", "gabor-pyramid", "hog", "colour-histogram"}


def versions() -> dict[str, str]:
    return {package: version(package).partition("+")[0] for package in PACKAGES}


def probe() -> Image.Image:
    """Return smooth structure and sharp edges, not square, from a formula."""
    y, x = np.mgrid[:260, :340]
    red, green = 127 + 127 * np.sin(x / 9 + y / 23), 127 + 127 * np.cos(y / 7 - x / 31)
    blue = 255 * (((x // 20) + (y // 30)) % 2)
    return Image.fromarray(np.stack([red, green, blue], 2).astype(np.uint8))


def first_numbers(id_: str) -> list[float]:
    encoder = build(find(id_), weights="random:0")
    rows = encoder(encoder.exact_transform()(probe())[None])[EmbeddingName(id_)]
    step = rows.shape[1] // 8  # from all over the row: the first bins of a histogram are empty
    return [float(f"{value:.6g}") for value in rows[0, step // 2 :: step][:8]]


@pytest.mark.parametrize(
    "id_", [pytest.param(id_, marks=[] if id_ in CONTROLS else pytest.mark.slow) for id_ in GOLDEN["rows"]]
)
def test_the_probe_image_has_the_numbers_it_had(id_):
    if id_ not in CONTROLS and GOLDEN["versions"] != versions():
        pytest.skip("other versions of the libraries may draw other random weights")
    expected = np.array(GOLDEN["rows"][id_])
    np.testing.assert_allclose(first_numbers(id_), expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


if __name__ == "__main__":
    rows = GOLDEN["rows"] | {id_: first_numbers(id_) for id_ in sys.argv[1:] or GOLDEN["rows"]}
    text = json.dumps({"versions": versions(), "rows": dict(sorted(rows.items()))}, indent=1)
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text(text.replace("\n   ", " ").replace("\n  ]", " ]") + "\n", encoding="utf-8")
