"""What is released of a batch: a clipped sum plus noise. Each mechanism knows its DpEvent.

``values`` are directional derivatives (f(x + lambda u) - f(x - lambda u)) / (2 lambda), so the clip threshold C is in
units of the derivative. (Papers that clip the raw difference use C_raw = 2 lambda C.) The noise multiplier is the
noise's standard deviation over C. Adding or removing one record moves the sum by at most C, replacing one by at most
2C; which of the two is meant is the accountant's relation, never the mechanism's.
"""

from dataclasses import dataclass

import numpy as np
from dp_accounting import DpEvent, GaussianDpEvent, NonPrivateDpEvent

from dpzo.errors import positive
from dpzo.types import Entropy, Floats


def finite(values: Floats) -> Floats:
    """Non-finite values become 0, by rule: a record's overflow must neither poison the sum nor stop the run."""
    return np.where(np.isfinite(values), values, 0.0)


@dataclass(frozen=True)
class GaussianMechanism:
    """sum_i clip_C(v_i) + N(0, (noise_multiplier * C)^2), one scalar.

    Source: Zhang et al. 2024, Alg. 2, the bracket of line 5 (there divided by n).
    """

    clip_threshold: float
    noise_multiplier: float

    def __post_init__(self) -> None:
        positive("clip_threshold", self.clip_threshold)
        positive("noise_multiplier", self.noise_multiplier)

    def release(self, values: Floats, noise: Entropy) -> float:
        """Return the noisy sum of ``values`` (b,); an empty batch releases noise alone."""
        C = self.clip_threshold
        z = float(noise.normal(1)[0])
        return float(np.clip(finite(values), -C, C).sum()) + self.noise_multiplier * C * z

    def event(self) -> DpEvent:
        """Return the release's event; its multiplier is relative to one record's largest contribution C."""
        return GaussianDpEvent(self.noise_multiplier)


@dataclass(frozen=True)
class GaussianVectorMechanism:
    """sum_i clip_C(v_i u) + N(0, (noise_multiplier * C)^2 I_d), a vector in R^d: DPGD-0th's.

    Source: Zhang et al. 2024, Alg. 1, lines 4 and 5.
    """

    clip_threshold: float
    noise_multiplier: float

    def __post_init__(self) -> None:
        positive("clip_threshold", self.clip_threshold)
        positive("noise_multiplier", self.noise_multiplier)

    def clipped_sum(self, values: Floats, norm: float) -> float:
        """Return s with s * u = sum_i clip_C(v_i u), for ||u|| = ``norm``: all estimators lie on the line of u."""
        bound = self.clip_threshold / norm
        return float(np.clip(finite(values), -bound, bound).sum())

    def event(self) -> DpEvent:
        """Return the release's event: a d-dimensional Gaussian costs what a scalar one does."""
        return GaussianDpEvent(self.noise_multiplier)


@dataclass(frozen=True)
class PlainSum:
    """sum_i v_i: no clip, no noise, no privacy. MeZO's."""

    def release(self, values: Floats, noise: Entropy) -> float:
        """Return the sum of the finite values."""
        return float(finite(values).sum())

    def event(self) -> DpEvent:
        """Return the event that no accountant gives a finite epsilon."""
        return NonPrivateDpEvent()


Mechanism = GaussianMechanism | GaussianVectorMechanism | PlainSum
