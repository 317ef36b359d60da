"""DPZero: the direction is public, so only a scalar is clipped and noised.

    Algorithm 2 (Zhang et al. 2024). Input: S, x_0, T, alpha, lambda, C, eps, delta
    1  for t = 0 .. T-1
    2      draw u_t uniformly on the sphere of radius sqrt(d), whatever the data are
    3      draw a scalar z_t ~ N(0, sigma^2), sigma = 4 C sqrt(2 T log(e + eps/delta)) / (n eps)
    4      v_i = (f(x_t + lambda u_t; xi_i) - f(x_t - lambda u_t; xi_i)) / (2 lambda), for every record
    5      x_{t+1} = x_t - alpha ((1/n) sum_i clip_C(v_i) + z_t) u_t
    6  output x_tau, tau uniform on 0 .. T-1

Here sigma comes from an exact accountant and is the noise on the sum, before the division; a Poisson batch and its
expected size may stand for S and n; u may be Gaussian, as in the paper's experiments; and the iterates are the
caller's to choose from: the last one (the experiments') or ``dpzo.random_iterate`` (line 6).
"""

from typing import Literal

from dpzo.accounting import Relation
from dpzo.directions import Direction, Drawn, SphereDirection
from dpzo.errors import Refusal
from dpzo.estimators import two_point
from dpzo.mechanisms import GaussianMechanism, LaplaceMechanism
from dpzo.plan import Plan, Unit, sampler_of, with_noise
from dpzo.stages import Stage
from dpzo.types import Entropy, LossModel, Records

NOISES: dict[str, type[GaussianMechanism] | type[LaplaceMechanism]] = {
    "gaussian": GaussianMechanism,
    "laplace": LaplaceMechanism,
}


def step(
    model: LossModel,
    records: Records,
    us: tuple[Drawn, ...],
    stage: Stage,
    divisor: float,
    mechanism: GaussianMechanism | LaplaceMechanism,
    noise: Entropy,
) -> tuple[float, ...]:
    """One step on the records of its batch; returns the released scalar, in units of the derivative."""
    α, λ = stage.step_size, stage.zo_eps
    (u,) = us  # line 2
    v = two_point(model, records, u, λ)  # line 4
    s = float(mechanism.release(v, noise)) / divisor  # lines 3 and 5: clip, sum, add one noise, divide
    model.params.add_(u, -α * s)  # line 5
    return (s,)


def dpzero(
    *,
    n: int,
    steps: int,
    step_size: float,
    zo_eps: float,
    clip_threshold: float,
    relation: Relation,
    batch_size: int | None = None,
    noise_multiplier: float | None = None,
    target_epsilon: float | None = None,
    target_delta: float | None = None,
    direction: Direction = SphereDirection(),  # noqa: B008  (frozen and stateless)
    noise: Literal["gaussian", "laplace"] = "gaussian",
    unit: Unit = "record",
) -> Plan:
    """Plan a run of DPZero on ``n`` records: ``steps`` steps on all of them, or on Poisson batches of ``batch_size``.

    ``zo_eps`` is the smoothing radius lambda; ``clip_threshold`` is C in units of the derivative. Give exactly one of
    ``noise_multiplier`` (noise on the sum over C) and ``target_epsilon`` (with ``target_delta``). ``noise="laplace"``
    is often less noise at an epsilon above 2; ``unit="user"`` counts users (``dpzo.models.users``).

    Raises:
        Refusal: a value out of its range, or both or neither of the two ways to set the noise.

    Source: Zhang et al. 2024, Alg. 2.

    >>> plan = dpzero(n=1000, steps=100, step_size=.1, zo_eps=1e-3, clip_threshold=1., noise_multiplier=20.,
    ...               relation=Relation.REPLACE_ONE)
    >>> round(plan.epsilon(1e-5), 2)
    4.38
    """
    if noise not in NOISES:
        raise Refusal(f"a noise among {', '.join(NOISES)}", repr(noise), "Choose one.")
    plan = Plan(
        algorithm="dpzero",
        n=n,
        sampler=sampler_of(batch_size, n),
        mechanism=NOISES[noise](clip_threshold, noise_multiplier=1.0),
        direction=direction,
        stages=(Stage(steps, step_size, zo_eps),),
        relation=relation,
        unit=unit,
    )
    return with_noise(plan, noise_multiplier, target_epsilon, target_delta)
