"""The steps of a run as a record: a digest to name it by, and the model that it leads to."""

import hashlib
from collections.abc import Iterable, Iterator
from itertools import groupby

from dpzo.directions import ahead
from dpzo.errors import Refusal
from dpzo.parameters import Parameters
from dpzo.plan import Plan
from dpzo.types import LossModel, Step
from dpzo.walk import Walk


def digest(steps: Iterable[Step]) -> str:
    """sha256 over the exact bits of every step, in order."""
    sha = hashlib.sha256()
    for step in steps:
        scalars = " ".join(s.hex() for s in step.scalars)
        sha.update(f"{step.index} {step.stage} {step.seed:016x} {scalars}{step.mask and ' ' + step.mask}\n".encode())
    return sha.hexdigest()


def replay(plan: Plan, model: LossModel | Parameters, steps: Iterable[Step]) -> None:
    """Apply the updates of ``steps`` to the base weights of ``model``: no data, and no losses.

    ``model`` may be its parameters alone, unless the plan prunes by a score that needs more of it.

    The result is bit-identical to the trained weights. It is a function of what was released, so it costs no
    privacy beyond the run's.

    Raises:
        Refusal: a step that did not release K scalars (DPGD-0th's vectors cannot be replayed from a seed), or that
            moved along another mask than the one found here.
    """
    for _ in replayed(Walk(plan, _Bare(model) if isinstance(model, Parameters) else model), steps):
        pass


class _Bare:
    def __init__(self, params: Parameters) -> None:
        self.params = params


def replayed(walk: Walk, steps: Iterable[Step]) -> Iterator[Step]:
    """``replay`` along a walk, one step for each item that is taken from the iterator."""
    plan = walk.plan
    steps, K = list(steps), plan.mechanism.directions
    if wrong := [step for step in steps if len(step.scalars) != K]:
        raise Refusal(
            f"{K} scalars a step to replay", f"{len(wrong[0].scalars)} at step {wrong[0].index}", "Keep the weights."
        )
    for number, mine in groupby(steps, key=lambda step: step.stage):
        walk.enter(number)
        stage, group = plan.stages[number], list(mine)
        if other := next((step for step in group if step.mask != walk.mask), None):
            raise Refusal(
                f"the mask {other.mask or 'of all coordinates'}, along which step {other.index} moved",
                walk.mask or "all coordinates",
                "Replay where the run was made, with its plan and weights: another machine, thread count or version "
                "may compute a score's last bits otherwise.",
            )
        directions = ahead(plan.direction, walk.params, (step.seed for step in group), K)
        for step, us in zip(group, directions, strict=True):
            if stage.proximal:
                walk.params.pull_(stage.step_size * stage.proximal)
            for u, scalar in zip(us, step.scalars, strict=True):
                walk.params.add_(u, -stage.step_size * scalar)
            walk.took(step.index)
            yield step
