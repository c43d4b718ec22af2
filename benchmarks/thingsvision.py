"""Measure `embedctl extract` against thingsvision: end to end, the same networks with the same random weights.

    python -m benchmarks.thingsvision FOLDER --peer PYTHON [--images N] [--only NAME,...] [--six WIDTH,...]

FOLDER holds photographs, copied as in `benchmarks.extract`. PYTHON is that of an environment with thingsvision 2.7.3
(MIT) and torch; it does not need embedctl. Each side begins with its networks built, on all cores, and ends with all
rows on the disk; listing the folder is counted there and not here, where it comes before the networks. Printed are the
ratios of wall and of CPU-seconds, which a busy machine changes less, as medians of three turns, and the largest
1 - cosine between rows. Layer and pixels are the network's own: its preprocessing, its last embedding.

``--six 500,1500`` measures six networks of mobilenet's class over images of these widths: one pass here, and six there.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.extract.measuring import BATCH, copies, line, resized, run
from pipelines.cores import n_cores
from pipelines.encoders.registry import add_cards
from pipelines.extract.request import ExtractRequest
from stores.embeddings import EmbeddingStore

LEAST = {"resnet18-tv": 2.0, "mobilenetv3-small-tv": 2.5, "clip-vitb32": 1.08}
LEAST_SIX = {500: 3.5, 1500: 4.0}
SEED = 7
TURNS = 3
"""Of both sides, one after the other: a computer is not as fast in every minute, and the median is shown."""

PEER = """
import json, sys, time, types
import numpy as np
np.AxisError = getattr(np, "AxisError", None) or np.exceptions.AxisError  # thingsvision asks for numpy below 2
import torch
model, root, out, batch, seed = sys.argv[1:]
try:
    import torchvision
except RuntimeError:  # a build of torch without the operators of torchvision
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    for name in [name for name in sys.modules if name.startswith("torchvision")]:
        del sys.modules[name]
    import torchvision
from thingsvision import get_extractor_from_model
from thingsvision.utils.data import DataLoader, ImageDataset
from thingsvision.utils.storing import save_features
transforms = None
torch.manual_seed(int(seed))
if model == "clip-vitb32":
    import open_clip
    network = open_clip.create_model("ViT-B-32-quickgelu", pretrained=None, load_weights=False)
    transforms = open_clip.image_transform(224, is_train=False)
    network, module = torch.nn.Sequential(network.visual), "0"
else:
    name = {"resnet18-tv": "resnet18"}.get(model, "mobilenet_v3_small")
    network, module = getattr(torchvision.models, name)(), "avgpool"
network.eval()
if transforms is None:
    from torchvision import transforms as T
    transforms = T.Compose([T.Resize(256), T.CenterCrop(224), T.ToTensor(),
                            T.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])
extractor = get_extractor_from_model(model=network, device="cpu", backend="pt", preprocess=transforms)
wall, cpu = time.perf_counter(), time.process_time()
dataset = ImageDataset(root=root, out_path=out, backend="pt", transforms=transforms)
rows = extractor.extract_features(
    batches=DataLoader(dataset=dataset, batch_size=int(batch), backend="pt"), module_name=module, flatten_acts=True)
save_features(rows, out_path=out, file_format="npy")
print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu, list(dataset.file_names)]))
np.save(out + "/rows.npy", rows)
"""


def theirs(python: str, model: str, images: Path, out: Path) -> tuple[float, float, np.ndarray]:
    """Return wall and CPU-seconds of thingsvision, and its rows in the order of the files' names."""
    out.mkdir()
    words = [python, "-c", PEER, model, str(images), str(out), str(BATCH), str(SEED)]
    ran = subprocess.run(words, capture_output=True, text=True, cwd=out)
    if ran.returncode:
        raise SystemExit(ran.stderr[-3000:])
    wall, cpu, names = json.loads(ran.stdout.splitlines()[-1])
    order = np.argsort([Path(name).name for name in names])
    return wall, cpu, np.load(out / "rows.npy")[order]


def ours(models: tuple[str, ...], images: Path, store: Path) -> tuple[float, float]:
    """Return wall and CPU-seconds of one pass, the networks built."""
    options = {"weights": f"random:{SEED}", "batch_size": BATCH, "dtype": "float32"}
    clock = run(ExtractRequest(models=models, images=images, **options), store)  # type: ignore[arg-type]
    wall, cpu, _ = clock.seen[0]
    return time.perf_counter() - wall, time.process_time() - cpu


def against(python: str, models: list[str], images: Path, place: Path) -> None:
    for model in models:
        ratios = []
        for turn in range(TURNS):
            *there, rows = theirs(python, model, images, place / f"theirs-{model}-{turn}")
            store = place / f"{model}-{turn}.zarr"
            ratios.append(np.divide(there, ours((model,), images, store)))
        here = EmbeddingStore.open(store)[model].values.astype("float64")
        cosine = (here * rows).sum(1) / np.linalg.norm(here, axis=1) / np.linalg.norm(rows, axis=1)
        for what, found in zip(("times as fast, by wall", "times less CPU"), np.transpose(ratios), strict=True):
            said = f"{np.median(found):.2f} ({found.min():.2f} to {found.max():.2f})"
            line(f"{model}: {what}", said, f"at least {LEAST[model]}")
        line(f"{model}: largest 1 - cosine", f"{1 - cosine.min():.1e}", "below 1e-5")


def six(python: str, folder: Path, width: int, place: Path) -> None:
    """Compare one pass of six light encoders with six runs of thingsvision, each of the lightest."""
    wide = resized(folder, place / f"wide-{width}", width)
    wall, cpu, _ = theirs(python, "mobilenetv3-small-tv", wide, place / f"theirs-{width}")
    cards = place / f"cards-{width}"
    cards.mkdir()
    text = 'family = "torchvision"\nmodel = { name = "mobilenet_v3_small" }\ntap = "avgpool"\npooling = "flatten"\n'
    text += (
        'dim = 576\ninput = { resize = "bilinear", fit = "shortest", resize_to = 256, size = 224, norm = "imagenet" }\n'
    )
    (cards / "six.toml").write_text("".join(f"[mobilenet-{n}]\n{text}" for n in range(width, width + 6)))
    add_cards(cards)
    names = tuple(f"mobilenet-{n}" for n in range(width, width + 6))
    mine = ours(names, wide, place / f"six-{width}.zarr")
    least = f"at least {LEAST_SIX.get(width, 3.5)}"
    line(f"six encoders, {width} px: times as fast as six runs, by wall", f"{6 * wall / mine[0]:.2f}", least)
    line(f"six encoders, {width} px: times less CPU", f"{6 * cpu / mine[1]:.2f}", least)


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("folder", type=Path)
    options.add_argument("--peer", required=True)
    options.add_argument("--images", type=int, default=2000)
    options.add_argument("--only", default=",".join(LEAST))
    options.add_argument("--six", default="500,1500")
    chosen = options.parse_args()
    print(f"{n_cores()} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        images = copies(chosen.folder, place / "images", chosen.images)
        against(chosen.peer, [model for model in chosen.only.split(",") if model], images, place)
        for width in (int(text) for text in chosen.six.split(",") if text):
            six(chosen.peer, images, width, place)


if __name__ == "__main__":
    sys.exit(main())
