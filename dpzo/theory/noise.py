"""The printed noise of Lemma 2.2 against the exact cost of composed Gaussians.

Both write the noise on the mean of n clipped values as sigma = 4 C sqrt(2 T k) / (n epsilon): the paper with
k = log(e + epsilon / delta), the exact composition (Gaussian DP, under replace-one) with a smaller k, or, at a very
large epsilon, a larger one. So every theorem that follows holds with either.

Source: Zhang et al. 2024, Lemma 2.2; exact: T releases of sensitivity 2 C / n and noise sigma are together one
Gaussian of mu = 2 C sqrt(T) / (n sigma).
"""

import math

import dp_accounting

from dpzo.errors import Refusal, positive


def lemma_constant(epsilon: float, delta: float) -> float:
    """k = log(e + epsilon / delta)."""
    _check(epsilon, delta)
    return math.log(math.e + epsilon / delta)


def exact_constant(epsilon: float, delta: float) -> float:
    """The k at which the noise delivers exactly (epsilon, delta): epsilon^2 / (8 mu^2).

    >>> round(math.sqrt(lemma_constant(2.0, 1e-5) / exact_constant(2.0, 1e-5)), 2)  # the lemma's noise over this one
    2.48
    """
    _check(epsilon, delta)
    return (epsilon * float(dp_accounting.get_sigma_gaussian(epsilon, delta))) ** 2 / 8


def lemma_epsilon(epsilon: float, delta: float) -> float:
    """The epsilon that the lemma's noise really delivers when it is asked for ``epsilon``.

    >>> [round(lemma_epsilon(asked, 1e-5), 2) for asked in (2.0, 6.0, 200.0)]
    [0.74, 2.36, 221.37]
    """
    mu = epsilon / math.sqrt(8 * lemma_constant(epsilon, delta))
    return float(dp_accounting.get_epsilon_gaussian(1 / mu, delta))


def sigma(clip_threshold: float, steps: float, n: float, epsilon: float, constant: float) -> float:
    """The standard deviation of the noise on the mean, 4 C sqrt(2 T k) / (n epsilon).

    Source: Zhang et al. 2024, line 4 of Alg. 1 and line 3 of Alg. 2.
    """
    return 4 * clip_threshold * math.sqrt(2 * steps * constant) / (n * epsilon)


def _check(epsilon: float, delta: float) -> None:
    positive("epsilon", epsilon)
    if isinstance(delta, bool) or not isinstance(delta, int | float) or not 1e-200 <= delta < 1:
        raise Refusal("a delta above 0, from 1e-200 on, and below 1", delta, "Choose one well below 1/n.")
