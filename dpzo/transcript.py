"""The steps of a run as a record: a digest to name it by, and the model that it leads to."""

import hashlib
from collections.abc import Iterable

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
        Refusal: a step that released no scalar (DPGD-0th's vectors cannot be replayed from a seed).
    """
    for step in steps:
        if len(step.scalars) != 1:
            raise Refusal(
                "one scalar a step to replay", f"{len(step.scalars)} at step {step.index}", "Keep the weights."
            )
        alpha = plan.stages[step.stage].step_size
        plan.direction.draw(params, step.seed).add_(params, -alpha * step.scalars[0])
