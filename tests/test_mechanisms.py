import itertools
import math

import dp_accounting
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dpzo import Refusal
from dpzo.mechanisms import (
    GRID,
    EachGaussianMechanism,
    GaussianMechanism,
    GaussianVectorMechanism,
    LaplaceMechanism,
    PlainSum,
    finite,
    on_grid,
)
from dpzo.noise import rounded_gaussian, rounded_laplace
from dpzo.randomness import OsEntropy, SeededEntropy
from tests.chance import ALPHA, ks_p, scale_p

C = 0.75  # few bits, so that a release of moderate size is exact
LAST = 2**128 - 1
SCALAR = [GaussianMechanism, EachGaussianMechanism, LaplaceMechanism]
KINDS = pytest.mark.parametrize("kind", SCALAR)
NOISES = {
    GaussianMechanism: rounded_gaussian,
    EachGaussianMechanism: rounded_gaussian,
    LaplaceMechanism: rounded_laplace,
}
ANY_FLOAT = st.floats(width=64)
THRESHOLD = st.floats(2.0**-960, 2.0**960)
SPECIAL = [0.0, -0.0, 5e-324, -2e-308, 1.7e308, -1.7e308, math.inf, -math.inf, math.nan]
VALUES = [-0.75, -0.125, 0.0, 0.5, 0.75, 9.0, math.inf, math.nan]


class Word:
    """A source of one word again and again; LAST is the word whose noise is 0, and 0 that of the largest."""

    secret = False

    def __init__(self, word):
        self.word = word

    def bits(self, count):
        return self.word


def released(values, kind=GaussianMechanism, threshold=C, multiplier=1.0, noise=None):
    return kind(threshold, multiplier).release(np.array(values, dtype=float), noise or Word(LAST))


def clipped(*values):
    """The mechanism's sum under noise that happens to be 0."""
    return float(released(values))


@pytest.mark.filterwarnings("error")
@KINDS
@given(v=ANY_FLOAT, threshold=THRESHOLD)
@example(v=math.nan, threshold=C)
@example(v=-math.inf, threshold=C)
@example(v=5e-324, threshold=2.0**-960)
@example(v=1.7e308, threshold=2.0**-960)
@example(v=1.7e308, threshold=2.0**960)
def test_one_clipped_value_is_bounded_finite_and_near(kind, v, threshold):
    """Kills: no clip; nan or infinity kept; a grid without C itself; a warning, which shows in a log."""
    got = float(released([v], kind, threshold))
    assert abs(got) <= threshold
    if not math.isfinite(v):
        assert got == 0
    elif abs(v) >= threshold:
        assert got == math.copysign(threshold, v)
    else:
        assert abs(got - v) <= threshold * 2.0**-25 * (1 + 1e-6)


@KINDS
@given(whole=st.integers(-GRID, GRID), threshold=THRESHOLD)
def test_a_value_on_the_grid_comes_back(kind, whole, threshold):
    assert on_grid(np.array([whole * (threshold / GRID)]), threshold) == whole
    assert released([whole * (threshold / GRID)], kind, threshold) == whole * (threshold / GRID)


@given(ANY_FLOAT, ANY_FLOAT)
def test_clip_is_lipschitz_to_a_step_and_monotone_and_odd(v, w):
    if math.isfinite(v) and math.isfinite(w):
        assert abs(clipped(v) - clipped(w)) <= abs(v - w) + C / GRID
        assert (clipped(v) - clipped(w)) * (1 if v >= w else -1) >= 0
    assert clipped(-v) == -clipped(v)


@pytest.mark.parametrize(("v", "w"), list(itertools.product(SPECIAL, SPECIAL)))
def test_special_values(v, w):
    assert np.isfinite(finite(np.array([v, w]))).all()
    assert abs(clipped(v, w)) <= 2 * C
    assert clipped(v, w) == clipped(v) + clipped(w)


def exact_sensitivity(total):
    """The most that add/remove and replace-one move ``total``, over all small neighbouring data sets."""
    add, replace = 0.0, 0.0
    for size in range(4):
        for data in itertools.product(VALUES, repeat=size):
            before = total(*data)
            for record in VALUES:
                add = max(add, abs(total(*data, record) - before))
                if data:
                    replace = max(replace, abs(total(*data[:-1], record) - before))
    return add, replace


@KINDS
def test_sensitivity_by_enumeration(kind):
    """Kills: no clip; a clip of the sum instead of each value; a mean by the realised size; nan kept."""
    assert exact_sensitivity(lambda *values: float(released(values, kind))) == (C, 2 * C)


def mean(*values):
    return clipped(*values) / max(len(values), 1) * 3


def late(*values):
    return sum(values)


@pytest.mark.parametrize("mutant", [mean, late])
def test_enumeration_sees_a_wrong_sensitivity(mutant):
    with np.errstate(invalid="ignore"):
        assert exact_sensitivity(mutant) != (C, 2 * C)


@KINDS
@given(values=st.lists(ANY_FLOAT, max_size=9), data=st.data())
def test_neither_order_nor_split_changes_a_bit(kind, values, data):
    """Kills: a sum in floating point (run in the next test)."""
    shuffled, cut = data.draw(st.permutations(values)), data.draw(st.integers(0, len(values)))
    assert released(values, kind, noise=SeededEntropy(3)) == released(shuffled, kind, noise=SeededEntropy(3))
    parts = on_grid(np.array(values[:cut]), C).sum() + on_grid(np.array(values[cut:]), C).sum()
    assert released(values, kind) == parts * (C / GRID)


def test_floating_point_would_change_bits_with_the_order():
    values = np.random.default_rng(0).normal(size=1000) * 0.1
    orders = [values, values[::-1], np.sort(values), values[np.argsort(np.abs(values))]]
    assert len({float(np.cumsum(np.clip(order, -C, C))[-1]) for order in orders}) > 1
    assert len({float(released(order)) for order in orders}) == 1


@KINDS
@pytest.mark.parametrize("count", [0, 1, 5])
def test_the_noise_is_one_draw_for_the_sum_and_does_not_depend_on_the_values(kind, count):
    z = int(NOISES[kind](3.0 * GRID, 1, SeededEntropy(1))[0])
    for value in (0.5, math.nan, 1e300):
        expected = count * int(on_grid(np.array([value]), C)[0]) + z
        got = released(np.full(count, value), kind, multiplier=3.0, noise=SeededEntropy(1))
        assert got.shape == ()
        assert got == expected * (C / GRID)


@KINDS
def test_an_empty_batch_releases_pure_noise(kind):
    assert released([], kind) == 0, "the word of no noise"
    assert released([], kind, noise=SeededEntropy(2)) == NOISES[kind](GRID, 1, SeededEntropy(2))[0] * (C / GRID)
    assert released([], kind, noise=OsEntropy()) != released([], kind, noise=OsEntropy())


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


@pytest.mark.statistical
@pytest.mark.parametrize("values", [[], [5.0, -5.0, math.nan]], ids=["empty", "clipped"])
def test_laplace_noise_scale(values):
    """Kills: the multiplier taken for the standard deviation (run below); Gaussian noise at a Laplace's price."""
    mechanism, source = LaplaceMechanism(C, 3.0), OsEntropy()
    sample = np.array([mechanism.release(np.array(values, dtype=float), source) for _ in range(20_000)]) / (3.0 * C)
    assert ks_p(sample, "laplace") > ALPHA > ks_p(sample / math.sqrt(2), "laplace")


@KINDS
def test_the_largest_multiplier_and_thresholds_release_finite_numbers(kind):
    """Kills: an integer or a float that overflows, which would show the sum or stop the run."""
    data = np.full(10**6, 1.7e308)
    for word, sign in ((0, 1), (1, -1)):
        (z,) = NOISES[kind](2.0**56, 1, Word(word)).tolist()
        assert sign * z > 2.0**59
        for threshold in (2.0**-960, C, 2.0**960):
            got = float(released(data, kind, threshold, 2.0**32, Word(word)))
            assert got == (z + 10**6 * GRID) * (threshold / GRID)
            assert math.isfinite(got)
            assert got != 0


def along(values, norm, bound=C, noise=None):
    """The vector mechanism's release along u."""
    return float(GaussianVectorMechanism(bound, 1.0).release(np.array(values, dtype=float), noise or Word(LAST), norm))


@given(st.lists(ANY_FLOAT, max_size=6), st.floats(1e-3, 1e3), st.floats(1e-3, 1e3), st.integers(0, 2**32))
def test_vector_clip_is_the_explicit_clip_of_each_vector(values, bound, norm, seed):
    u = np.random.default_rng(seed).standard_normal(4)
    u *= norm / np.linalg.norm(u)
    total = np.zeros(4)
    for v in values:
        g = (v if math.isfinite(v) else 0.0) * u.astype(np.longdouble)
        length = np.sqrt(np.sum(g * g))
        total = total + (g if length <= bound else g * (bound / length))
    released = along(values, norm, bound) * u / norm
    np.testing.assert_allclose(released, total.astype(float), rtol=1e-9, atol=bound * (1e-9 + len(values) / GRID))


@given(ANY_FLOAT, ANY_FLOAT, THRESHOLD, st.floats(1e-9, 1e9))
@example(v=1.7e308, w=1.7e308, bound=2.0**-960, norm=1e9)
@example(v=1.7e308, w=math.nan, bound=2.0**960, norm=1e-9)
def test_a_clipped_vector_is_no_longer_than_c(v, w, bound, norm):
    """Kills: a sum in floating point; a clip that the rounding of C / ||u|| leaves a hair too wide."""
    assert abs(along([v], norm, bound)) <= bound
    assert along([v, w], norm, bound) == along([v], norm, bound) + along([w], norm, bound)
    step = bound / GRID
    assert along([v], norm, bound) / step == round(along([v], norm, bound) / step)


def test_a_vectors_noise_along_u_is_the_scalars():
    for seed in range(20):
        z = int(rounded_gaussian(GRID, 1, SeededEntropy(seed))[0])
        assert along([0.5], 1.5, noise=SeededEntropy(seed)) == (z + GRID) * (C / GRID)
        assert along([], 1.5, noise=SeededEntropy(seed)) == z * (C / GRID)


def test_plain_sum_is_the_sum_of_the_finite_values_and_not_private():
    assert PlainSum().release(np.array([1.0, math.nan, 2.5, -math.inf]), Word(LAST)) == 3.5
    assert isinstance(PlainSum().event(), dp_accounting.NonPrivateDpEvent)


ALL = pytest.mark.parametrize("kind", [*SCALAR, GaussianVectorMechanism])


@ALL
def test_events(kind):
    law = dp_accounting.LaplaceDpEvent if kind is LaplaceMechanism else dp_accounting.GaussianDpEvent
    assert kind(C, 3.0).event() == law(3.0)


@ALL
@pytest.mark.parametrize("bad", [0, 0.0, -1.0, math.inf, math.nan, True, "1", None])
def test_what_is_no_positive_number_is_refused(kind, bad):
    for arguments in ((bad, 1.0), (1.0, bad)):
        with pytest.raises(Refusal):
            kind(*arguments)


@ALL
@pytest.mark.parametrize(
    "arguments",
    [(5e-324, 1.0), (1e-300, 1.0), (1e300, 1.0), (1.0, 1e300), (1.0, math.nextafter(2.0**32, math.inf))],
    ids=str,
)
def test_what_would_leave_the_numbers_is_refused(kind, arguments):
    with pytest.raises(Refusal, match=r"2\*\*"):
        kind(*arguments)


@ALL
@pytest.mark.parametrize("shape", [(), (3, 2), (1, 2), (0, 2), (2, 1, 1), (17, 5)], ids=str)
def test_values_that_are_not_one_for_each_record_are_refused(kind, shape):
    """Kills: a model's mean over the batch taken for one record's value, which a batch could move by 2C.

    And a refusal that tells how many records were in the batch: whoever is in it is private, and so is their number.
    """
    norm = (1.0,) if kind is GaussianVectorMechanism else ()
    with pytest.raises(Refusal) as caught:
        kind(C, 1.0).release(np.ones(shape), OsEntropy(), *norm)
    assert "17" not in str(caught.value)
