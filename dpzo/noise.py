"""Noise on the integers, exact to a stated distance: the rounded Gaussian and the rounded Laplace.

A release adds noise to a sum of integers, so round(sum + Z) = sum + round(Z): the integer noise round(Z) makes the
release a post-processing of the ideal, real-valued mechanism, and every accountant of that mechanism applies. What is
left to the computer is to draw round(scale * Q(U)) rightly, Q the quantile function and U uniform.

U is one of 2**128 equally likely midpoints (j + 1/2) / 2**128. The integer k stands for an interval of U, because Q
increases; the number of midpoints in an interval is within 1 of its length times 2**128, so each probability is off by
less than 2**-128, and the law of the draw is within TOTAL_VARIATION(scale) of the ideal one in total variation. The
rounding of Q never enters: where double precision cannot tell which integer is meant, 60 digits decide.
"""

import math
import threading
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
from scipy.special import ndtri

from dpzo.types import Entropy, Integers

_BITS = 128


class _Private(threading.local):
    """Arithmetic of 90 digits for each thread alone: mpmath's own precision is one for all threads, and any may set it.

    (A function of mpmath raises its context's precision while it works, so not even two draws may share one.)
    """

    def __init__(self) -> None:
        self.mp = mpmath.MPContext()
        self.mp.dps = 90


_private = _Private()
_UNSURE = 1e-12  # double precision is trusted to this fraction of scale * (1 + |Q|): it is 1000 times better


def total_variation(scale: float) -> float:
    """Upper bound on the distance between a draw's law and that of the rounded ideal noise, for either noise.

    Half of one 2**-128 for each integer that can be reached, |k| <= 90 scale + 1, and for the tails beyond.

    >>> total_variation(2.0**24 * 10) < 2.0**-92
    True
    """
    return (90 * scale + 2) * 2.0**-_BITS


def rounded_gaussian(scale: float, size: int, entropy: Entropy) -> Integers:
    """``size`` draws of round(N(0, scale^2)), within ``size * total_variation(scale)`` of that law."""
    return _draws(scale, size, entropy, _gaussian, _exact_gaussian)


def rounded_laplace(scale: float, size: int, entropy: Entropy) -> Integers:
    """``size`` draws of round(Laplace(scale)), density exp(-|z|/scale) / (2 scale); as ``rounded_gaussian``."""
    return _draws(scale, size, entropy, _laplace, _exact_laplace)


Quantile = Callable[[float], float]
"""The point beyond which lies the given tail, below 1/2, of a symmetric law; the exact ones take and return mpf."""


def _draws(scale: float, size: int, entropy: Entropy, quick: Quantile, exact: Callable[[Any], Any]) -> Integers:
    return np.array([_draw(scale, entropy.bits(_BITS), quick, exact) for _ in range(size)], dtype=np.int64)


def _draw(scale: float, word: int, quick: Quantile, exact: Callable[[Any], Any]) -> int:
    # Both laws are symmetric: one bit is the sign, the others are the tail (j + 1/2) / 2**128, which is below 1/2.
    sign, twice = 1 - 2 * (word & 1), word | 1
    q = quick(math.ldexp(twice, -_BITS - 1))
    z = scale * q + 0.5
    k = math.floor(z)
    if abs(z - round(z)) <= _UNSURE * scale * (1 + q):
        mp = _private.mp
        k = int(mp.floor(mp.mpf(scale) * exact(mp.ldexp(twice, -_BITS - 1)) + mp.mpf(0.5)))
    return sign * k


def _gaussian(tail: float) -> float:
    return float(-ndtri(tail))


def _exact_gaussian(tail: Any) -> Any:
    mp = _private.mp
    return mp.sqrt(2) * mp.erfinv(1 - 2 * mp.mpf(tail))


def _laplace(tail: float) -> float:
    return -math.log(2 * tail)


def _exact_laplace(tail: Any) -> Any:
    mp = _private.mp
    return -mp.log(2 * mp.mpf(tail))
