"""Samplers that decide a whole epoch at once: shuffled epochs, balls-and-bins. Each record takes part once an epoch.

An epoch's draw is kept nowhere, so a run on the operating system's entropy cannot go on in the middle of one: a new
draw could give a record a second turn. Such a run begins at an epoch's first step, or is refused.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from dp_accounting import DpEvent, GaussianDpEvent, SelfComposedDpEvent

from dpzo.errors import Refusal
from dpzo.sampling.bins import BallsAndBinsDpEvent
from dpzo.sampling.checks import ADD_REMOVE, whole, without_privacy
from dpzo.types import Entropy, Indices


@dataclass(frozen=True)
class ShuffledEpochs:
    """Each epoch a fresh permutation, cut into batches of ``batch_size``; what is left over is a smaller last batch.

    What most training code does. No amplification is claimed: under replace-one and zero-out a run of T steps costs
    ceil(T / steps of an epoch) unsampled releases, the last epoch counted in full.

    Proof. Both neighbours have n records, so couple them by the same permutation, which does not depend on the data.
    Given it, the record that differs is in one batch of the epoch. Every other step computes, given the releases
    before it, the same thing from the same records: its privacy loss is 0. The one step, whichever it is and whatever
    was released before, is one unsampled release. So given its permutation an epoch is dominated by one release, and
    joint convexity keeps this when permutations are mixed. Permutations are fresh, so epochs compose adaptively.

    Under add/remove the neighbours have no permutation in common: one record more moves the cuts, and with them
    records in every later batch. Refused.

    The public code of DPZero trains so, on n = 1024, batches of 64 and T = 10,000 steps, with noise calibrated for
    Poisson sampling, which is ``noise_multiplier`` 12.497 for epsilon 2 at delta 1e-5 under add/remove. It delivers:

    >>> from dpzo.accounting import Relation, epsilon
    >>> event = ShuffledEpochs(64).event(GaussianDpEvent(12.497), 1024, 10_000)
    >>> round(epsilon(event, 1e-5, Relation.ZERO_OUT), 1), round(epsilon(event, 1e-5, Relation.REPLACE_ONE), 1)
    (10.0, 24.4)
    """

    batch_size: int

    def __post_init__(self) -> None:
        whole("the batch size", self.batch_size)

    def batches(self, n: int, steps: range, private: Entropy) -> Iterator[Indices]:
        """Yield the batches of ``steps``, each in increasing order.

        Raises:
            Refusal: ``steps`` begins within an epoch and the draw cannot be repeated.
        """
        in_epoch = self._steps_of_epoch(n)

        def cut(entropy: Entropy) -> list[Indices]:
            # Equal keys are told apart by a second word: uniform but for n**2 * 2**-105.
            order = np.lexsort((entropy.uniform(n), entropy.uniform(n)))
            return [np.sort(part) for part in np.split(order, range(self.batch_size, n, self.batch_size))]

        return _by_epoch(steps, in_epoch, private, cut)

    def divisor(self, n: int) -> float:
        """Return the batch size, for the smaller last batch too."""
        return float(self.batch_size)

    def covers(self, inner: DpEvent, relation: str) -> bool:
        """Every mechanism, but not under add/remove."""
        return relation != ADD_REMOVE or without_privacy(inner)

    def event(self, inner: DpEvent, n: int, steps: int) -> DpEvent:
        """Return the composition of one unsampled event for each epoch that was begun."""
        return SelfComposedDpEvent(inner, -(-steps // self._steps_of_epoch(n)))

    def _steps_of_epoch(self, n: int) -> int:
        whole("the batch size", self.batch_size, n)
        return -(-n // self.batch_size)


@dataclass(frozen=True)
class BallsAndBins:
    """An epoch has ``bins`` steps, and each record joins one of them, uniformly and on its own; a batch may be empty.

    Nobody's place depends on who else is there, so this covers every relation. A record takes part once an epoch: one
    unsampled release by the argument of ``ShuffledEpochs``, the common records' places being the coupling. Under
    add/remove and zero-out Gaussians cost much less, near Poisson sampling at rate 1 / bins: see ``amplified``.

    Source: Chua et al. 2024 (arXiv 2412.16802) for the sampler.
    """

    bins: int

    def __post_init__(self) -> None:
        whole("the number of bins", self.bins)

    def batches(self, n: int, steps: range, private: Entropy) -> Iterator[Indices]:
        """Yield the batches of ``steps``, each in increasing order.

        Raises:
            Refusal: ``steps`` begins within an epoch and the draw cannot be repeated.
        """

        def throw(entropy: Entropy) -> list[Indices]:
            place = np.minimum((entropy.uniform(n) * self.bins).astype(np.int64), self.bins - 1)
            ends = np.cumsum(np.bincount(place, minlength=self.bins))
            return np.split(np.argsort(place, kind="stable"), ends[:-1])

        return _by_epoch(steps, self.bins, private, throw)

    def divisor(self, n: int) -> float:
        """Return the expected batch size."""
        return n / self.bins

    def covers(self, inner: DpEvent, relation: str) -> bool:
        """Every mechanism under every relation."""
        return True

    def event(self, inner: DpEvent, n: int, steps: int) -> DpEvent:
        """Return the composition of the epochs that were begun; Gaussian ones say that they are balls and bins."""
        if isinstance(inner, GaussianDpEvent):
            inner = BallsAndBinsDpEvent(inner.noise_multiplier, self.bins)
        return SelfComposedDpEvent(inner, -(-steps // self.bins))


def _by_epoch(
    steps: range, in_epoch: int, private: Entropy, draw: Callable[[Entropy], list[Indices]]
) -> Iterator[Indices]:
    # Not a generator itself, so that a refusal comes at the call, before a step is charged.
    if len(steps) and steps.start % in_epoch and private.secret:
        nearest = -(-steps.start // in_epoch) * in_epoch
        raise Refusal(
            f"to begin at an epoch's first step, a multiple of {in_epoch}",
            f"step {steps.start}",
            f"Who has had a turn in this epoch is not known. Begin at step {nearest}, or sample by PoissonSampler.",
        )
    return _drawn(steps, in_epoch, private, draw)


def _drawn(
    steps: range, in_epoch: int, private: Entropy, draw: Callable[[Entropy], list[Indices]]
) -> Iterator[Indices]:
    epoch, batches = -1, list[Indices]()
    for step in steps:
        if step // in_epoch != epoch:
            epoch = step // in_epoch
            batches = draw(private.at(epoch * in_epoch))
        yield batches[step % in_epoch]
