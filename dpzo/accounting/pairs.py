"""The pairs of laws (P, Q) that dominate one step, each as the law of its privacy loss L = ln(dP / dQ).

A step without sampling releases F0 + (what the others add) without the record and F1 with it; l = ln(dF1 / dF0). On a
Poisson sample at rate q the record's neighbours are F0 and (1-q) F0 + q F1, and L is an increasing function of l when
the record is removed (P has it), a decreasing one when it is added. Under replace-one P = (1-q) N(0) + q N(1) and
Q = (1-q) N(0) + q N(-1): the neighbours' other values would be nearer. Every threshold on L is solved for l, or for
the released value x, in a closed form without cancellation.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from dp_accounting import GaussianDpEvent, LaplaceDpEvent, TruncatedSubsampledGaussianDpEvent
from scipy import stats
from scipy.special import ndtr, ndtri

from dpzo.accounting.grid import Loss, Masses, Mixture, Tails, cells, scattered
from dpzo.accounting.parts import Part
from dpzo.accounting.relation import Relation
from dpzo.sampling import BallsAndBinsDpEvent, EpochLoss, amplified
from dpzo.types import Floats

# Measured: 51 and 2 at most (tests/accounting/test_pairs.py).
_GAUSSIAN_UNITS, _LAPLACE_UNITS = 128.0, 8.0


@dataclass(frozen=True)
class Gaussian:
    """l for N(0, 1) against N(mu, 1): normal with variance mu^2 and mean -mu^2 / 2 under F0, +mu^2 / 2 under F1."""

    mu: float
    units = _GAUSSIAN_UNITS

    def below(self, c: Floats) -> tuple[Floats, Floats]:
        """F0(l <= c), F1(l <= c)."""
        return ndtr(c / self.mu + self.mu / 2), ndtr(c / self.mu - self.mu / 2)

    def above(self, c: Floats) -> tuple[Floats, Floats]:
        """F0(l > c), F1(l > c)."""
        return ndtr(-c / self.mu - self.mu / 2), ndtr(self.mu / 2 - c / self.mu)

    def range(self, below: float, above: float) -> tuple[float, float]:
        """The l with ``below`` of F0 below it and with ``above`` of F0 above; that of F1 is its mirror image."""
        return (
            float(ndtri(below)) * self.mu - self.mu**2 / 2,
            -float(ndtri(above)) * self.mu - self.mu**2 / 2,
        )


@dataclass(frozen=True)
class Laplace:
    """l for Laplace noise of scale 1 / e around 0 against around 1: within [-e, e], with an atom at each end."""

    e: float
    units = _LAPLACE_UNITS

    def below(self, c: Floats) -> tuple[Floats, Floats]:
        """F0(l <= c), F1(l <= c)."""
        within = np.clip(c, -self.e, self.e)
        f0, f1 = 1 - np.exp(-(self.e + within) / 2) / 2, np.exp(-(self.e - within) / 2) / 2
        return self._outside(c, f0, 0.0, 1.0), self._outside(c, f1, 0.0, 1.0)

    def above(self, c: Floats) -> tuple[Floats, Floats]:
        """F0(l > c), F1(l > c)."""
        within = np.clip(c, -self.e, self.e)
        f0, f1 = np.exp(-(self.e + within) / 2) / 2, 1 - np.exp(-(self.e - within) / 2) / 2
        return self._outside(c, f0, 1.0, 0.0), self._outside(c, f1, 1.0, 0.0)

    def _outside(self, c: Floats, inside: Floats, low: float, high: float) -> Floats:
        return np.where(c < -self.e, low, np.where(c >= self.e, high, inside))

    def range(self, below: float, above: float) -> tuple[float, float]:
        """The whole support."""
        return -self.e, self.e


@dataclass(frozen=True)
class Removing:
    """P = (1-q) F0 + q F1 against Q = F0: L = ln(1 - q + q e^l)."""

    alone: Gaussian | Laplace
    q: float

    @property
    def units(self) -> float:
        """See ``Smooth``."""
        return self.alone.units

    def tails(self, t: Floats) -> Tails:
        """See ``Smooth``."""
        (b0, b1), (a0, a1) = self.alone.below(c := _inner(t, self.q)), self.alone.above(c)
        return Tails((1 - self.q) * b0 + self.q * b1, (1 - self.q) * a0 + self.q * a1, b0, a0)

    def on_grid(self, h: float, below: float, above: float) -> Masses:
        """See ``Loss``."""
        return cells(self, h, below, above)

    def range(self, below: float, above: float) -> tuple[float, float]:
        """See ``Loss``: F0's low end, or F1's where there is no F0, and F1's high end."""
        far, high = self.alone.range(above, below)
        low = -high if self.q == 1 else self.alone.range(below, above)[0]
        return _outer(low, self.q), _outer(-far, self.q)


@dataclass(frozen=True)
class Adding:
    """P = F0 against Q = (1-q) F0 + q F1: L = -ln(1 - q + q e^l)."""

    alone: Gaussian | Laplace
    q: float

    @property
    def units(self) -> float:
        """See ``Smooth``."""
        return self.alone.units

    def tails(self, t: Floats) -> Tails:
        """See ``Smooth``; an atom at a threshold may count on either side of it, the same under P and Q."""
        (b0, b1), (a0, a1) = self.alone.below(c := _inner(-t, self.q)), self.alone.above(c)
        return Tails(a0, b0, (1 - self.q) * a0 + self.q * a1, (1 - self.q) * b0 + self.q * b1)

    def on_grid(self, h: float, below: float, above: float) -> Masses:
        """See ``Loss``."""
        return cells(self, h, below, above)

    def range(self, below: float, above: float) -> tuple[float, float]:
        """See ``Loss``."""
        low, high = self.alone.range(above, below)
        return -_outer(high, self.q), -_outer(low, self.q)


@dataclass(frozen=True)
class Replacing:
    """P = (1-q) N(0, s^2) + q N(1, s^2) against Q = (1-q) N(0, s^2) + q N(-1, s^2), s = 1 / mu.

    With y = e^(x / s^2), L = t where q e^(-1 / 2 s^2) (y - e^t / y) = (1-q) (e^t - 1), that is
    x = s^2 (t / 2 + arsinh((1-q) / q e^(1 / 2 s^2) sinh(t / 2))). Exchanging P and Q turns x into -x: one direction.
    """

    mu: float
    q: float
    units = _GAUSSIAN_UNITS

    def tails(self, t: Floats) -> Tails:
        """See ``Smooth``."""
        x = self._at(t) * self.mu  # in units of s
        b0, a0, q = ndtr(x), ndtr(-x), self.q
        return Tails(
            (1 - q) * b0 + q * ndtr(x - self.mu),
            (1 - q) * a0 + q * ndtr(self.mu - x),
            (1 - q) * b0 + q * ndtr(x + self.mu),
            (1 - q) * a0 + q * ndtr(-x - self.mu),
        )

    def _at(self, t: Floats) -> Floats:
        # arsinh(z) for ln z beyond double precision's reach is ln 2z.
        half = np.abs(t) / 2
        with np.errstate(divide="ignore"):
            odds = math.log1p(-self.q) - math.log(self.q) if self.q < 1 else -math.inf
            log_z = odds + self.mu**2 / 2 + half + np.log(-np.expm1(-2 * half)) - math.log(2)
        each = np.where(log_z > 300, log_z + math.log(2), np.arcsinh(np.exp(np.minimum(log_z, 300))))
        return np.sign(t) * (half + each) / self.mu**2

    def on_grid(self, h: float, below: float, above: float) -> Masses:
        """See ``Loss``."""
        return cells(self, h, below, above)

    def range(self, below: float, above: float) -> tuple[float, float]:
        """See ``Loss``: L of the x with so much of N(0) below and of N(1) above; L is odd."""
        return self._loss(float(ndtri(below)) / self.mu), self._loss(1 - float(ndtri(above)) / self.mu)

    def _loss(self, x: float) -> float:
        up, down = (2 * x - 1) * self.mu**2 / 2, (-2 * x - 1) * self.mu**2 / 2
        return _outer(up, self.q) - _outer(down, self.q)


def _outer(l: float, q: float) -> float:
    """ln(1 - q + q e^l)."""
    if q == 1:
        return l
    if l > 30:
        return l + math.log(q) + math.log1p((1 - q) / q * math.exp(-l))
    return math.log1p(q * math.expm1(l))


def _inner(t: Floats, q: float) -> Floats:
    """The l with ln(1 - q + q e^l) = t, or -inf where every l gives more."""
    if q == 1:
        return t
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        near = np.log1p(np.maximum(np.expm1(np.minimum(t, 1.0)) / q, -1.0))
        low = math.log1p(-q) - math.log(q) + np.log(np.maximum(np.expm1(np.minimum(t - math.log1p(-q), 700.0)), 0.0))
        high = t + np.log1p(-(1 - q) * np.exp(-t)) - math.log(q)
        return np.where(t > 1, high, np.where(near < -0.5, low, near))


@dataclass(frozen=True)
class Binned:
    """An epoch of balls and bins, removing or adding: see ``dpzo.sampling.bins``."""

    event: BallsAndBinsDpEvent
    adding: bool

    def range(self, below: float, above: float) -> tuple[float, float]:
        """See ``Loss``: as of the points."""
        losses = self._epoch(above).losses
        return float(losses.min()), float(losses.max())

    def on_grid(self, h: float, below: float, above: float) -> Masses:
        """See ``Loss``."""
        losses, masses, infinite = self._epoch(above)
        return scattered(losses, masses, h)._replace(infinite=infinite)

    def _epoch(self, above: float) -> EpochLoss:
        return amplified(self.event, 2.0 ** math.floor(math.log2(above)))[self.adding]  # few cuts: they are remembered


def pairs_of(part: Part, relation: Relation) -> tuple[Mixture, ...] | None:
    """Return the laws of the loss of one use of ``part``, removing first, or one law for both; None: not known here.

    Source: Balle and Wang 2018 for Gaussians; ``dpzo.accounting.accountants._pure`` for what a Laplace step's laws are;
    ``dpzo.sampling.TruncatedPoisson`` for the truncated event.
    """
    mechanism: Any = part.mechanism
    if isinstance(mechanism, BallsAndBinsDpEvent) and relation is not Relation.REPLACE_ONE:
        return ((1.0, Binned(mechanism, False)),), ((1.0, Binned(mechanism, True)),)
    replace = relation is Relation.REPLACE_ONE
    if isinstance(mechanism, GaussianDpEvent):
        return _gaussian(1 / mechanism.noise_multiplier, part.rate, replace)
    if isinstance(mechanism, LaplaceDpEvent):
        if part.rate == 1:
            return (((1.0, Removing(Laplace(relation.sensitivity / mechanism.noise_multiplier), 1.0)),),)
        if replace:
            return None
        alone = Laplace(1 / mechanism.noise_multiplier)
        return ((1.0, Removing(alone, part.rate)),), ((1.0, Adding(alone, part.rate)),)
    if isinstance(mechanism, TruncatedSubsampledGaussianDpEvent) and part.rate == 1:
        n, q, cap = mechanism.dataset_size, mechanism.sampling_probability, mechanism.truncated_batch_size
        mu = 1 / mechanism.noise_multiplier
        cut = float(stats.binom.sf(cap - 1, n - 1, q))  # that the others alone fill the batch
        whole = _gaussian(mu, q, replace)
        if cut == 0:
            return whole
        taken = min(1.0, float(stats.binom.sf(cap, n, q)) * cap / cut / n)  # that the record is in it then
        swapped: Loss = Replacing(2 * mu, taken)
        if cut == 1:
            return (((1.0, swapped),),)
        return tuple(((1 - cut, direction[0][1]), (cut, swapped)) for direction in whole)
    return None


def _gaussian(mu: float, q: float, replace: bool) -> tuple[Mixture, ...]:
    if q == 1:
        return (((1.0, Removing(Gaussian(2 * mu if replace else mu), 1.0)),),)
    if replace:
        return (((1.0, Replacing(mu, q)),),)
    return ((1.0, Removing(Gaussian(mu), q)),), ((1.0, Adding(Gaussian(mu), q)),)
