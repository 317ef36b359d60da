"""Schedules are data: a tuple of frozen stages, all decided before the run."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from dpzo.errors import Refusal, not_negative, positive, whole


@dataclass(frozen=True)
class Stage:
    """``steps`` steps with step size alpha = ``step_size`` and smoothing radius lambda = ``zo_eps``.

    Attributes:
        proximal: the weight gamma of (gamma / 2) ||x - anchor||^2 beside the loss, anchor the iterate at the stage's
            start (DP-ZOSO). With 0 no copy of the weights is kept.
        clip_threshold: this stage's C; None: the mechanism's. Noise is counted in C, so privacy does not depend on it.
        noise_scale: this stage's noise multiplier over the plan's: a budget for each stage (``allocated``).
        keep: the share of the coordinates that move (DP-ZOPO).
        average: whether the stage ends at the mean of its iterates instead of the last one. A run that is stopped, or
            loses its very last step to a crash, ends at its last iterate.

    Raises:
        Refusal: a value out of its range.
    """

    steps: int
    step_size: float
    zo_eps: float
    proximal: float = 0.0
    clip_threshold: float | None = None
    noise_scale: float = 1.0
    keep: float = 1.0
    average: bool = False

    def __post_init__(self) -> None:
        whole("steps of a stage", self.steps)
        for name in ("step_size", "zo_eps", "noise_scale"):
            positive(name, getattr(self, name))
        if self.clip_threshold is not None:
            positive("clip_threshold", self.clip_threshold)
        not_negative("proximal", self.proximal)
        if self.proximal * self.step_size > 1:
            came = f"{self.proximal * self.step_size:g}"
            raise Refusal("step_size * proximal of at most 1", came, "Above it the pull oversteps the anchor.")
        if not isinstance(self.average, bool):
            raise Refusal("average to be True or False", repr(self.average), "Say whether the stage ends at its mean.")
        positive("keep", self.keep)
        if self.keep > 1:
            raise Refusal("keep in (0, 1], the share of the coordinates that move", self.keep, "Choose 1 for all.")


def doubling(
    *,
    first_steps: int,
    steps: int,
    step_size: float,
    zo_eps: float,
    stages: int = 3,
    last_zo_eps: float | None = None,
    keep: float | Sequence[float] = 1.0,
    proximal: float = 0.0,
    average: bool = False,
) -> tuple[Stage, ...]:
    """Stages of ``first_steps``, twice as many, four times as many, ...; the step size halves from one to the next.

    The last stage takes the steps that are left of ``steps``. lambda goes from ``zo_eps`` to ``last_zo_eps`` by a
    constant factor, up or down (None: it stays). ``keep`` is one share for all stages or a list of shares.

    Raises:
        Refusal: numbers out of range, or ``steps`` that do not reach the last stage.

    Source: the schedule of the authors' code of Liu et al. 2024 (3 stages, 1,000 steps, at most 6,000 in all), with
    exact boundaries. Their lambda can only grow; here it goes where it is sent.

    >>> [(s.steps, s.step_size) for s in doubling(first_steps=1000, steps=6000, step_size=2e-5, zo_eps=1e-6)]
    [(1000, 2e-05), (2000, 1e-05), (3000, 5e-06)]
    """
    for name, value in (("stages", stages), ("first_steps", first_steps), ("steps", steps)):
        whole(name, value)
    shares = list(keep) if isinstance(keep, Sequence) else [keep] * stages
    if len(shares) != stages:
        raise Refusal(f"one share to keep for each of the {stages} stages", f"{len(shares)} shares", "List them all.")
    if stages == 1 and last_zo_eps is not None:
        raise Refusal("no last_zo_eps beside a single stage", last_zo_eps, "Give zo_eps, which it keeps.")
    last = zo_eps if last_zo_eps is None else last_zo_eps
    for name, size in (("step_size", step_size), ("zo_eps", zo_eps), ("last_zo_eps", last)):
        positive(name, size)
    starts = [first_steps * (2**s - 1) for s in range(stages)]
    if starts[-1] >= steps:
        raise Refusal(
            f"more than {starts[-1]} steps, where stage {stages} begins", steps, "Take fewer or shorter stages."
        )
    return tuple(
        Stage(
            steps - start if s == stages - 1 else first_steps * 2**s,
            step_size / 2**s,
            zo_eps if last == zo_eps else zo_eps ** (1 - s / (stages - 1)) * last ** (s / (stages - 1)),
            proximal=proximal,
            keep=share,
            average=average,
        )
        for s, (start, share) in enumerate(zip(starts, shares, strict=True))
    )


def fading(*, steps: int, step_size: float, zo_eps: float, fall: float, stages: int = 40) -> tuple[Stage, ...]:
    """Stages of one step size and (nearly) one length whose noise falls: its variance by ``fall`` over all steps.

    Where a step keeps the share k of the error, noise at a step counts k^(steps after it) at the end. So a budget does
    the least harm where the variance is proportional to k^(-(steps after it) / 2). ``fall`` is k^(-steps / 2): by how
    much the error should fall is a good choice (``dpzo.theory.stagewise.fastest``). Within a stage the noise is one,
    as best for it (``allocated``); 40 stages come within 1 % of noise that falls at each step where the error falls
    a million times.

    Raises:
        Refusal: numbers out of range, a fall of 1 or less, or more stages than steps.

    Source: ours; the book's theorem thm-stagewise (4).

    >>> [(s.steps, round(s.noise_scale, 2)) for s in fading(steps=100, step_size=0.1, zo_eps=1e-3, fall=16., stages=3)]
    [(33, 1.0), (34, 0.63), (33, 0.4)]
    """
    whole("stages", stages)
    whole("steps", steps)
    positive("fall", fall)
    if fall <= 1:
        raise Refusal("a fall above 1", fall, "Leave noise that does not fall to a single stage.")
    if steps < stages:
        raise Refusal(f"as many steps as the {stages} stages, or more", steps, "Take fewer stages.")
    ends = [round(steps * s / stages) for s in range(stages + 1)]
    made = [Stage(end - start, step_size, zo_eps) for start, end in pairwise(ends)]
    rate = 2 * math.log(fall) / steps  # -log k
    weights = [
        math.exp(-rate * (steps - end)) * -math.expm1(-rate * (end - start)) / (end - start)
        for start, end in pairwise(ends)
    ]
    return allocated(made, weights)


def allocated(stages: Sequence[Stage], weights: Sequence[float]) -> tuple[Stage, ...]:
    """The stages with the budget of the run split so that the noise does the least harm.

    ``weights`` says how much a unit of noise variance at one step of each stage adds to the final error, as
    ``dpzo.theory.stagewise.noise_weights`` does. Gaussian steps cost (C_s / sigma_s)^2 each, so sum w_s T_s sigma_s^2
    is least at a given cost where sigma_s^2 goes as C_s w_s^(-1/2). ``noise_scale`` is sigma_s over C_s, and what
    counts is its ratio from stage to stage; calibration sets the common size.

    That is least on the full batch: with Poisson sampling and a sigma near 1 another split may do 5 to 10 % less harm
    at the same epsilon. A ``noise_scale`` that the stages have is replaced.

    Raises:
        Refusal: another number of weights than stages, one that is not positive, or a C of their own for some stages
            alone.

    >>> halves = doubling(first_steps=1, steps=3, step_size=1., zo_eps=1., stages=2)
    >>> [round(s.noise_scale, 3) for s in allocated(halves, [1., 16.])]
    [1.0, 0.5]
    """
    if len(weights) != len(stages):
        raise Refusal(f"a weight for each of the {len(stages)} stages", f"{len(weights)}", "Give one for each.")
    for weight in weights:
        positive("weight", weight)
    if len({stage.clip_threshold is None for stage in stages}) > 1:
        raise Refusal("a clip_threshold for each stage, or for none", "for some", "The noise is counted in it.")
    clips = [stage.clip_threshold or 1.0 for stage in stages]
    return tuple(
        replace(stage, noise_scale=(w / weights[0]) ** -0.25 * (C / clips[0]) ** -0.5)
        for stage, w, C in zip(stages, weights, clips, strict=True)
    )
