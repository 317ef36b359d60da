"""A Plan is everything that is decided before a run, and nothing private: so its epsilon is a property of an object."""

from dataclasses import dataclass, replace

from dp_accounting import ComposedDpEvent, DpEvent, SelfComposedDpEvent

from dpzo import accounting
from dpzo.accounting import Relation
from dpzo.directions import Direction
from dpzo.errors import Refusal
from dpzo.mechanisms import Mechanism, PlainSum
from dpzo.sampling import FullBatch, PoissonSampler
from dpzo.stages import Stage
from dpzo.types import Sampler


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run will do, to how many records, and under which relation it is private.

    Attributes:
        algorithm: a key of ``dpzo.algorithms.STEPS``.
        n: the number of records, public; the run refuses data of another length.
        sampler, mechanism, direction, stages: see their rooms.
        relation: which data sets are neighbours. Mandatory: the same run has another epsilon under each.
    """

    algorithm: str
    n: int
    sampler: Sampler
    mechanism: Mechanism
    direction: Direction
    stages: tuple[Stage, ...]
    relation: Relation

    def __post_init__(self) -> None:
        if isinstance(self.n, bool) or not isinstance(self.n, int) or self.n < 1:
            raise Refusal("a whole number n of records", self.n, "Give the size of the training data.")
        if not isinstance(self.relation, Relation):
            raise Refusal(f"a relation among {', '.join(Relation.__members__)}", repr(self.relation), "Choose one.")
        if not self.stages:
            raise Refusal("at least one stage", "none", "Give the steps of the run.")

    @property
    def steps(self) -> int:
        """T, over all stages."""
        return sum(stage.steps for stage in self.stages)

    def event(self, steps: int | None = None) -> DpEvent:
        """Return the event of the whole run, or of its first ``steps`` steps.

        The sampler wraps the mechanism's event, so no run can be accounted with a sampler that it did not use.
        """
        count = self.steps if steps is None else steps
        if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= self.steps:
            raise Refusal(f"a number of steps from 0 to the plan's {self.steps}", count, "Count the steps taken.")
        if count == 0:
            return ComposedDpEvent([])
        return SelfComposedDpEvent(self.sampler.event(self.mechanism.event()), count)

    def epsilon(self, delta: float, *, steps: int | None = None, accountant: str | None = None) -> float:
        """Epsilon at ``delta`` under the plan's relation, of the run or its first ``steps`` steps.

        Infinite for a plan without noise. The accountant is exact for full-batch Gaussians, else PLD unless asked
        for by name (see ``dpzo.accounting.ACCOUNTANTS``).
        """
        accounting.check_delta(delta, self.n)
        event = self.event(steps)
        return 0.0 if steps == 0 else accounting.epsilon(event, delta, self.relation, accountant)

    def calibrate(self, target_epsilon: float, target_delta: float, *, accountant: str | None = None) -> "Plan":
        """Return this plan with the least noise whose epsilon is at most the target."""
        accounting.check_delta(target_delta, self.n)
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
        assert not isinstance(plan.mechanism, PlainSum)
        return replace(plan, mechanism=replace(plan.mechanism, noise_multiplier=noise_multiplier))
    if target_delta is None:
        raise Refusal("a target_delta beside target_epsilon", None, "Delta has no default; choose one below 1/n.")
    assert target_epsilon is not None
    return plan.calibrate(target_epsilon, target_delta)
