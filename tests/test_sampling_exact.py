"""Every sampler on fixed words: who is in a batch is a function of the words that were drawn, record by record."""

import numpy as np
import pytest

from dpzo.randomness import SeededEntropy
from dpzo.sampling import (
    SAMPLERS,
    BallsAndBins,
    FixedSize,
    FullBatch,
    PoissonSampler,
    ShuffledEpochs,
    TruncatedPoisson,
)


class Ruler:
    """Fixed words in place of random ones: each request gets every point of a grid once, in an order of its own.

    So a rate decides how many are in a batch to within one record: one percent more of it is seen at once.
    """

    secret = False

    def __init__(self, step=0):
        self.step, self.asked = step, []

    def at(self, step):
        return Ruler(step)

    def uniform(self, size):
        order = np.random.Generator(np.random.PCG64([self.step, len(self.asked)])).permutation(size)
        self.asked.append((order + 0.5) / max(size, 1))
        return self.asked[-1]


def drawn(step, *sizes):
    """The words of a step, one list for each request."""
    ruler = Ruler(step)
    return [ruler.uniform(size).tolist() for size in sizes]


def poisson_by_hand(n, rate, step):
    (words,) = drawn(step, n)
    return [i for i in range(n) if words[i] < rate]


def truncated_by_hand(n, rate, cap, step):
    (words,) = drawn(step, n)
    among = [i for i in range(n) if words[i] < rate]
    if len(among) <= cap:
        return among
    _, ties = drawn(step, n, len(among))
    ranked = sorted((words[i], tie, i) for i, tie in zip(among, ties, strict=True))
    return sorted(i for _, _, i in ranked[:cap])


def fixed_by_hand(n, size, step):
    keys, ties = drawn(step, n, n)
    return sorted(sorted(range(n), key=lambda i: (keys[i], ties[i]))[:size])


def shuffled_by_hand(n, size, step):
    in_epoch = -(-n // size)
    ties, keys = drawn(step // in_epoch * in_epoch, n, n)
    order = sorted(range(n), key=lambda i: (keys[i], ties[i]))
    place = step % in_epoch * size
    return sorted(order[place : place + size])


def bins_by_hand(n, bins, step):
    (words,) = drawn(step // bins * bins, n)
    return [i for i in range(n) if int(words[i] * bins) == step % bins]


BY_HAND = {
    FullBatch(): lambda n, step: list(range(n)),
    PoissonSampler(0.137): lambda n, step: poisson_by_hand(n, 0.137, step),
    TruncatedPoisson(0.137, 140): lambda n, step: truncated_by_hand(n, 0.137, 140, step),
    TruncatedPoisson(0.137, 100): lambda n, step: truncated_by_hand(n, 0.137, 100, step),
    FixedSize(137): lambda n, step: fixed_by_hand(n, 137, step),
    ShuffledEpochs(137): lambda n, step: shuffled_by_hand(n, 137, step),
    BallsAndBins(7): lambda n, step: bins_by_hand(n, 7, step),
}


def batches_of(sampler, n=1000, steps=20, source=None):
    return [batch.tolist() for batch in sampler.batches(n, range(steps), source or Ruler())]


def test_every_sampler_is_here():
    assert {type(sampler) for sampler in BY_HAND} == set(SAMPLERS)


@pytest.mark.parametrize("sampler", BY_HAND, ids=repr)
def test_batches_are_what_the_words_say_record_by_record(sampler):
    """Kills: a rate one percent too high (run below), a cap or a size off by one, ``<=`` for ``<``, a bin shifted."""
    assert batches_of(sampler) == [BY_HAND[sampler](1000, step) for step in range(20)]


MUTANTS = {
    PoissonSampler(0.137): [PoissonSampler(0.137 * 1.01), PoissonSampler(0.137 / 1.01)],
    TruncatedPoisson(0.137, 140): [TruncatedPoisson(0.137 * 1.01, 140), TruncatedPoisson(0.137, 136)],
    TruncatedPoisson(0.137, 100): [TruncatedPoisson(0.137, 99), TruncatedPoisson(0.137, 101)],
    FixedSize(137): [FixedSize(138), FixedSize(136)],
    ShuffledEpochs(137): [ShuffledEpochs(138)],
    BallsAndBins(7): [BallsAndBins(8)],
}


@pytest.mark.parametrize("sampler", MUTANTS, ids=repr)
def test_a_mutant_of_one_percent_is_seen_in_the_first_batch(sampler):
    for mutant in MUTANTS[sampler]:
        assert batches_of(mutant, steps=1) != batches_of(sampler, steps=1), mutant


def test_a_record_whose_word_is_the_rate_itself_is_not_drawn():
    class Edge:
        def at(self, step):
            return self

        def uniform(self, size):
            return np.array([0.25, np.nextafter(0.25, 0), np.nextafter(0.25, 1), 0.0])[:size]

    assert batches_of(PoissonSampler(0.25), 4, 1, Edge()) == [[1, 3]]


GOLDEN = {
    PoissonSampler(0.3): [[5], [3], [0, 3, 4, 8, 9], [2, 4, 5]],
    TruncatedPoisson(0.3, 4): [[5], [3], [0, 3, 4, 9], [2, 4, 5]],
    FixedSize(4): [[1, 4, 5, 7], [1, 3, 4, 6], [0, 3, 4, 9], [1, 2, 4, 5]],
    ShuffledEpochs(4): [[3, 4, 5, 8], [2, 6, 7, 9], [0, 1], [1, 3, 6, 8]],
    BallsAndBins(3): [[4, 5], [1, 7], [0, 2, 3, 6, 8, 9], [2, 4, 5]],
}


@pytest.mark.parametrize("sampler", GOLDEN, ids=repr)
def test_seeded_batches_are_fixed_for_ever(sampler):
    """Kills: a seeded run that does not go on as it began, after a change of the order in which words are drawn."""
    assert batches_of(sampler, 10, 4, SeededEntropy(1)) == GOLDEN[sampler]
