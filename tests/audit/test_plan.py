"""The attack on whole runs: every loop, sampler, stream and step that is broken on purpose is caught."""

import functools
from dataclasses import replace

import pytest

import dpzo
from dpzo import Refusal, Relation, Streams
from dpzo.algorithms import STEPS
from dpzo.audit import audit_plan
from dpzo.audit.command import plans
from dpzo.randomness import OsEntropy
from dpzo.sampling import BallsAndBins, FixedSize, ShuffledEpochs, TruncatedPoisson
from tests.audit import mutants

STEP_COUNT = 1500
FULL, POISSON, AGGZO, VECTOR, STAGES, PRUNED = plans(STEP_COUNT)


def shorter(plan, steps=400):
    return replace(plan, stages=(replace(plan.stages[0], steps=steps),))


def broken(findings):
    return {finding.what.split(": ")[1] for finding in findings if not finding.passed}


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("plan", "power"),
    [(FULL, 0.65), (POISSON, 0.25), (AGGZO, 0.65), (VECTOR, 0.65), (STAGES, 0.65), (PRUNED, 0.65)],
    ids=["full", "poisson", "aggzo", "vector", "stages", "pruned"],
)
def test_ours_passes_and_the_attack_has_power(plan, power):
    findings = audit_plan(plan)
    assert not broken(findings)
    assert len(findings) >= 6
    assert power * 3 <= findings[0].found <= findings[0].claimed == pytest.approx(3)


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("sampler", "relation"),
    [
        (TruncatedPoisson(0.5, 3), Relation.ADD_REMOVE),
        (FixedSize(2), Relation.REPLACE_ONE),
        (ShuffledEpochs(2), Relation.REPLACE_ONE),
        (BallsAndBins(2), Relation.ADD_REMOVE),
    ],
    ids=lambda s: type(s).__name__,
)
def test_steps_of_other_samplers_pass_too(sampler, relation):
    assert not broken(audit_plan(shorter(replace(POISSON, sampler=sampler, relation=relation))))


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("mutant", "steps", "caught"),
    [
        (mutants.batch_size_divisor, 4000, "law of the releases"),
        (mutants.empty_batch_skipped, 1000, "releases without noise"),
        (mutants.noise_after_seeding(False), 400, "noise from torch manual_seed(direction's seed)"),
    ],
    ids=["batch-size divisor", "empty batch skipped", "noise from the direction's seed"],
)
def test_a_broken_step_is_caught(monkeypatch, mutant, steps, caught):
    monkeypatch.setitem(STEPS, "dpzero", mutant)
    assert caught in broken(audit_plan(shorter(POISSON, steps)))


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("run", "caught"),
    [
        (mutants.one_step_too_many, {"steps released", "steps beyond the plan"}),
        (mutants.one_step_twice, {"steps released twice", "steps left out"}),
        (mutants.empty_steps_left_out, {"steps left out"}),
    ],
)
def test_a_broken_loop_is_caught(run, caught):
    plan = shorter(POISSON)
    seeded = functools.partial(Streams.not_private, secret_seed=12345)
    assert caught <= broken(audit_plan(plan, run=run, streams=seeded))


@pytest.mark.statistical
@pytest.mark.parametrize("kind", [mutants.FullButChargedAsPoisson, mutants.OneBatchForAll])
def test_a_broken_sampler_is_caught(kind):
    plan = shorter(replace(POISSON, sampler=kind(0.5)))
    assert "law of the releases" in broken(audit_plan(plan))


@pytest.mark.statistical
def test_noise_used_in_two_steps_is_caught():
    def streams(seed):
        return Streams(seed, OsEntropy(), mutants.EachNoiseTwice(seed))

    add_remove = replace(FULL, relation=Relation.ADD_REMOVE)  # then the sums of the first run are all 0
    assert "releases of the same noise" in broken(audit_plan(shorter(add_remove), streams=streams))


@pytest.mark.statistical
def test_one_noise_for_all_directions_is_caught():
    mechanism = mutants.OneNoiseForAllDirections(0.5, 1 / 3, 2)
    assert "releases of the same noise" in broken(audit_plan(shorter(replace(AGGZO, mechanism=mechanism))))


@pytest.mark.statistical
def test_half_of_the_noise_on_a_vector_is_caught():
    halved = mutants.HalfOfTheNoiseAlongU(VECTOR.mechanism.clip_threshold, VECTOR.mechanism.noise_multiplier)
    plan = shorter(replace(VECTOR, mechanism=halved), 1200)
    assert {"one step", "law of the releases"} <= broken(audit_plan(plan))


def test_a_run_without_noise_is_refused():
    with pytest.raises(Refusal, match="to audit"):
        audit_plan(dpzo.mezo(n=2, steps=5, step_size=1.0, zo_eps=1.0))
