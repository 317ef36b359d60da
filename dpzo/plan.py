"""A Plan is everything that is decided before a run, and nothing private: so its epsilon is a property of an object."""

from bisect import bisect_right
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import accumulate, pairwise
from typing import Any, Literal, get_args

from dp_accounting import ComposedDpEvent, DpEvent

from dpzo import accounting, sampling
from dpzo.accounting import Relation
from dpzo.directions import Direction, GaussianDirection, SphereDirection
from dpzo.errors import Refusal, positive
from dpzo.masks import Pruning
from dpzo.mechanisms import Mechanism, PlainSum
from dpzo.printing import rounded_up
from dpzo.sampling import FullBatch, PoissonSampler
from dpzo.stages import Stage
from dpzo.types import Sampler

Unit = Literal["record", "user"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run will do, to how many records, and under which relation it is private.

    Attributes:
        algorithm: a key of ``dpzo.algorithms.STEPS``.
        n: the number of records, public; the run refuses data of another length.
        sampler, mechanism, direction, stages: see their rooms.
        relation: which data sets are neighbours. Mandatory: the same run has another epsilon under each.
        unit: what neighbours differ in: one "record", or one "user" with all of its records (``dpzo.models.users``).
        pruning: how the coordinates that move are chosen, when a stage keeps a share of them; None: all move.
    """

    algorithm: str
    n: int
    sampler: Sampler
    mechanism: Mechanism
    direction: Direction
    stages: tuple[Stage, ...]
    relation: Relation
    unit: Unit = "record"
    pruning: Pruning | None = None

    def __post_init__(self) -> None:
        if isinstance(self.n, bool) or not isinstance(self.n, int) or self.n < 1:
            raise Refusal("a whole number n of records", self.n, "Give the size of the training data.")
        if not isinstance(self.relation, Relation):
            raise Refusal(f"a relation among {', '.join(Relation.__members__)}", repr(self.relation), "Choose one.")
        if not self.stages:
            raise Refusal("at least one stage", "none", "Give the steps of the run.")
        if wrong := [stage for stage in self.stages if not isinstance(stage, Stage)]:
            raise Refusal("every stage to be a Stage", repr(wrong[0]), "Make them by dpzo.Stage or dpzo.stages.")
        if not isinstance(self.pruning, Pruning | None):
            raise Refusal("a Pruning, or None", repr(self.pruning), "Give pruning=Pruning(...).")
        if self.unit not in get_args(Unit):
            raise Refusal(f"a unit among {', '.join(get_args(Unit))}", repr(self.unit), "Choose one.")
        if self.pruning is None and any(stage.keep < 1 for stage in self.stages):
            raise Refusal("a pruning beside stages that keep a share", "none", "Plan dp_zopo, which prunes.")
        self._check_noise()
        for number in range(len(self.stages)):
            self.mechanism_of(number)  # refuses a clip or a noise of the stage's own that no mechanism takes
        inner = self.mechanism.event()
        covers = getattr(self.sampler, "covers", None)  # a sampler that does not say covers nothing
        if covers is None or not covers(inner, self.relation):
            raise Refusal(
                f"a sampler that can be accounted with {inner} under {self.relation}",
                self.sampler,
                "Choose another sampler, mechanism or relation; dpzo.sampling says what each covers.",
            )
        self.sampler.event(inner, self.n, self.steps)  # refuses what does not fit n

    def _check_noise(self) -> None:
        plain = isinstance(self.mechanism, PlainSum)
        if plain and any(stage.clip_threshold is not None or stage.noise_scale != 1 for stage in self.stages):
            raise Refusal("stages with neither clip nor noise for a plain sum", self.stages, "Plan a private method.")
        uneven = len({stage.noise_scale for stage in self.stages}) > 1
        if uneven and not isinstance(self.sampler, sampling.INDEPENDENT):
            names = ", ".join(kind.__name__ for kind in sampling.INDEPENDENT)
            raise Refusal(f"one of {names} for stages of uneven noise", self.sampler, "Epochs would straddle stages.")

    @property
    def steps(self) -> int:
        """T, over all stages."""
        return sum(stage.steps for stage in self.stages)

    def stage_of(self, index: int) -> int:
        """Return the number of the stage that step ``index`` belongs to."""
        ends = accumulate(stage.steps for stage in self.stages)
        return next(number for number, end in enumerate(ends) if index < end)

    def mechanism_of(self, number: int) -> Mechanism:
        """Return the mechanism of stage ``number``: the plan's, with the stage's clip and share of the noise."""
        stage = self.stages[number]
        if isinstance(self.mechanism, PlainSum) or (stage.clip_threshold is None and stage.noise_scale == 1):
            return self.mechanism
        return replace(
            self.mechanism,
            clip_threshold=self.mechanism.clip_threshold if stage.clip_threshold is None else stage.clip_threshold,
            noise_multiplier=self.mechanism.noise_multiplier * stage.noise_scale,
        )

    def describe(self) -> dict[str, Any]:
        """Return the plan as plain values: for ledgers and reports."""
        told: dict[str, Any] = _plain(self)
        return told

    @classmethod
    def described(cls, told: dict[str, Any]) -> "Plan":
        """Return the plan that ``describe`` told."""
        plan = _rebuilt(told)
        if not isinstance(plan, Plan):
            raise Refusal("the description of a plan", told.get("kind"), "Give what Plan.describe returned.")
        return plan

    def event(self, steps: int | None = None) -> DpEvent:
        """Return the event of the whole run, or of its first ``steps`` steps.

        The sampler wraps the mechanism's event, so no run can be accounted with a sampler that it did not use.
        """
        count = self.steps if steps is None else steps
        if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= self.steps:
            raise Refusal(f"a number of steps from 0 to the plan's {self.steps}", count, "Count the steps taken.")
        if count == 0:
            return ComposedDpEvent([])
        if len({stage.noise_scale for stage in self.stages}) == 1:  # epochs may go on across stages
            return self.sampler.event(self.mechanism_of(0).event(), self.n, count)
        ends = [0, *accumulate(stage.steps for stage in self.stages)]
        taken = [min(count, end) - start for start, end in pairwise(ends) if start < count]
        parts = (self.sampler.event(self.mechanism_of(s).event(), self.n, steps) for s, steps in enumerate(taken))
        return ComposedDpEvent(list(parts))

    def epsilon(self, delta: float, *, steps: int | None = None, accountant: str | None = None) -> float:
        """Epsilon at ``delta`` under the plan's relation, of the run or its first ``steps`` steps.

        Infinite for a plan without noise. The accountant is exact for full-batch Gaussians, else PLD unless asked
        for by name (see ``dpzo.accounting.ACCOUNTANTS``); ``"pure"``, for Laplace noise, takes a delta of 0.
        """
        accounting.check_delta(delta, self.n, accountant)
        return accounting.epsilon(self.event(steps), delta, self.relation, accountant)

    def affordable(self, epsilon: float, delta: float) -> int:
        """Return how many of the plan's steps a budget pays for: the most whose epsilon is at most ``epsilon``."""
        positive("epsilon", epsilon)
        if self.epsilon(delta) <= epsilon:
            return self.steps
        return bisect_right(range(1, self.steps), epsilon, key=lambda steps: self.epsilon(delta, steps=steps))

    def end_of(self, budget: tuple[float, float] | None) -> int:
        """Return how many steps a run may take: all of them, or those that ``budget``, (epsilon, delta), pays for.

        Raises:
            Refusal: a budget that does not pay for the first step: such a run would be empty.
        """
        if budget is None:
            return self.steps
        if not (count := self.affordable(*budget)):
            first = rounded_up(self.epsilon(budget[1], steps=1))
            todo = "Spend more, or plan more noise." if first != "inf" else "Plan a private method, or set no budget."
            raise Refusal(f"a budget that pays for the first step, epsilon = {first}", budget, todo)
        return count

    def calibrate(self, target_epsilon: float, target_delta: float, *, accountant: str | None = None) -> "Plan":
        """Return this plan with the least noise whose epsilon is at most the target."""
        accounting.check_delta(target_delta, self.n, accountant)
        if isinstance(self.mechanism, PlainSum):
            raise Refusal("a mechanism with noise to calibrate", "PlainSum", "Plan dpzero or dpgd_zeroth instead.")
        mechanism = self.mechanism

        def event(multiplier: float) -> DpEvent:
            return replace(self, mechanism=replace(mechanism, noise_multiplier=multiplier)).event()

        multiplier = accounting.calibrate(event, target_epsilon, target_delta, self.relation, accountant)
        return replace(self, mechanism=replace(mechanism, noise_multiplier=multiplier))


def sampler_of(batch_size: int | None, n: int) -> Sampler:
    """Poisson sampling with expected batch size ``batch_size``, or the full batch when it is None."""
    if batch_size is None:
        return FullBatch()
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or not 1 <= batch_size <= n:
        raise Refusal(f"a batch size from 1 to the {n} records", batch_size, "Choose a smaller batch, or None for all.")
    return PoissonSampler(batch_size / n)


def with_noise(
    plan: Plan, noise_multiplier: float | None, target_epsilon: float | None, target_delta: float | None
) -> Plan:
    """Return ``plan`` with the noise given directly, or calibrated to the target; exactly one of the two."""
    if (noise_multiplier is None) == (target_epsilon is None):
        came = "neither" if noise_multiplier is None else "both"
        raise Refusal("exactly one of target_epsilon and noise_multiplier", came, "Give one of them.")
    if noise_multiplier is not None:
        if target_delta is not None:
            raise Refusal(
                "no target_delta beside noise_multiplier",
                target_delta,
                "Ask the plan for epsilon at that delta, or give target_epsilon instead of the noise.",
            )
        assert not isinstance(plan.mechanism, PlainSum)
        return replace(plan, mechanism=replace(plan.mechanism, noise_multiplier=noise_multiplier))
    if target_delta is None:
        raise Refusal("a target_delta beside target_epsilon", None, "Delta has no default; choose one below 1/n.")
    assert target_epsilon is not None
    return plan.calibrate(target_epsilon, target_delta)


_KINDS: dict[str, type] = {
    kind.__name__: kind
    for kind in (Plan, Stage, Pruning, *get_args(Mechanism), *sampling.SAMPLERS, GaussianDirection, SphereDirection)
}


def _plain(part: Any) -> Any:
    if isinstance(part, Relation):
        return str(part)
    if is_dataclass(part):
        return {"kind": type(part).__name__} | {f.name: _plain(getattr(part, f.name)) for f in fields(part)}
    return [_plain(p) for p in part] if isinstance(part, tuple) else part


def _rebuilt(told: Any) -> Any:
    if isinstance(told, list):
        return tuple(map(_rebuilt, told))
    if not isinstance(told, dict):
        return told
    parts = {name: _rebuilt(part) for name, part in told.items() if name != "kind"}
    if told.get("kind") not in _KINDS:
        raise Refusal(
            f"a part of a plan among {', '.join(_KINDS)}", repr(told.get("kind")), "Use this version's parts."
        )
    if told["kind"] == "Plan":
        parts["relation"] = Relation(parts["relation"])
    return _KINDS[told["kind"]](**parts)
