"""What the book proves on noise that is correlated over time: M g + w is released, M^-1 w is the noise of the steps.

A record moves each step's sum by a vector of length at most 1, in all steps (full batch) or in one (one epoch).
"""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays


def encoder(T):
    """Lower triangular matrices with entries >= 0 and a diagonal that can be inverted."""
    entries = arrays(np.float64, (T, T), elements=st.floats(0, 1))
    return entries.map(lambda M: np.tril(M, -1) + np.diag(0.2 + M.diagonal()))


ENCODERS = st.integers(1, 6).flatmap(encoder)


@given(ENCODERS, st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_the_sensitivity_of_a_full_batch(M, seed, k):
    """No record moves M g by more than |M 1|, and one that moves the same way in every step does."""
    moves = np.random.default_rng(seed).standard_normal((len(M), k))
    moves /= np.maximum(1, np.linalg.norm(moves, axis=1, keepdims=True))
    bound = np.linalg.norm(M.sum(1))
    assert np.linalg.norm(M @ moves) <= bound * (1 + 1e-12)
    moves[:] = np.eye(k)[0]
    assert np.linalg.norm(M @ moves) == pytest.approx(bound)


@given(ENCODERS, st.integers(0, 2**32 - 1))
def test_on_a_full_batch_a_schedule_of_independent_noise_is_as_good(M, seed):
    """X = M'M against diag(X 1): the same sensitivity, and no worse for any workload. Kills diag(X) for diag(X 1)."""
    X = M.T @ M
    D = np.diag(X.sum(1))
    assert D.sum() == pytest.approx(np.square(M.sum(1)).sum())
    assert np.linalg.eigvalsh(D - X).min() >= -1e-9 * D.max()
    b = np.random.default_rng(seed).standard_normal(len(M))
    assert b @ np.linalg.solve(D, b) <= b @ np.linalg.solve(X, b) * (1 + 1e-6)


@given(st.integers(1, 6).flatmap(lambda T: arrays(np.float64, (T, T), elements=st.floats(-1, 1))))
def test_with_fresh_directions_the_diagonal_is_best(M):
    """Only the variances count then: 1 / M_tt^2 or more, at a sensitivity of diag(M)'s or more."""
    M = np.tril(M, -1) + np.diag(0.2 + np.abs(M.diagonal()))
    signs = np.array(np.meshgrid(*[[-1, 1]] * len(M))).reshape(len(M), -1)
    assert np.square(M @ signs).sum(0).max() >= np.square(M.diagonal()).sum() * (1 - 1e-12)
    inverse = np.linalg.inv(M)
    assert (np.square(inverse).sum(1) >= M.diagonal() ** -2 * (1 - 1e-9)).all()


def harm(A, covariance, directions):
    """E e'Ae / 2 after a step of 0.3 along each direction from e = 0, in the mean over sequences of directions."""
    found = []
    for us in directions:
        moves = np.zeros((2, 0))  # e as a linear map of the noises so far
        for u in us:
            moves = np.column_stack([moves - 0.3 * np.outer(u, u @ A @ moves), -0.3 * u])
        found.append(np.trace(moves.T @ A @ moves @ covariance) / 2)
    return np.mean(found)


SIGNS = [np.array(u) for u in product([-1.0, 1.0], repeat=2)]


@given(st.integers(1, 4).flatmap(encoder), st.integers(0, 2**32 - 1))
def test_fresh_directions_see_single_variances_only(M, seed):
    """On a quadratic in the plane, every sequence of sign directions counted: M^-1 w harms as its diagonal does."""
    A = np.random.default_rng(seed).standard_normal((2, 2))
    covariance, fresh = np.linalg.inv(M) @ np.linalg.inv(M).T, list(product(SIGNS, repeat=len(M)))
    alone = np.diag(covariance.diagonal())
    assert harm(A @ A.T, covariance, fresh) == pytest.approx(harm(A @ A.T, alone, fresh), rel=1e-9)


def test_along_one_direction_noises_cancel():
    """The same comparison where the direction comes again: less harm than the diagonal's."""
    covariance, again = np.array([[1.0, -0.9], [-0.9, 1.8]]), [(u, u) for u in SIGNS]
    A = np.diag([1.0, 0.5])
    assert harm(A, covariance, again) < 0.7 * harm(A, np.diag(covariance.diagonal()), again)


def test_in_one_epoch_correlation_pays():
    """The sum of T steps has variance T by independent noise, and less than a fifth of it by the root of prefix sums.

    With c_j = binom(2j, j) / 4^j the encoder is its own decoder, and both factors grow as a logarithm.
    """
    T = 256
    c = np.cumprod(np.concatenate([[1.0], (2 * np.arange(1, T) - 1) / (2 * np.arange(1, T))]))
    M = np.array([[c[t - s] if t >= s else 0.0 for s in range(T)] for t in range(T)])
    assert np.allclose(M @ M, np.tril(np.ones((T, T))))
    sensitivity = np.square(M).sum(0).max()
    error = np.square(np.linalg.solve(M.T, np.ones(T))).sum()
    assert sensitivity * error < T / 5
