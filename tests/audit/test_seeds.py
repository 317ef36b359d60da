"""The replay attack: it strips noise that comes from public seeds, and finds nothing to strip in ours."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from dpzo import Refusal, Relation, Step, Streams, dp_aggzo, dpgd_zeroth, dpzero, run
from dpzo.algorithms import STEPS
from dpzo.audit import audit_seeds, recovered_sums
from dpzo.audit.seeds import guesses
from dpzo.directions import seeds_of
from dpzo.mechanisms import LaplaceMechanism
from dpzo.models.quadratic import Quadratic
from dpzo.randomness import SeededEntropy
from tests.audit import mutants
from tests.chance import ALPHA

C, SIGMA, T, SEED = 0.5, 4.0, 200, 77
SAME = {
    "steps": T, "step_size": 1e-3, "zo_eps": 1e-3, "clip_threshold": C, "noise_multiplier": SIGMA,
    "relation": Relation.ADD_REMOVE,
}  # fmt: skip
PLAN = dpzero(n=8, **SAME)
MANY = dp_aggzo(n=8, directions=3, **SAME)
LAPLACE = replace(PLAN, mechanism=LaplaceMechanism(C, SIGMA))
STEP_SEEDS = [Streams.secure(SEED).direction_seed(t) for t in range(T)]


@pytest.fixture(autouse=True)
def _global_generators_as_before():
    states = np.random.get_state(), random.getstate()
    yield
    np.random.set_state(states[0])
    random.setstate(states[1])


def numpy_legacy(seed, K):
    np.random.seed(seed % 2**32)
    return np.random.standard_normal(K)


def numpy_modern(seed, K):
    return np.random.default_rng(seed).standard_normal(K)


def torch_seeded(seed, K):
    torch.manual_seed(seed)
    return torch.randn(K).double().numpy()


def python(seed, K):
    random.seed(seed)
    return np.array([random.gauss(0, 1) for _ in range(K)])


def numpy_laplace(seed, K):
    np.random.seed(seed % 2**32)
    return np.random.laplace(size=K)


def numpy_modern_laplace(seed, K):
    return np.random.default_rng(seed).laplace(size=K)


def torch_laplace(seed, K):
    torch.manual_seed(seed)
    return torch.distributions.Laplace(0.0, 1.0).sample((K,)).double().numpy()


FROM = {
    "direction's seed": lambda t, K: STEP_SEEDS[t],
    "last direction's seed": lambda t, K: seeds_of(STEP_SEEDS[t], K)[-1],
    "run's seed + step": lambda t, K: SEED + t,
    "step": lambda t, K: t,
}


def transcript(plan, noise_of, sums):
    """Steps with the sums (T, K) and the noise (T, K) in units of its scale."""
    y = sums + SIGMA * C * noise_of
    return [Step(t, 0, STEP_SEEDS[t], tuple((row / plan.sampler.divisor(plan.n)).tolist())) for t, row in enumerate(y)]


def caught(plan, steps, **how):
    return [finding.what for finding in audit_seeds(plan, steps, SEED, **how) if not finding.passed]


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("plan", "generator", "name", "what"),
    [
        (PLAN, numpy_legacy, "numpy RandomState", "direction's seed"),
        (PLAN, numpy_modern, "numpy default_rng", "run's seed + step"),
        (PLAN, torch_seeded, "torch manual_seed", "direction's seed"),
        (PLAN, python, "Python random", "step"),
        (MANY, numpy_legacy, "numpy RandomState", "last direction's seed"),
        (MANY, torch_seeded, "torch manual_seed", "run's seed + step"),
        (MANY, torch_seeded, "torch manual_seed", "last direction's seed"),
        (MANY, python, "Python random", "direction's seed"),
        (LAPLACE, numpy_laplace, "numpy RandomState", "direction's seed"),
        (LAPLACE, numpy_modern_laplace, "numpy default_rng", "step"),
        (LAPLACE, torch_laplace, "torch manual_seed", "run's seed + step"),
    ],
)
def test_noise_from_a_public_seed_is_found_and_subtracted(plan, generator, name, what):
    K = plan.mechanism.directions
    sums = np.random.default_rng(1).uniform(-3 * C, 3 * C, (T, K))
    with torch.random.fork_rng():
        noise = np.array([generator(FROM[what](t, K), K) for t in range(T)])
    steps = transcript(plan, noise, sums)
    assert caught(plan, steps) == [f"noise from {name}({what})"]
    (guess,) = (g for g in guesses(plan, steps, SEED) if g.name == f"{name}({what})")
    # To the rounding of the build's own noise; torch's Laplace is a float32 one.
    rounding = 1e-3 if generator is torch_laplace else 1e-5
    assert np.abs(recovered_sums(plan, steps, guess) - sums).max() < rounding * C


@pytest.mark.statistical
def test_one_stream_from_the_runs_seed_is_found():
    noise = np.random.RandomState(SEED).standard_normal((T, 1))
    assert caught(PLAN, transcript(PLAN, noise, 0.0)) == ["noise from numpy RandomState(run's seed), one stream"]


@pytest.mark.statistical
@pytest.mark.parametrize("plan", [PLAN, MANY, LAPLACE], ids=["gaussian", "three directions", "laplace"])
def test_repeatable_streams_with_a_known_secret_seed_are_found(plan):
    model = Quadratic(torch.ones(3), torch.zeros(3))
    steps = list(run(plan, model, torch.randn(8, 3), Streams.not_private(SEED, 42)))
    assert caught(plan, steps) == ["noise from dpzo's repeatable streams, secret seed 42"]
    assert caught(plan, list(run(plan, model, torch.randn(8, 3), Streams.not_private(SEED, 987654321)))) == []


@pytest.mark.statistical
@pytest.mark.parametrize("draws_direction", [False, True], ids=["first number", "after the direction"])
def test_a_real_run_of_a_build_that_seeds_for_the_direction_gives_its_sums_away(monkeypatch, draws_direction):
    """The clipped sums come back to float32 rounding, and with them the derivative of a lone record."""
    data = torch.randn(1, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    plan = dpzero(n=1, **SAME)
    private = []

    def spying(*args):
        private.append(mutants.two_point(args[0], args[1], args[2][0], args[3].zo_eps))
        return mutants.noise_after_seeding(draws_direction)(*args)

    monkeypatch.setitem(STEPS, "dpzero", spying)
    model = Quadratic(torch.ones(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64))
    steps = list(run(plan, model, data, Streams.secure(SEED)))
    name = f"torch manual_seed(direction's seed){', after the direction' if draws_direction else ''}"
    assert caught(plan, steps, sizes=[3]) == [f"noise from {name}"]
    (guess,) = (g for g in guesses(plan, steps, SEED, [3]) if g.name == name)
    sums = np.clip(np.array(private), -C, C)
    np.testing.assert_allclose(recovered_sums(plan, steps, guess), sums, atol=1e-6 * C)
    assert (np.abs(sums) < C).any()


@pytest.mark.statistical
@pytest.mark.parametrize("plan", [PLAN, MANY, LAPLACE], ids=["gaussian", "three directions", "laplace"])
def test_ours_gives_nothing_away(plan):
    model = Quadratic(torch.ones(3), torch.zeros(3))
    findings = audit_seeds(plan, list(run(plan, model, torch.randn(8, 3), Streams.secure(SEED))), SEED, [3])
    assert len(findings) == 1
    assert findings[0].passed


@pytest.mark.statistical
@pytest.mark.parametrize("mechanism", [PLAN.mechanism, LAPLACE.mechanism], ids=["gaussian", "laplace"])
def test_false_alarms_over_the_whole_list_are_as_rare_as_promised(mechanism):
    """At alpha = 0.2 on sound transcripts. Kills: no correction for the number of guesses."""
    plan, alarms, trials = replace(PLAN, mechanism=mechanism, stages=(replace(PLAN.stages[0], steps=12),)), 0, 50
    for trial in range(trials):
        noise = SeededEntropy(10_000 + trial)
        scalars = [float(mechanism.release(np.array([3.0, 0.2]), noise.at(t))) / 8 for t in range(12)]
        seed = Streams.secure(trial + 50).direction_seed
        steps = [Step(t, 0, seed(t), (s,)) for t, s in enumerate(scalars)]
        alarms += any(not finding.passed for finding in audit_seeds(plan, steps, trial + 50, alpha=0.2))
    assert stats.binom.sf(alarms - 1, trials, 0.2) > ALPHA
    assert alarms > 0


def test_steps_without_scalars_are_refused():
    with pytest.raises(Refusal, match="steps that released scalars"):
        audit_seeds(dpgd_zeroth(n=8, **SAME), [Step(0, 0, 1, ())], 0)
    with pytest.raises(Refusal, match="steps that released scalars"):
        audit_seeds(PLAN, [], 0)
