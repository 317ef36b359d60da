"""The paper's quadratic: f(x; x_i) = (x - x_i)' A (x - x_i) / 2, x_i with coordinates N(1, 1), A diagonal.

Source: Zhang et al. 2024, section 5.1: ||A|| = 1 and Tr A of order d, sqrt(d) or log(d).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from dpzo.theory.spectra import Spectrum, power_law

Array = npt.NDArray[np.float32]
RANKS = {"d": 0.0, "sqrt(d)": 0.5, "log(d)": 1.0}  # the exponent p of a_j = j**-p that makes the effective rank this


@dataclass(frozen=True)
class Split:
    """What a set of records says of the losses: their mean, and the least mean loss that any x can have."""

    mean: Array
    least: float


@dataclass(frozen=True)
class Problem:
    """``n`` training and ``n`` test records in R^d, drawn by ``seed``; ``rank`` is a key of RANKS."""

    n: int
    d: int
    rank: str
    seed: int

    @cached_property
    def spectrum(self) -> Spectrum:
        """The eigenvalues of A."""
        return power_law(self.d, RANKS[self.rank])

    @cached_property
    def a(self) -> Array:
        """(d,) the diagonal of A."""
        return (np.arange(1, self.d + 1) ** -RANKS[self.rank]).astype(np.float32)

    @cached_property
    def records(self) -> Array:
        """(n, d) training records."""
        return self._draw(0)

    @cached_property
    def train(self) -> Split:
        """The training set's mean and least loss."""
        return self._split(self.records)

    @cached_property
    def test(self) -> Split:
        """The test set's."""
        return self._split(self._draw(1))

    def _draw(self, which: int) -> Array:
        generator = np.random.Generator(np.random.SFC64([self.seed, self.d, which]))
        return 1 + generator.standard_normal((self.n, self.d), dtype=np.float32)

    def _split(self, records: Array) -> Split:
        mean = records.mean(0, dtype=np.float64)
        spread = records.var(0, dtype=np.float64)
        return Split(mean.astype(np.float32), float(spread @ self.a) / 2)

    def gradient_norm(self, x: Array, split: Split) -> npt.NDArray[np.float64]:
        """(R,) norms of the gradient of the mean loss at each row of ``x`` (R, d)."""
        return np.linalg.norm((self.a * (x - split.mean)).astype(np.float64), axis=1)

    def loss(self, x: Array, split: Split) -> npt.NDArray[np.float64]:
        """(R,) mean losses at each row of ``x``."""
        away = (x - split.mean).astype(np.float64)
        return np.asarray((away**2) @ self.a.astype(np.float64) / 2 + split.least)
