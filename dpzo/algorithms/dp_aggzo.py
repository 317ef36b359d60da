"""DP-AggZO: K public directions a step, one clip for the K-vector of each record, one K-dimensional noise.

    DP-AggZO, in the notation of Algorithm 2 (Zhang et al. 2024)
    1  for t = 0 .. T-1
    2      draw u_1 .. u_K, whatever the data are
    3      v_i = (1/K) (the two-point derivatives of record i's loss along u_1 .. u_K), a vector in R^K
    4      s = (1/n) (sum_i clip_C(v_i) + N(0, sigma^2 I_K)), clip_C by the Euclidean norm of v_i
    5      x_{t+1} = x_t - alpha sum_k s_k u_k

A record moves the released vector by at most C whatever K is, so K costs forward passes and no privacy. Clipping each
derivative on its own (``clip="each"``) lets it move by C sqrt(K), and the accountant charges for that.

Source: Bao et al., DP-AggZO (USENIX Security 2025), for the joint clip; the noise and its accounting are ours.
"""

from typing import Literal, get_args

from dpzo.accounting import Relation
from dpzo.directions import Direction, Drawn, GaussianDirection
from dpzo.errors import Refusal
from dpzo.estimators import two_points
from dpzo.mechanisms import EachGaussianMechanism, GaussianMechanism
from dpzo.plan import Plan, sampler_of, with_noise
from dpzo.stages import Stage
from dpzo.types import Entropy, LossModel, Records

Clip = Literal["jointly", "each"]


def step(
    model: LossModel,
    records: Records,
    us: tuple[Drawn, ...],
    stage: Stage,
    divisor: float,
    mechanism: GaussianMechanism | EachGaussianMechanism,
    noise: Entropy,
) -> tuple[float, ...]:
    """One step on the records of its batch; returns the K released scalars."""
    α, λ, K = stage.step_size, stage.zo_eps, len(us)
    v = two_points(model, records, us, λ) / K  # line 3
    s = mechanism.release(v, noise) / divisor  # line 4
    for u_k, s_k in zip(us, s.tolist(), strict=True):
        model.params.add_(u_k, -α * s_k)  # line 5
    return tuple(s.tolist())


def dp_aggzo(
    *,
    n: int,
    steps: int,
    directions: int,
    step_size: float,
    zo_eps: float,
    clip_threshold: float,
    relation: Relation,
    clip: Clip = "jointly",
    batch_size: int | None = None,
    noise_multiplier: float | None = None,
    target_epsilon: float | None = None,
    target_delta: float | None = None,
    direction: Direction = GaussianDirection(),  # noqa: B008  (frozen and stateless)
) -> Plan:
    """Plan a run with K = ``directions``; the other arguments are those of ``dpzero``, and C bounds a K-vector's norm.

    Raises:
        Refusal: a value out of its range, an unknown clip, or both or neither of the two ways to set the noise.
    """
    if clip not in get_args(Clip):
        raise Refusal(f"a clip among {', '.join(get_args(Clip))}", repr(clip), "Choose one.")
    kind = GaussianMechanism if clip == "jointly" else EachGaussianMechanism
    plan = Plan(
        algorithm="dp-aggzo",
        n=n,
        sampler=sampler_of(batch_size, n),
        mechanism=kind(clip_threshold, noise_multiplier=1.0, directions=directions),
        direction=direction,
        stages=(Stage(steps, step_size, zo_eps),),
        relation=relation,
    )
    return with_noise(plan, noise_multiplier, target_epsilon, target_delta)
