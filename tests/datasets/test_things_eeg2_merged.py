"""Merged files of THINGS-EEG2, official or of the NICE family: taken as they are, none of their code run."""

import pickle

import numpy as np
import pytest
from typer.testing import CliRunner

from embedctl.cli import app
from pipelines.preprocess.dataset import open_dataset
from pipelines.preprocess.preprocess import preprocess
from pipelines.preprocess.recipes import read_recipe
from pipelines.preprocess.request import PreprocessRequest
from stores.epochs import EpochStore
from stores.errors import EmbedctlError

TRAINING = [f"{c:05d}_c{c:02d}/c{c:02d}_{i:02d}s.jpg" for c in (1, 2, 3) for i in (1, 2)]
TEST = [f"{c:05d}_t{c:02d}/t{c:02d}_01s.jpg" for c in (1, 2)]
NICE = list(read_recipe("nice").channels)
OFFICIAL = [name for name in NICE if name[0] in "OP"]
SHAPES = {"train": (6, 4), "test": (2, 8)}
FILES = {"train": "preprocessed_eeg_training.npy", "test": "preprocessed_eeg_test.npy"}


def content(family, split, **change):
    names, n_times = (NICE, 250) if family == "nice" else (OFFICIAL, 100)
    seed = len(names) + len(split)
    data = np.random.default_rng(seed).normal(size=(*SHAPES[split], len(names), n_times))
    times = np.arange(-50, 250) / 250 if family == "nice" else np.arange(-20, 80) / 100
    return {"preprocessed_eeg_data": data, "ch_names": list(names), "times": times, **change}


def write(path, whole, family):
    path.parent.mkdir(parents=True, exist_ok=True)
    if family == "nice":
        with open(path, "wb") as file:
            pickle.dump(whole, file, protocol=4)
    else:
        np.save(path, whole, allow_pickle=True)


def make(raw, family, subject=1):
    for split, name in FILES.items():
        write(raw / f"sub-{subject:02d}/{name}", content(family, split), family)
    lists = {}
    for prefix, ids in (("train_img", TRAINING), ("test_img", TEST)):
        lists[f"{prefix}_concepts"] = [name.split("/")[0] for name in ids]
        lists[f"{prefix}_files"] = [name.split("/")[1] for name in ids]
    np.save(raw / "image_metadata.npy", lists, allow_pickle=True)


@pytest.fixture(params=["nice", "gifford"])
def family(request):
    return request.param


@pytest.fixture
def raw(tmp_path, family):
    make(tmp_path / "raw", family)
    return tmp_path / "raw"


def test_every_repetition_arrives_in_its_place(raw, tmp_path, family):
    request = PreprocessRequest(dataset="things-eeg2", raw=raw, store=tmp_path / "e.zarr", recipe=family)
    report = preprocess(request)
    found = EpochStore.open(tmp_path / "e.zarr")["things-eeg2", 1]
    for split in ("train", "test"):
        stored = getattr(found, split)
        assert np.array_equal(
            stored.take(range(len(stored))), content(family, split)["preprocessed_eeg_data"].astype(np.float32)
        )
    assert found.train.image_ids == [f"training_images/{name}" for name in TRAINING]
    assert found.test.concepts == ["t01", "t02"]
    assert found.ch_names == (NICE if family == "nice" else OFFICIAL) and found.units == "sd of noise"
    assert found.times[0] == (0 if family == "nice" else -0.2) and len(found.times) == (
        250 if family == "nice" else 100
    )
    assert found.info["time_offset_ms"] == report.time_offset_ms == (1.0 if family == "nice" else -4.0)
    assert "do not say which session" in report.subjects[0].notes[0]


def test_whitened_files_are_not_whitened_again(raw):
    with pytest.raises(EmbedctlError, match="whitened already") as caught:
        open_dataset("things-eeg2", raw, "clean")
    assert "--recipe nice or gifford" in caught.value.hint


class Hostile:
    def __reduce__(self):
        return (exec, ("raise SystemExit('it ran')",))


def change(split="train", **new):
    def spoil(raw, family):
        write(raw / f"sub-01/{FILES[split]}", content(family, split, **new), family)

    return spoil


def replace(data, split="train"):
    return lambda raw, family: (raw / f"sub-01/{FILES[split]}").write_bytes(data)


def halve(raw, family):
    path = raw / f"sub-01/{FILES['train']}"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def other_family(raw, family):
    other = {"nice": "gifford", "gifford": "nice"}[family]
    for split, name in FILES.items():
        write(raw / f"sub-01/{name}", content(other, split), other)


@pytest.mark.parametrize(
    ("spoil", "field", "said", "fix"),
    [
        (halve, "file", "is truncated: have", "download it again"),
        (replace(b"<!doctype html>"), "file", "is a web page", "refused"),
        (replace(b"version https://git-lfs"), "file", "Git LFS pointer", "git lfs pull"),
        (change(ch_names=[Hostile()]), "file", "wants to call", "where this file comes from"),
        (lambda raw, family: (raw / f"sub-01/{FILES['test']}").unlink(), "test", "both splits", "archive"),
        (change(times=np.arange(7)), "times", "7 entries for", "ask its maker"),
        (change(ch_names=["Oz"]), "ch_names", "1 name,", "download it again"),
        (change("test", preprocessed_eeg_data=np.zeros((2, 3))), "file", "is not (image, repetition", "merged"),
        (other_family, "ch_names", "; recipe", "use --recipe"),
    ],
)
def test_every_fault_is_named_with_its_file_its_field_and_its_remedy(raw, family, spoil, field, said, fix):
    spoil(raw, family)
    found = open_dataset("things-eeg2", raw, family).preflight(1)
    problem = next(p for p in found.problems if p.field == field)
    assert said in problem.what and fix in problem.fix and problem.file.startswith("sub-01/")
    words = ["preprocess", "-d", "things-eeg2", "--raw", str(raw), "--recipe", family, "--check"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2 and said in result.stderr


def test_bad_image_lists_are_told_beside_a_bad_file(raw, family):
    np.save(raw / "image_metadata.npy", {"train_img_files": ["a"], "train_img_concepts": ["x"]}, allow_pickle=True)
    (raw / "sub-01" / FILES["test"]).write_bytes(b"")
    fields = [(p.file, p.field) for p in open_dataset("things-eeg2", raw, family).preflight(1).problems]
    lists = [("image_metadata.npy", field) for field in ("test_img_concepts", "test_img_files")]
    where = "sub-01/" + FILES["train"]
    assert fields == [*lists, (where, "preprocessed_eeg_data"), ("sub-01/" + FILES["test"], "file")]


@pytest.mark.parametrize(
    ("factor", "n", "said"), [(1e-6, 6, "whitened ones by about 1"), (1, 5, "5 images, the metadata has 6")]
)
def test_files_of_another_unit_or_image_set_are_refused(raw, family, factor, n, said):
    data = content(family, "train")["preprocessed_eeg_data"][:n] * factor
    change(preprocessed_eeg_data=data)(raw, family)
    problems = open_dataset("things-eeg2", raw, family).preflight(1).problems
    assert [p.field for p in problems] == ["preprocessed_eeg_data"] and said in problems[0].what
