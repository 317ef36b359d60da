"""DPZero in stages under PL and low effective rank (DP-ZOSO with one direction and no pull): what stages are worth.

With rho = eta mu / 2, D = E F - F*, w = eta sigma^2, one step obeys

    D' <= (1 - rho) D + rho ((l r / mu) w + l^2 lambda^2 r (3 r + 8) / (4 mu) + (2 / mu) L^2 exp(-c^2 / 2)),

C = L c + l lambda d / 2 with c >= 2; where no slope reaches C the last term is 0 and the one before halves. L and PL
hold on a region G, and D is E (F - F*) 1{all iterates so far are in G} (see ``dpzo.theory.clipped``). The budget asks
for sum 1/sigma_t^2 <= 1/v, that is sum rho_t / w_t <= mu / (2 v). So step size and noise count by their product w
alone, and

    E* = l r v / mu^2,    v = 32 C^2 / b^2,    b = n epsilon / sqrt(k)

is the scale of every error. A constant w ends at about 2 E* (1 + log(D_0 / (2 E*))). Halving w from stage to stage,
each stage long enough to contract by 4, ends at 12 log(2) E* = 8.32 E*; no schedule ends below 8 E* D_0 / (D_0 + 8 E*),
but for a factor 1 - O(mu eta), and one ends there: the largest step throughout, sigma_t^2 falling as the root of what
later steps keep (``fastest``). So stages buy the logarithm, and only that: they win where D_0 is above some 50 E*.

Source: ours; Theorem thm-stagewise of the book proves all this.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np

from dpzo.errors import Refusal, not_negative
from dpzo.stages import Stage, fading
from dpzo.theory import noise
from dpzo.theory.clipped import clip_cost
from dpzo.theory.problem import Problem, failing_under_pl
from dpzo.theory.quadratic import Law
from dpzo.types import Floats

Decay = Literal["step size", "noise"]
HALVING = 12 * math.log(2)  # the error of halving stages, in units of E*
FASTEST = 8.0  # what no schedule improves on and ``fastest`` reaches, in the same units


class StagewiseGuarantee(NamedTuple):
    """What to run and what is proved of it.

    Attributes:
        stages: in their order.
        sigma: standard deviation of the noise on the mean where ``noise_scale`` is 1 and C the first stage's: here and
            below ``noise_scale`` is of the deviation over C, as ``Stage`` has it.
        bounds: on E F - F* after each stage.
        unit: E*.
        fails: conditions that these constants do not meet, or that the bound says nothing; it is claimed when there
            are none.
    """

    stages: tuple[Stage, ...]
    sigma: float
    bounds: tuple[float, ...]
    unit: float
    fails: tuple[str, ...]

    @property
    def bound(self) -> float:
        """After the last stage."""
        return self.bounds[-1]

    @property
    def steps(self) -> int:
        """T, of all stages."""
        return sum(stage.steps for stage in self.stages)


def stagewise(p: Problem, *, decay: Decay = "step size", stages: int | None = None) -> StagewiseGuarantee:
    """Stages that each halve the bound on the gap, down to the noise: error O(kappa r L^2 log(b) / (mu b^2)).

    ``decay`` "step size" doubles T_s and halves eta_s (up to one part in T_s) with one noise for all steps: T is
    (2^S - 1) T_1. "noise" keeps both and halves sigma_s^2: the same bounds in S T_1 steps. ``stages`` is S; None: as
    many as the proof allows.

    Raises:
        Refusal: no PL constant, no such decay, or no stage.

    Source: ours, Theorem thm-stagewise of the book.

    >>> p = Problem(n=10**5, d=10**9, r=20., L=1., l=1., gap=1., mu=.1, epsilon=2., delta=1e-6)
    >>> one, other = stagewise(p), stagewise(p, decay="noise")
    >>> len(one.stages), one.steps, other.steps, f"{one.bound:.2g}", f"{other.bound:.2g}"
    (7, 309880, 17080, '0.007', '0.007')
    """
    if decay not in ("step size", "noise"):
        raise Refusal("a decay of step size or noise", repr(decay), "Choose one.")
    if stages is not None and stages < 1:
        raise Refusal("one stage or more", stages, "Leave it out for as many as the proof allows.")
    μ, clip, λ, unit = _constants(p)
    most = math.floor(math.log2(1 + p.gap / (HALVING * unit)))
    S = max(most, 1) if stages is None else stages
    fails = []
    if most < S:
        fails.append(f"{S} stages where the noise allows {most}: 12 log(2) (2^S - 1) E* must be at most the gap")
    T1 = math.ceil(math.log(4) / -math.log1p(-largest_step(p) * μ / 2))
    doubled = [2**s if decay == "step size" else 1 for s in range(S)]
    made = tuple(
        _stage(T1 * k, -2 / μ * math.expm1(-math.log(4) / (T1 * k)), λ, clip, math.sqrt(k / 2**s))
        for s, k in enumerate(doubled)
    )
    σ = math.sqrt((2**S - 1) * T1) * noise.sigma(clip, 1.0, p.n, p.epsilon, p.k)
    bounds = bounds_after(p, made, σ)
    return StagewiseGuarantee(made, σ, bounds, unit, (*fails, *failing_under_pl(p, bounds[-1])))


def constant(p: Problem) -> StagewiseGuarantee:
    """The same proof with one step size and one noise, to compare: about 2 E* (1 + log(D_0 / (2 E*))).

    Source: ours; ``dpzo.theory.rates.pl_dpzero`` with the sharper constants.
    """
    μ, clip, λ, unit = _constants(p)
    η = largest_step(p)
    T = math.ceil(max(1.0, math.log(p.gap / (2 * unit))) / -math.log1p(-η * μ / 2))
    made, σ = (_stage(T, η, λ, clip),), noise.sigma(clip, T, p.n, p.epsilon, p.k)
    bounds = bounds_after(p, made, σ)
    return StagewiseGuarantee(made, σ, bounds, unit, failing_under_pl(p, bounds[-1]))


def fastest(p: Problem, *, stages: int = 40) -> StagewiseGuarantee:
    """The schedule that no other improves on: the largest step, noise whose variance falls with the error.

    T = 2 log((D_0 + 8 E*) / (8 E*)) / rho steps, rho = eta mu / 2, with sigma_t^2 proportional to (1 - rho)^(-(T - t) /
    2): Cauchy's inequality, in the proof of what no schedule is below, is then an equality. ``stages`` stages stand for
    that law, as ``dpzo.stages.fading`` has them.

    Raises:
        Refusal: no PL constant, or no stage.

    Source: ours, Theorem thm-stagewise (4) of the book.

    >>> p = Problem(n=10**5, d=10**9, r=20., L=1., l=1., gap=1., mu=.1, epsilon=2., delta=1e-6)
    >>> g = fastest(p)
    >>> g.steps, f"{g.bound / g.unit:.2f}", f"{stagewise(p, decay='noise').bound / g.unit:.2f}"
    (17589, '7.95', '8.26')
    """
    μ, clip, λ, unit = _constants(p)
    η, fall = largest_step(p), 1 + p.gap / (FASTEST * unit)
    T = max(stages, math.ceil(2 * math.log(fall) / -math.log1p(-η * μ / 2)))
    made = tuple(
        replace(stage, clip_threshold=clip)
        for stage in fading(steps=T, step_size=η, zo_eps=λ, fall=fall, stages=stages)
    )
    σ = math.sqrt(spent(p, made, 1.0))
    bounds = bounds_after(p, made, σ)
    return StagewiseGuarantee(made, σ, bounds, unit, failing_under_pl(p, bounds[-1]))


def bounds_after(p: Problem, stages: Sequence[Stage], sigma: float) -> tuple[float, ...]:
    """Bounds on E F - F* after each of any stages.

    Raises:
        Refusal: a step size above 1 / (4 l (r + 2)), or a pull, a mask or a mean, to which the proof does not reach; a
            stage without a threshold of its own, a noise that is none, or no PL constant.

    Source: ours, Theorem thm-stagewise (1).
    """
    μ, d, gap, out = p.pl, p.d, p.gap, []
    not_negative("sigma", sigma)
    for stage, σ in zip(stages, _deviations(stages, sigma), strict=True):
        if stage.step_size > largest_step(p) * (1 + 1e-12):
            raise Refusal(f"a step size of at most {largest_step(p):.6g}", stage.step_size, "Take a smaller one.")
        C = _clip(stage)
        keep = (1 - stage.step_size * μ / 2) ** stage.steps
        noisy = stage.step_size * p.l * p.r * σ**2 / μ
        smooth = smoothing_floor(stage.zo_eps, l=p.l, r=p.r, mu=μ)
        rare = 2 / μ * clip_cost((C - p.l * stage.zo_eps * d / 2) / p.L, d) * p.L**2
        smooth *= 2 if rare else 1
        gap = keep * gap + (1 - keep) * (noisy + smooth + rare)
        out.append(gap)
    return tuple(out)


def smoothing_floor(zo_eps: float, *, l: float, r: float, mu: float) -> float:
    """What smoothing leaves of F - F* under PL where nothing is clipped: l^2 lambda^2 r (3 r + 8) / (8 mu)."""
    return (l * zo_eps) ** 2 * r * (3 * r + 8) / (8 * mu)


def exactly_after(law: Law, stages: Sequence[Stage], sigma: float, start: Floats) -> tuple[float, ...]:
    """The expected F - F* after each stage on a quadratic, by its exact law; lambda and clipping play no part.

    ``start`` is E (e_j)^2 at x_0, one for each distinct eigenvalue.
    """
    m, out = start, []
    for stage, σ in zip(stages, _deviations(stages, sigma), strict=True):
        path = law.trajectory(stage.step_size, stage.steps, m)
        m = np.maximum(path.last[0] + σ**2 * path.last[1], 0.0)  # rounding may go below
        out.append(float(path.loss(σ)[-1]))
    return tuple(out)


def spent(p: Problem, stages: Sequence[Stage], sigma: float) -> float:
    """The share of the budget that the stages take: sum T_s v_s / sigma_s^2; private where it is at most 1."""
    least = noise.sigma(_clip(stages[0]), 1.0, p.n, p.epsilon, p.k)  # of one step alone
    return math.fsum(s.steps / s.noise_scale**2 for s in stages) * (least / sigma) ** 2


def noise_weights(stages: Sequence[Stage], mu: float) -> tuple[float, ...]:
    """What a unit of noise variance at one step of each stage adds to the last bound, up to a common factor.

    For ``dpzo.stages.allocated``: p_s (1 - e_s) eta_s / T_s, e_s the contraction of stage s, p_s that of all after it.
    Where eta halves, T doubles and each stage contracts by 4 they are equal: one noise for all is then the best split.
    """
    out, later = [], 1.0
    for stage in reversed(stages):
        keep = (1 - stage.step_size * mu / 2) ** stage.steps
        out.append(later * (1 - keep) * stage.step_size / stage.steps)
        later *= keep
    return tuple(reversed(out))


def largest_step(p: Problem) -> float:
    """1 / (4 l (r + 2)), up to which a step provably descends."""
    return 1 / (4 * p.l * (p.r + 2))


def _stage(steps: int, step_size: float, zo_eps: float, clip_threshold: float, noise_scale: float = 1.0) -> Stage:
    return Stage(steps, step_size, zo_eps, clip_threshold=clip_threshold, noise_scale=noise_scale)


def _clip(stage: Stage) -> float:
    if stage.clip_threshold is None:
        raise Refusal("a clip_threshold for each stage", "none", "Give the mechanism's: noise is counted in it.")
    return stage.clip_threshold


def _deviations(stages: Sequence[Stage], sigma: float) -> list[float]:
    # Of each stage's noise on the mean. All that is proved or exact here is of plain steps.
    for s in stages:
        if s != _stage(s.steps, s.step_size, s.zo_eps, _clip(s), s.noise_scale):
            raise Refusal("stages without a pull, a share to keep or a mean", s, "No bound of ours covers these.")
    return [sigma * s.noise_scale * _clip(s) / _clip(stages[0]) for s in stages]


def _constants(p: Problem) -> tuple[float, float, float, float]:
    μ, b = p.pl, p.budget
    c = math.sqrt(2 * math.log(max(8.0, b**2 / (2 * p.r))))
    # The first keeps the threshold within a sixteenth of L c; the second keeps smoothing below the noise.
    λ = p.L / p.l * min(1 / (2 * c * p.d), 2 / (b * math.sqrt(3 * p.r + 8)))
    clip = p.L * (c + 1 / (4 * c))
    return μ, clip, λ, p.l * p.r * noise.sigma(clip, 1.0, p.n, p.epsilon, p.k) ** 2 / μ**2
