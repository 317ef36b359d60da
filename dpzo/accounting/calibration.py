"""How much noise a target needs: the least that an accountant allows, and what the paper's lemma asks for.

Gaussian or Laplace? Sampled at rate q, a step's loss is ln(1 - q + q e^l), l the loss of a step that has the record.
At deviation s C its variance is about q^2 chi^2 (for the scalar release, under add/remove), with

    chi^2 = e^(1/s^2) - 1 for a Gaussian,    (2 e^x + e^-2x) / 3 - 1 with x = sqrt(2) / s for Laplace.

For large s these are 1 / s^2 and 2 / s^2: many small losses add up to a normal one, and Laplace needs sqrt(2) times
the deviation. For small s the first grows like e^(1/s^2), since a Gaussian's l has no bound, and the second only like
e^(sqrt(2)/s), since Laplace's is at most x. They cross at s of about 1. So Laplace wins where the target leaves the
noise on the sum below C: a high epsilon with few records a step. At q = 0.016, T = 1000, delta = 1e-5, in deviations
over C:

    epsilon      1       2       4       8
    Gaussian   2.063   1.263   0.8825  0.6762
    Laplace    2.527   1.346   0.7753  0.5047
"""

import math
from collections.abc import Callable

from dp_accounting import DpEvent

from dpzo.accounting.accountants import choose, epsilon, mu_for
from dpzo.accounting.parts import divergence, parts_of
from dpzo.accounting.relation import Relation, check_delta
from dpzo.errors import Refusal, positive

_TOLERANCE = 1e-4
_MOST = 2.0**32  # no mechanism takes more


def calibrate(
    event: Callable[[float], DpEvent],
    target_epsilon: float,
    target_delta: float,
    relation: Relation,
    accountant: str | None = None,
) -> float:
    """The smallest noise multiplier, to four digits and on the safe side, with epsilon at most the target.

    ``event`` maps a noise multiplier to the whole run's event, and must cost less as the multiplier grows. The answer
    was asked for at this multiplier: its epsilon is at most the target, whatever the search assumed on its way.
    """
    positive("target_epsilon", target_epsilon)
    check_delta(target_delta, accountant=accountant)
    name = choose(event(1.0), accountant, relation)

    def cost(multiplier: float) -> float:
        return epsilon(event(multiplier), target_delta, relation, name)

    return _first_below(cost, target_epsilon, _guess(event, target_epsilon, target_delta, relation))


def _guess(event: Callable[[float], DpEvent], target_epsilon: float, target_delta: float, relation: Relation) -> float:
    """The multiplier at which the run's divergence is that of the one Gaussian that meets the target."""

    def total(multiplier: float) -> float:
        each = [(divergence(part, relation), part.count) for part in parts_of(event(multiplier))]
        return math.fsum(spread * count for spread, count in each if spread is not None)

    if target_delta == 0 or total(1.0) == 0:
        return 1.0
    return _first_below(total, mu_for(target_epsilon, target_delta) ** 2, 1.0)


def _first_below(cost: Callable[[float], float], target: float, guess: float) -> float:
    """The least multiplier, to the tolerance and from above, with a cost at most the target: a falling cost's root.

    By secants through the logarithms, which are nearly straight, each aimed a little beyond the root on the side that
    the bracket still lacks; every third step halves the bracket, so that no shape of the cost can stall it.
    """
    low, high, costs = _bracket(cost, target, guess)
    if costs[low] <= target:
        return low
    turn = 0
    while high / low > 1 + _TOLERANCE:
        turn += 1
        middle = math.sqrt(low * high)
        above, below = costs[low], costs[high]
        if turn % 3 and below > 0 and above < math.inf:
            share = math.log(above / target) / math.log(above / below)
            aim = low * (high / low) ** share
            safe = aim * (1 + _TOLERANCE / 3)
            # Near enough to the root from one side: step over it to the other.
            middle = aim * (1 - _TOLERANCE / 3) if safe >= high * (1 - _TOLERANCE / 3) else safe
            middle = min(max(middle, low * (1 + _TOLERANCE / 4)), high * (1 - _TOLERANCE / 4))
        costs[middle] = cost(middle)
        low, high = (low, middle) if costs[middle] <= target else (middle, high)
    return high


def _bracket(cost: Callable[[float], float], target: float, guess: float) -> tuple[float, float, dict[float, float]]:
    """A multiplier too small, one large enough, and their costs."""
    factor, high, costs = 1.05, guess, {guess: cost(guess)}
    while costs[high] > target:
        high, factor = high * factor, min(factor * factor, 2.0)
        costs[high] = cost(high)
        if high > _MOST:
            raise Refusal(
                f"an epsilon that a noise multiplier of at most {_MOST:.0f} reaches",
                f"{target}, above which it still is with that",
                "Choose a larger epsilon or delta, or fewer steps.",
            )
    below = [multiplier for multiplier, spent in costs.items() if spent > target]
    low = max(below) if below else high
    while costs[low] <= target and low > 1e-6:  # below that, so little noise is enough that none of it matters
        high, low, factor = low, low / factor, min(factor * factor, 2.0)
        costs[low] = cost(low)
    return low, high, costs


def paper_noise_multiplier(target_epsilon: float, target_delta: float, steps: int) -> float:
    """The noise multiplier of the paper's own calibration, for a full batch under replace-one.

    sigma = 4 C sqrt(2 T log(e + eps/delta)) / (n eps) on the mean is 4 sqrt(2 T log(e + eps/delta)) / eps on the sum in
    units of C. It wants 2.2 to 2.6 times the exact noise for epsilon from 1 to 6, and too little near epsilon = 200.

    Source: Zhang et al. 2024, Lemma 2.2 and line 4 of Alg. 1 and 2.

    >>> round(paper_noise_multiplier(2.0, 1e-5, 10_000) / 1024, 4)
    0.965
    """
    positive("target_epsilon", target_epsilon)
    check_delta(target_delta)
    return 4 * math.sqrt(2 * steps * math.log(math.e + target_epsilon / target_delta)) / target_epsilon
