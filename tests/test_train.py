from collections import Counter
from dataclasses import replace

import pytest
import torch

from dpzo import Relation, Stage, Streams, dpgd_zeroth, dpzero, mezo, random_iterate, run
from dpzo.models.quadratic import Quadratic
from tests.chance import ALPHA, binomial_p

COMMON = {"n": 10, "steps": 6, "step_size": 0.1, "zo_eps": 0.1, "batch_size": 4}
PLANS = {
    "dpzero": dpzero(**COMMON, clip_threshold=1.0, noise_multiplier=1.0, relation=Relation.ADD_REMOVE),
    "dpgd-0th": dpgd_zeroth(**COMMON, clip_threshold=1.0, noise_multiplier=1.0, relation=Relation.ADD_REMOVE),
    "mezo": mezo(**COMMON),
}
EVERY = pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
DATA = torch.linspace(-1, 2, 50).view(10, 5)


class Counting(Quadratic):
    calls = 0

    def losses(self, records):
        self.calls += 1
        return super().losses(records)


def model():
    return Counting(torch.ones(5), torch.zeros(5))


@EVERY
def test_the_same_streams_give_the_same_run(plan):
    runs = []
    for _ in range(2):
        m = model()
        runs.append((list(run(plan, m, DATA, Streams.not_private(1, 2))), m.params["x"]))
    assert runs[0][0] == runs[1][0]
    assert torch.equal(runs[0][1], runs[1][1])


@EVERY
@pytest.mark.parametrize("streams", [Streams.not_private(1, 3), Streams.not_private(2, 2)], ids=["secret", "public"])
def test_other_streams_give_another_run(plan, streams):
    first, second = model(), model()
    list(run(plan, first, DATA, Streams.not_private(1, 2)))
    list(run(plan, second, DATA, streams))
    assert not torch.equal(first.params["x"], second.params["x"])


@EVERY
def test_nothing_happens_before_a_step_is_taken(plan):
    m = model()
    steps = run(plan, m, DATA, Streams.not_private(1, 2))
    assert m.calls == 0
    assert not m.params["x"].any()
    for taken in range(1, 4):
        assert next(steps).index == taken - 1
        assert m.calls == 2 * taken, "two forward passes a step"
    steps.close()
    assert m.calls == 6


@EVERY
def test_stopping_early_gives_the_same_beginning(plan):
    whole = list(run(plan, model(), DATA, Streams.not_private(1, 2)))
    part = [step for step, _ in zip(run(plan, model(), DATA, Streams.not_private(1, 2)), range(3), strict=False)]
    assert part == whole[:3]
    assert len(whole) == plan.steps


@EVERY
def test_stages_follow_one_another(plan):
    staged = replace(plan, stages=(Stage(2, 0.1, 0.1), Stage(3, 1e-12, 0.1)))
    m, seen = model(), []
    for step in run(staged, m, DATA, Streams.not_private(1, 2)):
        seen.append((step.index, step.stage, m.params["x"].clone()))
    assert [(index, stage) for index, stage, _ in seen] == [(0, 0), (1, 0), (2, 1), (3, 1), (4, 1)]
    assert not torch.allclose(seen[0][2], seen[1][2], rtol=1e-6)
    torch.testing.assert_close(seen[1][2], seen[4][2], rtol=1e-6, atol=1e-6)


@EVERY
def test_every_step_has_a_direction_of_its_own(plan):
    streams = Streams.not_private(1, 2)
    seeds = [step.seed for step in run(plan, model(), DATA, streams)]
    assert seeds == [streams.direction_seed(i) for i in range(6)]
    assert len(set(seeds)) == 6


@EVERY
def test_directions_do_not_depend_on_the_data(plan):
    """Kills: a direction drawn after looking at the records, which the privacy proof does not cover."""
    seeds = [step.seed for step in run(plan, model(), DATA, Streams.secure(1))]
    other = [step.seed for step in run(plan, model(), -7 * DATA, Streams.secure(1))]
    assert seeds == other


@pytest.mark.statistical
def test_the_random_iterate_is_uniform():
    """tau is uniform on 0 .. T-1. Kills: 1 .. T; the last iterate; a draw that favours the low half."""
    plan, draws = PLANS["mezo"], 20_000
    counts = Counter(random_iterate(plan, Streams.secure(seed)) for seed in range(draws))
    assert set(counts) == set(range(plan.steps))
    assert all(binomial_p(count, draws, 1 / plan.steps) > ALPHA / plan.steps for count in counts.values())
    assert binomial_p(draws // 2 + 1000, draws, 1 / 2) < ALPHA


def test_the_random_iterate_is_public_and_fixed_by_the_public_seed():
    plan = PLANS["dpzero"]
    assert random_iterate(plan, Streams.secure(8)) == random_iterate(plan, Streams.not_private(8, 1))
