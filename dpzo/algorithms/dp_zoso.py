"""DP-ZOSO: stages of DPZero, each with its own step size, smoothing and pull towards where it began.

    DP-ZOSO. Input: S, x_0, stages (T_s, eta_s, lambda_s, gamma_s, C_s), P, sigma
    1  for s = 1 .. S
    2      a = x                                             (the anchor; none is kept where gamma_s = 0)
    3      for T_s steps
    4          draw u_1 .. u_P, whatever the data are
    5          v_i = (1/P) (the two-point derivatives of record i's loss along u_1 .. u_P at radius lambda_s)
    6          g = (1/n) (sum_i clip_C(v_i) + N(0, sigma^2 C^2 I_P)), clip_C by the Euclidean norm of v_i
    7          x = x - eta_s (sum_p g_p u_p + gamma_s (x - a))
    8  output x

One accountant sees the steps of all stages. The pull looks at no data. The paper's abstract and its authors' code are
all of it that we could read; where they are silent this is our choice: the joint clip of P directions (the code clips
each and accounts for one), the pull outside the product with u, a true copy as the anchor, exact boundaries. C
bounds the P-vector of the derivatives over P.

Source: Liu et al. 2024 (arXiv 2402.07818), as far as its abstract and code tell; line 6 for P > 1 is DP-AggZO's.
"""

from collections.abc import Sequence

from dpzo.accounting import Relation
from dpzo.directions import Direction, Drawn, GaussianDirection
from dpzo.estimators import two_points
from dpzo.mechanisms import GaussianMechanism
from dpzo.plan import Plan, Unit, sampler_of, with_noise
from dpzo.stages import Stage
from dpzo.types import Entropy, LossModel, Records


def step(
    model: LossModel,
    records: Records,
    us: tuple[Drawn, ...],
    stage: Stage,
    divisor: float,
    mechanism: GaussianMechanism,
    noise: Entropy,
) -> tuple[float, ...]:
    """One step on the records of its batch; returns the P released scalars g_p."""
    η, λ, γ, P = stage.step_size, stage.zo_eps, stage.proximal, len(us)
    v = two_points(model, records, us, λ) / P  # line 5
    g = mechanism.release(v, noise).reshape(P) / divisor  # line 6
    if γ:
        model.params.pull_(η * γ)  # line 7, its last term: it looks at x as it was evaluated
    for u_p, g_p in zip(us, g.tolist(), strict=True):
        model.params.add_(u_p, -η * g_p)  # line 7
    return tuple(g.tolist())


def dp_zoso(
    *,
    n: int,
    stages: Sequence[Stage],
    clip_threshold: float,
    relation: Relation,
    directions: int = 1,
    batch_size: int | None = None,
    noise_multiplier: float | None = None,
    target_epsilon: float | None = None,
    target_delta: float | None = None,
    direction: Direction = GaussianDirection(),  # noqa: B008  (frozen and stateless)
    unit: Unit = "record",
) -> Plan:
    """Plan a run with P = ``directions``; ``stages`` from ``dpzo.stages`` or by hand; else as ``dpzero``.

    Raises:
        Refusal: no stages, stages that keep only a share (that is ``dp_zopo``), or a value out of its range.

    >>> from dpzo.stages import doubling
    >>> plan = dp_zoso(n=1024, batch_size=64, clip_threshold=30., target_epsilon=2., target_delta=1e-5,
    ...     relation=Relation.ADD_REMOVE, stages=doubling(first_steps=1000, steps=6000, step_size=2e-5, zo_eps=1e-3))
    >>> round(plan.mechanism.noise_multiplier, 1), round(plan.epsilon(1e-5), 3)
    (9.7, 2.0)
    """
    plan = Plan(
        algorithm="dp-zoso",
        n=n,
        sampler=sampler_of(batch_size, n),
        mechanism=GaussianMechanism(clip_threshold, noise_multiplier=1.0, directions=directions),
        direction=direction,
        stages=tuple(stages),
        relation=relation,
        unit=unit,
    )
    return with_noise(plan, noise_multiplier, target_epsilon, target_delta)
