"""The steps of a run as a record: a digest to name it by, and the model that it leads to."""

import hashlib
from collections.abc import Iterable, Iterator

from dpzo.directions import ahead
from dpzo.errors import Refusal
from dpzo.parameters import Parameters
from dpzo.plan import Plan
from dpzo.types import Step


def digest(steps: Iterable[Step]) -> str:
    """sha256 over the exact bits of every step, in order."""
    sha = hashlib.sha256()
    for step in steps:
        scalars = " ".join(s.hex() for s in step.scalars)
        sha.update(f"{step.index} {step.stage} {step.seed:016x} {scalars}\n".encode())
    return sha.hexdigest()


def replay(plan: Plan, params: Parameters, steps: Iterable[Step]) -> None:
    """Apply the updates of ``steps`` to the base weights in ``params``: no data, no forward pass.

    The result is bit-identical to the trained weights. It is a function of what was released, so it costs no
    privacy beyond the run's.

    Raises:
        Refusal: a step that did not release K scalars (DPGD-0th's vectors cannot be replayed from a seed).
    """
    for _ in replayed(plan, params, steps):
        pass


def replayed(plan: Plan, params: Parameters, steps: Iterable[Step]) -> Iterator[Step]:
    """``replay``, one step for each item that is taken from the iterator."""
    steps, K = list(steps), plan.mechanism.directions
    if wrong := [step for step in steps if len(step.scalars) != K]:
        raise Refusal(
            f"{K} scalars a step to replay", f"{len(wrong[0].scalars)} at step {wrong[0].index}", "Keep the weights."
        )
    directions = ahead(plan.direction, params, (step.seed for step in steps), K)
    for step, us in zip(steps, directions, strict=True):
        alpha = plan.stages[step.stage].step_size
        for u, scalar in zip(us, step.scalars, strict=True):
            u.add_(params, -alpha * scalar)
        yield step
