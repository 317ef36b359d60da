"""DP-AdamW, the first-order reference: each record's own gradient clipped, Gaussian noise on their sum, then AdamW.

Only what comes after the cut of a language model is trained, so a gradient needs no pass through the rest.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy

from dpzo import Plan, Relation, Stage, Streams
from dpzo.algorithms.dpgd_zeroth import noise_vector
from dpzo.directions import GaussianDirection
from dpzo.mechanisms import GaussianVectorMechanism
from dpzo.models.encoding import Records
from dpzo.models.prompted import PromptedModel
from dpzo.plan import sampler_of

_AT_ONCE = 16  # gradients of records held at once


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


class _Tail(torch.nn.Module):
    # What follows the cut, as a module, so that functional_call can replace its weights.
    def __init__(self, model: PromptedModel) -> None:
        super().__init__()
        self.model = model.model
        self.finish = [model._finish]

    def forward(self, passed: Tensor) -> Tensor:
        return self.finish[0](passed)


def dp_adamw(plan: Plan, settings: FirstOrder, model: PromptedModel, data: Records, streams: Streams) -> Iterator[int]:
    """Train ``model.params`` in place; yields the number of each step.

    The noise is drawn from the secret stream in double precision: an idealisation, as for DPGD-0th.

    Source: Abadi et al. 2016, Alg. 1, with AdamW's update (Li et al. 2022).
    """
    assert isinstance(plan.mechanism, GaussianVectorMechanism)
    assert data.passed is not None, "only what comes after a cut can be trained here"
    C, σ = settings.clip_threshold, plan.mechanism.noise_multiplier
    divisor, tail = plan.sampler.divisor(plan.n), _Tail(model)
    names = {f"model.{name}": name for name in model.params}

    def loss(weights: dict[str, Tensor], passed: Tensor, label: Tensor) -> Tensor:
        scores = functional_call(tail, weights, (passed[None],))
        return cross_entropy(scores.float(), label[None])

    each = vmap(grad(loss), in_dims=(None, 0, 0))
    optimiser = torch.optim.AdamW(list(model.params.values()), lr=settings.learning_rate, weight_decay=0.0)
    batches = plan.sampler.batches(plan.n, range(plan.steps), streams.private)
    for step, batch in enumerate(batches):
        weights = {long: model.params[short].detach() for long, short in names.items()}
        total = {short: torch.zeros_like(model.params[short]) for short in model.params}
        for at in np.array_split(batch, max(1, -(-len(batch) // _AT_ONCE))) if len(batch) else ():
            records = data[at]
            gradients = each(weights, records.passed, torch.from_numpy(records.label))
            lengths = torch.stack([torch.linalg.vector_norm(g.flatten(1), dim=1) for g in gradients.values()])
            norms = torch.linalg.vector_norm(lengths, dim=0)
            good = torch.isfinite(norms)  # a gradient that is not finite counts as 0, by rule
            factors = torch.where(good, (C / norms).clamp(max=1.0), 0.0)
            for long, g in gradients.items():
                g = g if good.all() else torch.where(good.view(-1, *[1] * (g.ndim - 1)), g, 0.0)
                total[names[long]] += torch.tensordot(factors, g, 1)
        z = noise_vector(model.params, σ * C, streams.noise.at(step))
        for short, t in model.params.items():
            t.grad = (total[short] + z[short]) / divisor
        optimiser.step()
        optimiser.zero_grad()
        yield step
