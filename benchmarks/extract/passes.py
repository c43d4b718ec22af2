"""Six light encoders in one pass over the images, against six passes."""

from dataclasses import replace
from pathlib import Path

from benchmarks.extract.measuring import asking, line, resized, run
from benchmarks.extract.stages import stages

LIGHT = (
    "mobilenetv3-small-tv",
    "resnet18-tv",
    "alexnet-tv",
    "tf-efficientnet-b0",
    "tf-efficientnet-b0-ns-jft-in1k",
    "harmonized-efficientnet-b0-base",
)
WIDTHS = (500, 1500)  # pixels


def passes(folder: Path, place: Path) -> None:
    for width in WIDTHS:
        six(folder, width, place)


def six(folder: Path, width: int, place: Path) -> None:
    request = asking(resized(folder, place / f"wide-{width}", width))
    apart, cost = [], []
    for model in LIGHT:
        one = replace(request, models=(model,))
        cost.append(sum(stages(one).values()))
        apart.append(run(one, place / f"{model}-{width}.zarr").per_image())
    together = replace(request, models=LIGHT)
    allowed = sum(cost) / sum(stages(together).values())
    pass_ = run(together, place / f"six-{width}.zarr").per_image()
    for what, six, one in zip(("wall", "CPU"), zip(*apart, strict=True), pass_, strict=True):
        gain = sum(six) / one
        line(f"six encoders at {width} px, one pass for six: less {what}", f"{gain:.2f} x, stages allow {allowed:.2f}")
        line(f"six encoders at {width} px, {what}: of what stages allow", f"{gain / allowed:.2f}", "at least 0.95")
