import math
from dataclasses import FrozenInstanceError, replace
from itertools import pairwise

import pytest
import torch
from dp_accounting import GaussianDpEvent, NonPrivateDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent

from dpzo import Plan, Refusal, Relation, Stage, Streams, dpgd_zeroth, dpzero, mezo, run
from dpzo.mechanisms import EachGaussianMechanism, GaussianMechanism, LaplaceMechanism
from dpzo.models.quadratic import Quadratic

PUBLIC = {"n": 100, "steps": 10, "step_size": 0.1, "zo_eps": 1e-3}
GOOD = {**PUBLIC, "clip_threshold": 1.0, "relation": Relation.REPLACE_ONE}
NOISE = {"noise_multiplier": 20.0}
TARGET = {"target_epsilon": 2.0, "target_delta": 1e-5}
NOT_POSITIVE = [0, 0.0, -1.0, math.inf, -math.inf, math.nan, True, "1"]
NOT_WHOLE = [0, -1, 2.5, math.nan, math.inf, True, "1"]
PRIVATE = pytest.mark.parametrize("algorithm", [dpzero, dpgd_zeroth])

BAD = [
    *(("step_size", bad) for bad in NOT_POSITIVE),
    *(("zo_eps", bad) for bad in NOT_POSITIVE),
    *(("clip_threshold", bad) for bad in NOT_POSITIVE),
    *(("noise_multiplier", bad) for bad in NOT_POSITIVE),
    *(("steps", bad) for bad in NOT_WHOLE),
    *(("n", bad) for bad in NOT_WHOLE),
    *(("batch_size", bad) for bad in (*NOT_WHOLE, 101)),
    ("relation", None),
    ("relation", "replace-one"),
]
BAD_TARGETS = [
    *(dict(TARGET, target_epsilon=bad) for bad in NOT_POSITIVE),
    *(dict(TARGET, target_delta=bad) for bad in (*NOT_POSITIVE, 1.0, 1)),
    dict(TARGET, target_delta=0.01),  # 1/n
    dict(TARGET, target_delta=0.5),
    {"target_epsilon": 2.0},
    dict(TARGET, **NOISE),
    {**NOISE, "target_delta": 1e-5},
    {"target_delta": 1e-5},
    {},
]


def refuses(call):
    """The three parts: what was expected, what came, what to do."""
    with pytest.raises(Refusal) as caught:
        call()
    refusal = caught.value
    assert isinstance(refusal, ValueError)
    assert refusal.expected
    assert refusal.todo
    assert refusal.todo.endswith(".")
    assert str(refusal) == f"expected {refusal.expected}; got {refusal.came}. {refusal.todo}"


@PRIVATE
@pytest.mark.parametrize(("name", "bad"), BAD)
def test_bad_values_are_refused(algorithm, name, bad):
    refuses(lambda: algorithm(**{**GOOD, **NOISE, name: bad}))


@PRIVATE
@pytest.mark.parametrize("noise", BAD_TARGETS, ids=str)
def test_bad_targets_are_refused(algorithm, noise):
    refuses(lambda: algorithm(**GOOD, **noise))


@pytest.mark.parametrize(
    ("name", "bad"), [(name, bad) for name, bad in BAD if name in ("n", "steps", "step_size", "zo_eps", "batch_size")]
)
def test_mezo_refuses_them_too(name, bad):
    refuses(lambda: mezo(**{**PUBLIC, name: bad}))


@PRIVATE
@pytest.mark.parametrize("name", ["epsilon", "max_grad_norm", "delta", "sigma", "clip"])
def test_unknown_keywords_are_errors(algorithm, name):
    with pytest.raises(TypeError):
        algorithm(**GOOD, **NOISE, **{name: 1.0})


@PRIVATE
@pytest.mark.parametrize("name", ["relation", "clip_threshold", "zo_eps"])
def test_what_decides_privacy_has_no_default(algorithm, name):
    with pytest.raises(TypeError):
        algorithm(**{k: v for k, v in GOOD.items() if k != name}, **NOISE)


def test_bad_deltas_are_refused_when_asking():
    plan = dpzero(**GOOD, **NOISE)
    for bad in (0.0, 1.0, 0.01, 0.5, -1e-5, math.nan, math.inf, None):
        refuses(lambda bad=bad: plan.epsilon(bad))
        refuses(lambda bad=bad: plan.calibrate(2.0, bad))


@pytest.mark.parametrize("bad", [-1, 11, 2.5, True])
def test_a_number_of_steps_that_the_run_cannot_have_taken_is_refused(bad):
    refuses(lambda: dpzero(**GOOD, **NOISE).epsilon(1e-5, steps=bad))


def test_other_refusals():
    plan = dpzero(**GOOD, **NOISE)
    refuses(lambda: plan.epsilon(1e-5, accountant="moments"))
    refuses(lambda: replace(plan, stages=()))
    refuses(lambda: mezo(**PUBLIC).calibrate(2.0, 1e-5))


@pytest.mark.parametrize("records", [0, 99, 101])
def test_a_run_on_other_data_is_refused_and_changes_nothing(records):
    class NoRandomness:
        secret = True

        def uniform(self, size):
            raise AssertionError("spent")

        normal = uniform

    model = Quadratic(torch.ones(3), torch.ones(3))
    streams = Streams(0, NoRandomness(), NoRandomness())
    refuses(lambda: run(dpzero(**GOOD, **NOISE), model, torch.zeros(records, 3), streams))
    refuses(lambda: run(replace(dpzero(**GOOD, **NOISE), algorithm="sgd"), model, torch.zeros(100, 3), streams))
    assert torch.equal(model.params["x"], torch.ones(3))


@PRIVATE
def test_the_event_is_the_sampler_around_the_mechanism(algorithm):
    full, poisson = algorithm(**GOOD, **NOISE), algorithm(**GOOD, **NOISE, batch_size=25)
    assert full.event() == SelfComposedDpEvent(GaussianDpEvent(20.0), 10)
    assert poisson.event() == SelfComposedDpEvent(PoissonSampledDpEvent(0.25, GaussianDpEvent(20.0)), 10)
    assert poisson.event(3) == SelfComposedDpEvent(PoissonSampledDpEvent(0.25, GaussianDpEvent(20.0)), 3)
    other = replace(poisson, sampler=full.sampler)
    assert other.event() == full.event(), "another sampler, another event"


def test_mezo_is_not_private():
    plan = mezo(**PUBLIC)
    assert plan.event() == SelfComposedDpEvent(NonPrivateDpEvent(), 10)
    assert plan.epsilon(1e-5) == math.inf
    assert plan.epsilon(1e-5, steps=1) == math.inf
    assert plan.epsilon(1e-5, steps=0) == 0


@pytest.mark.parametrize("batch_size", [None, 25])
def test_epsilon_grows_with_the_steps_taken(batch_size):
    plan = dpzero(**GOOD, noise_multiplier=3.0, batch_size=batch_size)
    spent = [plan.epsilon(1e-5, steps=k) for k in range(0, 11, 2)]
    assert spent[0] == 0
    assert all(a < b for a, b in pairwise(spent))
    assert spent[-1] == plan.epsilon(1e-5)


def test_steps_are_counted_over_all_stages():
    plan = replace(dpzero(**GOOD, **NOISE), stages=(Stage(3, 0.1, 1e-3), Stage(4, 0.01, 1e-3)))
    assert plan.steps == 7
    assert plan.event().count == 7


@PRIVATE
@pytest.mark.parametrize("batch_size", [None, 25])
@pytest.mark.parametrize("relation", [Relation.ADD_REMOVE, Relation.REPLACE_ONE])
def test_a_target_is_met(algorithm, batch_size, relation):
    plan = algorithm(**{**GOOD, "relation": relation}, **TARGET, batch_size=batch_size)
    assert 2.0 * 0.999 <= plan.epsilon(1e-5) <= 2.0
    again = plan.calibrate(2.0, 1e-5)
    assert again == plan


def test_the_same_noise_costs_more_under_replace_one():
    cost = {r: dpzero(**{**GOOD, "relation": r}, **NOISE).epsilon(1e-5) for r in Relation}
    assert cost[Relation.ADD_REMOVE] == cost[Relation.ZERO_OUT] < cost[Relation.REPLACE_ONE]


@pytest.mark.parametrize("kind", [GaussianMechanism, EachGaussianMechanism])
def test_k_directions_are_calibrated_to_the_target(kind):
    plan = replace(dpzero(**GOOD, **NOISE), mechanism=kind(1.0, 1.0, directions=4)).calibrate(2.0, 1e-5)
    one = dpzero(**GOOD, **TARGET).mechanism.noise_multiplier
    assert plan.mechanism.noise_multiplier == pytest.approx(one * (2 if kind is EachGaussianMechanism else 1), rel=2e-4)
    assert 2.0 * 0.999 <= plan.epsilon(1e-5) <= 2.0


def test_laplace_noise_is_calibrated_to_epsilon_alone_or_with_delta():
    plan = replace(dpzero(**GOOD, **NOISE), mechanism=LaplaceMechanism(1.0, 1.0))
    pure = plan.calibrate(2.0, 0.0, accountant="pure")
    assert pure.mechanism.noise_multiplier == pytest.approx(2 * 10 / 2.0, rel=1e-4)  # 2C / scale a step, ten steps
    assert pure.epsilon(0.0, accountant="pure") <= 2.0
    assert plan.calibrate(2.0, 1e-5).mechanism.noise_multiplier < pure.mechanism.noise_multiplier
    for accountant in (None, "pld", "closed-form"):
        refuses(lambda name=accountant: plan.calibrate(2.0, 0.0, accountant=name))
        refuses(lambda name=accountant: plan.epsilon(0.0, accountant=name))


def test_a_budget_pays_for_the_most_steps_that_it_covers():
    plan = dpzero(**GOOD, noise_multiplier=3.0, batch_size=25)
    for budget in (0.1, plan.epsilon(1e-5, steps=4), 3.0, 1e3):
        steps = plan.affordable(budget, 1e-5)
        assert plan.epsilon(1e-5, steps=steps) <= budget
        assert steps == plan.steps or plan.epsilon(1e-5, steps=steps + 1) > budget
    assert plan.affordable(1e3, 1e-5) == 10
    assert mezo(**PUBLIC).affordable(1e9, 1e-5) == 0


def test_a_plan_cannot_be_changed():
    plan = dpzero(**GOOD, **NOISE)
    for part, name in ((plan, "n"), (plan.mechanism, "clip_threshold"), (plan.stages[0], "steps")):
        with pytest.raises(FrozenInstanceError):
            setattr(part, name, 1)
    assert isinstance(plan, Plan)
    assert hash(plan) == hash(dpzero(**GOOD, **NOISE))
