"""Samplers that draw each step's batch on its own: full, Poisson, truncated Poisson, fixed size."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from dp_accounting import (
    DpEvent,
    GaussianDpEvent,
    LaplaceDpEvent,
    PoissonSampledDpEvent,
    SelfComposedDpEvent,
    TruncatedSubsampledGaussianDpEvent,
)
from scipy import stats

from dpzo.errors import Refusal
from dpzo.sampling.checks import REPLACE_ONE, gaussian_or_none, rate, whole, without_privacy
from dpzo.types import Entropy, Indices


@dataclass(frozen=True)
class FullBatch:
    """Every record at every step, as in both algorithms of the paper: no amplification, closed-form accounting."""

    def batches(self, n: int, steps: range, private: Entropy) -> Iterator[Indices]:
        """Yield all indices for each of ``steps``."""
        for _ in steps:
            yield np.arange(n)

    def divisor(self, n: int) -> float:
        """Return n."""
        return float(n)

    def covers(self, inner: DpEvent, relation: str) -> bool:
        """Return True: there is nothing to amplify."""
        return True

    def event(self, inner: DpEvent, n: int, steps: int) -> DpEvent:
        """Return the composition of ``steps`` unsampled events."""
        return SelfComposedDpEvent(inner, steps)


@dataclass(frozen=True)
class PoissonSampler:
    """Each record joins each batch on its own with probability ``sample_rate``; a batch may be empty.

    The realised size of a batch is private, so sums are divided by its public expectation.
    """

    sample_rate: float

    def __post_init__(self) -> None:
        rate(self.sample_rate)

    def batches(self, n: int, steps: range, private: Entropy) -> Iterator[Indices]:
        """Yield independent samples of 0..n-1, each in increasing order, one for each of ``steps``."""
        for step in steps:
            yield np.flatnonzero(private.at(step).uniform(n) < self.sample_rate)

    def divisor(self, n: int) -> float:
        """Return the expected batch size."""
        return self.sample_rate * n

    def covers(self, inner: DpEvent, relation: str) -> bool:
        """Gaussians under every relation; Laplace under all but replace-one, for which no accountant here has it."""
        return gaussian_or_none(inner) or (isinstance(inner, LaplaceDpEvent) and relation != REPLACE_ONE)

    def event(self, inner: DpEvent, n: int, steps: int) -> DpEvent:
        """Return the composition of ``steps`` Poisson-sampled events."""
        return SelfComposedDpEvent(PoissonSampledDpEvent(self.sample_rate, inner), steps)


@dataclass(frozen=True)
class TruncatedPoisson:
    """Poisson sampling of which only a uniformly random ``cap`` are kept when more were drawn: bounded memory.

    The accounting, for Gaussians. Let x be the record that differs, B how many of the other n - 1 are drawn, and E
    the event B >= cap, which does not depend on x. Without E nothing is cut, whether x is drawn or not: the step is a
    Poisson step. Given E the batch has exactly ``cap`` records. It holds x with some probability r, and by symmetry
    the others are a uniform subset of the rest, of size cap - 1 beside x and of size cap without x: x takes the place
    of a random other record. So one neighbour's release is a mixture (1 - r) N(0) + r N(a), the other's
    (1 - r) N(0) + r N(b), with |a|, |b| <= 2C, around the same random point (b = 0 when x is absent). By the advanced
    joint convexity of the hockey-stick divergence and its monotony in the shifts it is largest at a = 2C, b = -2C.
    The step is dominated by the mixture of both cases with weights P(not E) and P(E), as the divergence is jointly
    convex: this is dp-accounting's TruncatedSubsampledGaussianDpEvent.

    Source: arXiv 2508.15089 for the event; Balle, Barthe, Gaboardi 2018, Thm. 2 for the convexity; Choquette-Choo et
    al. 2023 (arXiv 2310.15526), Cor. 4.7 for the shifts.
    """

    sample_rate: float
    cap: int

    def __post_init__(self) -> None:
        rate(self.sample_rate)
        whole("the cap", self.cap)

    def batches(self, n: int, steps: range, private: Entropy) -> Iterator[Indices]:
        """Yield independent samples of at most ``cap`` of 0..n-1, in increasing order, one for each of ``steps``."""
        for step in steps:
            entropy = private.at(step)
            u = entropy.uniform(n)
            drawn = np.flatnonzero(u < self.sample_rate)
            yield drawn if drawn.size <= self.cap else _least(drawn, u[drawn], self.cap, entropy)

    def divisor(self, n: int) -> float:
        """Return the expected size of a batch, E min(Bin(n, q), cap).

        >>> TruncatedPoisson(0.016, cap=20).divisor(1000) < PoissonSampler(0.016).divisor(1000) == 16.0
        True
        """
        uncut = n * self.sample_rate * stats.binom.cdf(self.cap - 1, n - 1, self.sample_rate)
        return float(uncut + self.cap * stats.binom.sf(self.cap, n, self.sample_rate))

    def covers(self, inner: DpEvent, relation: str) -> bool:
        """Gaussians, under every relation; for Laplace nobody has worked out the dominating pair."""
        return gaussian_or_none(inner)

    def event(self, inner: DpEvent, n: int, steps: int) -> DpEvent:
        """Return the composition of ``steps`` truncated events."""
        return SelfComposedDpEvent(_truncated(self.sample_rate, self.cap, inner, n), steps)

    def added_delta(self, n: int, steps: int) -> float:
        """Return d such that a run is (eps, delta + d)-DP wherever its Poisson run is (eps, delta)-DP.

        d = 1 - (1 - p)^T with p = P(Bin(n - 1, q) >= cap), under every relation and for every mechanism. Proof: let G
        say that at no step ``cap`` or more of the n - 1 common records are drawn, so P(not G) = d. G does not depend
        on the record that differs. On G nothing is ever cut, and given which common records are drawn, the record
        that differs is still drawn with probability q at each step: so given G the run is as private as the Poisson
        run, whose dominating pair is the same for all draws of the others. For every set A of outputs,
        P(A) <= P(G) (e^eps P'(A | G) + delta) + P(not G) <= e^eps P'(A) + delta + d.

        This spends no e^eps on the neighbour's side, as comparing the two runs on each data set would:
        d (1 + e^eps). The event's own bound is better still, because a cut is not the end of privacy.

        >>> f"{TruncatedPoisson(0.016, cap=40).added_delta(1000, 1000):.1e}"
        '2.4e-04'
        """
        p = stats.binom.sf(self.cap - 1, n - 1, self.sample_rate)
        return float(-np.expm1(steps * np.log1p(-p))) if p < 1 else 1.0


@dataclass(frozen=True)
class FixedSize:
    """A uniformly random subset of exactly ``batch_size`` records at each step, without replacement.

    This is Poisson sampling at rate 1 truncated at ``batch_size``, and accounted as such: see ``TruncatedPoisson``,
    whose event E now always happens, with r = batch_size / n. Drawing x pushes another record out, so one record
    moves the sum by up to 2C under every relation: far from Poisson sampling at the same rate.

    The bound is an upper bound, not tight: under add/remove b = 0, and the pair with b = 0 alone would do. It is
    below RDP's (Wang, Balle, Kasiviswanathan 2019, Thm. 27; note that dp-accounting takes that event's multiplier as
    relative to a replacement's sensitivity, 2C).
    """

    batch_size: int

    def __post_init__(self) -> None:
        whole("the batch size", self.batch_size)

    def batches(self, n: int, steps: range, private: Entropy) -> Iterator[Indices]:
        """Yield independent subsets of 0..n-1 of the same size, in increasing order, one for each of ``steps``."""
        whole("the batch size", self.batch_size, n)
        return self._batches(n, steps, private)

    def _batches(self, n: int, steps: range, private: Entropy) -> Iterator[Indices]:
        for step in steps:
            entropy = private.at(step)
            yield _least(np.arange(n), entropy.uniform(n), self.batch_size, entropy)

    def divisor(self, n: int) -> float:
        """Return the batch size."""
        return float(self.batch_size)

    def covers(self, inner: DpEvent, relation: str) -> bool:
        """Gaussians, under every relation."""
        return gaussian_or_none(inner)

    def event(self, inner: DpEvent, n: int, steps: int) -> DpEvent:
        """Return the composition of ``steps`` truncated events, or unsampled ones where a batch is everything."""
        whole("the batch size", self.batch_size, n)
        return SelfComposedDpEvent(inner if self.batch_size == n else _truncated(1.0, self.batch_size, inner, n), steps)


def _least(indices: Indices, keys: np.ndarray, count: int, entropy: Entropy) -> Indices:
    # Equal keys are told apart by a second word: uniform but for size**2 * 2**-105, the chance that both are equal.
    return np.sort(indices[np.lexsort((entropy.uniform(keys.size), keys))[:count]])


def _truncated(sample_rate: float, cap: int, inner: DpEvent, n: int) -> DpEvent:
    if without_privacy(inner):
        return inner
    if not isinstance(inner, GaussianDpEvent):
        raise Refusal("Gaussian noise for a batch of bounded size", inner, "Use PoissonSampler, or a Gaussian.")
    return TruncatedSubsampledGaussianDpEvent(n, sample_rate, cap, inner.noise_multiplier)
