"""The numbers of the probe image, for random weights: what a new version of a library must not change unseen.

After a change that is meant, write the table again: ``python tests/test_encoder_golden.py ID...`` (all rows without).
"""

import json
import sys

import pytest

from pipelines.encoders.build import build
from pipelines.encoders.golden import TABLE, TOLERANCE, WEIGHTS, differs, golden, probe_row, shortened, versions
from pipelines.encoders.registry import find

CONTROLS = {"pixels", "gabor-pyramid", "hog", "colour-histogram"}


def computed(id_: str) -> list[float]:
    return shortened(probe_row(build(find(id_), weights=WEIGHTS)))


@pytest.mark.parametrize(
    "id_", [pytest.param(id_, marks=[] if id_ in CONTROLS else pytest.mark.slow) for id_ in golden()["rows"]]
)
def test_the_probe_image_has_the_numbers_it_had(id_):
    if id_ not in CONTROLS and golden()["versions"] != versions():
        pytest.skip("other versions of the libraries may draw other random weights")
    assert differs(computed(id_), golden()["rows"][id_]) <= TOLERANCE


if __name__ == "__main__":
    for id_ in sys.argv[1:] or list(golden()["rows"]):
        golden()["rows"][id_] = computed(id_)
    rows = dict(sorted(golden()["rows"].items()))
    text = json.dumps({"versions": versions(), "rows": rows}, indent=1)
    TABLE.write_text(text.replace("\n   ", " ").replace("\n  ]", " ]") + "\n", encoding="utf-8")
