"""DP noise against the errors of a finite difference: which smoothing radius lambda, and which step sizes.

What is released at a step is w = u'grad F plus three errors, all in units of the derivative:

- smoothing: |g - w| <= (lambda / 2) u'Hu where -H <= Hessian <= H, in the mean (lambda / 2) Tr H, however large d is;
  and (lambda^2 / 6) |D^3 F[u, u, u]| where there is a third derivative, up to order lambda^4.
- rounding: each of the two losses is off by at most rho, so their difference over 2 lambda by rho / lambda.
- DP noise: sigma = noise multiplier * C / (records that the sum is divided by). It does not know lambda.

So below the lambda where the first two balance they grow again, and long before that they are lost in the noise.

Source: ours; the book's chapter on the stagewise theorem. Liu et al. 2024 name this trade-off in their abstract.
"""

import math
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

import numpy as np

from dpzo.errors import Refusal, positive, whole
from dpzo.stages import Stage, doubling
from dpzo.types import Floats

FLOAT32 = 2.0**-24  # a rounding's largest relative error
_ROUNDED = 1.01  # guesses have few digits, and an isotropic quadratic meets smoothness and PL with equality


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What the errors of a two-point difference depend on, besides lambda.

    Attributes:
        trace: Tr H = l r; the mean of u'Hu.
        loss_error: rho, the largest error of one evaluated loss. At least |loss| times ``FLOAT32``, which is its last
            rounding; a forward pass makes many, so measure it: the spread of a loss under tiny changes of the weights.
        third: the mean of |D^3 F[u, u, u]|; None: unknown.

    Raises:
        Refusal: a value that is not positive.
    """

    trace: float
    loss_error: float
    third: float | None = None

    def __post_init__(self) -> None:
        positive("trace", self.trace)
        positive("loss_error", self.loss_error)
        if self.third is not None:
            positive("third", self.third)


class Errors(NamedTuple):
    """Per step, in units of the derivative: two bounds and a standard deviation.

    With ``Difference.third`` smoothing is a bound up to order lambda^4 only.
    """

    smoothing: float
    rounding: float
    noise: float


class Window(NamedTuple):
    """The lambda at which rounding (``low``) and smoothing (``high``) reach a given fraction of the DP noise.

    Where ``low`` is the larger one, no lambda keeps both below it.
    """

    low: float
    high: float


def errors(zo_eps: float, of: Difference, noise: float) -> Errors:
    """The three errors at lambda = ``zo_eps``, ``noise`` the DP noise's standard deviation on the mean.

    >>> errors(2.0**-10, Difference(trace=16.0, loss_error=2.0**-20), noise=0.5)
    Errors(smoothing=0.0078125, rounding=0.0009765625, noise=0.5)
    """
    positive("zo_eps", zo_eps)
    positive("noise", noise)
    smoothing = zo_eps * of.trace / 2
    if of.third is not None:
        smoothing = min(smoothing, zo_eps**2 * of.third / 6)
    return Errors(smoothing, of.loss_error / zo_eps, noise)


def window(of: Difference, noise: float, fraction: float = 0.1) -> Window:
    """The range of lambda in which rounding and smoothing are each below ``fraction`` of the DP noise.

    >>> window(Difference(trace=20.0, loss_error=1e-7), noise=0.5)
    Window(low=2e-06, high=0.005)
    """
    positive("noise", noise)
    positive("fraction", fraction)
    allowed = fraction * noise
    high = 2 * allowed / of.trace
    if of.third is not None:
        high = max(high, math.sqrt(6 * allowed / of.third))
    return Window(of.loss_error / allowed, high)


def best_zo_eps(of: Difference) -> float:
    """The lambda of the least sum of smoothing and rounding: sqrt(2 rho / Tr H), or (3 rho / third)^(1/3).

    >>> f"{best_zo_eps(Difference(trace=20.0, loss_error=1e-7)):.1e}"
    '1.0e-04'
    """
    candidates = [math.sqrt(2 * of.loss_error / of.trace)]
    if of.third is not None:
        candidates.append(math.cbrt(3 * of.loss_error / of.third))
    return min(candidates, key=lambda λ: sum(errors(λ, of, 1.0)[:2]))


@dataclass(frozen=True, kw_only=True)
class Guesses:
    """What a proposal rests on: C, and guesses of the loss at the start, from public data or from a paper.

    Attributes:
        clip_threshold: C, in which the noise is counted.
        trace: Tr H.
        slope: |grad F|, the root mean square over u of the mean derivative.
        gap: how far the loss may fall.
        curvature: ||H||; None: ``trace``, the most that it can be.
        loss_error, third: as in ``Difference``.
        mu: a PL constant, if one is known (of a language model none is).

    Raises:
        Refusal: a value outside 1e-30 to 1e30, in which squares and products stay finite, or values that no loss has
            together.

    Source: |grad F|^2 <= 2 ||H|| gap is smoothness, >= 2 mu gap the PL inequality.
    """

    clip_threshold: float
    trace: float
    slope: float
    gap: float
    curvature: float | None = None
    loss_error: float = 2e-7
    third: float | None = None
    mu: float | None = None

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None:
                _moderate(name, value)
        most = math.sqrt(2 * self.norm * self.gap)
        least = math.sqrt(2 * (self.mu or 0.0) * self.gap)
        if self.norm > self.trace:
            raise Refusal(f"a curvature of at most the trace, {self.trace:g}", self.norm, "The trace sums all of them.")
        if self.slope > most * _ROUNDED:
            told = "A steeper loss would fall further: raise curvature or gap, or lower slope."
            raise Refusal(f"a slope of at most sqrt(2 curvature gap), {most:g}", self.slope, told)
        if self.slope * _ROUNDED < least:
            told = "Lower mu: it is no PL constant of a loss as flat as this."
            raise Refusal(f"a slope of at least sqrt(2 mu gap), {least:g}", self.slope, told)

    @property
    def norm(self) -> float:
        """||H||."""
        return self.trace if self.curvature is None else self.curvature

    @property
    def difference(self) -> Difference:
        """What the guesses say of a two-point difference."""
        return Difference(trace=self.trace, loss_error=self.loss_error, third=self.third)


def propose(
    given: Guesses, *, steps: int, noise_multiplier: float, divisor: float, directions: int = 1
) -> tuple[Stage, ...]:
    """Propose lambda, step size and stages for ``steps`` steps at one noise multiplier: a first guess to tune from.

    ``divisor`` is n, or the expected batch size. With P = ``directions`` the noises of a step's P scalars add up, so
    that P times their variance counts; that averaging P derivatives makes the step itself less random does not.

    All stages have one lambda: the best one does not know the noise or the slope, and where only rounding and the third
    derivative move, it moves by the cube root of their ratio (reproduce/radius.py measures it stage by stage).

    They are stages that double their length and halve their step size, or one: that number and that first step size
    which leave least of the gap D = F - F* by a recursion, as ``_of_least_bound`` has it. With ``mu`` the gradient is
    then as large as the PL inequality says, |grad F|^2 >= 2 mu D. Without it nothing says where the loss flattens, and
    the gradient is taken to shrink no faster than D does, from ``slope`` at ``gap``: that is convexity, |grad F| >= D /
    |x - x*|, with gap / slope as a guess of the distance. It rests on the guesses, on the recursion for lambda -> 0
    without clipping, and on nothing else: sampling of batches adds noise of its own, which whoever knows it counts in
    ``noise_multiplier``.

    Raises:
        Refusal: a noise or a divisor outside 1e-30 to 1e30, no step, or no direction.

    Source: ours. On the 36 quadratics of tests/theory/test_tradeoff.py the exact loss is at most 1.5 times that of the
    best constant step with ``mu``, 0.9 times in the geometric mean; without it at most 10 times, 1.3 in the mean,
    on the same ones on which the 10 % of its rule was chosen.
    """
    _moderate("noise_multiplier", noise_multiplier)
    _moderate("divisor", divisor)
    whole("steps", steps)
    whole("directions", directions)
    λ = best_zo_eps(given.difference)
    variance = directions * (noise_multiplier * given.clip_threshold / divisor) ** 2
    stages, η = _of_least_bound(given, steps, variance)
    return _stages(given, steps, stages, η, λ)


def _moderate(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1e-30 <= value <= 1e30:
        raise Refusal(f"{name} to be a positive number from 1e-30 to 1e30", value, "Choose one of ordinary size.")


def _stages(given: Guesses, steps: int, stages: int, η: float, λ: float) -> tuple[Stage, ...]:
    made = doubling(first_steps=steps // (2**stages - 1), steps=steps, step_size=η, zo_eps=λ, stages=stages)
    return tuple(replace(stage, clip_threshold=given.clip_threshold) for stage in made)


def _steepest(given: Guesses, squared_gradient: float, variance: float) -> float:
    # eta of the greatest descent eta |grad F|^2 - eta^2 ((Tr H + 2 ||H||) |grad F|^2 + Tr H sigma^2) / 2.
    h = given.trace
    return squared_gradient / ((h + 2 * given.norm) * squared_gradient + h * variance)


def _of_least_bound(given: Guesses, steps: int, variance: float) -> tuple[int, float]:
    # Doubling stages and their first step size. A step leaves D' <= D - q(eta) |grad F|^2 + b, q(eta) = eta - eta^2
    # (Tr H + 2 ||H||) / 2, b = eta^2 sigma^2 Tr H / 2. Up to the steepest step at the start, half of what is stable: H
    # is a guess. Far below 1 / T of it nothing moves.
    h, gap, μ = given.trace, given.gap, given.mu
    squared = given.slope**2 if μ is None else 2 * μ * gap
    first = _steepest(given, squared, variance) * np.geomspace(1 / steps, 1, 100)
    found = []
    for stages in range(1, (steps + 1).bit_length()):  # 2^S - 1 <= T
        left = np.full_like(first, gap)
        for stage in _stages(given, steps, stages, 1.0, 1.0):
            η = first * stage.step_size
            q, b = η - η**2 * (h + 2 * given.norm) / 2, η**2 * variance * h / 2
            if μ is None:
                left = _flattening(left, q * (given.slope / gap) ** 2, b, stage.steps)
            else:
                left = _pl(left, 2 * μ * q, b, stage.steps)
        found.append((float(left.min()), stages, float(first[left.argmin()])))
    least = min(found)[0]
    # With mu the fewest stages that are within 1 % of the least. Without it the most within 10 %, of what is left and
    # of what is won: a stage at half the step size costs little where the guess of the slope is right, and wins where
    # the loss stays steeper.
    if μ is not None:
        return next((stages, η) for bound, stages, η in found if bound <= 1.01 * least)
    worse = 0.1 * min(least, gap - least)
    return [(stages, η) for bound, stages, η in found if bound - least <= worse][-1]


def _pl(left: Floats, rho: Floats, b: Floats, steps: int) -> Floats:
    # T times D' = (1 - rho) D + b.
    keep: Floats = np.exp(steps * np.log1p(-rho))
    return keep * left + (1 - keep) * b / rho


def _flattening(left: Floats, a: Floats, b: Floats, steps: int) -> Floats:
    # At time T the solution of dD/dt = b - a D^2, which T steps of D' = D - a D^2 + b follow from below.
    floor: Floats = np.sqrt(b / a)
    moved: Floats = np.tanh(np.sqrt(a * b) * steps)
    return floor * (left + floor * moved) / (floor + left * moved)
