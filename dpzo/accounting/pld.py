"""Privacy loss distributions: the whole law of the privacy loss, composed on a grid of losses, from above.

Removing and adding a record are composed apart, and the worse is taken. The grid is refined until what it adds to
epsilon is 2e-5 of it, or a transform would take seconds; any grid gives an upper bound.
"""

import math
from collections.abc import Iterator
from dataclasses import replace

from dp_accounting import GaussianDpEvent

from dpzo.accounting.composition import MOST, Composition
from dpzo.accounting.grid import Mixture, on_grid
from dpzo.accounting.pairs import pairs_of
from dpzo.accounting.parts import Part, mu_of
from dpzo.accounting.relation import Relation
from dpzo.errors import Refusal
from dpzo.sampling import BallsAndBinsDpEvent

Parts = tuple[Part, ...]
Sums = list[tuple[Mixture, int]]

_LOOSE = 2e-5  # of epsilon, that the grid may add
_CELLS = 2**20  # of one loss
_SHARE = 0.01  # of delta, that rounding may take before another tilt is tried


def pld_covers(parts: Parts, relation: Relation) -> bool:
    """Whether the loss of every part is known."""
    return all(pairs_of(part, relation) is not None for part in parts)


def pld_epsilon(parts: Parts, delta: float, relation: Relation) -> float:
    """Epsilon at a delta."""
    least = math.inf
    for reading in _readings(parts):
        worst = 0.0
        for sums in _directions(reading, relation):
            worst = max(worst, _epsilon(sums, delta, worst))
        least = min(least, worst)
    return least


def pld_delta(parts: Parts, epsilon: float, relation: Relation) -> float:
    """Delta at an epsilon."""
    least = 1.0
    for reading in _readings(parts):
        worst = 0.0
        for sums in _directions(reading, relation):
            worst = max(worst, _delta(sums, epsilon, worst))
        least = min(least, worst)
    return least


def _readings(parts: Parts) -> tuple[Parts, ...]:
    """An epoch of balls and bins is a Gaussian on everything, too: with little noise that is the better bound."""
    plain = tuple(
        replace(part, mechanism=GaussianDpEvent(part.mechanism.noise_multiplier))
        if isinstance(part.mechanism, BallsAndBinsDpEvent)
        else part
        for part in parts
    )
    return (parts,) if plain == parts else (parts, plain)


def _directions(parts: Parts, relation: Relation) -> Iterator[Sums]:
    """The losses to compose, for removing a record and, where it is another law, for adding one."""
    found = []
    for part in _merged(parts, relation):
        pairs = pairs_of(part, relation)
        if pairs is None:
            raise Refusal(
                f"an event whose privacy loss is known under {relation}", part.event, "Use the rdp accountant."
            )
        found.append([(pair, part.count) for pair in pairs])
    most = max(map(len, found))
    for direction in range(most):
        yield [each[min(direction, len(each) - 1)] for each in found]


def _merged(parts: Parts, relation: Relation) -> Parts:
    """Unsampled Gaussians together are one."""
    plain = tuple(part for part in parts if part.rate == 1 and type(part.mechanism) is GaussianDpEvent)
    if not plain:
        return parts
    mu = mu_of(plain, relation)
    assert mu is not None
    one = Part(GaussianDpEvent(relation.sensitivity / mu), 1.0, 1)
    return (one, *(part for part in parts if part not in plain))


def _epsilon(sums: Sums, delta: float, known: float) -> float:
    """Epsilon at a delta, or ``known`` where epsilon is at most that."""
    grid = _Grid(sums, delta)
    while True:
        composed = grid.composition()
        theta = composed.tilt_for(delta=delta)
        if known > 0 and composed.infinite + math.exp(min(composed.log_bound(theta, known), 0.0)) <= delta:
            return known
        if not grid.refine(composed, theta, max(composed.moments(theta).mean, 0.0)):
            break
    tilted = composed.tilted(theta)
    epsilon = tilted.epsilon(delta)
    if 0 < epsilon < math.inf and tilted.share > _SHARE:
        epsilon = min(epsilon, composed.tilted(composed.tilt_for(epsilon=epsilon)).epsilon(delta))
    return epsilon


def _delta(sums: Sums, epsilon: float, known: float) -> float:
    """Delta at an epsilon, or ``known`` where delta is at most that."""
    grid = _Grid(sums, 1e-60)
    while True:
        composed = grid.composition()
        theta = composed.tilt_for(epsilon=epsilon)
        bound = composed.infinite + math.exp(min(composed.log_bound(theta, epsilon), 0.0))
        if bound <= known:
            return known
        K = composed.moments(0.0)
        if K.mean - 8 * math.sqrt(K.variance) > epsilon:  # as good as certain to be told apart
            return 1.0
        if not grid.refine(composed, theta, 0.0):
            break
        grid.delta = max(bound, 1e-290)
    return min(1.0, composed.infinite + math.exp(min(composed.tilted(theta).log_delta(epsilon), 0.0)))


class _Grid:
    """The search for a grid that is fine enough, from a coarse one on."""

    def __init__(self, sums: Sums, delta: float) -> None:
        self.sums, self.delta = sums, delta
        self.steps = sum(count for _, count in sums)
        self.h = self._reach() / 2**12

    def _cuts(self) -> tuple[float, float]:
        # What is cut below goes up to the cut, at most to a small loss; what is cut above counts as an infinite one.
        return 1e-9 / self.steps, max(1e-7 * self.delta / self.steps, 1e-305)

    def _reach(self) -> float:
        ranges = [loss.range(*self._cuts()) for mixture, _ in self.sums for _, loss in mixture]
        # Where all of a loss is at one place, as far as double precision can tell, the grid is as fine as that.
        return max(max(high - low, 1e-9 * max(-low, high), 1e-300) for low, high in ranges)

    def composition(self) -> Composition:
        laws = [on_grid(mixture, self.h, *self._cuts()) for mixture, _ in self.sums]
        return Composition(laws, [count for _, count in self.sums])

    def refine(self, composed: Composition, theta: float, epsilon: float) -> bool:
        """Choose the next spacing; False where the grid is fine enough, or as fine as it may be.

        Fine enough: it adds to ``epsilon``, or to a standard deviation's share of it, no more than _LOOSE of that.
        """
        K = composed.moments(theta)
        deviation = math.sqrt(K.variance) + 1e-300
        slope = max(theta, 1 / deviation)  # of ln delta
        excess = K.added * (slope + 1) / 2 / (_LOOSE * max(epsilon, 0.25 / slope))
        least = max(self._reach() / _CELLS, 24 * deviation / MOST)
        if least * 0.99 <= self.h and (excess <= 1 or self.h <= least * 1.01):
            return False
        # What a grid adds falls with its spacing, or with the square of it.
        self.h = max(self.h / min(max(math.sqrt(excess) * 1.1, 2.0), 32.0) if excess > 1 else self.h, least)
        return True
