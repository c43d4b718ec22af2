"""InfoNCE agrees with an independent float64 transcription, and an image is never its own negative."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.train.brain_encoders.elsewhere import trust
from pipelines.train.losses import info_nce, loss_function, soft_clip, unit


def direction(v):
    v = np.asarray(v, dtype=np.float64) - np.mean(v)
    return v / np.sqrt((v**2).sum())


def reference(brain, image, scale, shown):
    """The loss written out term by term, in float64, without a matrix product."""
    z, v = [direction(b) for b in brain], [direction(i) for i in image]
    n, total = len(z), 0.0
    for i in range(n):
        rivals = [j for j in range(n) if j == i or shown[j] != shown[i]]
        forward = np.log(sum(np.exp(scale * (z[i] * v[j]).sum()) for j in rivals))
        backward = np.log(sum(np.exp(scale * (z[j] * v[i]).sum()) for j in rivals))
        total += forward + backward - 2 * scale * (z[i] * v[i]).sum()
    return total / (2 * n)


@pytest.mark.parametrize("scale", [1.0, 1 / 0.07, 100.0])
@pytest.mark.parametrize("shown", [range(16), [0, 0, 0, 1, 1, *range(2, 13)]], ids=["distinct", "repeated"])
def test_the_loss_agrees_with_a_reference(scale, shown):
    generator = torch.Generator().manual_seed(0)
    brain, image = torch.randn(2, 16, 24, generator=generator, dtype=torch.float64)
    value = info_nce(brain, image, scale, torch.tensor(list(shown)))
    assert value.item() == pytest.approx(reference(brain.numpy(), image.numpy(), scale, list(shown)), rel=1e-12)
    single = info_nce(brain.float(), image.float(), scale, torch.tensor(list(shown)))
    assert single.item() == pytest.approx(value.item(), rel=1e-5)


@settings(deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(2, 12),
    st.integers(2, 9),
    st.floats(0.01, 100),
    st.floats(1e-6, 1e6),
    st.floats(-10, 10),
    st.data(),
)
def test_the_loss_agrees_with_the_reference_on_random_vectors(seed, n, dim, scale, spread, shift, data):
    shown = data.draw(st.lists(st.integers(0, n - 1), min_size=n, max_size=n))
    rng = np.random.default_rng(seed)
    brain, images = spread * (rng.standard_normal((2, n, dim)) + shift)
    image = images[np.array(shown)]  # rows that show the same image have the same embedding
    value = info_nce(torch.from_numpy(brain), torch.from_numpy(image), scale, torch.tensor(shown)).item()
    assert value == pytest.approx(reference(brain, image, scale, shown), rel=1e-9, abs=1e-9)


def test_a_batch_of_one_image_has_nothing_to_tell_apart():
    brain = torch.randn(3, 8, requires_grad=True)
    loss = info_nce(brain, torch.randn(1, 8).expand(3, 8), 5.0, torch.zeros(3))
    loss.backward()
    assert loss.item() == 0
    assert (brain.grad == 0).all()


def test_without_repeats_naming_the_images_changes_nothing():
    brain, image = torch.randn(2, 10, 6)
    assert info_nce(brain, image, 9.0, torch.arange(10)).item() == info_nce(brain, image, 9.0).item()


def test_unit_vectors_have_mean_zero_and_length_one():
    x = unit(torch.randn(5, 30, dtype=torch.float64) * 100 + 7)
    assert torch.allclose(x.mean(dim=1), torch.zeros(5, dtype=torch.float64), atol=1e-15)
    assert torch.allclose(x.norm(dim=1), torch.ones(5, dtype=torch.float64))


def test_the_dot_product_of_unit_vectors_is_their_correlation():
    a, b = torch.randn(2, 50, dtype=torch.float64)
    assert (unit(a) @ unit(b)).item() == pytest.approx(np.corrcoef(a.numpy(), b.numpy())[0, 1], abs=1e-12)


def soft_reference(brain, image, scale, shown):
    """SoftCLIP term by term, in float64, without a matrix product."""
    z, v = [direction(b) for b in brain], [direction(i) for i in image]
    n, total = len(z), 0.0
    for i in range(n):
        rivals = [j for j in range(n) if j == i or shown[j] != shown[i]]
        weight = np.array([np.exp(scale * (v[i] * v[j]).sum()) for j in rivals])
        weight /= weight.sum()
        for scores in ([(z[i] * v[j]).sum() for j in rivals], [(z[j] * v[i]).sum() for j in rivals]):
            scores = scale * np.array(scores)
            total -= (weight * (scores - np.log(np.exp(scores).sum()))).sum()
    return total / (2 * n)


@pytest.mark.parametrize("shown", [range(16), [0, 0, 0, 1, 1, *range(2, 13)]], ids=["distinct", "repeated"])
@pytest.mark.parametrize("scale", [1.0, 1 / 0.07, 100.0])
def test_soft_clip_agrees_with_a_reference(scale, shown):
    generator = torch.Generator().manual_seed(0)
    shown = torch.tensor(list(shown))
    brain, images = torch.randn(2, 16, 24, generator=generator, dtype=torch.float64)
    value = soft_clip(brain, images[shown], scale, shown)
    assert value.item() == pytest.approx(soft_reference(brain.numpy(), images[shown].numpy(), scale, shown.tolist()))


@pytest.mark.parametrize("name", ["info-nce", "soft-clip"])
def test_the_same_image_twice_in_a_batch_is_never_a_negative(name):
    generator = torch.Generator().manual_seed(0)
    brain, images = torch.randn(2, 6, 8, generator=generator, dtype=torch.float64)
    shown = torch.tensor([0, 0, 1, 2, 3, 4])
    brain.requires_grad_()
    # As one's own pair a double is as good as its twin: brain embeddings at the image itself cost nothing more for it.
    doubled = loss_function(name)(brain, images[shown], 20.0, shown)
    doubled.backward()
    assert torch.isfinite(brain.grad).all()
    with_twin = soft_reference if name == "soft-clip" else reference
    plain = brain.detach().numpy()
    assert doubled.item() == pytest.approx(with_twin(plain, images[shown].numpy(), 20.0, shown.tolist()))
    assert doubled.item() < loss_function(name)(brain, images[shown], 20.0, None).item()


def test_no_gradient_of_soft_clip_goes_through_its_target():
    brain, image = torch.randn(2, 6, 8)
    image.requires_grad_()
    soft_clip(torch.zeros_like(brain), image, 10.0).backward()  # without brain embeddings only the target could move
    assert (image.grad == 0).all()


def test_a_loss_of_ones_own_is_a_function_in_a_file(tmp_path):
    (tmp_path / "mine.py").write_text(
        "def half(brain, image, scale, shown):\n    return (brain - image).square().mean() / 2\n"
    )
    trust(f"{tmp_path}/mine.py")
    assert loss_function(f"{tmp_path}/mine.py:half")(torch.ones(2, 3), torch.zeros(2, 3), 1.0, None) == 0.5
