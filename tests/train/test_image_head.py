"""Principal axes keep what they can of the similarities, and heads start where the embedding is."""

import pytest
import torch

from pipelines.train.image_head import principal_axes


def data(n_images, n_features):
    generator = torch.Generator().manual_seed(0)
    scales = torch.linspace(3, 0.1, n_features)
    return torch.randn(n_images, n_features, generator=generator) * scales + 0.5


@pytest.mark.parametrize("shape", [(60, 20), (20, 60)], ids=["tall", "wide"])
def test_principal_axes_are_those_of_a_singular_value_decomposition(shape):
    x = data(*shape)
    mine = principal_axes(x, 6)
    _, _, vt = torch.linalg.svd(x.double(), full_matrices=False)
    expected = vt[:6].T.float() * (6 / shape[1]) ** 0.5
    assert torch.allclose(mine.T @ expected * shape[1] / 6, torch.diag(torch.sign((mine * expected).sum(0))), atol=1e-4)


def test_images_that_span_less_than_asked_give_fewer_axes():
    x = data(4, 30)
    assert principal_axes(torch.cat((x, x)), 20).shape == (30, 4)


def test_no_projection_of_the_same_width_keeps_more():
    x = data(50, 30)
    axes = principal_axes(x, 5) * (30 / 5) ** 0.5
    kept = (x @ axes).square().sum()
    random = torch.linalg.qr(torch.randn(30, 5, generator=torch.Generator().manual_seed(1)))[0]
    assert kept > (x @ random).square().sum()
    assert torch.allclose(axes.T @ axes, torch.eye(5), atol=1e-5)


def test_embeddings_that_are_all_alike_have_one_axis():
    assert principal_axes(torch.zeros(6, 30), 20).shape == (30, 1)
    assert principal_axes(torch.ones(6, 30), 20).shape == (30, 1)
    assert torch.isfinite(principal_axes(torch.zeros(6, 30), 20)).all()
