"""What a plan says of one step, read from its DpEvent, and what releases say of it."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import dp_accounting as dpa
import numpy as np
from dp_accounting import DpEvent
from scipy import stats

from dpzo.accounting import Relation
from dpzo.audit import bounds
from dpzo.errors import Refusal
from dpzo.mechanisms import (
    EachGaussianMechanism,
    GaussianMechanism,
    GaussianVectorMechanism,
    LaplaceMechanism,
    Mechanism,
    PlainSum,
)
from dpzo.types import Floats


class Finding(NamedTuple):
    """One thing that was looked at: ``found`` must not exceed ``claimed``.

    ``found`` is a lower bound, a count, or the evidence -log10(p) against a claim; then ``claimed`` is -log10(alpha).
    """

    what: str
    measure: str
    claimed: float
    found: float

    @property
    def passed(self) -> bool:
        """Whether nothing speaks against the claim."""
        return self.found <= self.claimed


def against(what: str, p: float, alpha: float) -> Finding:
    """The finding of a test whose p-value is ``p``."""
    return Finding(what, "-log10 p", bounds.evidence(alpha), bounds.evidence(p))


@dataclass(frozen=True)
class Claim:
    """One step as a law on the line, in units of the noise's scale: what an attacker who looks at it may learn.

    With probability ``rate`` the record is in the batch and moves the release's mean; a change of it moves the mean
    by at most ``shift``, which is mu for Gaussian noise and a pure epsilon for Laplace noise.
    """

    laplace: bool
    shift: float
    rate: float = 1.0

    @classmethod
    def of(cls, event: DpEvent, relation: Relation) -> "Claim":
        """Read the event of a mechanism, or of one step of a plan.

        Raises:
            Refusal: an event that promises nothing, or whose law is not known here.
        """
        if isinstance(event, dpa.SelfComposedDpEvent) and event.count == 1:
            return cls.of(event.event, relation)
        if isinstance(event, dpa.PoissonSampledDpEvent):
            inner = cls.of(event.event, relation)
            return cls(inner.laplace, inner.shift, event.sampling_probability * inner.rate)
        if isinstance(event, dpa.GaussianDpEvent | dpa.LaplaceDpEvent):
            return cls(isinstance(event, dpa.LaplaceDpEvent), relation.sensitivity / event.noise_multiplier)
        raise Refusal(
            "one Gaussian or Laplace release, Poisson-sampled or not, to audit",
            type(event).__name__,
            "Audit its mechanism alone; a run without noise has no claim to check.",
        )

    @property
    def measure(self) -> str:
        """What ``shift`` is called."""
        return "epsilon" if self.laplace else "mu"

    def means(self, relation: Relation) -> tuple[float, float]:
        """Where the record puts the mean, in the two worlds that differ the most."""
        return (-self.shift / 2, self.shift / 2) if relation is Relation.REPLACE_ONE else (0.0, self.shift)

    def tail(self, threshold: float, mean: float) -> float:
        """Probability that a release passes ``threshold`` when the record, if it is in the batch, adds ``mean``."""
        law: Any = stats.laplace if self.laplace else stats.norm
        return float((1 - self.rate) * law.sf(threshold) + self.rate * law.sf(threshold - mean))

    def lower(self, without: Floats, with_record: Floats, relation: Relation, alpha: float) -> float:
        """A lower bound of ``shift`` from releases in the two worlds, wrong with probability at most ``alpha``.

        The threshold lies where the claim says that a test is at its best: half way between the two means, or, for
        the pure epsilon of unsampled Laplace noise, at the upper one. Sampled steps are judged by their total
        variation: rate (2 Phi(mu/2) - 1), or rate (1 - exp(-epsilon/2)).
        """
        low, high = self.means(relation)
        threshold = high if self.laplace and self.rate == 1 else (low + high) / 2
        counts = int((without > threshold).sum()), int((with_record > threshold).sum()), len(without)
        if self.rate == 1:
            return (bounds.epsilon_lower if self.laplace else bounds.mu_lower)(*counts, alpha=alpha)
        share = min(1.0, bounds.advantage_lower(*counts, alpha) / self.rate)
        return 2 * float(-np.log1p(-share) if self.laplace else stats.norm.ppf((1 + share) / 2)) if share else 0.0


Noisy = GaussianMechanism | EachGaussianMechanism | LaplaceMechanism | GaussianVectorMechanism


def noisy(mechanism: Mechanism) -> Noisy:
    """The mechanism, when it claims something."""
    if isinstance(mechanism, PlainSum):
        raise Refusal("a mechanism with noise to audit", "PlainSum", "It claims nothing, so nothing can fail.")
    return mechanism


def scale(mechanism: Mechanism) -> float:
    """The noise's scale on the sum: noise_multiplier * C."""
    return noisy(mechanism).noise_multiplier * noisy(mechanism).clip_threshold
