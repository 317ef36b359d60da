"""From a DpEvent to epsilon, and back to the noise that a target needs.

Every function asks for the neighbouring relation, because the same run has another epsilon under each. An event's
noise multiplier is relative to C, the most that one record can contribute: under add/remove and zero-out a record
moves the sum by C, under replace-one by 2C.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import lru_cache

import dp_accounting as dpa
from absl import logging as absl_logging
from dp_accounting import DpEvent
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant

from dpzo.errors import Refusal, positive


class Relation(StrEnum):
    """Which two data sets the guarantee makes indistinguishable."""

    ADD_REMOVE = "add-remove"
    REPLACE_ONE = "replace-one"
    ZERO_OUT = "zero-out"

    @property
    def _theirs(self) -> dpa.NeighboringRelation:
        relations = dpa.NeighboringRelation
        return {
            Relation.ADD_REMOVE: relations.ADD_OR_REMOVE_ONE,
            Relation.REPLACE_ONE: relations.REPLACE_ONE,
            Relation.ZERO_OUT: relations.REPLACE_SPECIAL,
        }[self]

    @property
    def sensitivity(self) -> int:
        """How far one change moves a sum of contributions bounded by 1."""
        return 2 if self is Relation.REPLACE_ONE else 1


def check_delta(delta: float, n: int | None = None) -> None:
    """Refuse a delta outside (0, 1), or one of 1/n or more, at which publishing a random record would be allowed."""
    if not isinstance(delta, float) or not 0 < delta < 1:
        raise Refusal("a delta strictly between 0 and 1", delta, "Choose one well below 1/n, such as 1e-5.")
    if n is not None and delta * n >= 1:
        raise Refusal(
            f"a delta below 1/n = {1 / n:.3g}",
            delta,
            "At 1/n, publishing one record in full would count as private; choose a smaller delta.",
        )


def gaussian_mu(event: DpEvent, relation: Relation) -> float | None:
    """mu of Gaussian DP when ``event`` is a composition of unsampled Gaussians alone; otherwise None.

    Adaptive composition of Gaussian mechanisms is exactly one Gaussian mechanism: mu^2 = sum (sensitivity / sigma)^2.
    """
    if isinstance(event, dpa.GaussianDpEvent):
        return float(relation.sensitivity / event.noise_multiplier)
    if isinstance(event, dpa.SelfComposedDpEvent):
        inner = gaussian_mu(event.event, relation)
        return None if inner is None else inner * math.sqrt(event.count)
    if isinstance(event, dpa.ComposedDpEvent):
        parts = [gaussian_mu(e, relation) for e in event.events]
        return None if None in parts else math.sqrt(math.fsum(p * p for p in parts if p is not None))
    return None


def _closed_form(event: DpEvent, delta: float, relation: Relation) -> float:
    mu = gaussian_mu(event, relation)
    if mu is None:
        raise Refusal(
            "a composition of full-batch Gaussians", event, "Use the pld accountant for sampled or other mechanisms."
        )
    return float(dpa.get_epsilon_gaussian(1 / mu, delta))


def _pld(event: DpEvent, delta: float, relation: Relation, interval: float = 1e-4) -> float:
    # dp-accounting's PLD rounds pessimistically to this grid of losses: its epsilon is an upper bound.
    accountant = PLDAccountant(relation._theirs, value_discretization_interval=interval)
    return float(accountant.compose(event).get_epsilon(delta))


_INTEGER_ORDERS = (*range(2, 65), 80, 96, 128, 192, 256, 384, 512, 1024)
_ORDERS = (*(1 + k / 10 for k in range(1, 10)), *_INTEGER_ORDERS)


def _rdp(event: DpEvent, delta: float, relation: Relation, orders: tuple[float, ...] = _ORDERS) -> float:
    if (mu := gaussian_mu(event, relation)) is not None:
        # dp-accounting's RDP takes a Gaussian's multiplier as relative to the sensitivity whatever the relation,
        # where its PLD doubles it under replace-one: state the sensitivity ourselves.
        event, relation = dpa.GaussianDpEvent(1 / mu), Relation.ADD_REMOVE
    with _quiet():
        try:
            return float(RdpAccountant(orders, relation._theirs).compose(event).get_epsilon(delta))
        except dpa.UnsupportedEventError as error:
            raise Refusal(
                "an event that RDP covers under this relation", f"{relation}", "Use the pld accountant."
            ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    level = absl_logging.get_verbosity()
    absl_logging.set_verbosity(absl_logging.ERROR)  # orders that do not converge are left out, which is safe
    try:
        yield
    finally:
        absl_logging.set_verbosity(level)


ACCOUNTANTS: dict[str, Callable[[DpEvent, float, Relation], float]] = {
    "pld": _pld,
    "rdp": _rdp,
    "closed-form": _closed_form,
}


def choose(event: DpEvent, accountant: str | None, relation: Relation) -> str:
    """Return the accountant's name: the one asked for, or else the exact closed form where it applies and PLD."""
    if accountant is None:
        return "pld" if gaussian_mu(event, relation) is None else "closed-form"
    if accountant not in ACCOUNTANTS:
        raise Refusal(f"one of the accountants {', '.join(ACCOUNTANTS)}", repr(accountant), "Choose one.")
    return accountant


def epsilon(event: DpEvent, delta: float, relation: Relation, accountant: str | None = None) -> float:
    """The epsilon of ``event`` at ``delta``: an upper bound (pld, rdp) or exact (closed-form).

    >>> round(epsilon(dpa.GaussianDpEvent(1.0), 1e-5, Relation.ADD_REMOVE), 3)
    4.377
    >>> round(epsilon(dpa.GaussianDpEvent(2.0), 1e-5, Relation.REPLACE_ONE), 3)
    4.377
    """
    check_delta(delta)
    return _epsilon(_hashable(event), delta, relation, accountant)


@lru_cache(maxsize=4096)
def _epsilon(event: DpEvent, delta: float, relation: Relation, accountant: str | None) -> float:
    if _has_no_privacy(event):
        return math.inf
    return ACCOUNTANTS[choose(event, accountant, relation)](event, delta, relation)


def _hashable(event: DpEvent) -> DpEvent:
    # dp-accounting's compositions hold a list, which no cache can take.
    if isinstance(event, dpa.ComposedDpEvent):
        return dpa.ComposedDpEvent(tuple(map(_hashable, event.events)))
    if isinstance(event, dpa.SelfComposedDpEvent):
        return dpa.SelfComposedDpEvent(_hashable(event.event), event.count)
    return event


def _has_no_privacy(event: DpEvent) -> bool:
    if isinstance(event, dpa.ComposedDpEvent):
        return any(map(_has_no_privacy, event.events))
    if isinstance(event, dpa.SelfComposedDpEvent | dpa.PoissonSampledDpEvent):
        return _has_no_privacy(event.event)
    return isinstance(event, dpa.NonPrivateDpEvent)


def calibrate(
    event: Callable[[float], DpEvent],
    target_epsilon: float,
    target_delta: float,
    relation: Relation,
    accountant: str | None = None,
) -> float:
    """The smallest noise multiplier, to four digits and on the safe side, with epsilon at most the target.

    ``event`` maps a noise multiplier to the whole run's event, and must cost less as the multiplier grows.
    """
    positive("target_epsilon", target_epsilon)
    check_delta(target_delta)
    name = choose(event(1.0), accountant, relation)

    def cost(multiplier: float) -> float:
        return epsilon(event(multiplier), target_delta, relation, name)

    def first_below(cost: Callable[[float], float], low: float, high: float, tolerance: float) -> float:
        while high / low > 1 + tolerance:
            middle = math.sqrt(low * high)
            low, high = (low, middle) if cost(middle) <= target_epsilon else (middle, high)
        return high

    if name != "pld":
        return first_below(cost, *_bracket(cost, target_epsilon, 1.0, 2.0), 1e-4)

    # RDP at integer orders is quick and a little above PLD: search PLD's answer around it. RDP does not cover sampled
    # replace-one, where twice add/remove's noise is near the answer. Either is a guess; PLD itself checks the bracket.
    def quick(multiplier: float) -> float:
        return _rdp(event(multiplier / relation.sensitivity), target_delta, Relation.ADD_REMOVE, _INTEGER_ORDERS)

    # With little noise PLD's fine grid takes a second a question: ask a coarser one first.
    def coarse(multiplier: float) -> float:
        return _pld(event(multiplier), target_delta, relation, 1e-3)

    guess = first_below(quick, *_bracket(quick, target_epsilon, 1.0, 2.0), 1e-2)
    guess = first_below(coarse, *_bracket(coarse, target_epsilon, guess, 1.1), 1e-4)
    return first_below(cost, *_bracket(cost, target_epsilon, guess, 1.0001), 1e-4)


def _bracket(cost: Callable[[float], float], target: float, guess: float, factor: float) -> tuple[float, float]:
    high = guess
    while cost(high) > target:
        high *= factor
        factor = min(factor * factor, 2.0)
        if high > 1e9:
            raise Refusal("an epsilon that some noise can reach", target, "Choose a larger epsilon or fewer steps.")
    low = high / factor
    while cost(low) <= target:
        factor = min(factor * factor, 2.0)
        low, high = low / factor, low
        if low < 1e-6:
            break  # so large an epsilon that this little noise is already enough
    return low, high


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
