"""Stochastic Lanczos quadrature against matrices whose spectrum is known."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dpzo import Refusal
from synthetic.curvature import curvature, exact_curvature, lanczos


def symmetric(eigenvalues, seed=0):
    generator = np.random.default_rng(seed)
    q, _ = np.linalg.qr(generator.standard_normal((len(eigenvalues),) * 2))
    return torch.from_numpy(q @ np.diag(eigenvalues) @ q.T).float()


@given(st.lists(st.floats(-5, 5), min_size=3, max_size=12), st.integers(0, 99))
def test_a_full_lanczos_run_is_the_quadratic_form(eigenvalues, seed):
    H = symmetric(eigenvalues, seed)
    v = torch.randn(len(eigenvalues), generator=torch.Generator().manual_seed(seed))
    nodes, weights = lanczos(lambda x: H @ x, v, len(eigenvalues))
    for power in (0, 1, 2, 3):
        direct = float(v.double() @ torch.linalg.matrix_power(H.double(), power) @ v.double())
        assert weights @ nodes**power == pytest.approx(direct, rel=1e-3, abs=1e-2)


def test_trace_of_the_absolute_value_and_norm():
    """Kills: the trace of H for that of |H|; a probe that is not scaled by its length."""
    eigenvalues = np.concatenate([[-8.0, 4.0], np.full(98, -0.02)])
    H = symmetric(eigenvalues)
    found = curvature(lambda x: H @ x, 100, probes=200, steps=12)
    assert found.norm == pytest.approx(8, rel=1e-4)
    assert abs(found.trace - np.abs(eigenvalues).sum()) < 6 * found.error
    assert abs(found.trace - abs(eigenvalues.sum())) > 6 * found.error
    assert found.effective_rank == found.trace / found.norm


def test_a_diagonal_matrix_needs_no_luck():
    a = torch.arange(1, 51).float().rsqrt()
    found = curvature(lambda x: a * x, 50, probes=2, steps=50)
    assert found.trace == pytest.approx(float(a.sum()), rel=1e-4)
    assert found.error < 1e-4


def test_column_by_column_it_is_exact():
    """Kills: the trace of H for that of |H|, the largest eigenvalue for the norm."""
    found = exact_curvature(lambda x: symmetric([-3.0, 0.5, 2.0, 0.0]) @ x, 4)
    assert found.norm == pytest.approx(3, rel=1e-5)
    assert found.trace == pytest.approx(5.5, rel=1e-5)
    assert found.error == 0


@given(st.integers(1, 8), st.integers(0, 10**6))
def test_no_bound_has_a_smaller_trace(d, seed):
    """-M <= H <= M is H = M^(1/2) K M^(1/2) with |K| <= 1, and then Tr M >= Tr |H|; M = |H| attains it."""
    generator = np.random.default_rng(seed)
    root, K = generator.standard_normal((d, d)), generator.standard_normal((d, d))
    M, K = root @ root.T, (K + K.T) / np.linalg.norm(K + K.T, 2)
    H = root @ K @ root.T  # as root = M^(1/2) Q with Q orthogonal
    assert np.linalg.eigvalsh(M - H).min() > -1e-9 * np.trace(M)
    assert np.linalg.eigvalsh(M + H).min() > -1e-9 * np.trace(M)
    found = exact_curvature(lambda x: torch.from_numpy(H).float() @ x, d)
    assert found.trace <= np.trace(M) * (1 + 1e-5)


def test_a_bound_of_a_larger_norm_may_have_a_smaller_rank():
    """|H| + c q q', q the first eigenvector: its trace grows, and its norm grows more."""
    ranks, traces = [], []
    for c in (0.0, 1.0, 5.0):
        bound = np.array([1 + c, *[0.1] * 20])
        traces.append(bound.sum())
        ranks.append(bound.sum() / bound.max())
    assert ranks == pytest.approx([3, 2, 4 / 3])
    assert traces == pytest.approx([3, 4, 8])


def test_refusals():
    with pytest.raises(Refusal, match="two probes"):
        curvature(lambda x: x, 3, probes=1)
