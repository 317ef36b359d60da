"""DPGD-0th: the natural but costly way, noise on the whole estimated gradient.

    Algorithm 1 (Zhang et al. 2024). Input: S, x_0, T, alpha, lambda, C, eps, delta
    1  for t = 0 .. T-1
    2      draw u_t uniformly on the sphere of radius sqrt(d)
    3      g_i = ((f(x_t + lambda u_t; xi_i) - f(x_t - lambda u_t; xi_i)) / (2 lambda)) u_t, for every record
    4      draw a vector z_t ~ N(0, sigma^2 I_d), sigma = 4 C sqrt(2 T log(e + eps/delta)) / (n eps)
    5      x_{t+1} = x_t - alpha ((1/n) sum_i clip_C(g_i) + z_t), clip_C by the Euclidean norm
    6  output x_tau, tau uniform on 0 .. T-1

A step releases a vector in R^d, so there is no scalar to tell it by, and the transcript holds none. z_t is drawn in two
parts, along u_t and across it: all records' vectors lie along u_t, so their sum meets the first part alone, exactly on
a grid, and no rounding of the other d - 1 numbers, or of the weights, can tell what the sum was.
"""

import torch
from torch import Tensor

from dpzo.accounting import Relation
from dpzo.directions import Direction, Drawn, SphereDirection
from dpzo.estimators import two_point
from dpzo.mechanisms import GaussianVectorMechanism
from dpzo.parameters import Parameters
from dpzo.plan import Plan, sampler_of, with_noise
from dpzo.stages import Stage
from dpzo.types import Entropy, LossModel, Records


def step(
    model: LossModel,
    records: Records,
    us: tuple[Drawn, ...],
    stage: Stage,
    divisor: float,
    mechanism: GaussianVectorMechanism,
    noise: Entropy,
) -> tuple[float, ...]:
    """One step on the records of its batch; releases the new iterate and no scalar."""
    α, λ = stage.step_size, stage.zo_eps
    (u,) = us  # line 2
    v = two_point(model, records, u, λ)  # line 3: g_i = v_i u
    norm = u.norm()
    s = float(mechanism.release(v, noise, norm))  # line 5's sum and line 4's noise along u, as a length
    z = noise_vector(model.params, mechanism.noise_multiplier * mechanism.clip_threshold, noise)  # line 4
    u.add_(z, s / norm - u.dot(z) / norm**2)  # n times line 5's bracket: the noise across u, and s along it
    for name, tensor in model.params.items():
        tensor.data.sub_(z[name], alpha=α / divisor)  # line 5
    return ()


def noise_vector(params: Parameters, scale: float, noise: Entropy) -> dict[str, Tensor]:
    """``scale * z``, z standard normal in R^d from the secret stream, one draw for each coordinate.

    In float32 at least, whatever the weights are, so that the noise has the law that the theory counts on.
    """
    wide = {name: torch.promote_types(t.dtype, torch.float32) for name, t in params.items()}
    return {
        name: torch.tensor(scale * noise.normal(t.numel()), dtype=wide[name], device=t.device).view(t.shape)
        for name, t in params.items()
    }


def dpgd_zeroth(
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
) -> Plan:
    """Plan a run of DPGD-0th; the arguments are those of ``dpzero``, but C bounds the norm of a vector.

    A record's estimate v u has norm |v| sqrt(d), so the C that clips as much as DPZero's is sqrt(d) times DPZero's.

    Raises:
        Refusal: a value out of its range, or both or neither of the two ways to set the noise.

    Source: Zhang et al. 2024, Alg. 1.
    """
    plan = Plan(
        algorithm="dpgd-0th",
        n=n,
        sampler=sampler_of(batch_size, n),
        mechanism=GaussianVectorMechanism(clip_threshold, noise_multiplier=1.0),
        direction=direction,
        stages=(Stage(steps, step_size, zo_eps),),
        relation=relation,
    )
    return with_noise(plan, noise_multiplier, target_epsilon, target_delta)
