"""Statistical tests with one false-alarm level, from exact laws or sound bounds; none is ever retried.

Every function returns a p-value or a bound that holds for any sample size, so a test fails by chance with probability
at most ALPHA. Each test that uses them names the mutant that it kills, and most run the mutant too.
"""

import math

import numpy as np
from scipy import stats

ALPHA = 1e-9


def scale_p(sample, sigma):
    """P-value of: the sample is N(0, sigma^2), by the exact chi-square law of its sum of squares."""
    squares = float(np.square(np.asarray(sample, dtype=float) / sigma).sum())
    law = stats.chi2(np.size(sample))
    return 2 * min(law.cdf(squares), law.sf(squares))


def ks_p(sample, cdf):
    """P-value of: the sample has this distribution function, by the exact Kolmogorov-Smirnov law."""
    return stats.kstest(np.asarray(sample, dtype=float), cdf, method="exact").pvalue


def binomial_p(successes, trials, p):
    """P-value of: the count is Binomial(trials, p)."""
    law = stats.binom(trials, p)
    return 2 * min(law.cdf(successes), law.sf(successes - 1))


def correlation_p(x, y):
    """P-value of: two independent standard normal samples (then their correlation has an exact t law)."""
    return stats.pearsonr(x, y).pvalue


def hoeffding(count, width, tests=1):
    """How far the mean of ``count`` bounded variables of this range may stray, jointly in ``tests`` tests."""
    return width * math.sqrt(math.log(2 * tests / ALPHA) / (2 * count))


def median_of_means(sample, sd, tests=1):
    """(estimate, tolerance) of a mean, sound for any law whose standard deviation is at most ``sd``.

    A block's mean is off by more than 2 sd / sqrt(block) with probability at most 1/4 (Chebyshev); the median is off
    only if half of the blocks are.
    """
    blocks = 1
    while stats.binom.sf(math.ceil(blocks / 2) - 1, blocks, 0.25) > ALPHA / tests:
        blocks += 2
    size = len(sample) // blocks
    means = np.asarray(sample[: blocks * size], dtype=float).reshape(blocks, size).mean(1)
    return float(np.median(means)), 2 * sd / math.sqrt(size)


def clopper_pearson(successes, trials, alpha):
    """(lower, upper) one-sided bounds of a probability, each wrong with probability at most ``alpha``."""
    low = stats.beta.ppf(alpha, successes, trials - successes + 1) if successes else 0.0
    high = stats.beta.isf(alpha, successes + 1, trials - successes) if successes < trials else 1.0
    return float(low), float(high)


def mu_lower_bound(without, with_record, threshold):
    """A lower bound of Gaussian DP's mu from scalar releases on two neighbours, wrong with probability ALPHA at most.

    ``threshold`` is chosen before any release is seen, so nothing is paid for having chosen it.
    """
    _, false_alarms = clopper_pearson(int((without > threshold).sum()), len(without), ALPHA / 2)
    hits, _ = clopper_pearson(int((with_record > threshold).sum()), len(with_record), ALPHA / 2)
    return float(stats.norm.ppf(hits) - stats.norm.ppf(false_alarms))
