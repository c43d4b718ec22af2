"""A workspace of made-up runs: an aligned encoder and its base, two layers, four people, and one hostile name."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from pipelines.interpret.kept import found_at
from pipelines.train.metrics import retrieve
from stores.embeddings import EmbeddingStore
from stores.images import ImageRecord
from stores.names import EmbeddingName
from stores.results import assemble, write_run

BAD = "</title></svg></style></script><script>alert(2)</script><img src=x onerror=alert(3)>"  # a name of anything
NASTY = "b/</script><script>alert(1)</script>.jpg"
IMAGES = [f"concept_{n}/apicturewithoutanyplacetobreakitsname{n}.jpg" for n in range(11)] + [NASTY]
CONCEPTS = [f"concept_{n // 2}" for n in range(12)]
ALIGNED, BASE = "dreamsim-clip-vitb32", "dreamsim-clip-vitb32-base"
LAYERS = ("vitb16-in1k:blocks.2", "vitb16-in1k:blocks.10")
STRENGTH = {ALIGNED: 2.5, BASE: 1.0, LAYERS[0]: 0.3, LAYERS[1]: 2.0, "pixels": 0.0}
SUBJECTS, SEEDS = (1, 2, 3, 4), (0, 1)


def write(runs, name, subject, seed, scores, concepts=CONCEPTS, **changes):
    found, own = retrieve(scores), np.arange(len(scores))
    pair = {"aligned_by": "dreamsim", "base": BASE, "matched_base": BASE, "match": "exact"}
    none = dict.fromkeys(pair, "")
    summary = {
        "run_id": f"made-up_sub-{subject:02d}_{name.replace(':', '~')}_seed-{seed}", "dataset": "made-up",
        "modality": "eeg", "subject": subject, "protocol": "within", "embedding": name,
        "encoder": name.partition(":")[0], "weights": "sha256:00" if name != "pixels" else "none",
        "brain_encoder": "nice", "image_head": "linear", "recipe": "modern", "seed": seed, "gallery": "test",
        "n_way": len(own), "n_queries": len(own), "top1": found.top(1), "top5": found.top(5), "top3": found.top(3),
        "median_rank": found.median_rank, "mrr": found.mrr, "val_top1": 0.4, "noise_ceiling": 0.3,
        "chance": 1 / len(own), "steps": 20, "seconds": 2.0, "embedding_key": "0a1b", "epochs_key": f"e{subject}",
        "images_key": "i", "config_key": "c", "version": "0.1.0", "started": f"2026-01-0{seed + 1}T00:00:00+00:00",
        "preprocessing": "clean", **(pair if name == ALIGNED else none), **changes,
    }  # fmt: skip
    config = summary | {
        "gallery_ids": IMAGES,
        "gallery_concepts": concepts,
    }
    arrays = {"scores": scores, "hits": found.hits(1), "target": own}
    curve = [{"pass": n, "loss": 3.0 / n, "val_top1": 0.1 * n, "val_chance": 0.2} for n in (1, 2, 3)]
    write_run(runs, summary["run_id"], config=config, summary=summary, arrays=arrays, checkpoint=b"", metrics=curve)


@pytest.fixture(scope="session")
def workspace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reported")
    rng = np.random.default_rng(0)
    for name, strength in STRENGTH.items():
        for subject in SUBJECTS:
            for seed in SEEDS:
                scores = rng.standard_normal((12, 12)).astype("f4")
                scores[np.arange(12), np.arange(12)] += strength + 0.2 * subject
                write(folder / "runs", name, subject, seed, scores)
    assemble(folder / "runs")
    store = EmbeddingStore.open(folder / "embeddings.zarr", create=True)
    store.add_images([ImageRecord(name, f"{n:064x}", 1, 1, 8, 8, "RGB") for n, name in enumerate(IMAGES)])
    values = rng.standard_normal((12, 6)).astype("f4")
    for name, rows in (("pixels", values), (ALIGNED, np.repeat(values[:6], 2, axis=0)), (BASE, 2 * values)):
        entry = store.create(EmbeddingName.parse(name), "0a1b", dim=6, dtype="float32", provenance={"weights": "none"})
        store.write_block(0, {entry.group: (np.arange(12), rows)}, {})
    store.consolidate()
    for number, name in enumerate(IMAGES):
        file = folder / "images" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (20 * number, 80, 120)).save(file)
    return SimpleNamespace(
        folder=folder, runs=folder / "runs", embeddings=folder / "embeddings.zarr", images=folder / "images"
    )


@pytest.fixture(scope="session")
def request_of(workspace):
    from embedctl.report.gather import ReportRequest

    return ReportRequest(runs=workspace.runs, embeddings=workspace.embeddings, images=workspace.images)


@pytest.fixture(scope="session")
def material(request_of):
    from embedctl.report.gather import gather

    return gather(request_of)


@pytest.fixture(scope="session")
def answers(material):
    [only] = material.answers
    return only


def interpretation(answers, odd=""):
    """What interpret keeps, of subject 1: in the base at 200 ms over the right sensor, in the aligned at 100 ms."""
    times = (np.arange(50) / 100).tolist()
    parts = {"difference": 0.1, "p": 0.01, "p_holm": 0.02}
    sensors = {f"Fz{odd}": 0.1, "T8": 0.8, "T7": -0.1, "Oz": 0.0}

    def window(start, sign=1):
        return {"first": start, "last": start + 0.05, "sign": sign, "p": 0.01}

    occlusion = [
        {"kind": "time", "part": "100 to 150 ms", "lost": 1.5, "share": 0.75, "top1": 0.25},
        {"kind": "time", "part": "150 to 200 ms", "lost": -0.5, "share": -0.25, "top1": 0.5},
    ]

    def profile(name, peak, run_ids):
        return {
            "embedding": name, "weights": "none", "subject": 1, "evidence": 2.0, "times": times, "peak": peak,
            "half": peak,
            "time": np.eye(50)[int(peak * 100)].tolist(), "bands": {"offset": -0.1, f"theta{odd}": 0.9},
            "sensors": sensors, "groups": {f"frontal{odd}": 0.4} if odd else {}, "corrected_peak": None,
            "positions": [[0, 0.1, 0.04], [0.1, 0, 0.04], [-0.1, 0, 0.04], [0, -0.1, 0.04]],
            "windows": [window(peak)], "run_ids": run_ids, "is_found": name != ALIGNED, "p": 0.01, "reliability": 0.9,
            "notes": [f"theta is loaded in {name}{odd}"], "random_reliability": 0.9, "similarity": 0.0,
            "untrained_windows": [], "untrained_bands": [], "untrained_groups": [],
            "occlusion": [part | {"part": f"{part['part']}{odd}"} for part in occlusion],
        }  # fmt: skip

    runs = {name: [row["run_id"] for row in cell.runs[1].values()] for name, cell in answers.cells.items()}
    test = {
        "matched": False, "over": f"images of subject 1{odd}", "n": 9, "time": [0.02] * 50,
        "windows": [window(0.1), window(0.3, -1)], "bands": {f"theta{odd}": parts},
        "groups": {f"frontal{odd}": parts | {"difference": -0.2}},
    }  # fmt: skip
    pair = {
        "embedding": ALIGNED, "base": BASE, "note": odd, "notes": [odd] if odd else [], "times": times,
        "tests": [test], "run_ids": [*runs[ALIGNED], *runs[BASE]],
    }  # fmt: skip
    profiles = [profile(BASE, 0.2, runs[BASE]), profile(ALIGNED, 0.1, runs[ALIGNED])]
    removed = profile("pixels", 0.3, ["a run that was removed"])
    return {"profiles": [*profiles, removed], "pairs": [pair]}


@pytest.fixture
def interpreted(material, answers):
    file = found_at(material.request.runs, "integrated-gradients")
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(interpretation(answers)))
    yield file
    file.unlink()
    file.parent.rmdir()


@pytest.fixture(scope="session")
def hostile(tmp_path_factory):
    """A page in which everything that has a name has a bad one, and every section has something to show."""
    from embedctl.report.build import build
    from embedctl.report.gather import ReportRequest, gather
    from embedctl.report.page import page

    folder = tmp_path_factory.mktemp("hostile")
    rng = np.random.default_rng(0)
    names = dict.fromkeys(("dataset", "brain_encoder", "recipe", "image_head", "gallery", "version", "weights"), BAD)
    for number, name in enumerate((ALIGNED, BASE, f"pixels{BAD}")):
        for subject in (1, 2):
            for seed in (0, 1):
                scores = rng.standard_normal((12, 12)).astype("f4")
                changes = names | {"run_id": f"run-{number}-{subject}-{seed}", "encoder": name}
                write(folder, name, subject, seed, scores, [f"{BAD}{n}" for n in CONCEPTS], **changes)
    assemble(folder)
    request = ReportRequest(runs=folder, embeddings=folder / BAD, images=folder / BAD)
    [answers] = gather(request).answers
    file = found_at(folder, "integrated-gradients")
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(interpretation(answers, odd=BAD)))
    return page(build(request))
