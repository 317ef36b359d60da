"""Privacy loss distributions: the whole law of the privacy loss, composed on a grid of losses.

dp-accounting rounds every step's loss to the grid from above, so that epsilon and delta are upper bounds. It composes
removing and adding a record apart and takes the worse.
"""

import math
from functools import reduce

import dp_accounting as dpa
from dp_accounting import GaussianDpEvent, LaplaceDpEvent
from dp_accounting.pld import PLDAccountant
from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution

from dpzo.accounting.parts import Part, divergence
from dpzo.accounting.relation import Relation
from dpzo.accounting.support import THEIRS, refuse_sampled_laplace, supported
from dpzo.sampling import BallsAndBinsDpEvent, amplified

Parts = tuple[Part, ...]


def grid(parts: Parts, relation: Relation) -> float:
    """The spacing of the grid of losses that PLD rounds to; any spacing gives an upper bound.

    Rounding adds about spacing^2 / 6 to the variance of each step's loss, so a spacing of 1/80 of the loss's standard
    deviation costs 1 in 100,000 of epsilon. For few steps the rounding itself counts, 1e-4 of it at one step. A grid
    of more than 1e5 points within one loss would take seconds; then it is coarser.
    """
    known = [(divergence(part, relation), part) for part in parts]
    if any(spread is None for spread, _ in known):
        return 1e-4  # dp-accounting's own
    # dp-accounting composes unsampled Gaussians into one before it rounds.
    merged = [
        (spread * part.count, 1)
        if type(part.mechanism) is GaussianDpEvent and part.rate == 1
        else (spread * part.count, part.count)
        for spread, part in known
        if spread is not None
    ]
    steps = sum(count for _, count in merged)
    deviation = math.sqrt(sum(spread for spread, _ in merged) / steps)
    largest = max(_largest_loss(part, relation) for part in parts)
    return max(min(deviation / 80, 1e-4 * math.sqrt(steps), 1e-2), largest / 1e5)


def _largest_loss(part: Part, relation: Relation) -> float:
    shift = relation.sensitivity / part.mechanism.noise_multiplier
    most = shift if isinstance(part.mechanism, LaplaceDpEvent) else shift * 10 + shift**2 / 2
    return max(0.0, most + math.log(part.rate)) if part.rate < 1 else 0.0


def _composed(parts: Parts, relation: Relation) -> PLDAccountant:
    for part in parts:
        refuse_sampled_laplace(part, relation)
    spacing = grid(parts, relation)
    if all(part.is_plain for part in parts):  # dp-accounting's PLD knows no Laplace under replace-one
        parts, relation = tuple(part.restated(relation) for part in parts), Relation.ADD_REMOVE
    with supported("pld", relation):
        return PLDAccountant(THEIRS[relation], spacing).compose(dpa.ComposedDpEvent([part.event for part in parts]))


def pld_epsilon(parts: Parts, delta: float, relation: Relation) -> float:
    """Epsilon at a delta."""
    plain = float(_composed(parts, relation).get_epsilon(delta))
    less = _binned(parts, relation)
    return plain if less is None else min(plain, float(less.get_epsilon_for_delta(delta)))


def pld_delta(parts: Parts, epsilon: float, relation: Relation) -> float:
    """Delta at an epsilon."""
    plain = float(_composed(parts, relation).get_delta(epsilon))
    less = _binned(parts, relation)
    return plain if less is None else min(plain, float(less.get_delta_for_epsilon(epsilon)))


def _binned(parts: Parts, relation: Relation) -> PrivacyLossDistribution | None:
    """The loss of balls and bins, where it is known; as a plain Gaussian an epoch of it is accounted anyway."""
    if relation is Relation.REPLACE_ONE or not all(isinstance(part.mechanism, BallsAndBinsDpEvent) for part in parts):
        return None
    spacing = grid(parts, relation)
    losses = [amplified(part.mechanism, part.count, spacing) for part in parts]
    return reduce(PrivacyLossDistribution.compose, losses)
