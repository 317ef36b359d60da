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
convex order, and so raises both divergences; so does a coarser grid for a longer sum. What is cut from the tails counts
as an infinite loss, or is moved to where the loss is larger. All terms are positive, so rounding is relative: at most
_POINTS * 2**-53 for a convolution and as much for the lognormal, doubled with each doubling of the sum. That is added
as an infinite loss too. A bound from above is not always a good one: with little noise it can exceed that of one
unsampled release an epoch, so take the smaller of the two.

Under replace-one W is a ratio of two sums, and this does not apply: there each epoch is one unsampled release.

Source: Feldman and Shenfeld (arXiv 2502.08202) gave the first bounds without simulation, and in arXiv 2602.17284 the
whole law, for any mechanism; with their package's upper and lower bounds this one was compared, and lies between them.
The proof and the code are ours.
"""

import math
from functools import lru_cache

import attr
import numpy as np
from dp_accounting import GaussianDpEvent
from dp_accounting.pld import pld_pmf, privacy_loss_distribution
from scipy.special import ndtr

from dpzo.types import Floats

_POINTS = 2**13  # of a grid: any number is safe; twice as many lower epsilon by 0.1 % in the doctest below
_TAILS = 6.5, 4.5  # standard deviations kept at least, removing and adding: 4e-11 and 3e-6 of the mean is beyond
_FARTHEST = 7.5  # kept where it costs little: 3e-14 is beyond
_CUT = 1e-18


@attr.s(frozen=True, slots=True, auto_attribs=True)
class BallsAndBinsDpEvent(GaussianDpEvent):  # type: ignore[misc]  # dp-accounting has no types
    """One epoch of balls-and-bins sampling over ``bins`` steps, each with Gaussian noise.

    It is also what it inherits from, one Gaussian release of everything: an upper bound under every relation, which is
    all that an accountant sees that does not know this class.
    """

    noise_multiplier: float
    bins: int = 1


def amplified(
    event: BallsAndBinsDpEvent, epochs: int, interval: float = 1e-4
) -> privacy_loss_distribution.PrivacyLossDistribution:
    """Return an upper bound of the privacy loss of ``epochs`` epochs, under add/remove and zero-out.

    >>> bound = amplified(BallsAndBinsDpEvent(1.263, bins=63), epochs=16)
    >>> round(bound.get_epsilon_for_delta(1e-5), 2)
    1.89
    """
    return _epoch(event.noise_multiplier, event.bins, interval).self_compose(epochs)


@lru_cache(maxsize=64)
def _epoch(sigma: float, bins: int, interval: float) -> privacy_loss_distribution.PrivacyLossDistribution:
    # Where losses are huge, a fine grid of them would take minutes.
    interval = max(interval, math.log(_top(sigma, _TAILS[0])) / 1e5)
    p, w = _mean_of_lognormals(sigma, bins, _TAILS[0])
    removing = _pmf(np.log(w), p * w, bins, interval)
    p, w = _mean_of_lognormals(sigma, bins, _TAILS[1])
    adding = _pmf(-np.log(w), p, bins, interval)
    return privacy_loss_distribution.PrivacyLossDistribution(removing, adding)


def _pmf(losses: Floats, masses: Floats, bins: int, interval: float) -> pld_pmf.DensePLDPmf:
    # Onto the grid of losses as onto that of W: a spread that keeps the mean of e^-loss, and so both laws' masses.
    below = np.floor(losses / interval).astype(np.int64)
    up = masses * np.expm1(below * interval - losses) / math.expm1(-interval)
    low = int(below.min())
    p = np.bincount(below - low, masses - up, int(below.max()) - low + 2)
    p[1:] += np.bincount(below - low, up)
    rounding = 2 * bins * _POINTS * 2.0**-53
    lost = min(max(0.0, 1 - math.fsum(masses)) + rounding, 1 - 2.0**-53)
    return pld_pmf.DensePLDPmf(interval, low, p, lost, True)


@attr.s(frozen=True, slots=True, auto_attribs=True)
class _Law:
    """Masses ``p`` at the points start, start + 1, ... of a grid."""

    start: int
    p: Floats

    def __add__(self, other: "_Law") -> "_Law":
        p = np.convolve(self.p, other.p)
        low, high = np.searchsorted(np.cumsum(p), _CUT), p.size - np.searchsorted(np.cumsum(p[::-1]), _CUT)
        return _Law(self.start + other.start + int(low), p[low:high])

    def coarser(self) -> "_Law":
        """The law on the grid of every other point: a mass between two of them is halved."""
        p = np.pad(self.p, (self.start % 2, 0))
        p = np.pad(p, (0, 1 - p.size % 2))
        even, half = p[::2].copy(), p[1::2] / 2
        even[:-1] += half
        even[1:] += half
        return _Law(self.start // 2, even)


def _mean_of_lognormals(sigma: float, count: int, tail: float) -> tuple[Floats, Floats]:
    """Masses and positive points of a law above that of W in convex order, but for cut tails."""
    one, h = _lognormal(sigma, tail)
    total = one
    for bit in f"{count:b}"[1:]:  # double, and add one where the bit is set
        total = total + total
        while total.p.size > _POINTS:
            total, one, h = total.coarser(), one.coarser(), 2 * h
        if bit == "1":
            total = total + one
    w = (total.start + np.arange(total.p.size)) * (h / count)
    if w[-1] == 0:
        return np.zeros(1), np.ones(1)
    return np.asarray(total.p[w > 0]), np.asarray(w[w > 0], dtype=np.float64)


def _lognormal(sigma: float, tail: float) -> tuple[_Law, float]:
    # log L is normal with standard deviation 1 / sigma and mean -1 / (2 sigma^2), or +1 / (2 sigma^2) weighted by L.
    top, bottom = _top(sigma, tail), math.exp(-min(_FARTHEST / sigma + 0.5 / sigma**2, 500.0))
    h = top / _POINTS
    points = np.arange(math.floor(bottom / h), _POINTS + 1)
    with np.errstate(divide="ignore"):
        z = sigma * np.log(points * h) + 0.5 / sigma
    mass, moment = _between(z), _between(z - 1 / sigma)
    up = np.clip((moment - points[:-1] * h * mass) / h, 0, mass)  # so that each cell keeps its mean
    # What is beyond the top counts there: lower, which raises the divergence when adding. When removing, the mean's
    # loss becomes an infinite loss of privacy: (W - g)_+ falls by no more than W does.
    return _Law(int(points[0]), np.append(mass - up, ndtr(-z[-1])) + np.append(0.0, up)), h


def _top(sigma: float, tail: float) -> float:
    # To e^3, beyond which a grid is coarse, but not nearer than ``tail``.
    kept = max(tail, min(3 * sigma - 0.5 / sigma, _FARTHEST))
    return math.exp(min(kept / sigma + 0.5 / sigma**2, 500.0))


def _between(z: Floats) -> Floats:
    """The standard normal mass of each interval of ``z``, from the smaller tail."""
    low, high = z[:-1], z[1:]
    return np.where(low > 0, ndtr(-low) - ndtr(-high), ndtr(high) - ndtr(low))
