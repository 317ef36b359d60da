"""Lower bounds on privacy loss from counts: pure functions, each wrong with probability at most ``alpha``.

Every bound is 0 where the data show nothing, and grows with the evidence. Thresholds and numbers of guesses must be
chosen before the data are seen.
"""

import math
from functools import partial

import numpy as np
from scipy import special, stats

from dpzo.types import Floats, Integers

ALPHA = 1e-9


def clopper_pearson(successes: int, trials: int, alpha: float) -> tuple[float, float]:
    """(lower, upper) one-sided bounds of a probability, each wrong with probability at most ``alpha``."""
    low = special.betaincinv(successes, trials - successes + 1, alpha) if successes else 0.0
    high = special.betainccinv(successes + 1, trials - successes, alpha) if successes < trials else 1.0
    return float(low), float(high)


def _rates(false_alarms: int, hits: int, trials: int, alpha: float) -> tuple[float, float]:
    return clopper_pearson(false_alarms, trials, alpha / 2)[1], clopper_pearson(hits, trials, alpha / 2)[0]


def mu_lower(false_alarms: int, hits: int, trials: int, alpha: float = ALPHA) -> float:
    """Gaussian DP's mu: no test of mu-GDP data has power above Phi(mu + Phi^-1(false alarm rate)).

    ``false_alarms`` and ``hits`` are how many of ``trials`` releases without, and with, the record passed the
    threshold.

    >>> mu_lower(0, 0, 1000), round(mu_lower(0, 1000, 1000), 2)
    (0.0, 4.06)
    """
    false_alarm, hit = _rates(false_alarms, hits, trials, alpha)
    return max(0.0, float(special.ndtri(hit) - special.ndtri(false_alarm)))


def epsilon_lower(false_alarms: int, hits: int, trials: int, delta: float = 0.0, alpha: float = ALPHA) -> float:
    """Epsilon at ``delta``: hit rate <= e^epsilon false alarm rate + delta, and so for misses and their opposite."""
    false_alarm, hit = _rates(false_alarms, hits, trials, alpha)
    ways = ((hit - delta, false_alarm), (1 - false_alarm - delta, 1 - hit))
    return max([0.0, *(math.log(above / below) for above, below in ways if above > 0 < below)])


def advantage_lower(false_alarms: int, hits: int, trials: int, alpha: float = ALPHA) -> float:
    """Total variation between the releases without and with the record: it is at least hit minus false alarm rate."""
    false_alarm, hit = _rates(false_alarms, hits, trials, alpha)
    return max(0.0, hit - false_alarm)


def _at_least(v: Integers, trials: int, q: float) -> Floats:
    """P[Binomial(trials, q) >= v]."""
    inside = np.clip(v, 1, trials)
    tail = special.betainc(inside, trials - inside + 1, q)
    return np.asarray(np.where(v < 1, 1.0, np.where(v > trials, 0.0, tail)))


def guesses_p(right: int, guesses: int, epsilon: float, delta: float = 0.0, canaries: int | None = None) -> float:
    """P-value of: one run that is (epsilon, delta)-DP allowed ``right`` of ``guesses`` guesses about fair coins.

    Each of ``canaries`` records (default: as many as guesses) was in the data or not by its own coin, and the guesses
    are a function of what was released. With W ~ Binomial(guesses, e^epsilon / (1 + e^epsilon)) and
    f(v) = P[W >= v], the chance of v right ones is at most f(v) + 2 m delta max_i (f(v - i) - f(v)) / i.

    Source: Steinke, Nasr and Jagielski 2023 (arXiv 2305.08846), the main theorem; its proof is not repeated here.
    """
    m = guesses if canaries is None else canaries
    q = 1 / (1 + math.exp(-epsilon))
    f = float(_at_least(np.array(right), guesses, q))
    if delta == 0:
        return min(1.0, f)
    i = np.arange(1, m + 1)
    slope = float(((_at_least(right - i, guesses, q) - f) / i).max())
    return min(1.0, f + 2 * m * delta * slope)


def epsilon_from_guesses(
    right: int, guesses: int, delta: float = 0.0, canaries: int | None = None, alpha: float = ALPHA
) -> float:
    """Epsilon at ``delta`` from one run: the least that gives this many right guesses a chance above ``alpha``.

    0 when 2 m delta > 1: the p-value need not increase with epsilon then. (Else it does: every term's derivative is
    a sum of probabilities with weights 1 - 2 m delta / i and 2 m delta / i.)

    >>> round(epsilon_from_guesses(100, 100, alpha=0.05), 2)
    3.49
    """
    m = guesses if canaries is None else canaries
    p = partial(guesses_p, right, guesses, delta=delta, canaries=canaries)
    if 2 * m * delta > 1 or p(0.0) >= alpha:
        return 0.0
    low, high = 0.0, 1.0
    while p(high) < alpha and high < 50:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if p(middle) < alpha else (low, middle)
    return low


def most(trials: int, probability: float, alpha: float = ALPHA) -> int:
    """The count that Binomial(trials, probability) exceeds with probability at most ``alpha``."""
    return int(stats.binom.isf(alpha, trials, min(1.0, probability)))


def binomial_p(successes: int, trials: int, probability: float) -> float:
    """P-value, two-sided, of: the count is Binomial(trials, probability)."""
    law = stats.binom(trials, probability)
    return min(1.0, 2 * float(min(law.cdf(successes), law.sf(successes - 1))))


def evidence(p: float) -> float:
    """-log10 of a p-value, from 0 (p = 1, or a sum of p-values above it) to 300."""
    return -math.log10(min(1.0, max(p, 1e-300))) + 0.0
