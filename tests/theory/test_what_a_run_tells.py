"""The book's thm-run: what Poisson-sampled, adaptive, vector-valued Gaussian releases cost, by integration at noise m.

A unit in the batch moves a release by a vector of length at most 1 (C); the laws are compared with the library's
accounting of the pair that the theorem names. H_g(P, Q) = E_Q (P / Q - g)_+ is delta at g = e^epsilon.
"""

import math

import numpy as np
import pytest
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from dpzo import Relation
from dpzo.accounting import delta

GAMMAS = (0.3, 1.0, math.exp(0.5), math.e**2)
Y = np.linspace(-12, 12, 481)  # what a release may be, in units of the noise
STEP = Y[1] - Y[0]
LENGTHS, SHARES = st.floats(-1, 1), st.floats(0.02, 1)
NOISES = st.floats(0.4, 3)


def mixture(q, moved, y=Y):
    """The density of a release around the others' sum, ``moved`` and y in units of the noise."""
    return (1 - q) * norm.pdf(y) + q * norm.pdf(y - moved)


def hockey(P, Q, g):
    return float(np.maximum(P - g * Q, 0).sum())


def pair(q, m, relation):
    """The theorem's dominating pair of one step, on the grid."""
    return mixture(q, 1 / m), mixture(q, -1 / m) if relation is Relation.REPLACE_ONE else norm.pdf(Y)


def of_two(first, second, relation, *, inverse=False):
    """H_g of two steps of the pair, (q, m) each, composed without adaptivity."""
    (P1, Q1), (P2, Q2) = (pair(*step, relation) for step in (first, second))
    P, Q = (np.multiply.outer(a, b) * STEP**2 for a, b in ((P1, P2), (Q1, Q2)))
    return [hockey(*((Q, P) if inverse else (P, Q)), g) for g in GAMMAS]


@pytest.mark.parametrize("relation", [Relation.ADD_REMOVE, Relation.REPLACE_ONE])
@settings(max_examples=30)
@given(
    first=st.tuples(SHARES, NOISES), second=st.tuples(SHARES, NOISES), lengths=st.tuples(LENGTHS, LENGTHS),
    jumps=st.lists(st.floats(-4, 4), min_size=2, max_size=2), levels=st.lists(LENGTHS, min_size=4, max_size=4),
)  # fmt: skip
@example(first=(0.3, 0.8), second=(0.5, 1.0), lengths=(1.0, -1.0), jumps=[-1.0, 1.0], levels=[1.0, 1.0, -1.0, -1.0])
def test_no_adaptive_run_tells_more_than_its_pairs(relation, first, second, lengths, jumps, levels):
    """Two steps; the second's contributions depend on the first's release as they like, in either world.

    Kills: for replace-one the pair of one record added at twice the distance; a pair of half the length.
    """
    (q1, m1), (q2, m2) = first, second
    replaced = relation is Relation.REPLACE_ONE
    low, high = sorted(jumps)
    a2, b2 = (np.where(low > Y, x, np.where(high > Y, y, -x)) / m2 for x, y in (levels[:2], levels[2:]))
    b1, b2 = (lengths[1] / m1, b2) if replaced else (0.0, np.zeros_like(Y))
    P, Q = (
        mixture(q1, x1)[:, None] * mixture(q2, x2[:, None], Y[None, :]) * STEP**2
        for x1, x2 in ((lengths[0] / m1, a2), (b1, b2))
    )
    for inverse in (False, True):
        most = of_two(first, second, relation, inverse=inverse)
        for g, bound in zip(GAMMAS, most, strict=True):
            assert hockey(*((Q, P) if inverse else (P, Q)), g) <= bound + 1e-6


@given(SHARES, NOISES, LENGTHS, LENGTHS, st.floats(0, math.pi))
def test_directions_and_lengths_of_a_replaced_record(q, m, a, b, angle):
    """In the plane: two contributions of any length at any angle tell less than two opposite ones of length 1."""
    x, y = np.meshgrid(Y[::3], Y[::3], indexing="ij")
    cell = (3 * STEP) ** 2
    P, Q = (
        (1 - q) * norm.pdf(x) * norm.pdf(y) + q * norm.pdf(x - u) * norm.pdf(y - v)
        for u, v in ((a / m, 0.0), (b / m * math.cos(angle), b / m * math.sin(angle)))
    )
    worst = pair(q, m, Relation.REPLACE_ONE)
    for g in GAMMAS:
        assert hockey(P, Q, g) * cell <= hockey(*worst, g) * STEP + 2e-3 * q


def test_the_pair_is_reached_and_no_smaller_one_is_right():
    """By opposite contributions, whatever was released. Kills: one record's pair at sensitivity 2, and others."""
    q, m = 0.3, 0.8
    P, Q = pair(q, m, Relation.REPLACE_ONE)
    smaller = [
        (mixture(q, 2 / m), norm.pdf(Y)),  # as if one of the two were nothing, at twice the distance
        (mixture(q, 1 / m), norm.pdf(Y)),
        (mixture(q, 0.95 / m), mixture(q, -0.95 / m)),
        (mixture(0.95 * q, 1 / m), mixture(0.95 * q, -1 / m)),
    ]
    for other in smaller:
        assert any(hockey(*other, g) < hockey(P, Q, g) - 1e-6 for g in GAMMAS)


@pytest.mark.parametrize("relation", [Relation.ADD_REMOVE, Relation.REPLACE_ONE, Relation.ZERO_OUT])
@pytest.mark.parametrize(("q", "m"), [(0.3, 1.1), (1.0, 2.0)])
def test_the_library_accounts_this_pair(relation, q, m):
    """Two equal steps: delta by PLD, which rounds up, against the integral. Kills: add/remove for replace-one."""
    event = SelfComposedDpEvent(PoissonSampledDpEvent(q, GaussianDpEvent(m)), 2)
    pairs = Relation.REPLACE_ONE if relation is Relation.REPLACE_ONE else Relation.ADD_REMOVE
    exact = np.maximum(of_two((q, m), (q, m), pairs), of_two((q, m), (q, m), pairs, inverse=True))
    for g, one in zip(GAMMAS[1:], exact[1:], strict=True):
        told = delta(event, math.log(g), relation, "pld")
        assert one - 1e-6 <= told <= one * 1.002 + 1e-6


@given(st.lists(st.floats(0, 1), min_size=2, max_size=2), NOISES)
def test_a_rate_that_is_smaller_tells_less(rates, m):
    """A unit may join with less than q, as earlier releases say: 1 + q (L - 1) grows in convex order with q."""
    low, high = sorted(rates)
    for relation in (Relation.ADD_REMOVE, Relation.REPLACE_ONE):
        for g in GAMMAS:
            fewer, more = (hockey(*pair(q, m, relation), g) for q in (low, high))
            back, forth = (hockey(*pair(q, m, relation)[::-1], g) for q in (low, high))
            assert fewer <= more + 1e-9
            assert back <= forth + 1e-9


@given(st.floats(0.2, 2), st.floats(0, 1), st.lists(st.floats(0.05, 1), min_size=3, max_size=3), st.floats(-2, 2))
def test_the_filter_on_full_batches(μ, spent, shares, at):
    """The second ratio is chosen by the first release, within mu^2 in all: it costs what one Gaussian of mu does.

    Kills: a sum of ratios for the sum of their squares. (That a mean of mu^2 is not enough: test_gaussian_releases.py.)
    """
    first = μ * math.sqrt(spent)
    left = μ**2 - first**2
    ratio = np.sqrt(left) * np.where(Y + first < at, shares[0], np.where(at > Y, shares[1], shares[2]))
    P = norm.pdf(Y - first)[:, None] * norm.pdf(Y[None, :] - ratio[:, None]) * STEP**2
    Q = norm.pdf(Y)[:, None] * norm.pdf(Y)[None, :] * STEP**2
    whole = norm.pdf(Y - μ), norm.pdf(Y)
    for g in GAMMAS:
        assert hockey(P, Q, g) <= hockey(*whole, g) * STEP + 1e-4
    even = np.sqrt(left) * np.where(at > Y, 1, -1)  # as much as is left, in either sign: the Gaussian's cost exactly
    P = norm.pdf(Y - first)[:, None] * norm.pdf(Y[None, :] - even[:, None]) * STEP**2
    assert hockey(P, Q, GAMMAS[1]) == pytest.approx(hockey(*whole, GAMMAS[1]) * STEP, rel=1e-3, abs=1e-6)
