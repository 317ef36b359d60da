"""An event as a list of parts: how often each mechanism is used, and at which Poisson rate."""

import math
from dataclasses import dataclass, replace

import attr
import dp_accounting as dpa
from dp_accounting import DpEvent, GaussianDpEvent, LaplaceDpEvent

from dpzo.accounting.relation import Relation
from dpzo.sampling import BallsAndBinsDpEvent


@dataclass(frozen=True, slots=True)
class Part:
    """``count`` uses of ``mechanism``, each on a Poisson sample at ``rate`` (1: on everything)."""

    mechanism: DpEvent
    rate: float
    count: int

    @property
    def event(self) -> DpEvent:
        """The part as an event again."""
        one = self.mechanism if self.rate == 1 else dpa.PoissonSampledDpEvent(self.rate, self.mechanism)
        return dpa.SelfComposedDpEvent(one, self.count)

    @property
    def is_private(self) -> bool:
        """Whether the mechanism has any noise, as far as the squares of losses can be told from infinity."""
        noisy = getattr(self.mechanism, "noise_multiplier", 1.0) > 1e-60
        return noisy and not isinstance(self.mechanism, dpa.NonPrivateDpEvent)

    def restated(self, relation: Relation) -> "Part":
        """Return the part with its multiplier relative to the sensitivity under ``relation``, no longer to C."""
        return replace(self, mechanism=_restated(self.mechanism, relation.sensitivity))


def parts_of(event: DpEvent) -> tuple[Part, ...]:
    """Return the parts of nested compositions, equal ones counted together; nothing for what releases nothing."""
    counts: dict[tuple[DpEvent, float], int] = {}

    def walk(event: DpEvent, count: int) -> None:
        if isinstance(event, dpa.SelfComposedDpEvent):
            walk(event.event, count * event.count)
        elif isinstance(event, dpa.ComposedDpEvent):
            for one in event.events:
                walk(one, count)
        elif count > 0 and not isinstance(event, dpa.NoOpDpEvent):
            rate = 1.0
            if isinstance(event, dpa.PoissonSampledDpEvent) and event.sampling_probability > 0:
                rate, event = float(event.sampling_probability), event.event
            key = (_hashable(event), rate)
            counts[key] = counts.get(key, 0) + count

    walk(event, 1)
    return tuple(Part(mechanism, rate, count) for (mechanism, rate), count in counts.items())


def gaussian_mu(event: DpEvent, relation: Relation) -> float | None:
    """mu of Gaussian DP when ``event`` is a composition of unsampled Gaussians alone; otherwise None.

    Adaptive composition of Gaussian mechanisms is exactly one Gaussian mechanism: mu^2 = sum (sensitivity / sigma)^2.
    """
    return mu_of(parts_of(event), relation)


def mu_of(parts: tuple[Part, ...], relation: Relation) -> float | None:
    """``gaussian_mu`` of parts."""
    if not all(isinstance(part.mechanism, GaussianDpEvent) and part.rate == 1 for part in parts):
        return None
    shares = (relation.sensitivity / part.mechanism.noise_multiplier * math.sqrt(part.count) for part in parts)
    return math.hypot(*shares)  # no square overflows


def divergence(part: Part, relation: Relation) -> float | None:
    """Renyi divergence of order 2 of one use of ``part``, or about that; None for mechanisms it does not know.

    It is mu^2 for a Gaussian, and for many small steps the variance of the privacy loss, which the sum of the losses
    comes to depend on alone. So it tells how fine a grid of losses must be and where to look for the noise; no
    guarantee rests on it.
    """
    mechanism, rate, steps = part.mechanism, part.rate, 1
    if isinstance(mechanism, BallsAndBinsDpEvent):
        rate, steps = 1 / mechanism.bins, mechanism.bins
    elif isinstance(mechanism, dpa.TruncatedSubsampledGaussianDpEvent):
        rate = min(mechanism.sampling_probability, mechanism.truncated_batch_size / mechanism.dataset_size)
    elif not isinstance(mechanism, GaussianDpEvent | LaplaceDpEvent):
        return None
    shift = min(relation.sensitivity / mechanism.noise_multiplier, 20.0)
    if isinstance(mechanism, LaplaceDpEvent):
        chi_square = (2 * math.expm1(shift) + math.expm1(-2 * shift)) / 3
    else:
        chi_square = math.expm1(shift**2)
    return steps * math.log1p(rate**2 * chi_square)


def _restated(mechanism: DpEvent, sensitivity: int) -> DpEvent:
    if isinstance(mechanism, GaussianDpEvent | LaplaceDpEvent):
        return attr.evolve(mechanism, noise_multiplier=mechanism.noise_multiplier / sensitivity)
    if isinstance(mechanism, dpa.SampledWithoutReplacementDpEvent):
        inner = _restated(mechanism.event, sensitivity)
        return dpa.SampledWithoutReplacementDpEvent(mechanism.source_dataset_size, mechanism.sample_size, inner)
    return mechanism


def _hashable(event: DpEvent) -> DpEvent:
    # dp-accounting's compositions hold a list, which no cache can take.
    if isinstance(event, dpa.ComposedDpEvent):
        return dpa.ComposedDpEvent(tuple(map(_hashable, event.events)))
    if isinstance(event, dpa.SelfComposedDpEvent):
        return dpa.SelfComposedDpEvent(_hashable(event.event), event.count)
    if isinstance(event, dpa.PoissonSampledDpEvent):
        return dpa.PoissonSampledDpEvent(event.sampling_probability, _hashable(event.event))
    return event
