import itertools
import math

import dp_accounting
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dpzo import Refusal
from dpzo.mechanisms import GaussianMechanism, GaussianVectorMechanism, PlainSum, finite
from dpzo.randomness import OsEntropy, SeededEntropy
from tests.chance import ALPHA, ks_p, scale_p

C = 0.75  # with values on a grid of 1/8, sums are exact
ANY_FLOAT = st.floats(width=64)
SPECIAL = [0.0, -0.0, 5e-324, -2e-308, 1.7e308, -1.7e308, math.inf, -math.inf, math.nan]
GRID = [-0.75, -0.125, 0.0, 0.5, 0.75, 9.0, math.inf, math.nan]


class NoNoise:
    secret = False

    def uniform(self, size):
        raise AssertionError

    def normal(self, size):
        return np.zeros(size)


def clipped(*values):
    """The mechanism's sum without its noise."""
    return GaussianMechanism(C, 1.0).release(np.array(values, dtype=float), NoNoise())


@given(ANY_FLOAT)
@example(math.nan)
@example(math.inf)
@example(-math.inf)
@example(5e-324)
@example(-0.0)
def test_one_clipped_value_is_bounded_and_finite(v):
    assert abs(clipped(v)) <= C
    if abs(v) <= C:
        assert clipped(v) == v
    if not math.isfinite(v):
        assert clipped(v) == 0


@given(ANY_FLOAT, ANY_FLOAT)
def test_clip_is_one_lipschitz_and_monotone_and_odd(v, w):
    if math.isfinite(v) and math.isfinite(w):
        assert abs(clipped(v) - clipped(w)) <= abs(v - w)
        assert (clipped(v) - clipped(w)) * (1 if v >= w else -1) >= 0
    assert clipped(-v) == -clipped(v)


@pytest.mark.parametrize(("v", "w"), list(itertools.product(SPECIAL, SPECIAL)))
def test_special_values(v, w):
    assert np.isfinite(finite(np.array([v, w]))).all()
    assert abs(clipped(v, w)) <= 2 * C
    assert math.isfinite(clipped(v, w))


def exact_sensitivity(total):
    """The most that add/remove and replace-one move ``total``, over all small neighbouring data sets."""
    add, replace = 0.0, 0.0
    for size in range(4):
        for data in itertools.product(GRID, repeat=size):
            before = total(*data)
            for record in GRID:
                add = max(add, abs(total(*data, record) - before))
                if data:
                    replace = max(replace, abs(total(*data[:-1], record) - before))
    return add, replace


def test_sensitivity_by_enumeration():
    """Kills: no clip; a clip of the sum instead of each value; a mean by the realised size; nan kept."""
    assert exact_sensitivity(clipped) == (C, 2 * C)


def mean(*values):
    return clipped(*values) / max(len(values), 1) * 3


def late(*values):
    return sum(values)


@pytest.mark.parametrize("mutant", [mean, late])
def test_enumeration_sees_a_wrong_sensitivity(mutant):
    with np.errstate(invalid="ignore"):
        assert exact_sensitivity(mutant) != (C, 2 * C)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_the_noise_is_one_draw_for_the_sum_and_does_not_depend_on_the_values(count):
    mechanism = GaussianMechanism(C, 3.0)
    values = np.full(count, 0.5)
    z = SeededEntropy(1).normal(1)[0]
    assert mechanism.release(values, SeededEntropy(1)) == pytest.approx(0.5 * count + 3.0 * C * z, rel=1e-15)


def test_an_empty_batch_releases_pure_noise():
    assert GaussianMechanism(C, 3.0).release(np.empty(0), SeededEntropy(2)) == 3.0 * C * SeededEntropy(2).normal(1)[0]
    assert GaussianMechanism(C, 3.0).release(np.empty(0), OsEntropy()) != 0


@pytest.mark.statistical
@pytest.mark.parametrize("values", [[], [0.0], [5.0, -5.0, math.nan]], ids=["empty", "zero", "clipped"])
def test_noise_scale(values):
    """The noise has standard deviation noise_multiplier * C. Kills: sigma * 0.9; sigma without C; sigma / batch."""
    mechanism, source = GaussianMechanism(C, 3.0), OsEntropy()
    sample = np.array([mechanism.release(np.array(values, dtype=float), source) for _ in range(20_000)])
    assert scale_p(sample, 3.0 * C) > ALPHA
    assert ks_p(sample[:9000] / (3.0 * C), "norm") > ALPHA
    assert scale_p(0.9 * sample, 3.0 * C) < ALPHA
    assert scale_p(sample / C, 3.0 * C) < ALPHA


@given(st.lists(ANY_FLOAT, max_size=6), st.floats(1e-3, 1e3), st.floats(1e-3, 1e3), st.integers(0, 2**32))
def test_vector_clip_is_the_explicit_clip_of_each_vector(values, bound, norm, seed):
    u = np.random.default_rng(seed).standard_normal(4)
    u *= norm / np.linalg.norm(u)
    total = np.zeros(4)
    for v in values:
        g = (v if math.isfinite(v) else 0.0) * u.astype(np.longdouble)
        length = np.sqrt(np.sum(g * g))
        total = total + (g if length <= bound else g * (bound / length))
    s = GaussianVectorMechanism(bound, 1.0).clipped_sum(np.array(values, dtype=float), norm)
    np.testing.assert_allclose((s * u).astype(float), total.astype(float), rtol=1e-9, atol=1e-9 * bound)


@given(ANY_FLOAT, st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_a_clipped_vector_is_no_longer_than_c(v, bound, norm):
    s = GaussianVectorMechanism(bound, 1.0).clipped_sum(np.array([v]), norm)
    assert abs(s) * norm <= bound * (1 + 1e-15)


def test_plain_sum_is_the_sum_of_the_finite_values_and_not_private():
    assert PlainSum().release(np.array([1.0, math.nan, 2.5, -math.inf]), NoNoise()) == 3.5
    assert isinstance(PlainSum().event(), dp_accounting.NonPrivateDpEvent)


@pytest.mark.parametrize("kind", [GaussianMechanism, GaussianVectorMechanism])
def test_events_and_refusals(kind):
    assert kind(C, 3.0).event() == dp_accounting.GaussianDpEvent(3.0)
    for bad in (0, 0.0, -1.0, math.inf, math.nan, True, "1", None):
        with pytest.raises(Refusal):
            kind(bad, 1.0)
        with pytest.raises(Refusal):
            kind(1.0, bad)
