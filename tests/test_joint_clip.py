"""K directions at once: K-vectors clipped jointly, or each coordinate on its own at sqrt(K) times the sensitivity."""

import itertools
import math

import dp_accounting
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from dpzo import Refusal
from dpzo.mechanisms import (
    GRID,
    EachGaussianMechanism,
    GaussianMechanism,
    GaussianVectorMechanism,
    LaplaceMechanism,
    PlainSum,
    on_grid,
    on_grid_jointly,
)
from dpzo.noise import rounded_gaussian
from dpzo.randomness import OsEntropy, SeededEntropy
from tests.chance import ALPHA, correlation_p, ks_p, scale_p

C = 0.75
BOTH = pytest.mark.parametrize("kind", [GaussianMechanism, EachGaussianMechanism])
CLIPS = {GaussianMechanism: on_grid_jointly, EachGaussianMechanism: on_grid}
ROWS = arrays(np.float64, array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.floats(width=64))


class NoNoise:
    """The word whose noise is 0, again and again."""

    secret = False

    def bits(self, count):
        return 2**128 - 1


def whole(kind, rows, K):
    """The mechanism's sum in whole steps of its grid, under noise that happens to be 0."""
    total = kind(C, 1.0, K).release(np.array(rows, dtype=float).reshape(-1, K), NoNoise()) / (C / GRID)
    assert (total == np.rint(total)).all()
    return [int(t) for t in total]


def square(vector):
    return sum(int(x) ** 2 for x in vector)


@pytest.mark.filterwarnings("error")
@given(ROWS, st.floats(2.0**-960, 2.0**960))
@example(np.array([[1.7e308, -1.7e308, 1.7e308]]), 2.0**-960)
@example(np.array([[5e-324, -5e-324], [math.inf, 1.0], [math.nan, math.nan]]), 2.0**-960)
@example(np.full((1, 6), 1.7e308), 2.0**960)
def test_no_row_is_longer_than_c_in_integers(rows, threshold):
    """Kills: each coordinate clipped on its own; rounding to nearest; squares that overflow; nan kept."""
    clipped = on_grid_jointly(rows, threshold)
    assert clipped.shape == rows.shape
    assert all(square(row) <= GRID**2 for row in clipped)
    with np.errstate(over="ignore", invalid="ignore"):
        unclipped = np.where(np.isfinite(rows), rows, 0.0) / threshold
        lengths = np.array([math.hypot(*row) for row in unclipped])[:, None]
        shares = np.where(lengths > 1, unclipped / lengths, unclipped)
    if np.isfinite(lengths).all():
        assert np.abs(clipped - shares * GRID).max() <= 1 + 1e-6, "shortened, turned by no more than the grid"


@pytest.mark.parametrize("K", [2, 3, 4, 7, 64, 1000])
def test_many_rows_near_the_sphere_stay_inside(K):
    """Kills: rounding to nearest (run below), which leaves half of such rows a hair too long."""
    rng = np.random.default_rng(K)
    rows = rng.standard_normal((20_000 // K + 100, K))
    rows *= C / np.linalg.norm(rows, axis=1, keepdims=True) * np.exp(rng.normal(size=(len(rows), 1)) * 1e-15)
    assert all(square(row) <= GRID**2 for row in on_grid_jointly(rows, C))
    assert any(square(row) > GRID**2 for row in np.rint(rows / C * GRID))


def test_a_row_on_the_sphere_and_on_the_grid_keeps_all_its_length():
    assert on_grid_jointly(np.array([[C, 0.0], [0.0, -1e9]]), C).tolist() == [[GRID, 0], [0, -GRID]]
    assert on_grid_jointly(np.array([[C / 2, -C / 2, C / 2, C / 2]]), C).tolist() == [[2**23, -(2**23), 2**23, 2**23]]


def test_one_of_several_values_that_is_not_finite_counts_as_zero():
    assert on_grid_jointly(np.array([[math.nan, 9.0], [math.inf, -C / 2]]), C).tolist() == [[0, GRID], [0, -GRID // 2]]


def records_of(K):
    coordinates = [0.0, -0.5, 9.0, -1e308, math.inf]
    return [*itertools.product(coordinates, repeat=K), (math.nan,) * K, (1e308,) * K]


def sensitivities(total, K):
    """The squares of the most that add/remove and replace-one move the sum, over data sets of up to two records."""
    records, add, replace = records_of(K), 0, 0
    for data in [(), *((record,) for record in records[:: 1 + len(records) // 9])]:
        sums = [total([*data, record]) for record in records]
        before = total(list(data))
        add = max(add, *(square(np.subtract(after, before)) for after in sums))
        replace = max(replace, *(square(np.subtract(a, b)) for a, b in itertools.combinations(sums, 2)))
    return add, replace


@BOTH
@pytest.mark.parametrize("K", [2, 3])
def test_sensitivity_by_enumeration(kind, K):
    """C and 2C jointly, sqrt(K) times that each. Kills: one kind's clip at the other's price."""
    claim = GRID**2 * (1 if kind is GaussianMechanism else K)
    add, replace = sensitivities(lambda rows: whole(kind, rows, K), K)
    assert claim * (1 - 1e-6) <= add <= claim
    assert 4 * claim * (1 - 1e-6) <= replace <= 4 * claim


@BOTH
@given(rows=ROWS, data=st.data())
def test_neither_order_nor_split_changes_a_bit(kind, rows, data):
    K = rows.shape[1]
    order, cut = data.draw(st.permutations(range(len(rows)))), data.draw(st.integers(0, len(rows)))
    mechanism, clip = kind(C, 1.0, K), CLIPS[kind] if K > 1 else on_grid
    release = mechanism.release(rows, SeededEntropy(3))
    assert np.array_equal(release, mechanism.release(rows[order], SeededEntropy(3)))
    parts = clip(rows[:cut], C).sum(0) + clip(rows[cut:], C).sum(0)
    assert np.array_equal(release, (parts + rounded_gaussian(GRID, K, SeededEntropy(3))) * (C / GRID))


@BOTH
@pytest.mark.parametrize("K", [1, 2, 3])
def test_an_empty_batch_releases_one_draw_for_each_direction(kind, K):
    release = kind(C, 3.0, K).release(np.empty((0, K)), SeededEntropy(2))
    assert release.tolist() == [z * (C / GRID) for z in rounded_gaussian(3.0 * GRID, K, SeededEntropy(2)).tolist()]
    assert len(set(release.tolist())) == K


@pytest.mark.parametrize("values", [[0.5, -9.0, math.nan, 0.3], []], ids=["some", "none"])
def test_one_direction_is_the_scalar_mechanism(values):
    """Kills: a joint clip of one coordinate that rounds otherwise than the scalar clip."""
    scalar, v = GaussianMechanism(C, 3.0), np.array(values, dtype=float)
    for kind in (GaussianMechanism, EachGaussianMechanism):
        assert kind(C, 3.0, 1).release(v[:, None], SeededEntropy(5)).tolist() == [scalar.release(v, SeededEntropy(5))]


@pytest.mark.statistical
@BOTH
@pytest.mark.parametrize("rows", [np.empty((0, 2)), np.full((5, 2), math.nan)], ids=["empty", "broken"])
def test_noise_scale_and_independence(kind, rows):
    """Kills: sigma * 0.9; sigma / sqrt(K), a K-vector's share; one draw for all coordinates (run below)."""
    mechanism, source = kind(C, 3.0, 2), OsEntropy()
    sample = np.array([mechanism.release(rows, source) for _ in range(10_000)])
    for column in sample.T:
        assert scale_p(column, 3.0 * C) > ALPHA > scale_p(0.9 * column, 3.0 * C)
        assert ks_p(column[:9000] / (3.0 * C), "norm") > ALPHA
        assert scale_p(column / math.sqrt(2), 3.0 * C) < ALPHA
    x, y = sample.T
    assert correlation_p(x, y) > ALPHA > correlation_p(x, x + 0.1 * y)


def test_events():
    for K in (1, 2, 9):
        assert GaussianMechanism(C, 3.0, K).event() == dp_accounting.GaussianDpEvent(3.0)
        assert EachGaussianMechanism(C, 3.0, K).event().noise_multiplier == pytest.approx(3.0 / math.sqrt(K))


def test_plain_sums_of_several_directions():
    rows = np.array([[1.0, math.nan], [2.5, -4.0]])
    assert PlainSum(2).release(rows, NoNoise()).tolist() == [3.5, -4.0]


@BOTH
@pytest.mark.parametrize("shape", [(), (3,), (0,), (3, 2), (3, 4), (3, 3, 3)], ids=str)
def test_values_that_are_not_k_for_each_record_are_refused(kind, shape):
    with pytest.raises(Refusal):
        kind(C, 1.0, 3).release(np.ones(shape), OsEntropy())


@pytest.mark.parametrize("bad", [0, -1, 1.0, True, "2", None])
def test_what_is_no_number_of_directions_is_refused(bad):
    for make in (
        lambda: GaussianMechanism(C, 1.0, bad),
        lambda: EachGaussianMechanism(C, 1.0, bad),
        lambda: PlainSum(bad),
    ):
        with pytest.raises(Refusal):
            make()


@pytest.mark.parametrize("kind", [LaplaceMechanism, GaussianVectorMechanism])
def test_mechanisms_of_one_direction_refuse_two(kind):
    with pytest.raises(Refusal):
        kind(C, 1.0, 2)
