"""The exact law of DPZero and its relatives on quadratics: expected loss at every step, stability, the best step size.

For f(x; xi_i) = (x - xi_i)' A (x - xi_i) / 2 the two-point estimate is exact, and without active clipping the error
e_t = x_t - mean_i xi_i moves by e' = e - alpha sum_k ((1/K) u_k' A e + z_k) u_k. In the eigenbasis of A let m_j = E
(e_j)^2. From E u u' = I, and for a law of u with E u_j^4 = p and E u_i^2 u_j^2 = q (i != j),

    m_j' = (1 - 2 alpha a_j + alpha^2 b a_j^2) m_j + alpha^2 (q/K) sum_k a_k^2 m_k + alpha^2 K sigma^2,
    b = (p - q)/K + 1 - 1/K.

p and q are 3 and 1 for Gaussian u, 3d/(d+2) and d/(d+2) on the sphere of radius sqrt(d), 1 and 1 for Rademacher signs.
(For laws that are not rotation invariant A must be diagonal.) DPGD-0th obeys it with K = 1, sigma the noise on each
coordinate. DP-GD, whose estimate is the gradient, has m_j' = (1 - alpha a_j)^2 m_j + alpha^2 sigma^2: b = 1, q = 0.

These are equalities, and linear in (m, sigma^2): the loss is a transient, which does not know sigma, plus sigma^2
times a response, which does not know the start.

Source: ours; derived with sympy in tests/theory, and compared with simulation there.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
from scipy.optimize import brentq

from dpzo.errors import Refusal, not_negative, positive, whole
from dpzo.theory.spectra import Spectrum
from dpzo.types import Floats

Direction = Literal["gaussian", "sphere", "rademacher", "gradient"]


def fourth_moments(direction: Direction, d: int) -> tuple[float, float]:
    """(E u_j^4, E u_i^2 u_j^2) of a direction's law; "gradient" has no direction, so no moments.

    Source: Zhang et al. 2024, Lemma C.1, for the sphere.
    """
    if direction == "sphere":
        return 3 * d / (d + 2), d / (d + 2)
    return {"gaussian": (3.0, 1.0), "rademacher": (1.0, 1.0)}[direction]


@dataclass(frozen=True)
class Law:
    """One method on one spectrum: the coefficients of the recursion above.

    Attributes:
        direction: the law of u, or "gradient" for DP-GD.
        directions: K, directions a step (1 for all methods but DP-AggZO).

    Raises:
        Refusal: an unknown law, no direction at all, or several directions for the gradient.
    """

    spectrum: Spectrum
    direction: Direction = "gaussian"
    directions: int = 1

    def __post_init__(self) -> None:
        if self.direction not in get_args(Direction):
            raise Refusal(f"a direction among {', '.join(get_args(Direction))}", repr(self.direction), "Choose one.")
        whole("directions", self.directions)
        if self.direction == "gradient" and self.directions != 1:
            raise Refusal("one direction a step for the gradient", self.directions, "Leave directions out.")

    @property
    def _b_and_coupling(self) -> tuple[float, float]:
        if self.direction == "gradient":
            return 1.0, 0.0
        p, q = fourth_moments(self.direction, self.spectrum.d)
        K = self.directions
        return (p - q) / K + 1 - 1 / K, q / K

    def crowding(self, alpha: float) -> float:
        """h(alpha) = (q/K) sum_j alpha a_j / (2 - alpha b a_j): the method is stable exactly while h < 1.

        On the eigenvalues above 0 the transition matrix M is D + alpha^2 (q/K) 1 (a^2)', D diagonal, and M >= 0. So its
        spectral radius is below 1 if and only if 1 - M is an M-matrix, that is (by its leading minors) if D_jj < 1, or
        alpha b a_j < 2, for all j, and alpha^2 (q/K) sum_j a_j^2 / (1 - D_jj) = h(alpha) < 1.
        """
        b, q = self._b_and_coupling
        a = self.spectrum.values
        if alpha * b * self.spectrum.largest >= 2:
            return math.inf
        return q * self.spectrum.sum(alpha * a / (2 - alpha * b * a))

    @property
    def stable_below(self) -> float:
        """The step size at which the second moments stop converging: the root of h = 1 (h grows from 0), exactly.

        For u Gaussian and A = I it is 2 / (d + 2); for Rademacher signs 2 / Tr A; for DP-GD 2 / a_max; in general
        between 2 / ((q/K) Tr A + b a_max) and 2 / ((q/K) Tr A): the whole spectrum counts, not its largest value.

        >>> from dpzo.theory.spectra import flat
        >>> round(Law(flat(98)).stable_below, 12)
        0.02
        """
        b, _ = self._b_and_coupling
        most = 2 / (b * self.spectrum.largest) if b > 0 else math.inf
        if self.direction == "gradient":
            return most
        high = min(most * (1 - 1e-12), 4 * self.directions * (1 + 2 / self.spectrum.d) / self.spectrum.trace)
        return float(brentq(lambda alpha: min(self.crowding(alpha), 1e6) - 1, 0.0, high, xtol=1e-300, rtol=1e-14))

    def check(self, alpha: float) -> None:
        """Refuse a step size at which the expected loss grows without bound."""
        positive("alpha", alpha)
        if alpha >= (limit := self.stable_below):
            raise Refusal(
                f"a step size below the stability threshold {limit:.6g}",
                f"{alpha:g}, {alpha / limit:.3g} times as large",
                "Take a smaller step size, or more directions a step.",
            )

    def stationary(self, alpha: float, sigma: float) -> Floats:
        """m_j as t -> infinity, one for each distinct eigenvalue; infinite where a_j = 0, where noise piles up.

        m_j = alpha (q S / K + K sigma^2) / (a_j (2 - alpha b a_j)) with S = sum a_k^2 m_k, so that q S / K + K sigma^2
        = K sigma^2 / (1 - h).
        """
        self.check(alpha)
        positive("sigma", sigma)
        b, _ = self._b_and_coupling
        a, noise = self.spectrum.values, self.directions * sigma**2
        with np.errstate(divide="ignore", over="ignore"):
            return np.asarray(alpha * noise / (1 - self.crowding(alpha)) / (a * (2 - alpha * b * a)), dtype=np.float64)

    def trajectory(self, alpha: float, steps: int, start: Floats) -> "Trajectory":
        """Follow the recursion for ``steps`` steps from m_0 = ``start``, one for each distinct eigenvalue.

        Step sizes beyond the stability threshold are allowed: the law holds there too, it only grows.

        Raises:
            Refusal: a step size that is not positive, steps below 0, or a start that is not one finite number from 0
                on for each eigenvalue.
        """
        positive("alpha", alpha)
        whole("steps", steps, 0)
        b, q = self._b_and_coupling
        a, k = self.spectrum.values, self.spectrum.counts
        m_0 = np.asarray(start, dtype=np.float64)
        if m_0.shape != a.shape or not np.isfinite(m_0).all() or (m_0 < 0).any():
            came = f"shape {m_0.shape}" if m_0.shape != a.shape else f"some from {m_0.min():g} to {m_0.max():g}"
            raise Refusal(f"{len(a)} squared errors, one for each distinct eigenvalue", came, "Give E (e_j)^2 at x_0.")
        keep = 1 - 2 * alpha * a + alpha**2 * b * a**2
        # Two columns: the transient, and the response to sigma^2 = 1.
        m = np.stack([m_0, np.zeros_like(a)])
        losses, slopes = np.empty((steps + 1, 2)), np.empty((steps + 1, 2))
        for t in range(steps + 1):
            losses[t], slopes[t] = m @ (k * a / 2), m @ (k * a**2)
            if t < steps:
                m = keep * m + alpha**2 * q * slopes[t][:, None]
                m[1] += alpha**2 * self.directions
        return Trajectory(losses, slopes, m)


class Trajectory(NamedTuple):
    """Expected F(x_t) - F* and E ||grad F(x_t)||^2 for t = 0 .. T, each in two columns: transient, and per sigma^2."""

    losses: Floats
    squared_gradients: Floats
    last: Floats

    def loss(self, sigma: float) -> Floats:
        """(T + 1,) expected excess losses when every step's noise has standard deviation ``sigma``."""
        return np.asarray(self.losses @ [1.0, sigma**2])

    def squared_gradient(self, sigma: float) -> Floats:
        """(T + 1,) expected squared gradient norms."""
        return np.asarray(self.squared_gradients @ [1.0, sigma**2])


class Best(NamedTuple):
    """The step size and the number of steps with the least expected value, and that value."""

    alpha: float
    steps: int
    value: float


def best(
    law: Law,
    start: Floats,
    noise_per_root_step: float,
    most_steps: int,
    *,
    of: Literal["losses", "squared_gradients"] = "losses",
    grid: int = 40,
) -> Best:
    """The best (alpha, T) of a budget whose noise is sigma(T) = ``noise_per_root_step`` * sqrt(T), T <= most_steps.

    That is how the noise of any composition of Gaussians grows. Each step size is swept once, because the value of all
    lengths follows from one trajectory: F_T = transient_T + sigma(T)^2 response_T. The ``grid`` step sizes are spaced
    evenly in the logarithm up to the stability threshold; then twice more, between the neighbours of the best. Not to
    move, T = 0, is allowed, and told as alpha = 0.

    Raises:
        Refusal: a noise or a number of steps below 0, no step sizes, or no such value.
    """
    not_negative("noise_per_root_step", noise_per_root_step)
    whole("most_steps", most_steps, 0)
    whole("grid", grid)
    if of not in ("losses", "squared_gradients"):
        raise Refusal("losses or squared_gradients", repr(of), "Choose one.")
    t = np.arange(most_steps + 1)
    alphas = law.stable_below * np.geomspace(1e-4, 0.999, grid)
    found = Best(0.0, 0, math.inf)
    for _ in range(3):
        for alpha in alphas:
            transient, response = getattr(law.trajectory(float(alpha), most_steps, start), of).T
            total = transient + noise_per_root_step**2 * t * response
            if total[least := int(total.argmin())] < found.value:
                found = Best(float(alpha) if least else 0.0, least, float(total[least]))
        if not found.steps:
            break
        near = int(np.abs(alphas - found.alpha).argmin())
        alphas = np.geomspace(alphas[max(near - 1, 0)], alphas[min(near + 1, len(alphas) - 1)], 9)
    return found
