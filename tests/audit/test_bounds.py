"""The bounds hold for exact laws, say nothing of null data, and grow with the evidence."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dpzo.audit.bounds import (
    advantage_lower,
    clopper_pearson,
    epsilon_from_guesses,
    epsilon_lower,
    evidence,
    guesses_p,
    most,
    mu_lower,
)
from tests.chance import ALPHA

BOUNDS = [mu_lower, epsilon_lower, advantage_lower]
COUNTS = st.tuples(st.integers(1, 500), st.integers(0, 500), st.integers(0, 500)).filter(lambda c: max(c[1:]) <= c[0])


@given(st.integers(1, 60), st.integers(0, 60), st.floats(1e-6, 0.3))
def test_clopper_pearson_inverts_the_binomial_tail(trials, successes, alpha):
    successes = min(successes, trials)
    low, high = clopper_pearson(successes, trials, alpha)
    if successes:
        assert stats.binom.sf(successes - 1, trials, low) == pytest.approx(alpha, rel=1e-6)
    else:
        assert low == 0
    if successes < trials:
        assert stats.binom.cdf(successes, trials, high) == pytest.approx(alpha, rel=1e-6)
    else:
        assert high == 1


def coverage(bound, truth, trials, false_alarm, hit, alpha):
    """Exact probability that a bound exceeds the truth, over two independent binomial counts."""
    law = [stats.binom(trials, p).pmf(np.arange(trials + 1)) for p in (false_alarm, hit)]
    wrong = [[bound(f, h, trials, alpha=alpha) > truth for h in range(trials + 1)] for f in range(trials + 1)]
    return float(law[0] @ np.array(wrong) @ law[1])


@pytest.mark.parametrize("alpha", [0.05, 0.3])
def test_each_bound_is_wrong_no_more_often_than_alpha(alpha):
    """By enumeration. Kills: alpha instead of alpha / 2 on each side; the wrong ends of the intervals."""
    false_alarm, hit = 0.2, 0.6
    truths = {
        mu_lower: stats.norm.ppf(hit) - stats.norm.ppf(false_alarm),
        epsilon_lower: math.log(3),
        advantage_lower: 0.4,
    }
    for bound, truth in truths.items():
        assert coverage(bound, truth, 25, false_alarm, hit, alpha) <= alpha
        assert coverage(bound, truth - 0.9, 25, false_alarm, hit, alpha) > alpha  # a bound that is always 0 fails


@pytest.mark.parametrize("bound", BOUNDS)
def test_equal_worlds_give_zero(bound):
    """Exactly: over all counts of two equal worlds the bound is above 0 with probability at most alpha."""
    for p in (0.02, 0.3, 0.9):
        assert coverage(bound, 0.0, 30, p, p, 0.1) <= 0.1
    counts = np.random.default_rng(3).binomial(1000, 0.3, size=(2000, 2))
    assert all(bound(int(f), int(h), 1000) == 0 for f, h in counts)


@pytest.mark.statistical
def test_random_guesses_give_zero():
    """Over many seeds, at alpha = 1e-9 never; at 0.05 no more often than a twentieth."""
    right = np.random.default_rng(4).binomial(100, 0.5, size=3000)
    assert all(epsilon_from_guesses(int(r), 100) == 0 for r in right)
    wrong = sum(epsilon_from_guesses(int(r), 100, alpha=0.05) > 0 for r in right)
    assert stats.binom.sf(wrong - 1, len(right), 0.05) > ALPHA
    assert wrong > 0


@pytest.mark.parametrize("bound", BOUNDS)
@given(counts=COUNTS, alpha=st.floats(1e-9, 0.2))
def test_bounds_grow_with_the_evidence(bound, counts, alpha):
    n, f, h = counts
    found = bound(f, h, n, alpha=alpha)
    assert found >= 0
    if h < n:
        assert bound(f, h + 1, n, alpha=alpha) >= found - 1e-9
    if f > 0:
        assert bound(f - 1, h, n, alpha=alpha) >= found - 1e-9
    assert bound(f, h, n, alpha=alpha / 2) <= found + 1e-9


@given(st.integers(1, 200), st.integers(0, 200), st.sampled_from([0.0, 1e-12, 1e-6]))
def test_the_bound_from_guesses_grows_with_the_right_ones(guesses, right, delta):
    right = min(right, guesses - 1)
    found = epsilon_from_guesses(right, guesses, delta, alpha=1e-3)
    assert 0 <= found <= epsilon_from_guesses(right + 1, guesses, delta, alpha=1e-3) + 1e-9
    assert epsilon_from_guesses(right, guesses, 10 * delta + 1e-9, alpha=1e-3) <= found + 1e-9
    if found:
        assert guesses_p(right, guesses, found + 1e-6, delta) >= 1e-3 * (1 - 1e-6)


@given(st.integers(1, 60), st.floats(0, 3), st.floats(0, 3), st.sampled_from([0.0, 1e-6, 1e-3]))
def test_the_p_value_increases_with_epsilon(m, a, b, delta):
    """What makes the bound's search right, as long as 2 m delta <= 1."""
    for v in range(m + 1):
        assert guesses_p(v, m, min(a, b), delta) <= guesses_p(v, m, max(a, b), delta) * (1 + 1e-9) + 1e-15


@pytest.mark.parametrize("epsilon", [0.0, 0.7, 2.0])
@pytest.mark.parametrize("delta", [1e-4, 1e-2])
def test_no_mechanism_with_that_guarantee_does_better(epsilon, delta):
    """Exactly, for (epsilon, delta)-DP mechanisms that fail in different ways. Kills: a bound without delta.

    Randomised response; the same that gives each coin away with probability delta; one that gives all away at once.
    """
    m = 12
    q = 1 / (1 + math.exp(-epsilon))
    v = np.arange(m + 1)
    plain = stats.binom.sf(v - 1, m, q)
    each = stats.binom.sf(v - 1, m, delta + (1 - delta) * q)
    all_at_once = delta + (1 - delta) * plain
    allowed = np.array([guesses_p(int(k), m, epsilon, delta) for k in v])
    assert np.array([guesses_p(int(k), m, epsilon) for k in v]) == pytest.approx(plain)
    assert (each <= allowed * (1 + 1e-12)).all()
    assert (all_at_once <= allowed * (1 + 1e-12)).all()
    assert (each > plain)[1:].all()  # without the delta term both would break the bound


@pytest.mark.statistical
def test_abstaining_does_not_help_beyond_it():
    """The coins that were given away are guessed first, and only r of them all."""
    m, epsilon, delta = 12, 0.7, 1e-2
    q = 1 / (1 + math.exp(-epsilon))
    for r in (3, 8):
        given_away = np.minimum(stats.binom.rvs(m, delta, size=20_000, random_state=5), r)
        right = given_away + stats.binom.rvs(r - given_away, q, random_state=6)
        for k in range(r + 1):
            assert stats.binom.sf((right >= k).sum() - 1, len(right), guesses_p(k, r, epsilon, delta, m)) > ALPHA


def test_known_numbers():
    # All of m right: (e^eps / (1 + e^eps))^m = alpha.
    q = 0.05 ** (1 / 100)
    assert epsilon_from_guesses(100, 100, alpha=0.05) == pytest.approx(math.log(q / (1 - q)), rel=1e-9)
    assert epsilon_from_guesses(100, 100, 1e-2, alpha=0.05) == 0
    assert evidence(1e-9) == pytest.approx(9)
    assert (evidence(0.0), evidence(1.7)) == (300, 0)
    assert stats.binom.sf(most(1000, 0.01), 1000, 0.01) <= ALPHA < stats.binom.sf(most(1000, 0.01) - 1, 1000, 0.01)
