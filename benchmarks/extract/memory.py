"""Peak memory, of few images and of many."""

from pathlib import Path

from benchmarks.extract.measuring import copies, line, spent


def memory(folder: Path, place: Path) -> None:
    peaks = []
    for n in (1000, 10_000):
        images = copies(folder, place / f"memory-{n}", n)
        words = ["--model", "pixels", "--images", str(images), "--store", str(place / f"memory-{n}.zarr")]
        peaks.append(spent(words)[2])
    line("peak memory of 1,000 and 10,000 images (pixels)", f"{peaks[0]:.0f} MB, {peaks[1]:.0f} MB")
    line("peak memory: difference", f"{peaks[1] - peaks[0]:.0f} MB", "at most 300 MB")
