"""The law of a privacy loss on the whole multiples of a spacing h, from above.

Connecting the dots (Doroshenko, Ghazi, Kamath, Kumar, Manurangsi 2022): the mass of a cell between two multiples goes
to its ends so that it keeps both its P-mass and its Q-mass. Of all laws on the grid that dominate the cell's this is
the least, and it raises every hockey-stick divergence. Rounding is on the safe side too: a mass is raised, and moved
up, by more than double precision may have taken from it; so what comes out is a measure, a little larger than a law.
"""

import math
from functools import reduce
from typing import NamedTuple, Protocol

import numpy as np

from dpzo.types import Floats

_UNIT = 2.0**-53


class Tails(NamedTuple):
    """For each threshold t: P(L <= t), P(L > t), Q(L <= t), Q(L > t), each to a relative precision."""

    p_below: Floats
    p_above: Floats
    q_below: Floats
    q_above: Floats


class Masses(NamedTuple):
    """P-masses ``p`` at the losses (start + k) h, ``infinite`` at an infinite loss.

    ``fraction`` is f (1 - f) for a mass of which f went up: times p h^2, the variance that the grid adds at most.
    """

    h: float
    start: int
    p: Floats
    infinite: float
    added: Floats

    @property
    def losses(self) -> Floats:
        """The losses of ``p``."""
        return np.arange(self.start, self.start + self.p.size, dtype=np.float64) * self.h

    def times(self, weight: float) -> "Masses":
        """Return the masses times ``weight``."""
        return self._replace(p=weight * self.p, infinite=weight * self.infinite, added=weight * self.added)

    def plus(self, other: "Masses") -> "Masses":
        start = min(self.start, other.start)
        size = max(self.start + self.p.size, other.start + other.p.size) - start
        p, added = np.zeros(size), np.zeros(size)
        for one in (self, other):
            where = slice(one.start - start, one.start - start + one.p.size)
            p[where] += one.p
            added[where] += one.added
        return Masses(self.h, start, p, self.infinite + other.infinite, added)


class Loss(Protocol):
    """The law of a privacy loss."""

    def range(self, below: float, above: float) -> tuple[float, float]:
        """Return losses with at most these P-masses beyond them."""
        ...

    def on_grid(self, h: float, below: float, above: float) -> Masses:
        """Return the law from above on the multiples of ``h``: what is above the range counts as an infinite loss."""
        ...


class Smooth(Loss, Protocol):
    """One that is known by its tails, to a relative error of ``units`` 2^-53 (4 - ln tail) at most."""

    @property
    def units(self) -> float: ...
    def tails(self, t: Floats) -> Tails: ...


Mixture = tuple[tuple[float, Loss], ...]
"""Losses with weights: which of them a step has is known to P and Q alike, so its loss is a mixture of theirs."""


def on_grid(mixture: Mixture, h: float, below: float, above: float) -> Masses:
    """Put a mixture's losses on the grid of ``h``."""
    return reduce(Masses.plus, (loss.on_grid(h, below, above).times(weight) for weight, loss in mixture))


def cells(loss: Smooth, h: float, below: float, above: float) -> Masses:
    """``Loss.on_grid`` from a loss's tails."""
    low, high = loss.range(below, above)
    first = math.floor(low / h) - 1
    edges = np.arange(first, math.ceil(high / h) + 3, dtype=np.float64) * h
    tails = loss.tails(edges)
    p, p_error = _cell_masses(tails.p_below, tails.p_above, loss.units)
    q, q_error = _cell_masses(tails.q_below, tails.q_above, loss.units)
    p = p + p_error
    up, split = _split(p, np.maximum(q - q_error, 0.0), edges[:-1], h)
    masses, added = np.append(p - up, 0.0), np.append(split * h * h, 0.0)
    masses[1:] += up
    masses[0] += tails.p_below[0]
    return Masses(h, first, masses, float(tails.p_above[-1]) * (1 + 1e-9), added)


def scattered(losses: Floats, masses: Floats, h: float) -> Masses:
    """``Loss.on_grid`` of point masses."""
    below = np.floor(losses / h).astype(np.int64)
    first = int(below.min())
    size = int(below.max()) - first + 2
    over = np.maximum(losses - below * h, 0.0)
    f = np.minimum(-np.expm1(-over) / -math.expm1(-h) + 8 * _UNIT * (1 + np.abs(losses) / h), 1.0)
    p, added = np.zeros(size), np.zeros(size)
    p += np.bincount(below - first, masses * (1 - f), size)
    p[1:] += np.bincount(below - first, masses * f, size - 1)
    added += np.bincount(below - first, masses * f * (1 - f) * h * h, size)
    return Masses(h, first, p, 0.0, added)


def _cell_masses(below: Floats, above: Floats, units: float) -> tuple[Floats, Floats]:
    """The mass of each cell by the difference of its smaller tails, and a bound on that difference's error."""
    left = below[1:] < above[:-1]
    mass = np.where(left, below[1:] - below[:-1], above[:-1] - above[1:])
    tail = np.maximum(np.where(left, below[1:], above[:-1]), 1e-320)
    return np.maximum(mass, 0.0), units * _UNIT * tail * (4 - np.log(tail))


def _split(p: Floats, q: Floats, low: Floats, h: float) -> tuple[Floats, Floats]:
    """What of each mass goes to the cell's upper end, and p f (1 - f)."""
    # Kept: p_up + p_low = p and p_up e^-(low + h) + p_low e^-low = q.
    with np.errstate(over="ignore", invalid="ignore"):
        kept = np.where(q > 0, q * np.exp(np.minimum(low, 709.0)), 0.0)
    up = np.clip((p - kept * (1 - 4 * _UNIT * (1 + np.abs(low)))) / -math.expm1(-h), 0.0, p)
    return up, up * (1 - up / np.maximum(p, 1e-320))
