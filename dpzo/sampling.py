"""Which records a step looks at. A sampler makes the batches, fixes the public divisor and knows its amplification."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from dp_accounting import DpEvent, PoissonSampledDpEvent, SelfComposedDpEvent

from dpzo.errors import Refusal
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
        if not 0 < self.sample_rate <= 1:
            raise Refusal(
                "a sample rate above 0 and at most 1",
                self.sample_rate,
                "Choose a batch size from 1 to the size of the data.",
            )

    def batches(self, n: int, steps: range, private: Entropy) -> Iterator[Indices]:
        """Yield independent samples of 0..n-1, each in increasing order, one for each of ``steps``."""
        for step in steps:
            yield np.flatnonzero(private.at(step).uniform(n) < self.sample_rate)

    def divisor(self, n: int) -> float:
        """Return the expected batch size."""
        return self.sample_rate * n

    def event(self, inner: DpEvent, n: int, steps: int) -> DpEvent:
        """Return the composition of ``steps`` Poisson-sampled events."""
        return SelfComposedDpEvent(PoissonSampledDpEvent(self.sample_rate, inner), steps)


SAMPLERS = (FullBatch, PoissonSampler)
