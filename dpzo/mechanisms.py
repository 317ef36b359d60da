"""What is released of a batch: a clipped sum plus noise. Each mechanism knows its DpEvent.

``values`` are directional derivatives (f(x + lambda u) - f(x - lambda u)) / (2 lambda), so the clip threshold C is in
units of the derivative. (Papers that clip the raw difference use C_raw = 2 lambda C.) They have shape (b,), or (b, K)
for K directions, and a release has shape () or (K,). Adding or removing one record moves the sum by at most C,
replacing one by at most 2C, in the Euclidean norm; which of the two is meant is the accountant's relation, never the
mechanism's.

Clipped values are put on the grid of whole multiples of C / 2**24, so that their sum is an exact integer, whatever the
order and the split of the batch; and so is the noise (see ``dpzo.noise``). The release is a post-processing of the
ideal mechanism on the grid's values, each of which is a function of one record and within [-C, C].
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from dp_accounting import DpEvent, GaussianDpEvent, LaplaceDpEvent, NonPrivateDpEvent

from dpzo.errors import Refusal, positive
from dpzo.noise import rounded_gaussian, rounded_laplace
from dpzo.types import Entropy, Floats, Integers

GRID = 2**24  # steps of the grid in C: a value keeps as many bits as a float32 loss had
_LARGEST = 2.0**32  # noise multipliers beyond it would leave 64-bit integers
_WIDEST = 2.0**960  # beyond it, and below its inverse, a release or the grid's step would leave double precision


def finite(values: Floats) -> Floats:
    """Non-finite values become 0, by rule: a record's overflow must neither poison the sum nor stop the run."""
    return np.where(np.isfinite(values), values, 0.0)


def on_grid(values: Floats, clip_threshold: float) -> Integers:
    """Each value clipped to [-C, C] on its own, in whole steps of C / GRID (to nearest)."""
    v = np.minimum(np.maximum(finite(values), -clip_threshold), clip_threshold)  # np.clip takes ten times as long
    return np.asarray(np.rint(v / clip_threshold * GRID), dtype=np.int64)


def on_grid_jointly(values: Floats, clip_threshold: float) -> Integers:
    """Each row of ``values`` (b, K) scaled to Euclidean length at most C, in whole steps of C / GRID (toward 0)."""
    v = finite(values)
    v = v / np.maximum(np.abs(v).max(1, keepdims=True), clip_threshold)  # now no square overflows
    v /= np.maximum(np.sqrt(np.square(v).sum(1, keepdims=True)), 1)
    whole = np.trunc(v * GRID).astype(np.int64)
    # Double precision may leave a row longer than C by a hair; integers tell.
    while (long := np.square(whole).sum(1) > GRID**2).any():
        v[long] *= 1 - 2.0**-40
        whole = np.trunc(v * GRID).astype(np.int64)
    return np.asarray(whole, dtype=np.int64)


def _countable(directions: int) -> None:
    if isinstance(directions, bool) or not isinstance(directions, int) or directions < 1:
        raise Refusal("a whole number of directions", directions, "Choose 1 or more.")


def _single(directions: int, what: str) -> None:
    if directions != 1:
        raise Refusal(f"one direction for {what}", directions, "Use the Gaussian for several.")


@dataclass(frozen=True)
class _Clipped:
    """A clip threshold C, a noise multiplier (the noise's scale over C), and K, the number of directions."""

    clip_threshold: float
    noise_multiplier: float
    directions: int = 1

    def __post_init__(self) -> None:
        positive("clip_threshold", self.clip_threshold)
        positive("noise_multiplier", self.noise_multiplier)
        if not 1 / _WIDEST <= self.clip_threshold <= _WIDEST:
            raise Refusal("a clip threshold from 2**-960 to 2**960", self.clip_threshold, "Rescale the loss.")
        if self.noise_multiplier > _LARGEST:
            raise Refusal("a noise multiplier of at most 2**32", self.noise_multiplier, "Ask for a larger epsilon.")
        _countable(self.directions)

    def _released(self, values: Floats, clip: Callable[[Floats, float], Integers], noise: Integers) -> Floats:
        K = self.directions
        if values.ndim == 0 or values.shape[1:] not in ([(), (1,)] if K == 1 else [(K,)]):  # a mean is nobody's value
            # Nothing is said of b: how many records are in a batch is as private as they are.
            came = "a single number" if values.ndim == 0 else f"(b, {', '.join(map(str, values.shape[1:]))})"
            raise Refusal(f"shape (b, {K}): a value of each record", came, "Return one loss for each.")
        whole = clip(values, self.clip_threshold)
        total = (noise + whole.sum(0)).astype(np.float64)
        return np.asarray(total * (self.clip_threshold / GRID), dtype=np.float64).reshape(whole.shape[1:])


@dataclass(frozen=True)
class GaussianMechanism(_Clipped):
    """sum_i clip_C(v_i) + N(0, (noise_multiplier * C)^2 I_K), for one scalar or a K-vector of each record.

    A K-vector is clipped jointly, to Euclidean length C, so that epsilon does not depend on K.

    Source: Zhang et al. 2024, Alg. 2, the bracket of line 5 (there divided by n); for K > 1, DP-AggZO.
    """

    def release(self, values: Floats, noise: Entropy) -> Floats:
        """Return the noisy sum of ``values`` (b,) or (b, K); an empty batch releases noise alone."""
        z = rounded_gaussian(self.noise_multiplier * GRID, self.directions, noise)
        return self._released(values, on_grid if self.directions == 1 else on_grid_jointly, z)

    def event(self) -> DpEvent:
        """Return the release's event; its multiplier is relative to one record's largest contribution C."""
        return GaussianDpEvent(self.noise_multiplier)


@dataclass(frozen=True)
class EachGaussianMechanism(_Clipped):
    """K scalars clipped each to C on its own, with N(0, (noise_multiplier * C)^2) on each: for comparison.

    One record's K-vector may be as long as C sqrt(K), so this noise is worth sqrt(K) times less than a joint clip's.
    """

    def release(self, values: Floats, noise: Entropy) -> Floats:
        """Return the noisy sums of ``values`` (b, K); an empty batch releases noise alone."""
        return self._released(values, on_grid, rounded_gaussian(self.noise_multiplier * GRID, self.directions, noise))

    def event(self) -> DpEvent:
        """Return the release's event: a Gaussian with sensitivity C sqrt(K)."""
        return GaussianDpEvent(self.noise_multiplier / float(np.sqrt(self.directions)))


@dataclass(frozen=True)
class LaplaceMechanism(_Clipped):
    """sum_i clip_C(v_i) + Laplace(noise_multiplier * C), one scalar; its standard deviation is sqrt(2) times its scale.

    Pure epsilon 1 / noise_multiplier a release; by PLD often better than the Gaussian at (epsilon, delta).
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        _single(self.directions, "Laplace noise")

    def release(self, values: Floats, noise: Entropy) -> Floats:
        """Return the noisy sum of ``values`` (b,); an empty batch releases noise alone."""
        return self._released(values, on_grid, rounded_laplace(self.noise_multiplier * GRID, 1, noise))

    def event(self) -> DpEvent:
        """Return the release's event; its multiplier is the scale over one record's largest contribution C."""
        return LaplaceDpEvent(self.noise_multiplier)


@dataclass(frozen=True)
class GaussianVectorMechanism(_Clipped):
    """sum_i clip_C(v_i u) + N(0, (noise_multiplier * C)^2 I_d), a vector in R^d: DPGD-0th's.

    u is public and all v_i u lie on its line, so records move one coordinate of the release: the one along u, in an
    orthonormal basis that begins with u / ||u||. In every such basis the noise is d independent normal numbers. So
    ``release`` draws the number along u as the scalar mechanisms do, on the grid; whoever wants the vector adds
    normal numbers across u, which meet no record. The vector is then a function of a scalar release and of numbers
    that are independent of the data, whatever floating point makes of them: a post-processing, in every dimension.

    Source: Zhang et al. 2024, Alg. 1, lines 4 and 5.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        _single(self.directions, "a vector's noise")

    def release(self, values: Floats, noise: Entropy, norm: float) -> Floats:
        """Return the release's coordinate along u, for ||u|| = ``norm`` and v_i = ``values`` (b,), in units of length.

        That of record i is v_i ``norm`` clipped to [-C, C], in whole steps of C / GRID, whatever ``norm`` was
        rounded to.
        """

        def clip(v: Floats, C: float) -> Integers:
            return on_grid(v, C / norm)

        return self._released(values, clip, rounded_gaussian(self.noise_multiplier * GRID, 1, noise))

    def event(self) -> DpEvent:
        """Return the release's event: a d-dimensional Gaussian costs what a scalar one does."""
        return GaussianDpEvent(self.noise_multiplier)


@dataclass(frozen=True)
class PlainSum:
    """sum_i v_i: no clip, no noise, no privacy. MeZO's."""

    directions: int = 1

    def __post_init__(self) -> None:
        _countable(self.directions)

    def release(self, values: Floats, noise: Entropy) -> Floats:
        """Return the sum of the finite values, (b,) or (b, K)."""
        return np.asarray(finite(values).sum(0))

    def event(self) -> DpEvent:
        """Return the event that no accountant gives a finite epsilon."""
        return NonPrivateDpEvent()


Mechanism = GaussianMechanism | EachGaussianMechanism | LaplaceMechanism | GaussianVectorMechanism | PlainSum
