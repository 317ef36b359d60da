"""What balls-and-bins sampling costs, without Monte Carlo: one dominating pair, whose privacy loss is a sum's law.

Add/remove and zero-out; x is the record that differs. Given the other records' bins, which do not depend on x, and
with their part subtracted, step j of an epoch releases y_j = v_j + N(0, sigma^2 I) if x is in bin j and N(0, sigma^2 I)
if not, where |v_j| <= 1 (in units of C) may depend on all releases before. Call the law with x P and the one without
Q. As x is in each of the m bins with probability 1 / m,

    P / Q = W = (L_1 + ... + L_m) / m,    L_j = exp(<v_j, y_j> / sigma^2 - |v_j|^2 / (2 sigma^2)).

Under Q and given the past, L_j is lognormal with mean 1 and grows in convex order with |v_j|. Both divergences are
expectations under Q of convex functions of the sum: H_g(P, Q) = E (W - g)_+ and H_g(Q, P) = E (1 - g W)_+ for every
g >= 0. Step by step from the last, replacing L_j by the lognormal of |v_j| = 1 raises them. So the worst case has
|v_j| = 1 throughout: it dominates every adaptive run, in any number of dimensions, and epochs compose. There the L_j
are independent, and the law of W under Q is an m-fold convolution on the line.

It is computed from above. Moving mass from a point to its two neighbours on a grid, mean kept, raises a lognormal in
convex order, and so raises both divergences. The grids are dense where a sum's mass is and sparse in its long tails. At
the very top, what is cut counts as an infinite loss when removing, and is moved down to the top when adding: both raise
the divergence. All terms are positive, so rounding is relative: masses are raised by more than it may have taken, and
what is split between two points leans to the side that raises the divergence. A bound from above is not always a good
one: with little noise it can exceed that of one unsampled release an epoch, so the smaller of the two is taken.

Under replace-one W is a ratio of two sums, and this does not apply: there each epoch is one unsampled release.

Source: Feldman and Shenfeld (arXiv 2502.08202) gave the first bounds without simulation, and in arXiv 2602.17284 the
whole law, for any mechanism; with their package's upper and lower bounds this one was compared, and lies between them.
The proof and the code are ours.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import attr
import numpy as np
from dp_accounting import GaussianDpEvent
from scipy.special import ndtr, ndtri

from dpzo.types import Floats

_POINTS = 768  # of a grid: any number is safe; twice as many lower epsilon by 0.05 % in the doctest of dpzo.accounting
_UNIT = 2.0**-53


@attr.s(frozen=True, slots=True, auto_attribs=True)
class BallsAndBinsDpEvent(GaussianDpEvent):  # type: ignore[misc]  # dp-accounting has no types
    """One epoch of balls-and-bins sampling over ``bins`` steps, each with Gaussian noise.

    It is also what it inherits from, one Gaussian release of everything: an upper bound under every relation, which is
    all that an accountant sees that does not know this class.
    """

    noise_multiplier: float
    bins: int = 1


class EpochLoss(NamedTuple):
    """The privacy loss of an epoch: ``masses`` at ``losses``, and ``infinite`` at an infinite one."""

    losses: Floats
    masses: Floats
    infinite: float


def amplified(event: BallsAndBinsDpEvent, cut: float) -> tuple[EpochLoss, EpochLoss]:
    """Return upper bounds of an epoch's privacy loss, removing and adding a record; about ``cut`` of it is infinite.

    >>> removing, adding = amplified(BallsAndBinsDpEvent(1.263, bins=63), 1e-12)
    >>> bool(abs(removing.masses.sum() - 1) < 1e-6), removing.infinite < 1e-11
    (True, True)
    """
    return _epoch(event.noise_multiplier, event.bins, cut)


@lru_cache(maxsize=64)
def _epoch(sigma: float, bins: int, cut: float) -> tuple[EpochLoss, EpochLoss]:
    rounding = 1 + 4 * bins * _POINTS**2 * _UNIT  # doubled with each doubling of the sum
    up, down = (_mean_of_lognormals(sigma, bins, cut, upwards=up) for up in (True, False))
    removing = EpochLoss(np.log(up.points), up.points * up.masses * rounding, up.lost * rounding)
    at_zero = down.zero * rounding  # the record's law gives nothing where the law without it does
    return removing, EpochLoss(-np.log(down.points), down.masses * rounding, at_zero)


class _Law(NamedTuple):
    """Masses at positive points, ``zero`` at 0, and what the mean has lost beyond the last point."""

    points: Floats
    masses: Floats
    zero: float
    lost: float


def _mean_of_lognormals(sigma: float, count: int, cut: float, *, upwards: bool) -> _Law:
    """A law above that of W in convex order, but for its top and for rounding, which go ``upwards`` or downwards."""
    one = _lognormal(sigma, cut / count, upwards)
    total, number = one, 1
    for bit in f"{count:b}"[1:]:  # double, and add one where the bit is set
        total, number = _sum(total, total, sigma, 2 * number, upwards), 2 * number
        if bit == "1":
            total, number = _sum(total, one, sigma, number + 1, upwards), number + 1
    return total._replace(points=total.points / count, lost=total.lost / count)


def _sum(a: _Law, b: _Law, sigma: float, number: int, upwards: bool) -> _Law:
    sums = np.add.outer(np.append(0.0, a.points), np.append(0.0, b.points)).ravel()
    masses = np.multiply.outer(np.append(a.zero, a.masses), np.append(b.zero, b.masses)).ravel()
    grid = _points(sigma, number, min(a.points[0], b.points[0]), (a.points[-1] + b.points[-1]) * (1 + 4 * _UNIT))
    zero, masses = _on_grid(sums, masses, grid, upwards)
    # What is lost of E W is what one summand loses times the mass of the others, 1 at most.
    return _Law(grid, masses, zero, a.lost + b.lost)


def _on_grid(values: Floats, masses: Floats, grid: Floats, upwards: bool) -> tuple[float, Floats]:
    edges = np.append(0.0, grid)
    cell = np.clip(np.searchsorted(grid, values, "right"), 0, grid.size - 1)
    width = edges[cell + 1] - edges[cell]
    lean = 64 * _UNIT * edges[cell + 1] / width
    up = np.clip((values - edges[cell]) / width + (lean if upwards else -lean), 0.0, 1.0)
    landed = np.bincount(cell, masses * (1 - up), edges.size) + np.bincount(cell + 1, masses * up, edges.size)
    return float(landed[0]), np.asarray(landed[1:], dtype=np.float64)


def _points(sigma: float, number: int, least: float, most: float) -> Floats:
    # Even steps of arsinh(ln(s / number) / spread): of s's own spread in its middle, of a share of ln s far out.
    spread = min(math.sqrt(math.expm1(min(1 / sigma**2, 500.0)) / number), 1.0)
    low, high = (math.asinh(math.log(end / number) / spread) for end in (least, most))
    grid = number * np.exp(spread * np.sinh(np.linspace(low, high, _POINTS)))
    grid[0], grid[-1] = least, most
    return grid


def _lognormal(sigma: float, cut: float, upwards: bool) -> _Law:
    # log L is normal with standard deviation 1 / sigma and mean -1 / (2 sigma^2), or +1 / (2 sigma^2) weighted by L.
    far = -float(ndtri(max(cut, 1e-300)))
    low, high = far / sigma + 0.5 / sigma**2, far / sigma + (0.5 if upwards else -0.5) / sigma**2
    if not upwards:
        high = max(high, 1 / sigma)
    points = _points(sigma, 1, math.exp(-min(low, 300.0)), math.exp(min(high, 300.0)))
    z = np.append(-np.inf, sigma * np.log(points) + 0.5 / sigma)
    mass, moment, edges = _between(z), _between(z - 1 / sigma), np.append(0.0, points)
    width = np.diff(edges)
    lean = 64 * _UNIT * (1 + z[1:] ** 2) * edges[1:] / width
    share = (moment - edges[:-1] * mass) / (width * np.maximum(mass, 1e-320)) + (lean if upwards else -lean)
    up = np.clip(share, 0.0, 1.0) * mass  # so that each cell keeps its mean
    landed = np.append(mass - up, 0.0)
    landed[1:] += up
    if not upwards:
        landed[-1] += ndtr(-z[-1])
    return _Law(points, landed[1:], float(landed[0]), float(ndtr(1 / sigma - z[-1])) if upwards else 0.0)


def _between(z: Floats) -> Floats:
    """The standard normal mass of each interval of ``z``, from the smaller tail."""
    low, high = z[:-1], z[1:]
    return np.where(low > 0, ndtr(-low) - ndtr(-high), ndtr(high) - ndtr(low))
