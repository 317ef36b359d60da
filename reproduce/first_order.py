"""DP-AdamW, the first-order reference: each record's own gradient clipped, Gaussian noise on their sum, then AdamW."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dpzo import Plan, Relation, Stage, Streams
from dpzo.algorithms.dpgd_zeroth import noise_vector
from dpzo.directions import GaussianDirection
from dpzo.mechanisms import GaussianVectorMechanism
from dpzo.models.encoding import Records
from dpzo.models.prompted import PromptedModel
from dpzo.plan import sampler_of
from reproduce.gradients import Gradients, per_record


@dataclass(frozen=True)
class FirstOrder:
    """DP-AdamW's own settings; its noise and sampling are a ``Plan``'s."""

    steps: int
    batch_size: int
    learning_rate: float
    clip_threshold: float


def first_order_plan(settings: FirstOrder, n: int, epsilon: float, delta: float) -> Plan:
    """The run's accounting: Poisson batches, one Gaussian vector a step; ``dpzo.run`` does not take this plan."""
    plan = Plan(
        algorithm="dp-adamw",
        n=n,
        sampler=sampler_of(settings.batch_size, n),
        mechanism=GaussianVectorMechanism(settings.clip_threshold, noise_multiplier=1.0),
        direction=GaussianDirection(),
        stages=(Stage(settings.steps, settings.learning_rate, 1.0),),
        relation=Relation.ADD_REMOVE,
    )
    return plan.calibrate(epsilon, delta)


def dp_adamw(plan: Plan, settings: FirstOrder, model: PromptedModel, data: Records, streams: Streams) -> Iterator[int]:
    """Train ``model.params`` in place; yields the number of each step.

    The noise is drawn from the secret stream in double precision: an idealisation, which no privacy statement of dpzo
    is made for. (DPGD-0th's noise is exact along the one line that records move; gradients move all of them.)

    Source: Abadi et al. 2016, Alg. 1, with AdamW's update (Li et al. 2022).
    """
    assert isinstance(plan.mechanism, GaussianVectorMechanism)
    C, σ = settings.clip_threshold, plan.mechanism.noise_multiplier
    divisor = plan.sampler.divisor(plan.n)
    optimiser = torch.optim.AdamW(list(model.params.values()), lr=settings.learning_rate, weight_decay=0.0)
    batches = plan.sampler.batches(plan.n, range(plan.steps), streams.private)
    for step, batch in enumerate(batches):
        total = {name: torch.zeros_like(t) for name, t in model.params.items()}
        for gradients in per_record(model, data[batch]):
            add_clipped(total, gradients, C)
        z = noise_vector(model.params, σ * C, streams.noise.at(step))
        for name, t in model.params.items():
            t.grad = (total[name] + z[name]) / divisor
        optimiser.step()
        optimiser.zero_grad()
        yield step


def add_clipped(total: dict[str, Tensor], gradients: Gradients, clip_threshold: float) -> None:
    """Add each record's gradient, scaled to a norm of ``clip_threshold`` where it is longer.

    A gradient that is not finite counts as 0, by rule.
    """
    lengths = torch.stack([torch.linalg.vector_norm(g.flatten(1), dim=1) for g in gradients.values()])
    norms = torch.linalg.vector_norm(lengths, dim=0)
    good = torch.isfinite(norms)
    factors = torch.where(good, (clip_threshold / norms).clamp(max=1.0), 0.0)
    for name, g in gradients.items():
        g = g if good.all() else torch.where(good.view(-1, *[1] * (g.ndim - 1)), g, 0.0)
        total[name] += torch.tensordot(factors, g, 1)
