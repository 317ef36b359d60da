import math

import dp_accounting
import numpy as np
import pytest
import torch
from scipy import stats

from dpzo import Refusal, Streams, dpgd_zeroth, dpzero, mezo, run
from dpzo.accounting import Relation
from dpzo.models.quadratic import Quadratic
from dpzo.randomness import OsEntropy, SeededEntropy
from dpzo.sampling import FullBatch, PoissonSampler
from tests.chance import ALPHA, binomial_p

N, T, Q = 1000, 2000, 0.05
SOURCES = pytest.mark.parametrize("source", [OsEntropy(), SeededEntropy(1)], ids=["os", "seeded"])


def table(batches):
    """Who was in which batch, (T, N) booleans."""
    rows = np.zeros((T, N), dtype=bool)
    for row, batch in zip(rows, batches, strict=True):
        row[batch] = True
    return rows


def poisson(rate=Q, source=None):
    return table(PoissonSampler(rate).batches(N, T, source or OsEntropy()))


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


def test_batches_are_increasing_indices_and_reproducible_from_a_seed():
    first = list(PoissonSampler(0.3).batches(50, 20, SeededEntropy(1)))
    second = list(PoissonSampler(0.3).batches(50, 20, SeededEntropy(1)))
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(a, b)
        assert (np.diff(a) > 0).all()
        assert a.size == 0 or (a[0] >= 0 and a[-1] < 50)


def test_rate_one_is_the_full_batch():
    for batch in PoissonSampler(1.0).batches(50, 20, OsEntropy()):
        assert np.array_equal(batch, np.arange(50))


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.1, math.nan, math.inf])
def test_bad_rates_are_refused(rate):
    with pytest.raises(Refusal):
        PoissonSampler(rate)


def test_full_batch():
    batches = list(FullBatch().batches(5, 3, OsEntropy()))
    assert [b.tolist() for b in batches] == [[0, 1, 2, 3, 4]] * 3
    inner = dp_accounting.GaussianDpEvent(1.0)
    assert FullBatch().event(inner) == inner
    assert PoissonSampler(0.5).event(inner) == dp_accounting.PoissonSampledDpEvent(0.5, inner)


@pytest.mark.parametrize("n", [1, 10, 1024])
def test_the_divisor_is_public(n):
    assert FullBatch().divisor(n) == n
    assert PoissonSampler(0.25).divisor(n) == 0.25 * n


class One:
    """A model whose every record has derivative +1 along any direction, so a scalar tells the batch's size."""

    def __init__(self):
        self.inner = Quadratic(torch.ones(3), torch.zeros(3))
        self.params, self.above = self.inner.params, True

    def losses(self, records):
        value = 0.1 if self.above else -0.1
        self.above = not self.above
        return torch.full((len(records),), value, dtype=torch.float64)


def test_sums_are_divided_by_the_expected_size():
    """Kills: the mean over the realised batch, which under add/remove has another sensitivity."""
    sizes = [len(b) for b in PoissonSampler(0.4).batches(10, 30, Streams.not_private(0, 5).private)]
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
    sizes = [len(b) for b in plan.sampler.batches(4, 60, Streams.not_private(0, 5).private)]
    assert 0 in sizes
    noise = Streams.not_private(0, 5).noise
    model = Quadratic(torch.ones(3), torch.zeros(3))
    before = model.params["x"].clone()
    for size, step in zip(sizes, run(plan, model, torch.ones(4, 3), Streams.not_private(0, 5)), strict=True):
        z = noise.normal(1 if algorithm is dpzero else 3)
        if size == 0 and algorithm is dpzero:
            assert step.scalars[0] == 2.0 * z[0]
        assert not torch.equal(model.params["x"], before), "no step may be skipped"
        before = model.params["x"].clone()
