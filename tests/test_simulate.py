"""The simulator says what it planted, and plants what it says."""

import numpy as np
import pytest

from pipelines.preprocess.things_eeg2 import TARGET, open_recording
from pipelines.simulate.images import render_images
from pipelines.simulate.raw_file import raw_file
from pipelines.simulate.recordings import DEMO_CHANNELS, TOPOGRAPHY, simulate_things_eeg2

TRAINING = [f"training_images/{c:05d}_c{c:02d}/c{c:02d}_{i:02d}s.jpg" for c in range(1, 9) for i in range(1, 4)]
TEST = [f"test_images/{c:05d}_t{c:02d}/t{c:02d}_01s.jpg" for c in range(1, 7)]
ROWS = {name: np.random.default_rng(i).normal(size=12) for i, name in enumerate(TRAINING + TEST)}


def simulate(raw, **options):
    return simulate_things_eeg2(raw, TRAINING, TEST, ROWS, **{"subjects": [1], "test_repetitions": 8, **options})


def load(raw, session=1, part="test", subject=1):
    path = raw / f"sub-{subject:02d}/ses-{session:02d}/raw_eeg_{part}.npy"
    return np.load(path, allow_pickle=True).item()


def events(recording):
    stim = recording["raw_eeg_data"][-1]
    return np.flatnonzero(stim), stim[stim > 0].astype(int)


def test_the_raw_file_is_what_numpy_would_have_saved(tmp_path):
    samples = np.random.default_rng(0).normal(size=(3, 1000))
    others = {"ch_names": ["O1", "Oz", "stim"], "ch_types": ["eeg", "eeg", "stim"], "sfreq": 1000}
    with raw_file(tmp_path / "ours.npy", samples.shape, others) as array:
        array[:] = samples
    assert not list(tmp_path.glob("*.part"))
    ours = np.load(tmp_path / "ours.npy", allow_pickle=True)
    assert ours.shape == () and ours.dtype == object
    assert list(ours.item()) == ["raw_eeg_data", *others]
    assert np.array_equal(ours.item().pop("raw_eeg_data"), samples)


def test_the_format_is_the_published_one(tmp_path):
    simulate(tmp_path)
    recording = load(tmp_path, part="training")
    assert recording["raw_eeg_data"].dtype == np.float64
    assert recording["ch_names"] == [*DEMO_CHANNELS, "stim"]
    assert recording["ch_types"] == ["eeg"] * len(DEMO_CHANNELS) + ["stim"]
    assert (recording["sfreq"], recording["highpass"], recording["lowpass"]) == (1000, 0.01, 100)
    assert recording["simulated"] is True and open_recording(tmp_path / "sub-01/ses-01/raw_eeg_training.npy").simulated
    metadata = np.load(tmp_path / "image_metadata.npy", allow_pickle=True).item()
    assert metadata["train_img_concepts"][3] == "00002_c02" and metadata["train_img_files"][3] == "c02_01s.jpg"
    assert len(metadata["test_img_files"]) == len(TEST)


@pytest.mark.parametrize("latency", [0.1, 1.5])
def test_a_response_goes_on_across_the_seams_of_the_noise(tmp_path, latency):
    options = {"latency": latency, "noise": 1e-6, "ch_names": ("Pz", "Oz"), "test_repetitions": 72}
    simulate(tmp_path / "with", **options)
    simulate(tmp_path / "without", planted=False, **options)
    response = load(tmp_path / "with")["raw_eeg_data"][:2] - load(tmp_path / "without")["raw_eeg_data"][:2]
    steps = np.abs(np.diff(response, axis=1)).max(axis=0)
    seams = np.arange(2**13 - 1, len(steps), 2**13)
    assert len(seams) >= 2
    assert steps[seams].max() <= np.delete(steps, seams).max()


def test_the_design_is_the_published_one_in_small(tmp_path):
    truth = simulate(tmp_path, sessions=4)
    halves = []
    total = 0
    for session in (1, 2, 3, 4):
        onsets, codes = events(load(tmp_path, session, "training"))
        total += len(codes)
        assert codes[0] != TARGET and (codes == TARGET).any()
        assert np.median(np.diff(onsets)) == 200
        shown, times = np.unique(codes[codes != TARGET], return_counts=True)
        assert times.min() == 2 and times.max() == 3 and len(shown) == len(TRAINING) // 2
        halves.append({TRAINING[code - 1].split("/")[1] for code in shown})
        _, codes = events(load(tmp_path, session))
        total += len(codes)
        assert np.unique(codes[codes != TARGET], return_counts=True)[1].min() == 2
    assert not halves[0] & halves[1] and len(halves[0] | halves[1]) == 8
    assert not halves[2] & halves[3] and halves[0] != halves[2]
    assert truth.n_events == total


def test_noise_falls_as_one_over_f_and_is_as_strong_as_asked(tmp_path):
    simulate(tmp_path, planted=False, noise=5.0, test_repetitions=80)
    samples = load(tmp_path)["raw_eeg_data"][:-1] * 1e6
    samples = samples - samples.mean(axis=1, keepdims=True)
    assert samples.std() == pytest.approx(5, rel=0.1)
    power = (np.abs(np.fft.rfft(samples)) ** 2).mean(axis=0)
    frequency = np.fft.rfftfreq(samples.shape[1], 1e-3)
    bands = [power[(frequency > low) & (frequency < 2 * low)].mean() for low in (2, 4, 8, 16, 32)]
    assert np.allclose(np.array(bands[:-1]) / bands[1:], 4, rtol=0.25)


def test_the_planted_response_is_what_unplanting_removes_and_lies_where_and_when_it_is_said_to(tmp_path):
    channels = ("F3", *DEMO_CHANNELS, "Cz")
    options = {"sessions": 2, "amplitude": 0.7, "latency": 0.12, "ch_names": channels}
    truth = simulate(tmp_path / "with", **options)
    none = simulate(tmp_path / "without", **options, planted=False)
    assert (truth.latency, none.amplitude, none.gains) == (0.12, 0.0, {})
    with_it, without = (load(tmp_path / name, part="training") for name in ("with", "without"))
    assert np.array_equal(events(with_it)[1], events(without)[1])
    effect = (with_it["raw_eeg_data"] - without["raw_eeg_data"])[:-1] * 1e6
    reached = [name for name, row in zip(channels, effect, strict=True) if np.abs(row).max() > 1e-6]
    assert reached == list(truth.gains) == list(DEMO_CHANNELS)
    assert truth.gains["Oz"] == TOPOGRAPHY["O"] > truth.gains["PO7"] > truth.gains["P7"]

    onsets, _ = events(with_it)
    # Responses last as long as an image: between first and last the sum is as strong as one of them.
    assert effect[1:-1, onsets[3] : onsets[-3]].std() == pytest.approx(0.7, abs=0.15)
    alone = effect[:, onsets[0] : onsets[0] + 200]  # nothing came before the first image
    assert np.abs(alone[:, :40]).max() < 0.05 * np.abs(alone).max()


def test_subjects_differ_and_the_same_seed_writes_the_same_bytes(tmp_path):
    simulate(tmp_path / "a", subjects=[1, 2], sessions=2)
    simulate(tmp_path / "b", subjects=[2], sessions=2)
    simulate(tmp_path / "c", subjects=[2], sessions=2, seed=1)

    def samples(folder, subject):
        return (tmp_path / folder / f"sub-{subject:02d}/ses-01/raw_eeg_test.npy").read_bytes()

    assert samples("a", 2) == samples("b", 2)
    assert samples("a", 1) != samples("a", 2) != samples("c", 2)


def test_a_missing_row_and_an_odd_number_of_sessions_are_mistakes(tmp_path):
    with pytest.raises(ValueError, match="1 image has no row"):
        simulate_things_eeg2(tmp_path, TRAINING, [*TEST, "test_images/x.jpg"], ROWS)
    with pytest.raises(ValueError, match="sessions is 3"):
        simulate(tmp_path, sessions=3)


def test_rendered_images_are_named_as_the_data_set_names_them_and_do_not_repeat(tmp_path):
    from PIL import Image

    images = render_images(tmp_path, n_train_concepts=6, images_per_concept=2, n_test_concepts=5, seed=3)
    assert len(images.training) == 12 and len(images.test) == 5
    assert list(images.training) == sorted(images.training)
    concepts = {name.split("/")[1].split("_", 1)[1] for name in images.training + images.test}
    assert len(concepts) == 11
    assert len({(tmp_path / name).read_bytes() for name in images.training + images.test}) == 17
    with Image.open(tmp_path / images.training[0]) as picture:
        assert picture.size == (224, 224) and picture.mode == "RGB"
    again = render_images(tmp_path / "again", n_train_concepts=6, images_per_concept=2, n_test_concepts=5, seed=3)
    assert again == images
    assert (tmp_path / "again" / images.test[0]).read_bytes() == (tmp_path / images.test[0]).read_bytes()


def test_more_concepts_than_can_be_drawn_are_refused(tmp_path):
    with pytest.raises(ValueError, match="at most"):
        render_images(tmp_path, n_train_concepts=100_000)
