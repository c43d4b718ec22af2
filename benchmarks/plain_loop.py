"""Compare what ``embedctl extract --exact`` writes with a plain loop over any folder of photographs.

    python -m benchmarks.plain_loop FOLDER

Three networks with random weights, computed three times over: by the command in float32, by the command in float16,
and by PIL, the library's own transform and the library's own model, image by image (a few minutes for 240 images).
Prints the largest difference of every model, and ends with 1 where one is above 1e-5 of a number (of 1 for smaller
ones) or a float16 row is not the rounding of the float32 one. Images that the command skips are left out of the loop.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import embedctl
from tests.plain_loop import MODELS, plain_rows

SEED = 7


def extract(images: Path, store: Path, dtype: str) -> None:
    command = [sys.executable, "-m", "embedctl", "extract", "--images", str(images), "--store", str(store), "--exact"]
    command += ["--model", ",".join(MODELS), "--weights", f"random:{SEED}", "--dtype", dtype]
    if subprocess.run(command).returncode not in (0, 3):
        sys.exit("extract failed")


def main(images: Path) -> None:
    wrong = False
    with tempfile.TemporaryDirectory() as folder:
        for dtype in ("float32", "float16"):
            extract(images, Path(folder) / f"{dtype}.zarr", dtype)
        whole, half = (embedctl.open_embeddings(Path(folder) / f"{dtype}.zarr") for dtype in ("float32", "float16"))
        for name in MODELS:
            stored = whole[name]
            plain = plain_rows(name, SEED, [images / image_id for image_id in stored.image_ids])
            difference = float(np.abs(stored.values - plain).max())
            rounded = np.array_equal(half[name].values, stored.values.astype(np.float16))
            wrong |= not rounded or not np.allclose(stored.values, plain, rtol=1e-5, atol=1e-5)
            print(
                f"{name}: {len(plain)} images, largest difference {difference:.1e} of {np.abs(plain).max():.2f}; "
                f"float16 {'is' if rounded else 'is NOT'} the rounding of float32"
            )
    sys.exit(wrong)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
