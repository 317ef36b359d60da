"""The ways to reach a privacy target, side by side, and which of them takes the least noise."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from dpzo import accounting
from dpzo.accounting import Relation
from dpzo.accounting.parts import divergence, parts_of
from dpzo.directions import SphereDirection
from dpzo.errors import Refusal, positive
from dpzo.mechanisms import EachGaussianMechanism, GaussianMechanism, LaplaceMechanism
from dpzo.plan import Plan, sampler_of
from dpzo.printing import rounded_up
from dpzo.sampling import FullBatch, ShuffledEpochs
from dpzo.stages import Stage
from dpzo.types import Sampler

Noisy = GaussianMechanism | EachGaussianMechanism | LaplaceMechanism
LEMMA = "Lemma 2.2"
_LOUD = 1e6  # a noise multiplier at which what is left of epsilon is the accountant's own
_MANY = 30  # steps from which their losses' sum depends on little but its variance


class Way(NamedTuple):
    """One way to reach the target, and what it costs; ``accountant`` is a name, or Lemma 2.2."""

    noise: str
    plan: Plan
    mechanism: Noisy
    accountant: str
    delivers: float

    @property
    def full(self) -> bool:
        """Whether every step takes all records."""
        return isinstance(self.plan.sampler, FullBatch)

    @property
    def deviation(self) -> float:
        """The noise's standard deviation on the sum, over C."""
        scale = self.mechanism.noise_multiplier
        return scale * math.sqrt(2) if isinstance(self.mechanism, LaplaceMechanism) else scale

    @property
    def on_the_mean(self) -> float:
        """The noise's standard deviation on the mean, over C."""
        return self.deviation / self.plan.sampler.divisor(self.plan.n)

    def shuffled(self, batch_size: int, delta: float) -> float:
        """What a run delivers that takes this noise and cuts shuffled epochs into batches instead of sampling.

        Shuffling has nothing to claim under add/remove: then it is under zero-out.
        """
        relation = Relation.ZERO_OUT if self.plan.relation is Relation.ADD_REMOVE else self.plan.relation
        return replace(self.plan, sampler=ShuffledEpochs(batch_size), relation=relation).epsilon(delta)


class Unreached(NamedTuple):
    """A way that does not lead to the target, and why."""

    noise: str
    full: bool
    accountant: str
    why: str


def describe(n: int, steps: int, sampler: Sampler, mechanism: Noisy, relation: Relation) -> Plan:
    """Return a plan with these numbers; what is not about privacy is made up."""
    return Plan(
        algorithm="dpzero" if mechanism.directions == 1 else "dp-aggzo",
        n=n,
        sampler=sampler,
        mechanism=mechanism,
        direction=SphereDirection(),
        stages=(Stage(steps, step_size=1.0, zo_eps=1.0),),
        relation=relation,
    )


def ways(
    n: int,
    steps: int,
    target_epsilon: float,
    target_delta: float,
    relation: Relation,
    batch_size: int | None = None,
    directions: int = 1,
) -> Iterator[Way | Unreached]:
    """Yield each mechanism with each accountant that covers it, on Poisson batches and on the full batch.

    Raises:
        Refusal: a target, a delta or numbers of a run that no way can take.
    """
    positive("target_epsilon", target_epsilon)
    accounting.check_delta(target_delta, n)
    K = directions
    kinds: dict[str, Noisy] = {f"Gaussian ({K} jointly)": GaussianMechanism(1.0, 1.0, K)}
    kinds[f"Gaussian ({K} each)"] = EachGaussianMechanism(1.0, 1.0, K)
    if K == 1:
        kinds = {"Gaussian": GaussianMechanism(1.0, 1.0), "Laplace": LaplaceMechanism(1.0, 1.0)}
    for size in dict.fromkeys((batch_size, None)):
        sampler = sampler_of(size, n)
        for noise, mechanism in kinds.items():
            for name in accounting.applicable(sampler.event(mechanism.event(), n, steps), relation):
                plan = describe(n, steps, sampler, mechanism, relation)
                at = 0.0 if name == "pure" else target_delta
                try:
                    noisy = plan.calibrate(target_epsilon, at, accountant=name)
                except Refusal as refusal:
                    why = _why_not(plan, name, target_epsilon, at) or str(refusal)
                    yield Unreached(noise, isinstance(sampler, FullBatch), name, why)
                    continue
                assert isinstance(noisy.mechanism, Noisy)
                yield Way(noise, noisy, noisy.mechanism, name, noisy.epsilon(target_delta))
    if K == 1:
        mechanism = GaussianMechanism(1.0, accounting.paper_noise_multiplier(target_epsilon, target_delta, steps))
        plan = describe(n, steps, FullBatch(), mechanism, Relation.REPLACE_ONE)
        yield Way("Gaussian", plan, mechanism, LEMMA, plan.epsilon(target_delta))


def _why_not(plan: Plan, accountant: str, target: float, delta: float) -> str:
    """Which of delta and the number of steps keeps the accountant above the target, however much noise there is."""
    assert isinstance(plan.mechanism, Noisy)
    loud = replace(plan, mechanism=replace(plan.mechanism, noise_multiplier=_LOUD))
    one, left = (loud.epsilon(delta, steps=steps, accountant=accountant) for steps in (1, plan.steps))
    if left <= target:
        return ""
    told = f"noise of {_LOUD:,.0f} C still leaves epsilon = {rounded_up(left)} by this accountant"
    if one > target:
        return f"{told}, of which one step alone has {rounded_up(one)}: delta = {rounded_up(delta)} is too small for it"
    return f"{told}, where one step alone would have {rounded_up(one)}: take fewer steps"


def reached(found: Sequence[Way | Unreached]) -> list[Way]:
    """Return the ways of ``found`` that lead to the target."""
    return [way for way in found if isinstance(way, Way)]


def best(found: Sequence[Way | Unreached], relation: Relation, full: bool) -> Way:
    """Return the way with the least deviation of the mean, of those on the full batch, or of those on samples.

    Raises:
        Refusal: no way that leads to the target.
    """
    mine = [way for way in reached(found) if way.full == full and way.plan.relation is relation]
    if not mine:
        whys = dict.fromkeys(f"{w.noise} by {w.accountant}: {w.why}" for w in found if isinstance(w, Unreached))
        raise Refusal("a target that some way reaches", "; ".join(whys) or "no way", "Choose another epsilon or delta.")
    return min(mine, key=lambda way: way.on_the_mean)


def reason(chosen: Way, found: Sequence[Way | Unreached]) -> str:
    """Say why ``chosen`` is the best of ``found``, and what the full batch would change."""
    among = [way for way in reached(found) if way.plan.relation is chosen.plan.relation]
    told = "the least standard deviation of the mean for these batches."
    others = [way for way in among if way.full == chosen.full and way.noise != chosen.noise]
    if others:
        other = min(others, key=lambda way: way.on_the_mean)
        told += f" {other.noise} noise needs {other.deviation / chosen.deviation:.3g} times as much"
        told += f": {cause}." if (cause := _cause(chosen, other)) else "."
    full = [way.on_the_mean for way in among if way.full]
    if not chosen.full and full:
        times = chosen.plan.n / chosen.plan.sampler.divisor(chosen.plan.n)
        told += f" The full batch has {rounded_up(min(full))} C on the mean, for {times:.3g} times the forward passes."
    return told


def _cause(chosen: Way, other: Way) -> str:
    """Why ``other`` needs more noise, where that can be computed; else nothing.

    Over many steps the privacy losses add up to a normal one, and their variance decides. It is computed for both at
    the deviation of the chosen one. Over few steps their tails decide, for which no one number stands.
    """
    if isinstance(other.mechanism, EachGaussianMechanism):
        return "clipped each, a record may move the K-vector by C sqrt(K), and not by C as when clipped jointly"
    same = replace(
        other.mechanism, noise_multiplier=other.mechanism.noise_multiplier * chosen.deviation / other.deviation
    )
    mine, others = (_spread(replace(chosen.plan, mechanism=mechanism)) for mechanism in (chosen.mechanism, same))
    if chosen.plan.steps < _MANY or others <= mine:
        return ""
    varies = f"a step's privacy loss has {others / mine:.3g} times the variance with it"
    return f"at a deviation of {chosen.deviation:.3g} C, {varies}, and over many steps the losses add up"


def _spread(plan: Plan) -> float:
    parts = parts_of(plan.event())
    return math.fsum(part.count * (divergence(part, plan.relation) or 0.0) for part in parts)
