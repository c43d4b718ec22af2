"""How long `embedctl report` takes and how large it is: 40 embeddings x 10 subjects x 5 seeds, made up on the spot.

python -m benchmarks.report make FOLDER     # 2,000 runs, an embedding store and 200 pictures: 1.5 GB, once
python -m benchmarks.report measure FOLDER  # CPU seconds and megabytes of the report
"""

import os
import resource
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

N_EMBEDDINGS, SUBJECTS, SEEDS, N_TEST, N_TRAIN, DIM = 40, range(1, 11), range(5), 200, 16_540, 512
PASSES, N_SENSORS, METHOD = 40, 63, "integrated-gradients"


def embeddings() -> list[str]:
    """Return forty names: aligned encoders with their bases, others, and layers of two."""
    from pipelines.encoders.registry import registry

    known = registry()
    aligned = [name for name, spec in known.items() if spec.matched_base and spec.match == "exact"][:8]
    names = dict.fromkeys([*aligned, *(known[name].matched_base for name in aligned)])
    names |= dict.fromkeys(f"{name}:blocks.{n}" for name in ("vitb16-in1k", "dinov2-vitb14") for n in range(0, 12, 2))
    names |= dict.fromkeys(name for name in known if name not in names)
    return list(names)[:N_EMBEDDINGS]


def make(folder: Path) -> None:
    """Write the workspace."""
    os.fsync = lambda handle: None  # what a power cut would do to it is of no interest
    ids = _images(folder / "images")
    _store(folder / "embeddings.zarr", ids)
    _runs(folder / "runs", ids[:N_TEST])
    _interpretation(folder / "runs", ids[:N_TEST])


def _images(folder: Path) -> list[str]:
    rng = np.random.default_rng(0)
    test = [f"test_images/{n:05d}_concept{n:03d}/concept{n:03d}_01.jpg" for n in range(N_TEST)]
    for name in test:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        coarse.resize((500, 500), Image.Resampling.BICUBIC).save(folder / name, quality=90)
    return test + [f"training_images/{n // 10:05d}_c{n // 10}/c{n // 10}_{n:05d}.jpg" for n in range(N_TRAIN)]


def _store(path: Path, ids: list[str]) -> None:
    from stores.embeddings import EmbeddingStore
    from stores.images import ImageRecord
    from stores.names import EmbeddingName

    rng, store = np.random.default_rng(1), EmbeddingStore.open(path, create=True)
    store.add_images([ImageRecord(name, f"{n:064x}", 1, 1, 500, 500, "RGB") for n, name in enumerate(ids)])
    common = rng.standard_normal((len(ids), 40)).astype("f4")
    names = embeddings()
    entries = [
        store.create(EmbeddingName.parse(name), "0a1b2c3d4e5f", dim=DIM, dtype="float16", provenance=_provenance(name))
        for name in names
    ]
    mixing = rng.standard_normal((len(names), 40, DIM)).astype("f4")
    for block in range(-(-len(ids) // store.block_rows)):
        rows = np.arange(block * store.block_rows, min((block + 1) * store.block_rows, len(ids)))
        store.write_block(
            block, {e.group: (rows, (common[rows] @ m).astype("f2")) for e, m in zip(entries, mixing, strict=True)}, {}
        )
    store.consolidate()


def _provenance(name: str) -> dict[str, object]:
    from pipelines.encoders.registry import registry

    spec = registry()[name.partition(":")[0]]
    kept = {key: getattr(spec, key) for key in ("aligned_by", "base", "matched_base", "match", "licence", "reference")}
    return {"encoder": spec.id, "weights": f"sha256:{spec.weights[0].sha256 if spec.weights else ''}", "registry": kept}


def _runs(runs: Path, test: list[str]) -> None:
    from pipelines.train.metrics import retrieve
    from stores.results import assemble, write_run

    rng, own = np.random.default_rng(2), np.arange(N_TEST)
    for number, name in enumerate(embeddings()):
        for subject in SUBJECTS:
            for seed in SEEDS:
                scores = rng.standard_normal((N_TEST, N_TEST)).astype("f4")
                scores[own, own] += 1.5 + 0.04 * number + 0.1 * subject
                found, said = retrieve(scores, own), _provenance(name)
                run_id = f"things-eeg2_sub-{subject:02d}_{name.replace(':', '~')}_nice_modern_seed-{seed}"
                text = ("protocol", "train_subjects", "base", "matched_base", "aligned_by", "match")
                summary = {
                    **dict.fromkeys(text, ""),
                    **{key: said["registry"][key] for key in ("base", "matched_base", "aligned_by", "match")},
                    "run_id": run_id, "dataset": "things-eeg2", "modality": "eeg", "subject": subject, "seed": seed,
                    "embedding": name, "encoder": name.partition(":")[0], "weights": said["weights"],
                    "brain_encoder": "nice", "recipe": "modern", "image_head": "linear", "gallery": "test",
                    "n_way": N_TEST, "top1": found.top(1), "top3": found.top(3), "top5": found.top(5),
                    "median_rank": found.median_rank, "mrr": found.mrr, "val_top1": found.top(1), "chance": 1 / N_TEST,
                    "noise_ceiling": 0.3, "concept_top1": found.top(1), "csls_top1": found.top(1), "n_queries": N_TEST,
                    "steps": 5000, "seconds": 60.0, "embedding_key": "0a1b2c3d4e5f", "epochs_key": f"e{subject}",
                    "images_key": "i", "config_key": "c", "version": "0.1.0", "started": "2026-01-01T00:00:00+00:00",
                    "preprocessing": "clean",
                }  # fmt: skip
                config = summary | {
                    "gallery_ids": test,
                    "gallery_concepts": [image.split("/")[1] for image in test],
                    "times": np.arange(250) / 250,
                    "provenance": said,
                    "join": "suffix",
                }
                curve = [{"pass": n, "loss": 5 / n, "val_top1": 0.5 * n / PASSES} for n in range(1, PASSES + 1)]
                arrays = {"scores": scores, "hits": found.hits(1), "target": own}
                write_run(runs, run_id, config=config, summary=summary, arrays=arrays, checkpoint=b"", metrics=curve)
    assemble(runs)


def _interpretation(runs: Path, test: list[str]) -> None:
    """Keep what ``embedctl interpret`` would have found: evidence at 100 to 180 ms in noise, over 63 sensors."""
    from pipelines.interpret import clusters
    from pipelines.interpret.interpret import _read
    from pipelines.interpret.kept import keep_found
    from pipelines.interpret.request import InterpretReport, InterpretRequest
    from pipelines.interpret.run import MADE, beside_name
    from stores.beside import write_beside
    from stores.results import read_results

    clusters.PERMUTATIONS = 49  # 800 tests of what is made up
    rng, times = np.random.default_rng(3), np.arange(250) / 250
    angle, around = np.arccos(np.linspace(1, -0.2, N_SENSORS)), 2.4 * np.arange(N_SENSORS)
    ring = [np.sin(angle) * np.cos(around), np.sin(angle) * np.sin(around), np.cos(angle)]
    places = np.round(0.095 * np.stack(ring, axis=1) + [0, 0, 0.04], 4).tolist()
    bands = ["offset", "delta", "theta", "alpha", "beta", "gamma"]
    groups = {name: list(range(n, N_SENSORS, 5)) for n, name in enumerate(("frontal", "central", "temporal"))}
    lost = [{"kind": "time", "part": f"{n} to {n + 50} ms", "lost": 0.1, "share": 0.1, "top1": 0.2} for n in range(20)]
    for run_id in read_results(runs)["run_id"].to_pylist():
        course = np.exp(-(((times - 0.14) / 0.03) ** 2)) / 10
        evidence = {"time": course + 0.05 * rng.standard_normal((N_TEST, 250)).astype("f4")}
        evidence |= {
            "bands": 0.1 + rng.standard_normal((N_TEST, 6)),
            "sensors": rng.standard_normal((N_TEST, N_SENSORS)),
        }
        arrays = evidence | {f"untrained_{name}": values - values.mean(axis=0) for name, values in evidence.items()}
        summary = {
            "made": MADE, "method": METHOD, "image_ids": test, "hits": (rng.random(N_TEST) < 0.4).tolist(),
            "times": times.tolist(), "sfreq": 250.0, "sensors": [f"E{n}" for n in range(N_SENSORS)], "bands": bands,
            "positions": places, "groups": groups, "notes": [], "occlusion": lost, "explained": 1.0,
            "sanity": {"similarity": 0.0, "reliability": 0.8, "random_reliability": 0.5},
        }  # fmt: skip
        write_beside(runs, run_id, beside_name(METHOD), summary=summary, arrays=arrays)
    found = InterpretReport(method=METHOD, runs=runs)
    _read(read_results(runs), InterpretRequest(runs=runs), found)
    keep_found(found)


def measure(folder: Path) -> None:
    """Print what one report costs, in a process that has done nothing else."""
    from embedctl.cli import app

    out, began = folder / "report.html", time.perf_counter()
    words = ["report", "--out", str(out)]
    words += [f"--{name}={folder / at}" for name, at in (("runs", "runs"), ("embeddings", "embeddings.zarr"))]
    try:
        app([*words, f"--images={folder / 'images'}"])
    except SystemExit as ended:
        assert not ended.code
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(
        f"{used.ru_utime + used.ru_stime:.1f} CPU s, {time.perf_counter() - began:.1f} s, "
        f"{out.stat().st_size / 1e6:.1f} MB, {used.ru_maxrss / 1e6:.2f} GB of memory"
    )


if __name__ == "__main__":
    {"make": make, "measure": measure}[sys.argv[1]](Path(sys.argv[2]))
