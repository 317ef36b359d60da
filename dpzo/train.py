"""The loop, written once: a plan, a model, data and three streams become a sequence of steps."""

from collections.abc import Iterator

from dpzo.algorithms import STEPS
from dpzo.errors import Refusal
from dpzo.plan import Plan
from dpzo.randomness import Streams
from dpzo.types import Data, LossModel, Step


def run(plan: Plan, model: LossModel, data: Data, streams: Streams) -> Iterator[Step]:
    """Train ``model.params`` in place, one step for each item that is taken from the iterator.

    Stop by taking no more; what was taken costs ``plan.epsilon(delta, steps=taken)``, the rest nothing.

    Raises:
        Refusal: at the call, before anything is spent: ``data`` of another length than the plan's n, or an unknown
            algorithm.
    """
    if len(data) != plan.n:
        raise Refusal(
            f"the {plan.n} records that the plan was made for",
            f"{len(data)} records",
            "Plan again with n = the size of this data; the noise depends on it.",
        )
    if plan.algorithm not in STEPS:
        raise Refusal(f"an algorithm among {', '.join(STEPS)}", repr(plan.algorithm), "Choose one.")
    return _steps(plan, model, data, streams)


def _steps(plan: Plan, model: LossModel, data: Data, streams: Streams) -> Iterator[Step]:
    take_step = STEPS[plan.algorithm]
    divisor = plan.sampler.divisor(plan.n)
    batches = plan.sampler.batches(plan.n, plan.steps, streams.private)
    index = 0
    for number, stage in enumerate(plan.stages):
        for _ in range(stage.steps):
            seed = streams.direction_seed(index)
            u = plan.direction.draw(model.params, seed)
            scalars = take_step(model, data[next(batches)], u, stage, divisor, plan.mechanism, streams.noise)
            yield Step(index, number, seed, scalars)
            index += 1


def random_iterate(plan: Plan, streams: Streams) -> int:
    """tau, uniform on 0 .. T-1, a public draw: the theory's output is the iterate after tau steps.

    Take ``itertools.islice(run(...), tau)`` and stop. The plan's epsilon for all T steps covers it.

    Source: Zhang et al. 2024, Alg. 1 and 2, output line.
    """
    return streams.direction_seed(-1) % plan.steps
