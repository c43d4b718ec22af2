"""Peak memory, of few images and of many."""

from pathlib import Path

from benchmarks.extract.measuring import copies, line, spent


def memory(folder: Path, place: Path) -> None:
    images = {n: copies(folder, place / f"memory-{n}", n) for n in (1000, 10_000)}
    for model in ("pixels", "mobilenetv3-small-tv"):
        peaks = []
        for n, photographs in images.items():
            words = ["--model", model, "--images", str(photographs), "--weights", "random:7", "--dtype", "float32"]
            peaks.append(spent([*words, "--store", str(place / f"memory-{model}-{n}.zarr")])[2])
        line(f"{model}: peak memory of 1,000 and 10,000 images", f"{peaks[0]:.0f} MB, {peaks[1]:.0f} MB")
        line(f"{model}: difference", f"{peaks[1] - peaks[0]:.0f} MB", "at most 300 MB")
