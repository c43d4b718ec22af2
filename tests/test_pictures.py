"""What the pictures of stores and results show is what is in them: read from the artists."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from matplotlib.offsetbox import AnnotationBbox
from PIL import Image
from typer.testing import CliRunner

import embedctl
from embedctl.cli import app
from embedctl.decisive import depth_figure
from embedctl.pictures import curve_figure, ranking_figure, spread_figure
from pipelines.similarity import debiased_cka, rsa
from pipelines.train.depths import AtDepth
from pipelines.train.statistics import Interval
from stores.embeddings import EmbeddingStore
from stores.epochs import EpochStore
from stores.errors import EmbedctlError, UnknownName
from stores.images import ImageRecord
from stores.names import EmbeddingName

MADE = {"hog": {"weights": "none"}, "pixels": {"weights": "random:7"}}  # pixels has no weights: as if it had
IDS = [f"c{n // 5}/{n:02d}.png" for n in range(20)]


@pytest.fixture(scope="module")
def values():
    rng = np.random.default_rng(0)
    return {"hog": rng.standard_normal((20, 9)).astype("f4"), "pixels": rng.standard_normal((20, 6)).astype("f4")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("drawn")
    store = EmbeddingStore.open(folder / "embeddings.zarr", create=True)
    store.add_images([ImageRecord(name, f"{n:064x}", 1, 1, 8, 8, "RGB") for n, name in enumerate(IDS)])
    for name, rows in values.items():
        entry = store.create(EmbeddingName(name), "0a1b", dim=rows.shape[1], dtype="float32", provenance=MADE[name])
        absent = {3: "truncated"} if name == "hog" else {}
        kept = np.array([row for row in range(20) if row not in absent])
        store.write_block(0, {entry.group: (kept, rows[kept])}, absent)
    for name in IDS[:4]:
        (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 20), "red").save(folder / "images" / name)
    epochs = EpochStore.open(folder / "epochs.zarr", create=True)
    info = {"ch_names": ["Pz", "Oz"], "times": [0.0, 0.1, 0.2], "sfreq": 10.0, "units": "uV"}
    with epochs.writer("made-up", 1, recipe={"name": "clean"}, modality="eeg", info=info, arrays={}) as writer:
        for split in ("train", "test"):
            ids = [f"{split}/{n}.png" for n in range(4)]
            part = writer.split(split, ids, ["a"] * 4, 1, (2, 3), "float32", pa.table({"image": ids}))
            data = np.zeros((4, 1, 2, 3), "f4")
            data[:, 0, 1, 2] = [1, -1, 1, -1]  # the images differ at Oz, 200 ms
            for block in part.missing():
                part.write_block(block, data, np.ones((4, 1), bool), np.ones((4, 1), "i2"))
        writer.done()
    return folder


@pytest.fixture(scope="module")
def store(folder):
    return embedctl.open_embeddings(folder / "embeddings.zarr")


def test_the_rdm_is_one_minus_the_correlation_of_rows(store, values):
    figure = store["pixels"].plot_rdm()
    drawn = figure.axes[0].images[0].get_array()
    assert np.allclose(drawn, 1 - np.corrcoef(values["pixels"].astype(float)))
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["c0", "c1", "c2", "c3"] and figure.axes[0].get_yticks().tolist() == [0, 5, 10, 15]
    assert figure.axes[0].get_title() == "pixels (random:7): how unlike 20 images are"
    assert store["pixels"].plot_rdm(n=5).axes[0].images[0].get_array().shape == (5, 5)
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_the_map_puts_thumbnails_on_the_first_two_components(store, values):
    axes = store["pixels"].plot_map().axes[0]
    unit = values["pixels"].astype(float)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    centred = unit - unit.mean(axis=0)
    variances, directions = np.linalg.eigh(centred.T @ centred)
    expected = centred @ directions[:, ::-1][:, :2]
    places = np.column_stack(axes.lines[0].get_data())
    assert np.allclose(np.abs(places), np.abs(expected))
    boxes = [artist for artist in axes.artists if isinstance(artist, AnnotationBbox)]
    assert np.allclose([box.xy for box in boxes], places[:4])  # the others have no picture, and are dots
    assert axes.get_title().startswith("pixels (random:7): 20 images")
    assert axes.get_xlabel() == f"{100 * variances[-1] / variances.sum():.0f} % of the variance"


@pytest.mark.parametrize(("measure", "one"), [("cka", debiased_cka), ("rsa", rsa)])
def test_the_similarity_of_all_embeddings_is_that_of_each_pair(store, values, measure, one):
    axes = store.plot_similarity(measure).axes[0]
    kept = np.delete(np.arange(20), 3)
    expected = one(values["hog"][kept], values["pixels"][kept])
    drawn = axes.images[0].get_array()
    assert drawn[0, 1] == pytest.approx(expected) == pytest.approx(drawn[1, 0]) and drawn[0, 0] == pytest.approx(1)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["hog", "pixels (random:7)"]
    assert f"{expected:.2f}" in [text.get_text() for text in axes.texts]
    assert "19 images" in axes.get_title()


def test_embeddings_too_wide_to_hold_are_left_out_of_the_likeness(store, monkeypatch):
    monkeypatch.setattr("pipelines.findings.health.MOST_FEATURES", store["pixels"].dim)
    assert store["hog"].dim > store["pixels"].dim
    assert store.similarities()[0] == ["pixels"]


def test_show_prints_how_alike_embeddings_are_and_what_each_finds_nearest(folder, store, values):
    lines = CliRunner().invoke(app, ["show", str(folder / "embeddings.zarr")]).stdout.splitlines()
    kept = np.delete(np.arange(20), 3)
    alike = debiased_cka(values["hog"][kept], values["pixels"][kept])
    at = lines.index("how alike they are: debiased linear CKA over 19 images; columns are numbered like rows")
    assert lines[at + 2].split() == ["1", "hog", "1.00", f"{alike:.2f}"]
    assert lines[at + 3].split()[1:3] == ["pixels", "(random:7)"] and lines[-1].startswith("pixels (random:7) ")
    first = store["pixels"].image_ids[0]
    assert f"nearest to {first}, by cosine, of these images" in lines
    nearest = [(image, cosine) for image, cosine in store["hog"].nearest(first, k=3)]
    told = next(line for line in lines[at + 4 :] if line.startswith("hog"))
    assert told.split()[1:] == [text for image, cosine in nearest for text in (f"{cosine:.2f}", image.split("/")[-1])]


def test_of_many_subjects_the_mean_is_drawn():
    times, courses = np.arange(3) / 10, {f"subject {n}": np.full(3, float(n)) for n in range(1, 11)}
    lines = spread_figure(courses, times, "sd").axes[0].lines
    assert len(lines) == 11 and len({line.get_color() for line in lines[:10]}) == 1
    assert (lines[-1].get_label(), lines[-1].get_ydata().tolist()) == ("mean", [5.5] * 3)


def test_a_pair_over_depth_has_its_validation_its_choice_and_its_test():
    def side(name, values, top1):
        return AtDepth(validation={f"{name}:{at}": value for at, value in enumerate(values)}, top1=top1)

    condition = {"n_way": 50, "brain_encoder": "nice", "image_head": "linear", "config_key": "0a"}
    chosen = {"embedding": "a:1", "weights": "random:3", "base": "b:0", "base_weights": "random:3"}
    row = SimpleNamespace(
        aligned=side("a", [0.1, 0.4, 0.3], 0.35),
        base=side("b", [0.2, 0.1], 0.15),
        pair=SimpleNamespace(condition=condition, **chosen),
    )
    [axes] = depth_figure([row]).axes
    base, ringed, test, aligned, *_, chance = axes.lines  # two curves of three artists each
    assert base.get_ydata() == pytest.approx([20, 10]) and aligned.get_ydata() == pytest.approx([10, 40, 30])
    assert (ringed.get_xdata()[0], ringed.get_ydata()[0], test.get_ydata()[0]) == pytest.approx((0, 20, 15))
    assert axes.lines[5].get_xdata()[0] == 0.5 and axes.lines[5].get_ydata()[0] == pytest.approx(35)
    assert chance.get_ydata()[0] == 2
    said = ["base: b (random:3), ringed 0", "aligned: a (random:3), ringed 1"]
    assert [text.get_text() for text in axes.get_legend().texts] == said


def test_an_unknown_measure_is_a_problem(store):
    with pytest.raises(UnknownName, match="cca"):
        store.plot_similarity("cca")


def test_an_embedding_shows_some_of_its_images(store):
    assert store["pixels"]._repr_html_().count("data:image/jpeg;base64,") == 2  # of 8 spread over the 20, those there


def test_epochs_spread_over_images_where_they_differ(folder):
    epochs = embedctl.open_epochs(folder / "epochs.zarr")
    for figure in (epochs.plot_spread(), epochs["made-up", 1].plot_spread()):
        [line] = figure.axes[0].lines
        assert line.get_xdata().tolist() == pytest.approx([0, 100, 200])
        assert line.get_ydata().tolist() == pytest.approx([0, 0, 0.5**0.5])
        assert line.get_label() == "subject 1"
    with pytest.raises(EmbedctlError):
        epochs.plot_spread("another")


def test_the_ranking_has_points_intervals_subjects_and_chance():
    def row(name, top1, aligned_by, contaminated=False):
        return SimpleNamespace(
            embedding=name, weights="random:0" if name == "b" else "none", top1=top1, aligned_by=aligned_by,
            interval=Interval(top1 - 0.1, top1 + 0.1, "images"),
            per_subject={1: top1 - 0.05, 2: top1 + 0.05}, figures={"chance": 0.025}, contaminated=contaminated,
        )  # fmt: skip

    axes = ranking_figure([row("a", 0.5, "dreamsim"), row("b", 0.3, "", True)], "made-up").axes[0]
    points = [line for line in axes.lines if line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in points] == pytest.approx([50, 30])
    assert points[0].get_color() != points[1].get_color() == points[1].get_markeredgecolor()
    assert points[1].get_markerfacecolor() == "white" != points[0].get_markerfacecolor()
    spans = [line.get_xdata() for line in axes.lines if line.get_linewidth() == 2]
    assert np.allclose(spans, [[40, 60], [20, 40]])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b (random:0)"] and axes.yaxis_inverted()
    assert [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == ":"] == pytest.approx([2.5])


def test_a_run_draws_its_losses_and_its_validation():
    metrics = [
        {"pass": n, "loss": 3.0 / n, "val_loss": 4.0 / n, "val_top1": 0.1 * n, "val_chance": 0.02} for n in (1, 2)
    ]
    left, right = curve_figure(metrics, "a run").axes
    drawn = {line.get_label(): list(line.get_ydata()) for line in left.lines}
    assert drawn == {"loss": [3.0, 1.5], "validation loss": [4.0, 2.0]}
    assert right.lines[0].get_ydata() == pytest.approx([10, 20])
    assert right.lines[1].get_ydata() == pytest.approx([2, 2]) and right.lines[1].get_label() == "chance 2.0 %"
    assert (left.get_ylabel(), right.get_ylabel()) == ("loss", "top-1, %")
    older = [{name: value for name, value in row.items() if name != "val_chance"} for row in metrics]
    assert len(curve_figure(older, "a run").axes[1].lines) == 1


@pytest.mark.parametrize("what", ["embeddings.zarr", "epochs.zarr"])
def test_show_writes_the_picture_of_a_store(folder, tmp_path, what):
    result = CliRunner().invoke(app, ["show", str(folder / what), "--png", str(tmp_path / "picture.png")])
    assert result.exit_code == 0, result.stderr
    assert Image.open(tmp_path / "picture.png").format == "PNG"
    assert f"{tmp_path / 'picture.png'}: written" in result.stderr
