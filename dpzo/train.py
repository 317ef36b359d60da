"""The loop, written once: a plan, a model, data and three streams become a sequence of steps."""

from collections.abc import Iterator
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from dpzo.algorithms import STEPS, check
from dpzo.directions import ahead
from dpzo.errors import Refusal
from dpzo.guard import Guard
from dpzo.ledger import Ledger
from dpzo.plan import Plan
from dpzo.randomness import Streams
from dpzo.transcript import replayed
from dpzo.types import Data, Indices, LossModel, Records, Step
from dpzo.walk import Walk, refuse_halfway, spans


def run(
    plan: Plan,
    model: LossModel,
    data: Data,
    streams: Streams,
    *,
    ledger: Ledger | None = None,
    budget: tuple[float, float] | None = None,
) -> Iterator[Step]:
    """Train ``model.params`` in place, one step for each item that is taken from the iterator.

    Stop by taking no more; what was taken costs ``plan.epsilon(delta, steps=taken)``, the rest nothing, unless you stop
    because of what was released: then the whole plan's epsilon holds. ``budget`` is (epsilon, delta): the run ends
    before the step that would exceed it. With a ``ledger`` every step is charged on disk before it touches the data,
    and a run that the ledger knows goes on: ``model`` comes at its starting weights, the steps that were released are
    replayed first (and are items too), those that were charged only are lost.

    A ``Guard`` (dpzo.guard) looks at the model and the data before the first charge and around every step.

    Raises:
        Refusal: at the call, before anything is spent: ``data`` of another length or unit than the plan's, an unknown
            algorithm, a budget too small for one step, a ledger of another run, or what ``Guard`` refuses. With the
            first step, before it is charged: records or losses that it refuses. Later, because of what was done to the
            model between the steps.
    """
    if len(data) != plan.n:
        raise Refusal(
            f"the {plan.n} {plan.unit}s that the plan was made for",
            f"{len(data)} {plan.unit}s",
            "Plan again with n = the size of this data; the noise depends on it.",
        )
    if (unit := getattr(data, "unit", "record")) != plan.unit:
        raise Refusal(f"data whose unit is a {plan.unit}, as the plan's", f"a {unit}", "Plan for the data's unit.")
    check(plan)
    walk = Walk(plan, model)
    guard = Guard(walk, data)
    end = plan.end_of(budget)
    known = [] if ledger is None else ledger.begin(plan, model.params, streams, data)
    start = 0 if ledger is None else ledger.charged
    if ledger is not None:
        refuse_halfway(plan, ledger.known)
    return chain(replayed(walk, known), _steps(walk, data, streams, range(start, end), ledger, guard))


def _steps(
    walk: Walk, data: Data, streams: Streams, indices: range, ledger: Ledger | None, guard: Guard
) -> Iterator[Step]:
    plan = walk.plan
    take_step, K = STEPS[plan.algorithm], plan.mechanism.directions
    divisor = plan.sampler.divisor(plan.n)
    batches = plan.sampler.batches(plan.n, indices, streams.private)
    for number, mine in spans(plan, indices):
        walk.enter(number)
        stage, mechanism = plan.stages[number], plan.mechanism_of(number)
        directions = ahead(plan.direction, walk.params, map(streams.direction_seed, mine), K)
        for index in mine:
            noise = streams.noise.at(index)  # before all else: a fork is refused before it looks at anything
            if index == indices.start:
                guard.begin()
            guard.before(last=index + 1 == indices.stop)
            if ledger is not None:
                ledger.charge(index)
            us, batch = next(directions), next(batches)
            scalars = take_step(_OneLossEach(walk, data), batch, us, stage, divisor, mechanism, noise)
            guard.after()
            walk.took(index)
            step = Step(index, number, us[0].seed, scalars, walk.mask)
            if ledger is not None:
                ledger.release(step)
            yield step


class _OneLossEach:
    # The walk's losses as an algorithm sees them: of a batch, told by its indices into the data, looked up once.
    def __init__(self, walk: Walk, data: Data) -> None:
        self.walk, self.params, self.data = walk, walk.params, data
        self._batch, self._records = np.zeros(0, dtype=np.int64), None

    def losses(self, batch: Indices) -> Tensor:
        if not len(batch):  # nobody's code is called
            return torch.zeros(0)
        try:
            if batch is not self._batch:
                self._records, self._batch = self.data[batch], batch
            return self._checked(self._records, batch)
        except (Refusal, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception:  # a run that stops would say that such a record is there: what has no loss counts as 0
            losses = torch.full((len(batch),), torch.nan, dtype=torch.float64)
            whole = np.array([place for place in range(len(batch)) if self._has_loss(batch[place : place + 1])])
            if len(whole):
                rest = batch[whole]
                losses[torch.from_numpy(whole)] = self._checked(self.data[rest], rest).double().cpu()
            return losses

    def _checked(self, records: Records, batch: Indices) -> Tensor:
        # The sensitivity counts on one number a record: a mean over the batch would be clipped as if it were one's.
        losses = self.walk.losses(records)
        if losses.shape != batch.shape:  # how many records there are is private
            came = "another number of losses" if losses.ndim == 1 else f"losses with {losses.ndim} dimensions, not one"
            raise Refusal("one loss for each record of the batch", came, "Take no mean over the batch.")
        return losses

    def _has_loss(self, one: Indices) -> bool:
        try:
            self._checked(self.data[one], one)
        except (Refusal, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception:
            return False
        return True


def random_iterate(plan: Plan, streams: Streams) -> int:
    """tau, uniform on 0 .. T-1, a public draw: the theory's output is the iterate after tau steps.

    Take ``itertools.islice(run(...), tau)`` and stop. The plan's epsilon for all T steps covers it.

    Source: Zhang et al. 2024, Alg. 1 and 2, output line.
    """
    return streams.direction_seed(-1) % plan.steps
