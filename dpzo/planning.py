"""The ways to reach a privacy target, side by side, and which of them takes the least noise."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from dpzo import accounting
from dpzo.accounting import Relation
from dpzo.directions import SphereDirection
from dpzo.mechanisms import EachGaussianMechanism, GaussianMechanism, LaplaceMechanism
from dpzo.plan import Plan, sampler_of
from dpzo.sampling import FullBatch, ShuffledEpochs
from dpzo.stages import Stage
from dpzo.types import Sampler

Noisy = GaussianMechanism | EachGaussianMechanism | LaplaceMechanism
LEMMA = "Lemma 2.2"


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
) -> Iterator[Way]:
    """Yield each mechanism with each accountant that covers it, on Poisson batches and on the full batch."""
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
                noisy = plan.calibrate(target_epsilon, 0.0 if name == "pure" else target_delta, accountant=name)
                assert isinstance(noisy.mechanism, Noisy)
                yield Way(noise, noisy, noisy.mechanism, name, noisy.epsilon(target_delta))
    if K == 1:
        mechanism = GaussianMechanism(1.0, accounting.paper_noise_multiplier(target_epsilon, target_delta, steps))
        plan = describe(n, steps, FullBatch(), mechanism, Relation.REPLACE_ONE)
        yield Way("Gaussian", plan, mechanism, LEMMA, plan.epsilon(target_delta))


def best(found: list[Way], relation: Relation, full: bool) -> Way:
    """Return the way with the least deviation of the mean, of those on the full batch, or of those on samples."""
    return min((w for w in found if w.full == full and w.plan.relation is relation), key=lambda w: w.on_the_mean)


def reason(chosen: Way, found: list[Way]) -> str:
    """Say why ``chosen`` is the best of ``found``, and what the full batch would change."""
    among = [w for w in found if w.plan.relation is chosen.plan.relation]
    told = "the least standard deviation of the mean for these batches."
    others = [w for w in among if w.full == chosen.full and w.noise != chosen.noise]
    if others:
        other = min(others, key=lambda w: w.on_the_mean)
        told += f" {other.noise} noise needs {other.deviation / chosen.deviation:.3g} times as much: "
        if isinstance(chosen.mechanism, LaplaceMechanism):
            told += "with noise near C, a Gaussian's rare large privacy losses cost more than Laplace's bounded ones."
        elif isinstance(other.mechanism, LaplaceMechanism):
            told += "many small losses add up to a Gaussian one, and for each Laplace takes more deviation."
        else:
            told += "clipped each, a record may move the K-vector by C sqrt(K), and not by C as when clipped jointly."
    if not chosen.full:
        mean = min(w.on_the_mean for w in among if w.full)
        times = chosen.plan.n / chosen.plan.sampler.divisor(chosen.plan.n)
        told += f" The full batch has {mean:.5f} C on the mean, for {times:.3g} times the forward passes."
    return told
