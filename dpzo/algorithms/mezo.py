"""MeZO: DPZero's loop without clip and noise, and so without privacy.

Zeroth-order SGD (Malladi et al. 2023), in the notation of Algorithm 2
1  for t = 0 .. T-1
2      draw u_t ~ N(0, I_d) from a seed
3      v_i = (f(x_t + lambda u_t; xi_i) - f(x_t - lambda u_t; xi_i)) / (2 lambda), for every record of a batch
4      x_{t+1} = x_t - alpha (mean_i v_i) u_t
"""

from dpzo.accounting import Relation
from dpzo.directions import Direction, Drawn, GaussianDirection
from dpzo.estimators import two_point
from dpzo.mechanisms import PlainSum
from dpzo.plan import Plan, sampler_of
from dpzo.stages import Stage
from dpzo.types import Entropy, LossModel, Records


def step(
    model: LossModel,
    records: Records,
    us: tuple[Drawn, ...],
    stage: Stage,
    divisor: float,
    mechanism: PlainSum,
    noise: Entropy,
) -> tuple[float, ...]:
    """One step on the records of its batch; returns the mean derivative, which is NOT private."""
    α, λ = stage.step_size, stage.zo_eps
    (u,) = us  # line 2
    v = two_point(model, records, u, λ)  # line 3
    s = float(mechanism.release(v, noise)) / divisor
    model.params.add_(u, -α * s)  # line 4
    return (s,)


def mezo(
    *,
    n: int,
    steps: int,
    step_size: float,
    zo_eps: float,
    batch_size: int | None = None,
    direction: Direction = GaussianDirection(),  # noqa: B008  (frozen and stateless)
) -> Plan:
    """Plan a run of MeZO; its epsilon is infinite.

    Source: Malladi et al. 2023 (arXiv 2305.17333), Alg. 1.
    """
    return Plan(
        algorithm="mezo",
        n=n,
        sampler=sampler_of(batch_size, n),
        mechanism=PlainSum(),
        direction=direction,
        stages=(Stage(steps, step_size, zo_eps),),
        relation=Relation.ADD_REMOVE,
    )
