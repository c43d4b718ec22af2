"""The numbers of the probe image, for random weights: what a new version of a library must not change unseen.

After a change that is meant, write the table again: ``python tests/test_encoder_golden.py ID...`` (all rows without).
"""

import json
import sys

import pytest

from pipelines.encoders.build import build
from pipelines.encoders.golden import TABLE, TOLERANCE, WEIGHTS, differs, golden, probe_row, shortened, versions
from pipelines.encoders.registry import find, registry

CONTROLS = {"pixels", "gabor-pyramid", "hog", "colour-histogram"}
# Over 600 million numbers, or inputs that make a forward pass take minutes: more than a CI machine holds.
TOO_LARGE = {
    "clip-rn50x64",
    "dfn5b-vith14",
    "dinov2-vitg14",
    "ijepa-vith14",
    "metaclip2-vith14",
    "openclip-vitbigg14-laion2b",
    "openclip-vitg14-laion2b",
    "openclip-vith14-laion2b",
}
# About 300 million numbers, most of the time of drawing all of the table. Two of their kind stay with the others.
LARGE = {
    "aimv2-l14",
    "clip-vitl14-336",
    "dinov3-vitl16",
    "dreamsim-ensemble",
    "dreamsim-ensemble-base",
    "eva02-clip-l14",
    "eva02-mim-l14",
    "glocal-dinov2-vitl14-base",
    "mae-vitl16",
    "openclip-vitl14-datacomp",
    "openclip-vitl14-laion2b",
    "openclip-vitl14-laion400m",
    "pe-core-l14-336",
    "siglip2-so400m14",
}


def marks(id_: str) -> list[pytest.MarkDecorator]:
    return [] if id_ in CONTROLS else [pytest.mark.large if id_ in LARGE else pytest.mark.slow]


_seen: dict[str, list[float]] = {}


def computed(id_: str) -> list[float]:
    """Compute the numbers of a row; rows that differ in their published weights alone are one network here."""
    spec = find(id_)
    model = {key: value for key, value in spec.model.items() if key not in ("tensors_under", "image_tower_alone")}
    if spec.family == "timm":
        model["name"] = model["name"].partition(".")[0]  # the rest is the tag of the weights
    network = repr((spec.family, model, spec.preprocessing, spec.tap, spec.pooling))
    if network not in _seen:
        _seen[network] = shortened(probe_row(build(spec, weights=WEIGHTS)))
    return _seen[network]


@pytest.mark.parametrize("id_", [pytest.param(id_, marks=marks(id_)) for id_ in golden()["rows"]])
def test_the_probe_image_has_the_numbers_it_had(id_):
    if id_ not in CONTROLS and golden()["versions"] != versions():
        pytest.skip("other versions of the libraries may draw other random weights")
    assert differs(computed(id_), golden()["rows"][id_]) <= TOLERANCE


def test_every_row_whose_network_builds_on_a_small_computer_has_its_numbers():
    networks = {spec.id for spec in registry().values() if spec.family != "affine"}
    assert set(golden()["rows"]) == networks - TOO_LARGE


if __name__ == "__main__":
    for id_ in sys.argv[1:] or list(golden()["rows"]):
        golden()["rows"][id_] = computed(id_)
    rows = dict(sorted(golden()["rows"].items()))
    text = json.dumps({"versions": versions(), "rows": rows}, indent=1)
    TABLE.write_text(text.replace("\n   ", " ").replace("\n  ]", " ]") + "\n", encoding="utf-8")
