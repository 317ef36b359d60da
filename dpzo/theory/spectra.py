"""Spectra of a Hessian, and its effective rank: how many directions it really has."""

import math
from dataclasses import dataclass
from functools import cached_property
from operator import index

import numpy as np

from dpzo import memory
from dpzo.errors import Refusal
from dpzo.types import Floats

_EXACT = 4096  # eigenvalues told one by one; beyond, neighbours within this relative width share one
_WIDTH = 1e-3


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Eigenvalues a_j >= 0 of a positive semidefinite matrix, each with how often it occurs.

    Counts make d = 10^9 as cheap as d = 10^4: all that the exact laws need of a spectrum are sums over it.

    Raises:
        Refusal: a negative or non-finite eigenvalue, all of them 0, or counts that do not fit them or are not all
            whole and positive.
    """

    values: Floats
    counts: Floats

    def __post_init__(self) -> None:
        a, k = np.asarray(self.values, dtype=np.float64), np.asarray(self.counts, dtype=np.float64)
        if a.ndim != 1 or a.shape != k.shape or not a.size:
            raise Refusal("as many counts as eigenvalues", f"shapes {a.shape} and {k.shape}", "Count each of them.")
        if not (np.isfinite(k).all() and (k > 0).all() and (k == np.floor(k)).all()):
            came = f"some from {k.min():g} to {k.max():g}"
            raise Refusal("whole, positive counts", came, "Leave out what does not occur.")
        if not np.isfinite(a).all() or (a < 0).any() or not a.any():
            raise Refusal(
                "eigenvalues of a positive semidefinite matrix, not all 0",
                f"some from {a.min():g} to {a.max():g}",
                "Give a bound H with -H <= Hessian <= H instead.",
            )
        object.__setattr__(self, "values", a)
        object.__setattr__(self, "counts", k)

    @cached_property
    def d(self) -> int:
        """The dimension."""
        return round(float(self.counts.sum()))

    @cached_property
    def largest(self) -> float:
        """||A||_2."""
        return float(self.values.max())

    def sum(self, per_eigenvalue: Floats | float) -> float:
        """Return the sum over all d eigenvalues of what is told for each distinct one."""
        return float(np.sum(self.counts * per_eigenvalue))

    @cached_property
    def trace(self) -> float:
        """Tr A."""
        return self.sum(self.values)

    @cached_property
    def effective_rank(self) -> float:
        """r = Tr A / ||A||_2, from 1 to d.

        Source: Zhang et al. 2024, Assumption 3.5.

        >>> round(power_law(10**9, 1.0).effective_rank, 2)  # the harmonic number: log d + 0.577
        21.3
        """
        return self.trace / self.largest

    def diagonal(self) -> Floats:
        """Return all d eigenvalues, written out in decreasing order.

        Raises:
            Refusal: so many that they do not fit in memory.
        """
        memory.require(
            24 * self.d, "eigenvalues, one by one,", "Use their sums (``Spectrum.sum``), which need no list."
        )
        return np.sort(np.repeat(self.values, self.counts.astype(np.int64)))[::-1].copy()


def of(eigenvalues: Floats) -> Spectrum:
    """Return the spectrum that these eigenvalues are, one by one."""
    values = np.asarray(eigenvalues, dtype=np.float64)
    return Spectrum(values, np.ones_like(values))


def flat(d: int) -> Spectrum:
    """Return d ones: effective rank d."""
    return Spectrum(np.ones(1), np.array([_dimension(d)]))


def power_law(d: int, exponent: float) -> Spectrum:
    """a_j = j**-exponent for j = 1 .. d: effective rank about d, sqrt(d), log(d) at exponents 0, 1/2 and 1.

    Eigenvalues after the first few thousand are told in groups of neighbours within a thousandth of one another, each
    group by its mean; so Tr A is exact to rounding, and sums of squares to one part in 10^7.
    """
    d = int(_dimension(d))
    if not 0 <= exponent < math.inf:
        raise Refusal("an exponent of 0 or more", exponent, "0 is the flat spectrum, 1 is l/j.")
    if exponent == 0:
        return flat(d)
    first = np.arange(1, min(d, _EXACT) + 1, dtype=np.float64) ** -exponent
    if d <= _EXACT:
        return of(first)
    growth = (1 + _WIDTH) ** (1 / max(exponent, 1.0))
    steps = math.ceil(math.log(d / _EXACT) / math.log(growth))
    edges = np.unique(np.floor(np.geomspace(_EXACT, d, steps + 1)))
    edges[0], edges[-1] = _EXACT, d
    low, high = edges[:-1], edges[1:]
    return Spectrum(
        np.concatenate([first, _sum_of_powers(low, high, exponent) / (high - low)]),
        np.concatenate([np.ones_like(first), high - low]),
    )


def _sum_of_powers(low: Floats, high: Floats, p: float) -> Floats:
    # Euler-Maclaurin for sum_{low < j <= high} j**-p, to the first derivative: from j = 4096 on the rest is below
    # rounding. By expm1, because the difference of two powers loses all digits when p is near 1.
    log = np.log1p((high - low) / low)
    integral = log if p == 1 else low ** (1 - p) * np.expm1((1 - p) * log) / (1 - p)
    ends = (high**-p - low**-p) / 2
    slopes = -p * (high ** (-p - 1) - low ** (-p - 1)) / 12
    return np.asarray(integral + ends + slopes, dtype=np.float64)


def _dimension(d: int) -> float:
    if isinstance(d, bool) or not hasattr(d, "__index__") or index(d) < 1:
        raise Refusal("a dimension of 1 or more", d, "Give a whole number.")
    return float(d)
