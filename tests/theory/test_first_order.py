"""Zeroth order against first order: the book's bridge between them, on arrays."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpzo.theory.rates import Problem, dp_gd, sharper


def orthogonal(d, K, seed):
    """(generator, U), K columns of length sqrt(d), orthogonal."""
    generator = np.random.default_rng(seed)
    return generator, math.sqrt(d) * np.linalg.qr(generator.standard_normal((d, K)))[0]


def clip(rows, C):
    return rows * np.minimum(1, C / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300))


@given(st.integers(1, 9), st.integers(1, 9), st.floats(0.05, 3), st.integers(0, 10**6))
def test_orthonormal_directions_are_dp_sgd_in_their_span(d, K, C, seed):
    """The clipped sum's move, and the covariance of the noise's. Kills: C' without sqrt(d), alpha without d / K."""
    K = min(K, d)
    generator, U = orthogonal(d, K, seed)
    gradients, m = generator.standard_normal((6, d)), 1.7
    P, other = U @ U.T / d, C * K / math.sqrt(d)
    zeroth = U @ clip(gradients @ U / K, C).sum(0)
    first = d / K * clip(gradients @ P, other).sum(0)
    assert zeroth == pytest.approx(first, abs=1e-9)
    assert (m * C) ** 2 * U @ U.T == pytest.approx((d / K * m * other) ** 2 * P, abs=1e-9)
    if d == K:
        assert zeroth == pytest.approx(clip(gradients, C * math.sqrt(d)).sum(0), abs=1e-9)


@given(st.integers(1, 30), st.integers(1, 20), st.floats(0.1, 3), st.integers(0, 10**6))
def test_a_step_tells_as_much_whatever_k_is(K, N, C, seed):
    """Squared means over variances sum to (N / m)^2 at most; attained by equal vectors. Kills: K times as much."""
    vectors, m = np.random.default_rng(seed).standard_normal((N, K)) * 3, 2.5

    def told(rows):
        return float(np.square(clip(rows, C).sum(0)).sum() / (m * C) ** 2)

    assert told(vectors) <= (N / m) ** 2 * (1 + 1e-9)
    assert told(np.full((N, K), 1e6)) == pytest.approx((N / m) ** 2)


@given(st.integers(2, 300), st.floats(1, 100), st.floats(4, 8))
def test_the_price_of_a_direction(K, r, log_n):
    """2 K T = (r + K + 1) b / sqrt(r) against DP-GD's 3 b / sqrt(r). Kills: K times the passes of one direction."""
    p = Problem(n=int(10**log_n), d=10**6, r=r, L=1.5, l=0.7, gap=1.0, epsilon=2.0, delta=1e-6)
    g, first, b = sharper(p, directions=K), dp_gd(p), p.budget
    assert 2 * K * g.steps == pytest.approx((r + K + 1) * b / math.sqrt(r))
    assert first.steps == pytest.approx(b / math.sqrt(r))
    c = math.sqrt(2 * math.log(max(8, b / (2 * math.sqrt(r)))))
    noisy = 8 * p.L**2 * (1 + c / math.sqrt(K) + 1 / (4 * c)) ** 2
    assert g.bound <= (32 * p.gap * p.l + noisy + 9 * p.L**2) * math.sqrt(r) / b * (1 + 1e-9)


@given(st.integers(1, 7), st.integers(0, 10**6), st.floats(0.01, 0.5))
def test_preconditioned_directions_are_a_change_of_variables(d, seed, λ):
    """Ten steps on a loss that is no quadratic, in x and in y, with one noise. Kills: M in the place of its root."""
    generator = np.random.default_rng(seed)
    root = generator.standard_normal((d, d))
    root = root @ root.T / d
    X, x, y = generator.standard_normal((5, d)), np.zeros(d), np.zeros(d)

    def losses(at):
        return np.logaddexp(0, -X @ at)

    for _ in range(10):
        u, z = generator.standard_normal(d), generator.standard_normal()
        v = (losses(x + λ * root @ u) - losses(x - λ * root @ u)) / (2 * λ)
        w = (losses(root @ (y + λ * u)) - losses(root @ (y - λ * u))) / (2 * λ)
        x = x - 0.1 * (v.clip(-1, 1).mean() + z) * root @ u
        y = y - 0.1 * (w.clip(-1, 1).mean() + z) * u
    assert x == pytest.approx(root @ y, abs=1e-9)


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=8).map(np.array), st.floats(0.1, 10))
def test_what_whitening_does_to_the_error(a, times):
    """Tr(M H) L^2 / mu^2 with L^2 = Tr(M H): (sum a)^2 / a_min^2 without it, d^2 with it, whatever M is scaled by."""

    def error(M):
        curved = np.sqrt(M) @ np.diag(a) @ np.sqrt(M)
        eigenvalues = np.linalg.eigvalsh(curved)
        return eigenvalues.sum() ** 2 / eigenvalues.min() ** 2, eigenvalues.max() / eigenvalues.min()

    plain, _ = error(np.eye(len(a)))
    white, kappa = error(times * np.diag(1 / a))
    assert plain == pytest.approx((a.sum() / a.min()) ** 2)
    assert (white, kappa) == pytest.approx((len(a) ** 2, 1))
    assert white == pytest.approx(plain * (a.min() / a.mean()) ** 2)
