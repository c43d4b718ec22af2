"""Check gLocal's real transforms: their hashes, and our rows against the formula thingsvision documents.

    python benchmarks/glocal_transforms.py FOLDER

FOLDER holds ``.npz`` files of https://github.com/LukasMut/gLocal (MIT), under any name: they are told apart by hash.
"""

import hashlib
import sys
from pathlib import Path

import numpy as np

from pipelines.encoders.derived import is_derived, load_derivation
from pipelines.encoders.registry import find, registry
from stores.errors import EmbedctlError


def main(folder: Path) -> None:
    tables = {spec.weights[0].sha256: spec for spec in registry().values() if is_derived(spec)}
    for path in sorted(folder.glob("*.npz")):
        spec = tables.get(hashlib.sha256(path.read_bytes()).hexdigest())
        if spec is None:
            print(f"{path.name}: no table has its hash")
            continue
        arrays = dict(np.load(path))
        rows = np.random.default_rng(0).standard_normal((500, spec.dim)) * arrays["std"] + arrays["mean"]
        rows = rows.astype(np.float32)
        expected = ((rows - arrays["mean"]) / arrays["std"]) @ arrays["weights"] + arrays.get("bias", 0)
        ours = load_derivation(spec, str(path)).map(rows, np.arange(500))
        print(f"{path.name}: {spec.id}, largest difference {np.abs(ours - expected).max():.1e} of {expected.std():.3f}")
        if spec.id == "glocal-dino-vitb16":  # what upstream's main branch serves for DINOv2 as well
            try:
                load_derivation(find("glocal-dinov2-vitb14"), str(path))
            except EmbedctlError as refusal:
                print(f"  as glocal-dinov2-vitb14: {refusal}")
            else:
                sys.exit("  as glocal-dinov2-vitb14: accepted, and must not be")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
