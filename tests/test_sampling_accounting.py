"""Whether a sampler's event bounds what its batches really give away, by enumeration of small data sets."""

import itertools
import math

import numpy as np
import pytest
from dp_accounting import (
    GaussianDpEvent,
    PoissonSampledDpEvent,
    SampledWithoutReplacementDpEvent,
    SelfComposedDpEvent,
)
from scipy import stats

from dpzo import Relation
from dpzo.accounting import delta, epsilon
from dpzo.sampling import (
    BallsAndBins,
    BallsAndBinsDpEvent,
    FixedSize,
    FullBatch,
    PoissonSampler,
    ShuffledEpochs,
    TruncatedPoisson,
)
from dpzo.sampling.bins import _mean_of_lognormals

ADD, REPLACE, ZERO = Relation.ADD_REMOVE, Relation.REPLACE_ONE, Relation.ZERO_OUT
DELTA = 1e-5
SIGMA, SIZE = 1.0, 4  # the larger data set
EPSILONS = (0.0, 0.2, 0.7, 1.5, 3.0)
QUADRATURE = 2e-3  # what summing over a grid may be off by; the mutants are off by far more


def poisson_law(rate, cap):
    """{batch: probability} of m records."""

    def law(m):
        chances = {}
        for drawn in (set(c) for k in range(m + 1) for c in itertools.combinations(range(m), k)):
            kept = list(itertools.combinations(sorted(drawn), min(cap, len(drawn))))
            for batch in kept:
                chance = rate ** len(drawn) * (1 - rate) ** (m - len(drawn)) / len(kept)
                chances[batch] = chances.get(batch, 0.0) + chance
        return [((batch,), chance) for batch, chance in chances.items()]

    return law


def shuffled_law(size):
    """{(first batch, second batch): probability}: an epoch of two steps."""

    def law(m):
        orders = list(itertools.permutations(range(m)))
        return [((order[:size], order[size:]), 1 / len(orders)) for order in orders]

    return law


def bins_law(m):
    places = list(itertools.product((0, 1), repeat=m))
    return [(tuple(tuple(i for i in range(m) if place[i] == b) for b in (0, 1)), 1 / len(places)) for place in places]


def pairs(relation):
    """All neighbours whose records contribute -1, 0 or 1, the extremes of a clip and a record without effect."""
    for others in itertools.combinations_with_replacement((-1, 0, 1), SIZE - 1):
        for x in (-1, 1):
            yield (*others, x), {ADD: others, ZERO: (*others, 0), REPLACE: (*others, -x)}[relation]


def density(law, data, grid):
    """The density of an epoch's releases, sums plus N(0, SIGMA^2), at all points of the grid of each."""
    total = 0.0
    for batches, chance in law(len(data)):
        parts = [stats.norm.pdf(grid, sum(data[i] for i in batch), SIGMA) for batch in batches]
        total = total + chance * (parts[0] if len(parts) == 1 else np.multiply.outer(*parts))
    return total


def delivered(law, relation):
    """The largest hockey-stick divergence of any pair, in either direction, at each of EPSILONS."""
    steps = len(law(1)[0][0])
    grid = np.linspace(-12, 12, 4801 if steps == 1 else 241)
    cell = (grid[1] - grid[0]) ** steps
    worst = np.zeros(len(EPSILONS))
    for pair in pairs(relation):
        p, q = (density(law, data, grid) for data in pair)
        for a, b in ((p, q), (q, p)):
            found = [np.maximum(a - math.exp(eps) * b, 0).sum() * cell for eps in EPSILONS]
            worst = np.maximum(worst, found)
    return worst


def claimed(event, relation):
    return np.array([delta(event, eps, relation, "pld") for eps in EPSILONS])


GAUSSIAN = GaussianDpEvent(SIGMA)
CASES = [
    (PoissonSampler(0.6), poisson_law(0.6, SIZE)),
    (TruncatedPoisson(0.6, 2), poisson_law(0.6, 2)),
    (TruncatedPoisson(0.9, 1), poisson_law(0.9, 1)),
    (TruncatedPoisson(0.3, 3), poisson_law(0.3, 3)),
    (FixedSize(2), poisson_law(1.0, 2)),
    (FixedSize(3), poisson_law(1.0, 3)),
    (ShuffledEpochs(2), shuffled_law(2)),
    (ShuffledEpochs(3), shuffled_law(3)),
    (BallsAndBins(2), bins_law),
]


@pytest.mark.parametrize("relation", Relation)
@pytest.mark.parametrize(("sampler", "law"), CASES, ids=lambda x: str(x) if not callable(x) else "")
def test_no_small_data_set_gives_away_more_than_the_event_says(sampler, law, relation):
    """And the bound is not idle: some data set comes near it, at least where nothing is cut."""
    if not sampler.covers(GAUSSIAN, relation):
        assert (sampler, relation) in {(ShuffledEpochs(2), ADD), (ShuffledEpochs(3), ADD)}
        return
    event = sampler.event(GAUSSIAN, SIZE, len(law(1)[0][0]))
    found, bound = delivered(law, relation), claimed(event, relation)
    assert (found <= bound * (1 + QUADRATURE)).all()
    assert (found >= (0.99 if isinstance(sampler, PoissonSampler) else 0.1) * bound)[:3].all()


@pytest.mark.parametrize(
    ("law", "wrong", "relation"),
    [
        (poisson_law(0.9, 1), PoissonSampledDpEvent(0.9, GAUSSIAN), ADD),
        (poisson_law(0.6, 2), PoissonSampledDpEvent(0.6, GAUSSIAN), ADD),
        (poisson_law(1.0, 2), PoissonSampledDpEvent(0.5, GAUSSIAN), ADD),
        (poisson_law(1.0, 2), PoissonSampledDpEvent(0.5, GAUSSIAN), REPLACE),
        (poisson_law(1.0, 2), PoissonSampledDpEvent(0.5, GAUSSIAN), ZERO),
        (shuffled_law(2), SelfComposedDpEvent(PoissonSampledDpEvent(0.5, GAUSSIAN), 2), ZERO),
        (shuffled_law(2), GAUSSIAN, ADD),
        (bins_law, BallsAndBinsDpEvent(SIGMA, 3), ADD),
    ],
    ids=[
        "one kept of many, as Poisson",
        "two kept, as Poisson",
        "fixed size as Poisson",
        "fixed size as Poisson, replaced",
        "fixed size as Poisson, zeroed",
        "shuffling as Poisson",
        "shuffling under add/remove",
        "three bins for two",
    ],
)
def test_small_data_sets_catch_a_wrong_event(law, wrong, relation):
    assert (delivered(law, relation) > claimed(wrong, relation) * 1.01).any()


@pytest.mark.parametrize("relation", [ADD, ZERO])
def test_balls_and_bins_are_bounded_from_above_and_tightly(relation):
    """All data sets but the worst are below; that one, x = 1 among zeros, is met."""
    bound = claimed(BallsAndBinsDpEvent(SIGMA, 2), relation)
    found = delivered(bins_law, relation)
    assert (found <= bound * (1 + QUADRATURE)).all()
    assert found == pytest.approx(bound, rel=0.01)


@pytest.mark.parametrize("sigma", [1.0, 2.0, 8.0])
def test_one_bin_is_the_gaussian(sigma):
    for eps in (0.0, 0.1, 1.0):
        exact = delta(GaussianDpEvent(sigma), eps, ADD, "closed-form")
        bound = delta(BallsAndBinsDpEvent(sigma, 1), eps, ADD, "pld")
        assert exact <= bound <= exact * 1.01 + 1e-6


@pytest.mark.parametrize(("sigma", "bins"), [(1.263, 63), (1.5, 7), (3.0, 16), (12.5, 625), (5.0, 1000)])
def test_the_mean_of_lognormals_is_above_in_convex_order_and_near(sigma, bins):
    """Its second moment, 1 + (e^(1/sigma^2) - 1) / m, and third are exact from below.

    Kills: rounding of a grid's cell to one end (the mean moves), and a variance lost on the way.
    """
    law = _mean_of_lognormals(sigma, bins, 1e-13, upwards=True)  # and perhaps a mass at 0, which is no moment's
    masses, points = law.masses, law.points
    s = 1 / sigma**2
    second = 1 + math.expm1(s) / bins
    third = (math.exp(3 * s) + 3 * (bins - 1) * math.exp(s) + (bins - 1) * (bins - 2)) / bins**2
    assert masses.sum() <= 1 + 1e-10
    assert masses @ points == pytest.approx(1, abs=1e-9)
    assert -1e-9 <= masses @ points**2 - second <= 0.02 * (second - 1)
    assert third * (1 - 1e-7) <= masses @ points**3 <= third + 0.1 * (third - 1)


def test_balls_and_bins_cost_about_what_poisson_sampling_costs():
    """At n = 1000, batches of 16 and T = 1000: 16 epochs of 63 steps."""
    epochs = epsilon(SelfComposedDpEvent(BallsAndBinsDpEvent(1.263, 63), 16), DELTA, ADD)
    poisson = epsilon(SelfComposedDpEvent(PoissonSampledDpEvent(1 / 63, GaussianDpEvent(1.263)), 1008), DELTA, ADD)
    alone = epsilon(BallsAndBins(63).event(GaussianDpEvent(1.263), 1000, 1000), DELTA, ADD, "closed-form")
    assert 0.9 * poisson < epochs < poisson
    assert alone == pytest.approx(17.89, abs=0.01)


def cost(sampler, sigma=1.263, n=1000, steps=100, relation=ADD, at=DELTA):
    return epsilon(sampler.event(GaussianDpEvent(sigma), n, steps), at, relation)


@pytest.mark.parametrize("relation", [ADD, REPLACE])
def test_a_cap_costs_more_than_none_and_less_than_its_added_delta(relation):
    """Poisson <= the event <= Poisson at delta less ``added_delta``; a high cap costs nothing."""
    poisson = cost(PoissonSampler(0.016), relation=relation)
    previous = math.inf
    for cap in (33, 36, 45):
        sampler = TruncatedPoisson(0.016, cap)
        added, found = sampler.added_delta(1000, 100), cost(sampler, relation=relation)
        assert poisson * (1 - 1e-3) <= found < previous
        if added < DELTA:
            left = cost(PoissonSampler(0.016), relation=relation, at=DELTA - added)
            assert found <= left * (1 + 1e-3)
        previous = found
    assert added < 1e-6
    assert found == pytest.approx(poisson, rel=2e-3)


def test_the_added_delta_is_the_chance_that_others_alone_fill_a_batch():
    """By hand, for three others: all three drawn with 0.1^3 at cap 3, in either of two steps."""
    assert TruncatedPoisson(0.1, 3).added_delta(4, 2) == pytest.approx(1 - (1 - 1e-3) ** 2, rel=1e-9)
    assert TruncatedPoisson(1.0, 3).added_delta(4, 2) == 1
    assert TruncatedPoisson(0.1, 4).added_delta(4, 2) == 0
    added = [TruncatedPoisson(0.016, cap).added_delta(1000, 1000) for cap in (30, 40, 50)]
    assert added[0] > added[1] > added[2] > 0


def test_fixed_size_is_far_from_poisson_and_below_renyi():
    """dp-accounting takes the multiplier of sampling without replacement as relative to 2C: half of ours.

    Kills: fixed size accounted as Poisson; the multiplier relative to C handed to that event.
    """
    found = cost(FixedSize(16), relation=REPLACE)
    assert found > 2 * cost(PoissonSampler(0.016), relation=REPLACE)
    halved = SampledWithoutReplacementDpEvent(1000, 16, GaussianDpEvent(1.263))
    assert found <= epsilon(SelfComposedDpEvent(halved, 100), DELTA, REPLACE, "rdp")


def test_what_shuffling_delivers_where_poisson_was_claimed():
    """The public code's setting: n = 1024, batches of 64, T = 10,000, calibrated to epsilon 2 at delta 1e-5."""
    sigma, n, steps = 12.4971, 1024, 10_000
    assert cost(PoissonSampler(64 / n), sigma, n, steps) == pytest.approx(2.0, abs=1e-3)
    shuffled = {relation: cost(ShuffledEpochs(64), sigma, n, steps, relation) for relation in (ZERO, REPLACE)}
    assert shuffled == {ZERO: pytest.approx(10.0, abs=0.01), REPLACE: pytest.approx(24.39, abs=0.01)}
    assert cost(FullBatch(), sigma, n, 625, ZERO) == shuffled[ZERO], "one release for each epoch"
