import re
from collections import Counter
from dataclasses import replace

import pytest
import torch

from dpzo import Refusal, Relation, Stage, Streams, dp_aggzo, dpgd_zeroth, dpzero, mezo, random_iterate, run
from dpzo.mechanisms import GaussianMechanism
from dpzo.models.quadratic import Quadratic
from dpzo.printing import rounded_up
from tests.chance import ALPHA, binomial_p

COMMON = {"n": 10, "steps": 6, "step_size": 0.1, "zo_eps": 0.1, "batch_size": 4}
PRIVATE = {"clip_threshold": 1.0, "noise_multiplier": 1.0, "relation": Relation.ADD_REMOVE}
PLANS = {
    "dpzero": dpzero(**COMMON, **PRIVATE),
    "dpgd-0th": dpgd_zeroth(**COMMON, **PRIVATE),
    "mezo": mezo(**COMMON),
    "dp-aggzo": dp_aggzo(**COMMON, **PRIVATE, directions=3),
}
EVERY = pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
DATA = torch.linspace(-1, 2, 50).view(10, 5)


class Counting(Quadratic):
    calls, made_up = 0, None  # no trial: what is counted are the steps' passes

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
        assert m.calls == 2 * plan.mechanism.directions * taken, "two forward passes a direction"
    del steps
    assert m.calls == 6 * plan.mechanism.directions


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


@EVERY
def test_every_step_has_noise_and_a_batch_of_its_own(plan):
    """Kills: one step's noise or batch used again at another."""

    class Watched(Counting):
        def losses(self, records):
            if self.calls % (2 * plan.mechanism.directions) == 0:
                seen.append(tuple(records[:, 0].tolist()))
            return super().losses(records)

    seen = []
    broken = Watched(torch.full((5,), torch.nan), torch.zeros(5))  # all losses count as 0: what moves is noise
    ends = [broken.params["x"].clone() for _ in run(plan, broken, DATA, Streams.not_private(1, 2))]
    assert len(set(seen)) > 1
    moves = [float(m.norm()) for m in torch.stack([torch.zeros(5), *ends]).diff(dim=0)]
    assert len({round(move, 6) for move in moves}) == (1 if plan.algorithm == "mezo" else plan.steps)


BUDGET_PLANS = {
    "full batch": dpzero(n=10, steps=40, step_size=0.1, zo_eps=0.1, **PRIVATE),
    "poisson": dpzero(n=10, steps=12, step_size=0.1, zo_eps=0.1, batch_size=8, **PRIVATE),
    "several directions": dp_aggzo(n=10, steps=40, step_size=0.1, zo_eps=0.1, directions=2, **PRIVATE),
    "each": dp_aggzo(n=10, steps=40, step_size=0.1, zo_eps=0.1, directions=2, clip="each", **PRIVATE),
    "vector": dpgd_zeroth(n=10, steps=40, step_size=0.1, zo_eps=0.1, **PRIVATE),
}


@pytest.mark.parametrize("plan", BUDGET_PLANS.values(), ids=BUDGET_PLANS)
def test_a_budget_ends_the_run_before_it_is_exceeded(plan):
    """Kills: one step too many; one step too few; a budget compared with the whole plan's epsilon."""
    epsilon = 6.0
    taken = len(list(run(plan, model(), DATA, Streams.not_private(1, 2), budget=(epsilon, 1e-3))))
    assert 0 < taken < plan.steps
    assert plan.epsilon(1e-3, steps=taken) <= epsilon < plan.epsilon(1e-3, steps=taken + 1)


@pytest.mark.parametrize("plan", [*BUDGET_PLANS.values(), PLANS["mezo"]], ids=[*BUDGET_PLANS, "mezo"])
def test_a_budget_too_small_for_one_step_is_refused_and_touches_nothing(plan):
    """Kills: an empty run without a word, after which the weights are taken for trained ones."""
    m = model()
    first = rounded_up(plan.epsilon(1e-5, steps=1))
    with pytest.raises(Refusal, match=re.escape(f"the first step, epsilon = {first};")):
        run(plan, m, DATA, Streams.secure(1), budget=(1e-3, 1e-5))
    assert m.calls == 0
    assert not m.params["x"].any()


def test_a_budget_that_pays_for_all_changes_nothing():
    plan = BUDGET_PLANS["full batch"]
    whole = list(run(plan, model(), DATA, Streams.not_private(1, 2)))
    assert list(run(plan, model(), DATA, Streams.not_private(1, 2), budget=(1e3, 1e-5))) == whole


@pytest.mark.parametrize("budget", [(0.0, 1e-5), (-1.0, 1e-5), (float("nan"), 1e-5), (1.0, 0.0), (1.0, 1.0)], ids=str)
def test_a_budget_that_is_none_is_refused_before_anything_happens(budget):
    m = model()
    with pytest.raises(Refusal):
        run(PLANS["dpzero"], m, DATA, Streams.secure(1), budget=budget)
    assert m.calls == 0


class Users:
    """The same rows as so many users, one row each."""

    unit = "user"

    def __len__(self):
        return len(DATA)

    def __getitem__(self, indices):
        return DATA[indices]


def test_the_datas_unit_is_the_plans():
    """Kills: a user's guarantee claimed for records that one user may have many of."""
    plan = PLANS["dpzero"]
    by_user = replace(plan, unit="user")
    for wrong, data in ((by_user, DATA), (plan, Users())):
        with pytest.raises(Refusal, match="unit"):
            run(wrong, model(), data, Streams.secure(1))
    assert len(list(run(by_user, model(), Users(), Streams.secure(1)))) == plan.steps


@pytest.mark.parametrize(
    "change", [{"n": 9}, {"n": 11}, {"algorithm": "adam"}, {"mechanism": GaussianMechanism(1.0, 1.0, 2)}], ids=str
)
def test_a_run_that_does_not_fit_is_refused_at_the_call(change):
    m = model()
    with pytest.raises(Refusal):
        run(replace(PLANS["dpzero"], **change), m, DATA, Streams.secure(1))
    assert m.calls == 0


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
