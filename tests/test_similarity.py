"""CKA and RSA against formulas written independently, on whole image-by-image matrices."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import pdist

from pipelines.similarity import debiased_cka, rsa, similarity


def pair(seed, n=40, dims=(7, 12), shared=3):
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(n, shared))
    return [latent @ rng.normal(size=(shared, dim)) + rng.normal(size=(n, dim)) + rng.normal() for dim in dims]


def centred_like_u_statistics(x):
    """Return the U-centred kernel of Székely and Rizzo (2014), element by element."""
    kernel = x @ x.T
    np.fill_diagonal(kernel, 0)
    n = len(kernel)
    rows = kernel.sum(axis=1)
    out = np.zeros_like(kernel)
    for i in range(n):
        for j in range(n):
            if i != j:
                out[i, j] = kernel[i, j] - (rows[i] + rows[j]) / (n - 2) + rows.sum() / ((n - 1) * (n - 2))
    return out


def cka_by_u_centring(a, b):
    ka, kb = centred_like_u_statistics(a), centred_like_u_statistics(b)
    return np.sum(ka * kb) / np.sqrt(np.sum(ka * ka) * np.sum(kb * kb))


@pytest.mark.parametrize("dims", [(7, 12), (3, 3), (200, 150), (5, 300)])
def test_cka_equals_the_u_centred_kernels(dims):
    a, b = pair(1, dims=dims)
    assert debiased_cka(a, b) == pytest.approx(cka_by_u_centring(a, b), abs=1e-10)


@pytest.mark.parametrize("dims", [(7, 12), (3, 3), (200, 150), (5, 300)])
def test_rsa_equals_scipys_distances_correlated(dims):
    a, b = pair(2, dims=dims)
    expected = np.corrcoef(pdist(a, "correlation"), pdist(b, "correlation"))[0, 1]
    assert rsa(a, b) == pytest.approx(expected, abs=1e-10)


def test_unrelated_embeddings_are_not_alike_even_with_more_features_than_images():
    values = [debiased_cka(*pair(seed, n=50, dims=(400, 400), shared=0)) for seed in range(40)]
    assert abs(np.mean(values)) < 0.02


@given(st.integers(0, 1000), st.floats(0.01, 100))
def test_turning_shifting_and_scaling_change_no_cka(seed, scale):
    a, b = pair(seed)
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(a.shape[1],) * 2))[0]
    assert debiased_cka(scale * a @ turn + 5, b) == pytest.approx(debiased_cka(a, b), abs=1e-8)


@given(st.integers(0, 1000))
def test_comparison_is_symmetric_and_full_with_itself(seed):
    a, b = pair(seed)
    assert similarity(a, b).cka == pytest.approx(similarity(b, a).cka)
    assert similarity(a, b).rsa == pytest.approx(similarity(b, a).rsa)
    assert (similarity(a, a).cka, similarity(a, a).rsa) == (pytest.approx(1), pytest.approx(1))


@pytest.mark.parametrize(
    ("a", "b", "what"),
    [
        (np.ones((5, 2)), np.ones((6, 2)), "same number of rows"),
        (np.eye(3), np.eye(3), "at least 4"),
        (np.full((5, 2), np.nan), np.ones((5, 2)), "not finite"),
        (np.ones((5, 2)), np.ones((5, 2)), "does not vary"),
    ],
)
def test_what_cannot_be_compared_is_refused(a, b, what):
    with pytest.raises(ValueError, match=what):
        similarity(a, b)
