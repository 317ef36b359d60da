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
from dataclasses import dataclass
from typing import NamedTuple

from dpzo.errors import Refusal, positive
from dpzo.stages import Stage
from dpzo.theory.stagewise import HALVING

FLOAT32 = 2.0**-24  # a rounding's largest relative error


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


def propose(
    *,
    steps: int,
    noise_multiplier: float,
    clip_threshold: float,
    divisor: float,
    difference: Difference,
    curvature: float,
    slope: float,
    gap: float,
    mu: float | None = None,
    directions: int = 1,
) -> tuple[Stage, ...]:
    """Propose lambda, step size and stages for ``steps`` steps at one noise multiplier: a first guess to tune from.

    ``divisor`` is n, or the expected batch size; ``curvature`` is ||H||; ``slope`` is |grad F| at the start, the root
    mean square of a mean derivative along u; ``gap`` is how far the loss may fall; ``mu`` is a PL constant, if one is
    known (of a language model none is). With P = ``directions`` the noises of a step's P scalars add up, so that P
    times their variance counts; that averaging P derivatives makes the step itself less random does not.

    Without ``mu`` it is one stage, at the smaller of two step sizes: half of that of the greatest descent in one step
    of the recursion, slope^2 / (Tr H (slope^2 + sigma^2) + 2 ||H|| slope^2); and that at which the noise of all steps
    together adds a sixteenth of the gap, sqrt(gap / (8 T Tr H sigma^2)). With ``mu`` it is the halving stages of
    Theorem thm-stagewise, as many as fit T and the noise, if those are two or more. It rests on guesses of H, slope
    and gap, on the recursion for lambda -> 0 without clipping, and on nothing else: sampling of batches adds noise of
    its own, which is to be counted in ``slope`` and ``noise_multiplier``'s place by whoever knows it.

    Raises:
        Refusal: a value that is not positive, a ``mu`` above ``curvature``, no step, or no direction.

    Source: ours. Within 50 % of the best constant step's final loss on the quadratics of tests/theory/test_tradeoff.py.
    """
    given = {"noise_multiplier": noise_multiplier, "clip_threshold": clip_threshold, "divisor": divisor}
    given |= {"curvature": curvature, "slope": slope, "gap": gap}
    for name, value in given.items():
        positive(name, value)
    for name, count in (("step", steps), ("direction", directions)):
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise Refusal(f"a run of at least one {name}", count, f"Give a whole number of {name}s.")
    λ, h = best_zo_eps(difference), difference.trace
    variance = directions * (noise_multiplier * clip_threshold / divisor) ** 2
    if mu is not None:
        positive("mu", mu)
        if mu > curvature:
            raise Refusal(f"a PL constant of at most the curvature {curvature:g}", mu, "No loss has a larger one.")
        if len(halving := _halving(steps, variance, h, curvature, gap, mu)) > 1:
            return tuple(Stage(t, η, λ, clip_threshold=clip_threshold) for t, η in halving)
    greedy = slope**2 / (h * (slope**2 + variance) + 2 * curvature * slope**2)
    patient = math.sqrt(gap / (8 * steps * h * variance))
    return (Stage(steps, min(greedy / 2, patient), λ, clip_threshold=clip_threshold),)


def _halving(steps: int, variance: float, h: float, l: float, gap: float, mu: float) -> list[tuple[int, float]]:
    # For lambda -> 0 and eta <= 1 / (2 (h + 2 l)) the recursion contracts by 3 eta mu / 2, three times the theorem's
    # rate: E* is 9 times smaller.
    rate = 1.5 * mu
    unit = h * variance / steps / mu**2 / 9
    shortest = math.ceil(math.log(4) / -math.log1p(-rate / (2 * (h + 2 * l))))
    stages = math.floor(math.log2(1 + min(gap / (HALVING * unit), steps / shortest)))
    if stages < 2:
        return []
    first = steps // (2**stages - 1)
    lengths = [first * 2**s for s in range(stages)]
    lengths[-1] += steps - sum(lengths)
    return [(t, -math.expm1(-math.log(4) / t) / rate) for t in lengths]
