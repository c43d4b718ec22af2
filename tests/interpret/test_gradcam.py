"""The paper's Grad-CAM, done as it was done, and shown to be where it should not be."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from pipelines.interpret.gradcam import column_times, paper_gradcam, statement, stretched_times
from pipelines.train.brain_encoders.eegproject import EEGProject
from pipelines.train.brain_encoders.nice import NICE
from pipelines.train.losses import unit
from stores.errors import EmbedctlError
from tests.train.test_brain_encoders import pair


@pytest.fixture
def brain():
    torch.manual_seed(0)
    return NICE(5, 250, 12).eval()


def test_maps_are_rectified_stretched_as_torch_does_and_the_same_for_all_channels(brain):
    columns, maps = paper_gradcam(brain, torch.randn(4, 5, 250), unit(torch.randn(4, 12)))
    assert columns.shape == (4, 36) and maps.shape == (4, 250)
    assert columns.min() >= 0
    full = functional.interpolate(
        torch.from_numpy(columns)[:, None, None], (5, 250), mode="bicubic", align_corners=False
    )
    assert np.allclose(full[:, 0, 3].numpy(), maps, atol=1e-6)


def test_columns_are_what_grad_cam_gives_on_the_published_network():
    published, ours = pair(5, 250, 12, torch.float64)
    published.eval()
    epochs, target = torch.randn(3, 5, 250, dtype=torch.float64), unit(torch.randn(3, 12, dtype=torch.float64))
    kept = []
    published.projection.register_forward_hook(lambda module, given, out: kept.append(out))
    similarity = functional.cosine_similarity(unit(published(epochs)), target).sum()
    (gradient,) = torch.autograd.grad(similarity, kept[0])
    expected = functional.relu((gradient.mean(dim=(2, 3), keepdim=True) * kept[0]).sum(dim=1))[:, 0]
    columns, maps = paper_gradcam(ours.eval(), epochs.detach(), target)
    whole = expected.detach().numpy()
    assert np.allclose(columns * whole.max(axis=1, keepdims=True), whole * columns.max(axis=1, keepdims=True))
    assert np.allclose(maps.max(axis=1)[whole.any(axis=1)], 1)  # so that no image outweighs the others
    assert whole.any()


def test_only_nice_has_the_layer():
    with pytest.raises(EmbedctlError, match="EEGProject"):
        paper_gradcam(EEGProject(5, 250, 12), torch.randn(1, 5, 250), torch.randn(1, 12))


def test_each_column_sees_what_lies_around_its_time_and_nothing_else(brain):
    times = np.arange(250) / 250
    for column, middle in enumerate(column_times(36, 250.0)):
        epochs = torch.randn(1, 5, 250, requires_grad=True)
        seen = []
        hook = brain.mix.register_forward_hook(lambda module, given, out, seen=seen: seen.append(out))
        brain(NICE.prepare(epochs))
        hook.remove()
        seen[0].view(1, 36, 40)[0, column].sum().backward()
        reached = times[epochs.grad.abs().sum((0, 1)).numpy() > 0]
        assert (reached[0] + reached[-1]) / 2 == pytest.approx(middle)
        assert reached[-1] - reached[0] == pytest.approx(0.296)


def test_what_is_drawn_is_at_the_wrong_time(brain):
    """The only column that is active is seen around 248 ms, and drawn with its peak at 151 ms."""
    active, target = 5, unit(brain(NICE.prepare(torch.randn(1, 5, 250))).detach())
    columns = maps = np.zeros((1, 36))
    while not columns.any():  # rectified away with about half of the draws
        stamp = torch.zeros(1, 36, 40)
        stamp[0, active] = torch.randn(40)
        hook = brain.mix.register_forward_hook(lambda module, given, out, stamp=stamp: stamp.view_as(out))
        columns, maps = paper_gradcam(brain, torch.randn(1, 5, 250), target)
        hook.remove()
    drawn, true = maps[0].argmax() / 250, column_times(36, 250.0)[active]
    assert columns[0].argmax() == active
    assert true == pytest.approx(0.248) and drawn == pytest.approx(stretched_times(36, 250, 250.0)[active], abs=0.008)
    assert true - drawn > 0.09


def test_the_statement_gives_the_numbers_of_the_facts_about_the_paper():
    said = statement(36, 250, 250.0)
    assert "148 to 848 ms" in said[0] and "0.72 t" in said[0]
    assert "18 Hz" in said[1] and "delta" in said[1]
    assert "all channels get the same" in said[2]
