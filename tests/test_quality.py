"""The quality of epochs: what was planted is measured, and the page shows it."""

import numpy as np
import pytest

from embedctl.quality_page import quality_figure
from pipelines.preprocess.quality import Halves, Quality, compare_halves

N_IMAGES, N_SESSIONS, PER_SESSION = 300, 4, 5


class FakeSplit:
    """As much of `SplitEpochs` as is measured."""

    keep = "all"

    def __init__(self, epochs, session, valid=None):
        self.valid = np.ones(epochs.shape[:2], bool) if valid is None else valid
        self.epochs = np.where(self.valid.reshape(*self.valid.shape, *[1] * (epochs.ndim - 2)), epochs, np.nan)
        self.session, self.n_repetitions = session, epochs.shape[1]
        self.mean = np.nanmean(self.epochs, axis=1)

    def take(self, images):
        return self.epochs[images].astype(np.float32)

    def __len__(self):
        return len(self.epochs)


def planted(signal, noise, of_session=0.0, seed=0):
    """Return epochs whose features have the standard deviations ``signal``, ``noise`` and one shared by a session."""
    rng = np.random.default_rng(seed)
    shape = np.shape(signal)
    n = N_SESSIONS * PER_SESSION
    session = np.tile(np.repeat(np.arange(1, N_SESSIONS + 1), PER_SESSION), (N_IMAGES, 1))
    shared = rng.standard_normal((N_IMAGES, N_SESSIONS, *shape)).repeat(PER_SESSION, axis=1)
    drift = 3 * rng.standard_normal((1, N_SESSIONS, *shape)).repeat(PER_SESSION, axis=1)  # the same for all images
    epochs = signal * rng.standard_normal((N_IMAGES, 1, *shape)) + noise * rng.standard_normal((N_IMAGES, n, *shape))
    return epochs + of_session * shared + drift, session


def test_planted_reliability_and_ncsnr_are_recovered():
    signal = np.array([[0.0, 0.1, 0.3], [0.5, 1.0, 2.0]])
    epochs, session = planted(signal, 2.0)
    found = compare_halves(FakeSplit(epochs, session))
    assert found.between == "sessions" and found.n_images == N_IMAGES
    assert np.allclose(found.reliability, signal**2 / (signal**2 + 4.0 / 20), atol=0.12)
    assert np.allclose(found.reliability[signal >= 0.5], (signal**2 / (signal**2 + 0.2))[signal >= 0.5], atol=0.06)


def test_ncsnr_is_that_of_single_trials():
    signal = np.array([0.0, 0.5, 1.0, 2.0])  # voxels
    rng = np.random.default_rng(0)
    epochs = signal * rng.standard_normal((900, 1, 4)) + rng.standard_normal((900, 3, 4))
    found = compare_halves(FakeSplit(epochs, np.tile([1, 4, 9], (900, 1))))
    assert np.allclose(found.ncsnr, signal, atol=0.13)
    assert np.allclose(found.reliability, signal**2 / (signal**2 + 1 / 3), atol=0.08)


def test_what_a_session_adds_of_its_own_counts_as_noise():
    epochs, session = planted(np.array([1.0]), 1.0, of_session=1.0)
    across = compare_halves(FakeSplit(epochs, session)).reliability
    unknown = compare_halves(FakeSplit(epochs, np.zeros_like(session)))
    assert np.allclose(across, 1 / (1 + 1 / 4 + 1 / 20), atol=0.05)
    assert unknown.between == "repetitions" and unknown.reliability > across + 0.05


def test_halves_find_each_other_with_signal_and_by_chance_without():
    def found(signal):
        return compare_halves(FakeSplit(*planted(np.full((4, 25), signal), 1.0)))

    assert found(1.0).top1 == 1
    assert found(0.0).top1 == pytest.approx(1 / N_IMAGES, abs=0.02) and found(0.0).top5 < 0.05


def test_invalid_repetitions_have_no_say_and_one_repetition_nothing_to_compare():
    epochs, session = planted(np.array([1.0, 2.0]), 1.0)
    valid = np.random.default_rng(1).random(session.shape) < 0.7
    spoilt = np.where(valid[:, :, None], epochs, 1e6)
    assert np.array_equal(
        compare_halves(FakeSplit(spoilt, session, valid)).reliability,
        compare_halves(FakeSplit(epochs, session, valid)).reliability,
    )
    assert compare_halves(FakeSplit(epochs[:, :1], session[:, :1])) is None


def quality(**changes):
    rng, chans = np.random.default_rng(0), ["Fz", "T8", "O1", "Oz", "O2"]
    halves = Halves(between="sessions", reliability=rng.random((5, 60)), ncsnr=rng.random((5, 60)), top1=0.5, top5=0.9,
                    n_images=40)  # fmt: skip
    fields = {
        "dataset": "made-up", "subject": 1, "modality": "eeg", "units": "sd of noise", "units_before": "uV",
        "ch_names": chans, "split": "test",
        "times": np.arange(60) / 100, "n_images": 40, "n_repetitions": 20, "evoked": rng.standard_normal((5, 60)),
        "positions": [[0, 0.1, 0.04], [0.1, 0, 0.04], [-0.03, -0.09, 0.04], [0, -0.1, 0.04], [0.03, -0.09, 0.04]],
        "halves": halves, "before": np.diag(np.arange(1.0, 6)), "after": np.eye(5), "counts": {"targets": 7},
        "notes": ["T8 is flat in session 2"],
    }  # fmt: skip
    return Quality(**fields | changes)


def test_the_page_of_a_subject_shows_what_was_measured():
    made_up = quality()
    figure = quality_figure(made_up)
    titled = {axes.get_title(): axes for axes in figure.axes}
    evoked = next(axes for title, axes in titled.items() if title.startswith("evoked response, mean of 3 occipital"))
    bold = next(line for line in evoked.lines if line.get_linewidth() == 2)
    assert np.allclose(bold.get_ydata(), made_up.evoked[2:].mean(axis=0))
    assert np.allclose(bold.get_xdata(), 1000 * made_up.times)
    course = next(axes for title, axes in titled.items() if title.startswith("noise ceiling"))
    drawn = {line.get_label(): line.get_ydata() for line in course.lines}
    reliability = made_up.halves.reliability
    assert np.allclose(drawn["of occipital ones"], reliability[2:].mean(axis=0))
    assert np.allclose(drawn["highest of any channel, above 0 by chance too"], reliability.max(axis=0))
    assert np.allclose(titled["reliability"].images[0].get_array(), reliability)
    assert np.allclose(titled["covariance before whitening"].images[0].get_array(), made_up.before)
    assert np.allclose(titled["after: 1 on the diagonal"].images[0].get_array(), np.eye(5))
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert "(uV)²" in labels and "(sd of noise)²" in labels, "covariances are in squares of what they are of"
    assert titled["reliability"].get_yticks(minor=True).tolist() == [2, 3, 4], "the occipital ones"
    said = " ".join(text.get_text() for text in figure.texts)
    assert "top-1 50.0 %" in said and "7 targets" in said and "T8 is flat" in said and "made-up sub-01" in said
    maps = next(axes for axes in figure.axes if axes.texts and axes.texts[0].get_text() == "100 ms")
    at_100_ms, value = maps.images[0].get_array()[:, :60], made_up.evoked[1, 10]
    assert at_100_ms[30, 51] == pytest.approx(value, abs=0.3)  # T8: a right angle to the right, 0.095 m of 0.135


def test_a_page_without_whitening_or_occipital_channels_says_only_what_is_there():
    made_up = quality(ch_names=["Fz", "T8", "C3", "Cz", "C4"], before=None, after=None, counts={"clipped": 3})
    figure = quality_figure(made_up)
    axes = figure.axes[0]
    assert axes.get_title() == "evoked response, mean of all channels (each grey)"
    of_mean = next(line for line in axes.lines if line.get_linewidth() == 2)
    others = [line for line in axes.lines if line is not of_mean]
    assert all(line.get_color() != of_mean.get_color() for line in others), "the mean can be told from the channels"
    said = "\n".join(text.get_text() for text in figure.texts)
    assert "Left out:\n  nothing\nKept, but clipped to the recipe's limit: 3 values" in said
    panels = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert any("the recipe does not whiten" in text for text in panels)


def test_voxels_have_histograms():
    halves = Halves(between="sessions", reliability=np.full(9, 0.25), ncsnr=np.arange(9.0), top1=0.1, top5=0.2,
                    n_images=40)  # fmt: skip
    left, right = quality_figure(quality(evoked=None, halves=halves, before=None, after=None)).axes[:2]
    assert sum(bar.get_height() for bar in left.patches) == sum(bar.get_height() for bar in right.patches) == 9
    assert right.lines[0].get_xdata()[0] == 4 and right.get_title() == "median 4.00, best 8.00"
