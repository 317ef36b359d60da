"""The law of a sum of many independent privacy losses, from above, to a relative precision in its tail.

A plain FFT is wrong by about T 2^-53 of the whole mass, where delta may be 1e-12 of it. So every mass is tilted first,
times e^(theta loss) over its moment M: the sum's law under the tilt is the sum's law times e^(theta s) over the product
of the M, and with theta the saddle point of the wanted epsilon its middle lies there. What delta needs of the tilted
law is a good part of its mass, and an error of T 2^-53 is nothing beside it. With K(theta) = sum_i T_i ln M_i(theta),

    delta(eps) = infinite + e^(K - theta eps) sum_{s > eps} tilted(s) e^(-theta (s - eps)) (1 - e^(eps - s)).

Added on top, so that the result is an upper bound: the FFT's rounding, the power's, and the tilted mass outside the
window of the FFT (by Markov's inequality, e^-36 on each side).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import fft
from scipy.optimize import brentq

from dpzo.accounting.grid import Masses
from dpzo.types import Floats

_UNIT = 2.0**-53
_OUTSIDE = 36.0
MOST = 2**21  # points of a window; it takes about 20 standard deviations of the tilted sum


class Moments(NamedTuple):
    """K at a tilt, its first two derivatives, and the variance that the grid has added under the tilt."""

    log: float
    mean: float
    variance: float
    added: float


class Composition:
    """The sum of ``counts[i]`` losses of each ``laws[i]``, which have a grid in common."""

    def __init__(self, laws: Sequence[Masses], counts: Sequence[int]) -> None:
        self.h = laws[0].h
        self.counts = counts
        self._laws = [(law.losses[law.p > 0], law.p[law.p > 0], law.added[law.p > 0]) for law in laws]
        self._places = [law.start + np.flatnonzero(law.p > 0) for law in laws]
        self.reach = max(float(losses[-1] - losses[0]) for losses, _, _ in self._laws)
        self.infinite = -math.expm1(math.fsum(T * _log1m(law.infinite) for law, T in zip(laws, counts, strict=True)))
        # Losses are known to some units in the last place; so epsilon is raised by as much for each step.
        self.slack = sum(
            T * 64 * _UNIT * float(np.abs(law[0]).max()) for law, T in zip(self._laws, counts, strict=True)
        )

    def moments(self, theta: float) -> Moments:
        """K, K', K'' at ``theta``, and the grid's own part of K''."""
        total = np.zeros(4)
        for (losses, p, added), T in zip(self._laws, self.counts, strict=True):
            q, log_m = _tilted(losses, p, theta)
            mean = float(q @ losses)
            total += T * np.array([log_m, mean, q @ np.square(losses - mean), q @ (added / np.maximum(p, 1e-300))])
        return Moments(*total.tolist())

    def tilt_for(self, *, delta: float | None = None, epsilon: float | None = None) -> float:
        """The tilt whose saddle point is at about ``epsilon``, or at the epsilon of about ``delta``."""
        scale = 1 / math.sqrt(max(self.moments(0.0).variance, 1e-300))

        def beyond(log_theta: float) -> float:
            theta = scale * math.exp(log_theta)
            K = self.moments(theta)
            if epsilon is not None:
                return epsilon - K.mean
            assert delta is not None
            width = 0.5 * math.log(2 * math.pi * K.variance) if K.variance > 0 else 0.0
            return K.log - theta * K.mean - math.log(theta * (1 + theta)) - width - math.log(delta)

        low, high = math.log(1e-3), math.log(1e3)
        if beyond(low) <= 0:
            return scale * math.exp(low)
        if beyond(high) >= 0:
            return scale * math.exp(high)
        return scale * math.exp(brentq(beyond, low, high, xtol=1e-3, rtol=1e-6))

    def log_bound(self, theta: float, epsilon: float) -> float:
        """Markov's bound on ln of the sum's delta at ``epsilon``, without the infinite losses, at any tilt."""
        largest = theta * math.log(theta) - (1 + theta) * math.log1p(theta)  # of e^(-theta x) (1 - e^-x)
        return self.moments(theta).log - theta * (epsilon - self.slack) + largest + 1e-9

    def tilted(self, theta: float) -> "Tilted":
        """Return the sum's law under a tilt."""
        return Tilted(self, theta)

    def window(self, theta: float) -> tuple[int, int]:
        """Grid points between which all but e^-36 of the tilted sum's mass lies, on either side."""
        K = self.moments(theta)
        unit = 1 / math.sqrt(max(K.variance, 1e-300))
        steps = [unit * s for s in (0.5, 1, 2, 3, 4, 6, 8, 12, 16)]
        tops = [(self.moments(theta + s).log - K.log + _OUTSIDE) / s for s in steps]
        bottoms = [(K.log - self.moments(theta - s).log - _OUTSIDE) / s for s in steps]
        ends = [(float(losses[0]), float(losses[-1])) for losses, _, _ in self._laws]
        least, most = (sum(T * end[i] for end, T in zip(ends, self.counts, strict=True)) for i in (0, 1))
        return math.floor(max(*bottoms, least) / self.h) - 1, math.ceil(min(*tops, most) / self.h) + 1


class Tilted:
    """A composition under the tilt ``theta``, on a window of the grid."""

    def __init__(self, sums: Composition, theta: float) -> None:
        self.sums, self.theta = sums, theta
        first, last = sums.window(theta)
        size = 1 << (last - first).bit_length()
        self.losses = np.zeros(0)
        if size > 4 * MOST:  # a law with tails so long is bounded by Markov's inequality alone
            return
        self.log_moment = 0.0
        log_size, angle, highest, spread = np.zeros((4, size // 2 + 1))
        rounding = 8 * _UNIT * math.log2(size)  # of a transform's terms, relative to the sum of all masses: here 1
        for (losses, p, _), places, T in zip(sums._laws, sums._places, sums.counts, strict=True):
            q, log_m = _tilted(losses, p, theta)
            self.log_moment += T * log_m
            folded = np.bincount(places % size, q, size)
            spectrum = fft.rfft(folded)
            length = np.abs(spectrum)
            with np.errstate(divide="ignore"):
                log_length = np.log(length)
            log_size += T * log_length
            angle += np.remainder(T * np.angle(spectrum), 2 * math.pi)
            highest += T * np.log(length + rounding)
            spread += T * 16 * _UNIT * (4 - np.log(length + rounding))
        size_of = np.exp(log_size)
        error = np.exp(highest) * (1 + spread) - size_of
        p = fft.irfft(size_of * np.exp(1j * angle), size)
        self.p = np.roll(p, -(first % size))
        self.losses = np.arange(first, first + size, dtype=np.float64) * sums.h
        # Parseval: a sum of errors times weights is at most |errors| |weights| / sqrt(size).
        self._by_length = math.sqrt(2 * float(error @ error) / size)
        self._by_sum = rounding * 2 * float(size_of.sum()) / size

    def log_delta(self, epsilon: float) -> float:
        """ln of the sum's delta at ``epsilon``, without the infinite losses: an upper bound."""
        if not self.losses.size:
            self.share = math.inf
            return self.sums.log_bound(self.theta, epsilon)
        epsilon -= self.sums.slack
        first = int(np.searchsorted(self.losses, epsilon, "right"))
        last = int(np.searchsorted(self.losses, epsilon + _OUTSIDE / self.theta, "right"))  # smaller weights are cut
        over = self.losses[first:last] - epsilon
        weights = np.exp(-self.theta * over) * -np.expm1(-over)
        total = float(self.p[first:last] @ weights)
        error = self._by_length * math.sqrt(float(weights @ weights)) + self._by_sum * float(weights.sum())
        error += 2 * math.exp(-_OUTSIDE)
        self.share = error / max(total, 1e-300)
        return self.log_moment - self.theta * epsilon + math.log(max(total, 0.0) + error) + 1e-9

    def epsilon(self, delta: float) -> float:
        """The least epsilon >= 0 whose delta is at most ``delta``, up to a rounding upwards; it may be infinite."""
        left = delta * (1 - 1e-12) - self.sums.infinite
        if left <= 0:
            return math.inf

        def above(epsilon: float) -> float:
            return self.log_delta(epsilon) - math.log(left)

        K = self.sums.moments(self.theta)
        # ln delta falls with a slope of about -theta: from the saddle point it is a step or two.
        start = max(K.mean, 0.0)
        guess = start + above(start) / self.theta
        low, high, step = guess - 1e-3 / self.theta, guess + 1e-3 / self.theta, 1 / self.theta
        while low > 0 and above(low) <= 0:
            low, high, step = low - step, low, 2 * step
        if low <= 0 and above(0.0) <= 0:
            return 0.0
        low = max(low, 0.0)
        while above(high) > 0:
            low, high, step = high, high + step, 2 * step
        root = float(brentq(above, low, high, xtol=1e-300, rtol=1e-7))
        while above(root) > 0:
            root *= 1 + 1e-7
        return root


def _tilted(losses: Floats, p: Floats, theta: float) -> tuple[Floats, float]:
    """The masses times e^(theta loss) over their sum, and the log of that sum."""
    log = np.log(p) + theta * losses
    most = float(log.max())
    q = np.exp(log - most)
    total = float(q.sum())
    return q / total, most + math.log(total)


def _log1m(x: float) -> float:
    return math.log1p(-x) if x < 1 else -math.inf
