import math
from dataclasses import replace

import dp_accounting
import numpy as np
import pytest
import torch
from scipy import stats

from dpzo import Plan, Refusal, Relation, Streams, dpgd_zeroth, dpzero, mezo, run
from dpzo.mechanisms import LaplaceMechanism
from dpzo.models.quadratic import Quadratic
from dpzo.randomness import OsEntropy, SeededEntropy
from dpzo.sampling import (
    SAMPLERS,
    BallsAndBins,
    BallsAndBinsDpEvent,
    FixedSize,
    FullBatch,
    PoissonSampler,
    ShuffledEpochs,
    TruncatedPoisson,
)
from tests.chance import ALPHA, binomial_p

N, T, Q = 1000, 2000, 0.05
SOURCES = pytest.mark.parametrize("source", [OsEntropy(), SeededEntropy(1)], ids=["os", "seeded"])
EVERY = (
    FullBatch(),
    PoissonSampler(0.3),
    TruncatedPoisson(0.3, 4),
    FixedSize(4),
    ShuffledEpochs(4),
    BallsAndBins(3),
)
EACH = pytest.mark.parametrize("sampler", EVERY, ids=lambda s: type(s).__name__)
BY_EPOCH = pytest.mark.parametrize(("sampler", "in_epoch"), [(ShuffledEpochs(4), 3), (BallsAndBins(3), 3)])


def table(batches, steps=T, n=N):
    """Who was in which batch, (steps, n) booleans."""
    rows = np.zeros((steps, n), dtype=bool)
    for row, batch in zip(rows, batches, strict=True):
        row[batch] = True
    return rows


def poisson(rate=Q, source=None):
    return table(PoissonSampler(rate).batches(N, range(T), source or OsEntropy()))


def fixed_size():
    generator = np.random.default_rng(0)
    return table(generator.choice(N, int(Q * N), replace=False) for _ in range(T))


def shuffled():
    generator = np.random.default_rng(0)
    order = np.concatenate([generator.permutation(N) for _ in range(int(T * Q))])
    return table(np.split(order, T))


def sticky():
    """Each batch is the one before, half of the time."""
    rows = poisson()
    for t in range(1, T):
        if t % 2:
            rows[t] = rows[t - 1]
    return rows


def inclusions_p(rows):
    """All inclusions are Binomial(N T, q)."""
    return binomial_p(int(rows.sum()), N * T, Q)


def sizes_p(rows):
    """Batch sizes are Binomial(N, q): by the exact law of one bit a batch, whether it is within one of N q."""
    near = int((np.abs(rows.sum(1) - N * Q) <= 1).sum())
    law = stats.binom(N, Q)
    return binomial_p(near, T, law.cdf(N * Q + 1) - law.cdf(N * Q - 2))


def pairs_p(rows):
    """Disjoint pairs of records are together Binomial(T N / 2, q^2) times."""
    return binomial_p(int((rows[:, ::2] & rows[:, 1::2]).sum()), T * N // 2, Q * Q)


def successive_p(rows):
    """A record is in both of two successive batches (disjoint pairs of batches) Binomial(N T / 2, q^2) times."""
    return binomial_p(int((rows[::2] & rows[1::2]).sum()), T * N // 2, Q * Q)


def per_record_p(rows):
    """A record takes part Binomial(T, q) times, not T q: one bit a record, whether it is within one of T q."""
    near = int((np.abs(rows.sum(0) - T * Q) <= 1).sum())
    law = stats.binom(T, Q)
    return binomial_p(near, N, law.cdf(T * Q + 1) - law.cdf(T * Q - 2))


STATISTICS = [inclusions_p, sizes_p, pairs_p, successive_p, per_record_p]


@pytest.mark.statistical
@SOURCES
def test_poisson_sampling(source):
    """Every inclusion is an independent coin of bias q. The mutants are below."""
    rows = poisson(source=source)
    assert {f.__name__: f(rows) for f in STATISTICS if f(rows) < ALPHA} == {}


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("mutant", "statistic"),
    [
        (lambda: poisson(1.1 * Q), inclusions_p),
        (lambda: poisson(1.1 * Q), pairs_p),
        (fixed_size, sizes_p),
        (shuffled, sizes_p),
        (shuffled, successive_p),
        (shuffled, per_record_p),
        (sticky, successive_p),
        (lambda: np.repeat(poisson()[:, ::2], 2, axis=1), pairs_p),
    ],
    ids=["q*1.1", "q*1.1 in pairs", "fixed size", "shuffle", "no repeats", "equal parts", "sticky", "twins"],
)
def test_the_statistics_see_the_mutants(mutant, statistic):
    assert statistic(mutant()) < ALPHA


# --- bounded batches: Poisson cut at a cap, and fixed size ---

SMALL, MANY, RATE, CAP = 40, 6000, 0.3, 10  # a batch is cut in seven steps of ten


def truncated(source=None, rate=RATE, cap=CAP):
    return table(TruncatedPoisson(rate, cap).batches(SMALL, range(MANY), source or OsEntropy()), MANY, SMALL)


def fixed(source=None, size=CAP):
    return table(FixedSize(size).batches(SMALL, range(MANY), source or OsEntropy()), MANY, SMALL)


def lowest():
    """Keeps the first records of those drawn."""
    rows = table(PoissonSampler(RATE).batches(SMALL, range(MANY), OsEntropy()), MANY, SMALL)
    return rows & (rows.cumsum(1) <= CAP)


def blocks():
    """Fixed size, but neighbours in the data stay together."""
    starts = np.random.default_rng(0).integers(SMALL, size=MANY)
    return table(((start + np.arange(CAP)) % SMALL for start in starts), MANY, SMALL)


def remembered():
    """Every second batch is the one before."""
    rows = fixed()
    rows[1::2] = rows[::2]
    return rows


def cut_p(rows):
    """A batch is full Binomial(steps, P(Bin(n, q) >= cap)) times."""
    return binomial_p(int((rows.sum(1) == CAP).sum()), MANY, stats.binom.sf(CAP - 1, SMALL, RATE))


def lower_half_p(rows):
    """A full batch is a uniform subset: at most half of it in the lower half of the data, by the hypergeometric law."""
    full = rows[rows.sum(1) == CAP]
    low = int((full[:, : SMALL // 2].sum(1) <= CAP // 2).sum())
    return binomial_p(low, len(full), stats.hypergeom.cdf(CAP // 2, SMALL, SMALL // 2, CAP))


def adjacent_p(rows):
    """Two given records are together in a full batch with probability cap (cap - 1) / (n (n - 1))."""
    full = rows[rows.sum(1) == CAP]
    return binomial_p(int((full[:, 0] & full[:, 1]).sum()), len(full), CAP * (CAP - 1) / (SMALL * (SMALL - 1)))


def again_p(rows, share=CAP / SMALL):
    """A given record is in both of two successive batches (disjoint pairs) with the square of its probability."""
    return binomial_p(int((rows[::2, 0] & rows[1::2, 0]).sum()), MANY // 2, share**2)


@pytest.mark.statistical
@SOURCES
def test_truncated_poisson_sampling(source):
    """Sizes are min(Binomial, cap), and what is kept is a uniform subset. The mutants are below."""
    rows = truncated(source)
    assert rows.sum(1).max() == CAP
    share = TruncatedPoisson(RATE, CAP).divisor(SMALL) / SMALL
    found = {f.__name__: f(rows) for f in (cut_p, lower_half_p, adjacent_p)} | {"again": again_p(rows, share)}
    assert {name: p for name, p in found.items() if p < ALPHA} == {}


@pytest.mark.statistical
@SOURCES
def test_fixed_size_sampling(source):
    """Every subset of the size is equally likely, at each step anew. The mutants are below."""
    rows = fixed(source)
    assert (rows.sum(1) == CAP).all()
    assert {f.__name__: f(rows) for f in (lower_half_p, adjacent_p, again_p) if f(rows) < ALPHA} == {}


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("mutant", "statistic"),
    [
        (lambda: truncated(rate=1.1 * RATE), cut_p),
        (lambda: truncated(cap=CAP - 1), cut_p),
        (fixed, cut_p),
        (lowest, lower_half_p),
        (blocks, adjacent_p),
        (remembered, again_p),
    ],
    ids=["q*1.1", "cap-1", "always full", "the first of those drawn", "blocks", "every second one repeated"],
)
def test_the_statistics_of_bounded_batches_see_the_mutants(mutant, statistic):
    assert statistic(mutant()) < ALPHA


# --- whole epochs ---

EPOCHS, BINS = 2000, 4


def epochs(sampler, source=None):
    """Each record's step within its epoch, (EPOCHS, SMALL); asserts that it has exactly one."""
    rows = table(sampler.batches(SMALL, range(EPOCHS * BINS), source or OsEntropy()), EPOCHS * BINS, SMALL)
    rows = rows.reshape(EPOCHS, BINS, SMALL)
    assert (rows.sum(1) == 1).all()
    return rows.argmax(1)


def together_p(places, share):
    """Two given records share a step with this probability in each epoch."""
    return binomial_p(int((places[:, 0] == places[:, 1]).sum()), EPOCHS, share)


def same_place_p(places):
    """A record is in the same place of two successive epochs (disjoint pairs) with probability 1 / bins."""
    return binomial_p(int((places[::2, 0] == places[1::2, 0]).sum()), EPOCHS // 2, 1 / BINS)


def first_place_p(places):
    return binomial_p(int((places[:, 0] == 0).sum()), EPOCHS, 1 / BINS)


def pairs_together_p(places):
    """Balls are independent: disjoint pairs of records share a step Binomial(EPOCHS n / 2, 1 / bins) times."""
    return binomial_p(int((places[:, ::2] == places[:, 1::2]).sum()), EPOCHS * SMALL // 2, 1 / BINS)


@pytest.mark.statistical
@SOURCES
def test_shuffled_epochs(source):
    """Kills: no shuffle, blocks that stay together, one permutation for all epochs; the last two run below."""
    places = epochs(ShuffledEpochs(SMALL // BINS), source)
    assert (np.stack([(places == place).sum(1) for place in range(BINS)]) == SMALL // BINS).all()
    assert together_p(places, (SMALL // BINS - 1) / (SMALL - 1)) > ALPHA
    assert same_place_p(places) > ALPHA
    assert first_place_p(places) > ALPHA
    turned = (np.arange(SMALL) // (SMALL // BINS) + np.random.default_rng(0).integers(BINS, size=(EPOCHS, 1))) % BINS
    assert together_p(turned, (SMALL // BINS - 1) / (SMALL - 1)) < ALPHA
    assert same_place_p(np.broadcast_to(places[0], places.shape)) < ALPHA


@pytest.mark.statistical
@SOURCES
def test_balls_and_bins(source):
    """Each record's place is its own. Kills: a shuffle, whose equal batches keep records apart (run below)."""
    places = epochs(BallsAndBins(BINS), source)
    assert pairs_together_p(places) > ALPHA
    assert same_place_p(places) > ALPHA
    assert first_place_p(places) > ALPHA
    assert pairs_together_p(epochs(ShuffledEpochs(SMALL // BINS))) < ALPHA


@pytest.mark.parametrize(("n", "size", "sizes"), [(10, 4, [4, 4, 2]), (8, 4, [4, 4]), (3, 3, [3]), (3, 1, [1, 1, 1])])
def test_the_rest_of_a_shuffled_epoch_is_a_smaller_last_batch(n, size, sizes):
    batches = list(ShuffledEpochs(size).batches(n, range(2 * len(sizes)), OsEntropy()))
    assert [len(batch) for batch in batches] == sizes * 2
    for epoch in (batches[: len(sizes)], batches[len(sizes) :]):
        assert sorted(np.concatenate(epoch)) == list(range(n))


@BY_EPOCH
@pytest.mark.parametrize("start", [1, 2, 4, 8])
def test_a_run_on_real_entropy_cannot_go_on_within_an_epoch(sampler, in_epoch, start):
    """It would draw the epoch anew: some record would have two turns where one is accounted."""
    with pytest.raises(Refusal) as caught:
        sampler.batches(10, range(start, 20), OsEntropy())
    assert f"step {start}" in str(caught.value)
    after = list(sampler.batches(10, range(in_epoch, 2 * in_epoch), OsEntropy()))
    assert sorted(np.concatenate(after)) == list(range(10))
    assert list(sampler.batches(10, range(start, start), OsEntropy())) == []


# --- the contract, for every sampler ---


def test_every_sampler_is_here():
    assert tuple(type(sampler) for sampler in EVERY) == SAMPLERS


@EACH
@pytest.mark.parametrize("start", [0, 1, 2, 5, 11])
def test_a_seeded_run_can_begin_anywhere(sampler, start):
    """The batch of step t is a function of (seed, t). Kills: a generator that walks from step to step."""
    whole = list(sampler.batches(10, range(12), SeededEntropy(1)))
    rest = list(sampler.batches(10, range(start, 12), SeededEntropy(1)))
    assert [b.tolist() for b in whole[start:]] == [b.tolist() for b in rest]


@EACH
@SOURCES
def test_batches_are_increasing_indices_one_for_each_step(sampler, source):
    batches = list(sampler.batches(10, range(30), source))
    assert len(batches) == 30
    for batch in batches:
        assert batch.dtype == np.int64
        assert (np.diff(batch) > 0).all()
        assert batch.size == 0 or (batch[0] >= 0 and batch[-1] < 10)
    if not isinstance(sampler, FullBatch):
        other = list(sampler.batches(10, range(30), OsEntropy()))
        assert [b.tolist() for b in batches] != [b.tolist() for b in other]


@EACH
def test_the_divisor_is_public_and_the_expected_size(sampler):
    """Kills: the realised size; E min(Bin, cap) taken for n q. A last batch that is smaller counts as whole."""
    n, by_hand = 10, {"FullBatch": 10, "PoissonSampler": 3, "FixedSize": 4, "ShuffledEpochs": 4, "BallsAndBins": 10 / 3}
    by_hand["TruncatedPoisson"] = sum(min(k, 4) * stats.binom.pmf(k, 10, 0.3) for k in range(11))
    assert sampler.divisor(n) == pytest.approx(by_hand[type(sampler).__name__], rel=1e-12)


def test_one_bin_and_rate_one_and_size_n_are_the_full_batch():
    for sampler in (PoissonSampler(1.0), TruncatedPoisson(1.0, 50), FixedSize(50), ShuffledEpochs(50), BallsAndBins(1)):
        for batch in sampler.batches(50, range(5), OsEntropy()):
            assert np.array_equal(batch, np.arange(50))


def test_empty_batches_come():
    for sampler in (PoissonSampler(0.02), TruncatedPoisson(0.02, 1), BallsAndBins(50)):
        assert 0 in [len(batch) for batch in sampler.batches(3, range(50), OsEntropy())]


@pytest.mark.parametrize("bad", [0.0, -0.1, 1.1, math.nan, math.inf, True, "0.1"])
def test_bad_rates_are_refused(bad):
    with pytest.raises(Refusal):
        PoissonSampler(bad)
    with pytest.raises(Refusal):
        TruncatedPoisson(bad, 4)


@pytest.mark.parametrize("bad", [0, -1, 2.5, math.nan, True, "4"])
@pytest.mark.parametrize("kind", [lambda k: TruncatedPoisson(0.1, k), FixedSize, ShuffledEpochs, BallsAndBins])
def test_bad_sizes_are_refused(kind, bad):
    with pytest.raises(Refusal):
        kind(bad)


@pytest.mark.parametrize("sampler", [FixedSize(11), ShuffledEpochs(11)])
def test_a_batch_larger_than_the_data_is_refused(sampler):
    gaussian = dp_accounting.GaussianDpEvent(1.0)
    for call in (lambda: sampler.batches(10, range(5), OsEntropy()), lambda: sampler.event(gaussian, 10, 5)):
        with pytest.raises(Refusal):
            call()


# --- plans ---


def planned(sampler, relation=Relation.REPLACE_ONE, **changes):
    plan = dpzero(
        n=10,
        steps=7,
        step_size=0.1,
        zo_eps=0.1,
        clip_threshold=1.0,
        noise_multiplier=8.0,
        relation=Relation.REPLACE_ONE,
    )
    return replace(plan, sampler=sampler, relation=relation, **changes)


@EACH
def test_a_plan_with_any_sampler_is_told_and_rebuilt(sampler):
    plan = planned(sampler)
    assert Plan.described(plan.describe()) == plan
    assert plan.event() == sampler.event(plan.mechanism.event(), 10, 7)


def test_events():
    gaussian, repeated = dp_accounting.GaussianDpEvent(2.0), dp_accounting.SelfComposedDpEvent
    cut = dp_accounting.TruncatedSubsampledGaussianDpEvent
    events = {type(s): s.event(gaussian, 10, 7) for s in EVERY}
    assert events == {
        FullBatch: repeated(gaussian, 7),
        PoissonSampler: repeated(dp_accounting.PoissonSampledDpEvent(0.3, gaussian), 7),
        TruncatedPoisson: repeated(cut(10, 0.3, 4, 2.0), 7),
        FixedSize: repeated(cut(10, 1.0, 4, 2.0), 7),
        ShuffledEpochs: repeated(gaussian, 3),  # 7 steps are two epochs of 3 and one begun
        BallsAndBins: repeated(BallsAndBinsDpEvent(2.0, 3), 3),
    }
    assert FixedSize(10).event(gaussian, 10, 7) == repeated(gaussian, 7)
    assert ShuffledEpochs(4).event(gaussian, 10, 6).count == 2


UNCOVERED = {
    (PoissonSampler, Relation.REPLACE_ONE, "laplace"),
    *((kind, relation, "laplace") for kind in (TruncatedPoisson, FixedSize) for relation in Relation),
    *((ShuffledEpochs, Relation.ADD_REMOVE, noise) for noise in ("gaussian", "laplace")),
}


@EACH
@pytest.mark.parametrize("relation", Relation)
@pytest.mark.parametrize("noise", ["gaussian", "laplace"])
def test_a_plan_that_nothing_can_account_is_refused_when_it_is_made(sampler, relation, noise):
    """And every other is accounted: a sampler's word is checked against the accountants."""
    changes = {} if noise == "gaussian" else {"mechanism": LaplaceMechanism(1.0, 8.0)}
    if (type(sampler), relation, noise) in UNCOVERED:
        with pytest.raises(Refusal):
            planned(sampler, relation, **changes)
    else:
        assert 0 < planned(sampler, relation, **changes).epsilon(1e-5) < math.inf


@EACH
def test_a_run_without_privacy_may_use_any_sampler(sampler):
    plan = replace(mezo(n=10, steps=7, step_size=0.1, zo_eps=0.1), sampler=sampler)
    assert plan.epsilon(1e-5) == math.inf


def test_a_sampler_that_does_not_say_what_it_covers_is_refused():
    class Silent:
        def batches(self, n, steps, private):
            yield from (np.arange(n) for _ in steps)

        def divisor(self, n):
            return float(n)

        def event(self, inner, n, steps):
            return dp_accounting.SelfComposedDpEvent(inner, steps)

    with pytest.raises(Refusal):
        planned(Silent())


class One:
    """A model whose every record has derivative +1 along any direction, so a scalar tells the batch's size."""

    made_up = None  # which side it is, is told by the number of the call

    def __init__(self):
        self.inner = Quadratic(torch.ones(3), torch.zeros(3))
        self.params, self.above = self.inner.params, True

    def losses(self, records):
        value = 0.1 if self.above else -0.1
        self.above = not self.above
        return torch.full((len(records),), value, dtype=torch.float64)


def test_sums_are_divided_by_the_expected_size():
    """Kills: the mean over the realised batch, which under add/remove has another sensitivity."""
    sizes = [len(b) for b in PoissonSampler(0.4).batches(10, range(30), Streams.not_private(0, 5).private)]
    assert min(sizes) < 4 < max(sizes)
    plan = mezo(n=10, steps=30, step_size=0.1, zo_eps=0.1, batch_size=4)
    scalars = [s.scalars[0] for s in run(plan, One(), torch.zeros(10, 3), Streams.not_private(0, 5))]
    assert scalars == pytest.approx([size / 4 for size in sizes], abs=1e-12)


@pytest.mark.parametrize("algorithm", [dpzero, dpgd_zeroth])
def test_an_empty_batch_still_releases_noise_and_moves_the_weights(algorithm):
    plan = algorithm(
        n=4,
        steps=60,
        step_size=0.1,
        zo_eps=0.1,
        clip_threshold=1.0,
        batch_size=1,
        noise_multiplier=2.0,
        relation=Relation.ADD_REMOVE,
    )
    sizes = [len(b) for b in plan.sampler.batches(4, range(60), Streams.not_private(0, 5).private)]
    assert 0 in sizes
    noise = Streams.not_private(0, 5).noise
    model = Quadratic(torch.ones(3), torch.zeros(3))
    before = model.params["x"].clone()
    for size, step in zip(sizes, run(plan, model, torch.ones(4, 3), Streams.not_private(0, 5)), strict=True):
        if size == 0 and algorithm is dpzero:
            assert step.scalars[0] == plan.mechanism.release(np.empty(0), noise.at(step.index)) != 0
        assert not torch.equal(model.params["x"], before), "no step may be skipped"
        before = model.params["x"].clone()
