"""Lemma 2.2's noise against the exact cost of composed Gaussians: by how much it over- and undershoots, and where."""

import math

import dp_accounting as dpa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, optimize, stats

from dpzo import Refusal, Relation, accounting
from dpzo.theory.noise import exact_constant, lemma_constant, lemma_epsilon, sigma

DELTA = 1e-5
# asked -> delivered at delta = 1e-5, from Gaussian DP with mu = eps / sqrt(8 log(e + eps / delta))
DELIVERED = {1: 0.356, 2: 0.735, 6: 2.361, 10: 4.13, 50: 28.6, 100: 75.5, 200: 221, 300: 435}


def digits(value):
    """Half a unit of the last digit that a literal tells."""
    return 0.5 * 10.0 ** -len(str(value).partition(".")[2])


@pytest.mark.parametrize(("asked", "delivered"), DELIVERED.items())
def test_what_the_lemma_delivers(asked, delivered):
    assert abs(lemma_epsilon(asked, DELTA) - delivered) <= digits(delivered)


@pytest.mark.parametrize("asked", DELIVERED)
def test_the_same_by_integrating_the_privacy_profile(asked):
    """Independent of dp_accounting: delta(epsilon) of a Gaussian, sup over sets of P - e^eps Q, integrated."""
    mu, eps = asked / math.sqrt(8 * lemma_constant(asked, DELTA)), lemma_epsilon(asked, DELTA)
    gap = lambda x: stats.norm.pdf(x, mu) - math.exp(eps + stats.norm.logpdf(x))  # noqa: E731
    start = eps / mu + mu / 2  # beyond it P's density is above e^eps Q's
    assert integrate.quad(gap, start, start + 12, epsabs=1e-14)[0] == pytest.approx(DELTA, rel=1e-5)


@pytest.mark.parametrize(("epsilon", "factor"), [(2.0, 2.48), (6.0, 2.25)])
def test_how_much_too_much_noise(epsilon, factor):
    assert math.sqrt(lemma_constant(epsilon, DELTA) / exact_constant(epsilon, DELTA)) == pytest.approx(factor, abs=5e-3)


def test_from_one_to_six_the_factor_is_2_2_to_2_6():
    ratios = [math.sqrt(lemma_constant(e, DELTA) / exact_constant(e, DELTA)) for e in (1, 1.5, 2, 3, 4, 5, 6)]
    assert ratios == sorted(ratios, reverse=True)
    assert 2.2 < ratios[-1] < ratios[0] < 2.65


def crossing(delta):
    return optimize.brentq(lambda e: lemma_constant(e, delta) - exact_constant(e, delta), 2, 1000)


def test_the_lemma_fails_beyond_a_crossing_between_100_and_200():
    """There and only there the two constants agree; beyond it the printed noise is too small."""
    at = crossing(DELTA)
    assert 100 < at < 200
    assert at == pytest.approx(169.26, abs=0.01)
    assert lemma_epsilon(at, DELTA) == pytest.approx(at, rel=1e-9)
    for e in (0.01, 1, 50, 0.99 * at):
        assert lemma_epsilon(e, DELTA) < e
    for e in (1.01 * at, 200, 300, 1000):
        assert lemma_epsilon(e, DELTA) > e


def test_the_crossing_moves_out_as_delta_shrinks():
    assert [crossing(delta) for delta in (1e-3, 1e-5, 1e-8)] == sorted(crossing(delta) for delta in (1e-3, 1e-5, 1e-8))


@given(st.floats(0.05, 400), st.sampled_from([1e-3, 1e-5, 1e-8]))
def test_exact_noise_delivers_exactly(epsilon, delta):
    """Whatever C, T and n are. Kills: a factor 2 in the sensitivity (add/remove for replace-one)."""
    C, T, n = 0.7, 1000, 4000
    s = sigma(C, T, n, epsilon, exact_constant(epsilon, delta))
    delivered = dpa.get_epsilon_gaussian(s / (2 * C / n * math.sqrt(T)), delta)
    assert delivered == pytest.approx(epsilon, rel=1e-6)
    assert dpa.get_epsilon_gaussian(s / (C / n * math.sqrt(T)), delta) < 0.9 * epsilon


@pytest.mark.parametrize("epsilon", [0.5, 2.0, 6.0, 200.0])
@pytest.mark.parametrize("steps", [1, 400])
def test_the_librarys_accounting_agrees(epsilon, steps):
    """The same noise and the same cost as ``dpzo.accounting`` finds for T full-batch steps under replace-one."""
    C, n = 3.0, 500
    multiplier = accounting.paper_noise_multiplier(epsilon, DELTA, steps)
    assert sigma(C, steps, n, epsilon, lemma_constant(epsilon, DELTA)) == pytest.approx(multiplier * C / n, rel=1e-13)
    event = dpa.SelfComposedDpEvent(dpa.GaussianDpEvent(multiplier), steps)
    spent = accounting.epsilon(event, DELTA, Relation.REPLACE_ONE)
    assert spent == pytest.approx(lemma_epsilon(epsilon, DELTA), rel=1e-6)
    calibrated = accounting.calibrate(
        lambda m: dpa.SelfComposedDpEvent(dpa.GaussianDpEvent(m), steps), epsilon, DELTA, Relation.REPLACE_ONE
    )
    assert sigma(C, steps, n, epsilon, exact_constant(epsilon, DELTA)) == pytest.approx(calibrated * C / n, rel=1e-4)


@pytest.mark.parametrize("call", [lemma_constant, exact_constant, lemma_epsilon])
def test_budgets_that_are_none(call):
    for epsilon, delta in (
        (0, DELTA),
        (-1, DELTA),
        (math.inf, DELTA),
        (math.nan, DELTA),
        (1, 0),
        (1, 1),
        (1, math.nan),
    ):
        with pytest.raises(Refusal):
            call(epsilon, delta)
