"""Mistakes that are easy to make in private zeroth-order training, each with the build that makes it."""

import logging
import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import dpzo.algorithms.dpzero
from dpzo import Ledger, ModuleModel, Refusal, Relation, Streams, dp_aggzo, dpgd_zeroth, dpzero, mezo, run
from dpzo.algorithms import STEPS
from dpzo.mechanisms import GaussianMechanism
from dpzo.models.quadratic import Quadratic
from dpzo.parameters import Parameters
from dpzo.randomness import OsEntropy

COMMON = {"n": 12, "steps": 8, "step_size": 1e-3, "zo_eps": 1e-2}
NOISE = {"clip_threshold": 1.0, "noise_multiplier": 1.0, "relation": Relation.ADD_REMOVE}
PLANS = {
    "dpzero": dpzero(**COMMON, **NOISE, batch_size=2),
    "dp-aggzo": dp_aggzo(**COMMON, **NOISE, batch_size=2, directions=3),
    "dpgd-0th": dpgd_zeroth(**COMMON, **NOISE, batch_size=2),
}
EVERY = pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
BROKEN = torch.tensor([math.nan, math.inf, -math.inf, 3e38, 1e-45, 0.0] * 2)[:, None].expand(12, 3)
GOOD = torch.linspace(-1, 1, 36).view(12, 3)


def quadratic():
    return Quadratic(torch.ones(3), torch.zeros(3))


class Line:
    """f(x; g) = g x in one dimension: its derivative along u is g u for every lambda."""

    def __init__(self):
        self.params = Parameters({"x": torch.zeros(1, dtype=torch.float64)})

    def losses(self, slopes):
        return slopes * self.params["x"]


def sums(zo_eps, slopes, threshold=1.0):
    plan = dpzero(n=len(slopes), steps=1, step_size=1e-9, zo_eps=zo_eps, **NOISE | {"clip_threshold": threshold})
    plan = replace(plan, mechanism=replace(plan.mechanism, noise_multiplier=1e-6))
    (step,) = run(plan, Line(), torch.tensor(slopes, dtype=torch.float64), Streams.secure(0))
    return abs(step.scalars[0]) * len(slopes)


@pytest.mark.parametrize("zo_eps", [1e-4, 1e-2, 0.5, 3.0])
def test_the_clip_is_in_units_of_the_derivative_whatever_lambda_is(zo_eps):
    """Kills: the raw difference clipped, which moves the threshold by 2 lambda (run below)."""
    tolerance = 30 * 1e-6  # thirty standard deviations of the noise
    assert sums(zo_eps, [0.3, 0.2]) == pytest.approx(0.5, abs=tolerance)
    assert sums(zo_eps, [7.0, 0.25, -9.0, 2.0]) == pytest.approx(1.25, abs=tolerance)


def test_a_clip_of_the_raw_difference_is_seen(monkeypatch):
    def raw(model, records, u, zo_eps):
        return 2 * zo_eps * two_point(model, records, u, zo_eps)

    two_point = dpzo.algorithms.dpzero.two_point
    monkeypatch.setattr(dpzo.algorithms.dpzero, "two_point", raw)
    assert sums(1e-2, [0.3, 0.2]) == pytest.approx(0.01, abs=1e-4)


def network(norm):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), norm, nn.Linear(4, 1))


def each(module, records):
    return module(records)[:, 0].square()


def test_a_layer_that_takes_its_statistics_from_the_batch_is_refused():
    with pytest.raises(Refusal, match="batch norm"):
        ModuleModel(network(nn.BatchNorm1d(4, track_running_stats=False)), each)


def test_a_batch_norm_does_not_look_at_the_batch():
    """Kills: a module left in training mode, where one record's loss moves with every other's."""
    module = network(nn.BatchNorm1d(4)).train()
    batches = [torch.cat([GOOD[:1], factor * GOOD[1:5]]) for factor in (1, 100)]
    assert not torch.isclose(*(each(module, batch)[0] for batch in batches), rtol=1e-2), "the mutant"
    model = ModuleModel(module, each)
    assert torch.isclose(*(model.losses(batch)[0] for batch in batches), rtol=1e-5)


MEANS = [
    lambda m, r: each(m, r).mean(),
    lambda m, r: each(m, r).mean(0, keepdim=True),  # one number, clipped as if it were one record's
    lambda m, r: each(m, r)[:, None],
]


@pytest.mark.parametrize("loss", MEANS, ids=["mean", "mean of shape (1,)", "2d"])
def test_a_mean_over_the_batch_is_no_loss_of_a_record(loss):
    model = ModuleModel(nn.Sequential(nn.Linear(3, 1)), loss)
    with pytest.raises(Refusal, match="one loss for each record"):
        list(run(PLANS["dpzero"], model, GOOD, Streams.secure(0)))


@EVERY
def test_a_run_takes_the_steps_of_its_plan_and_no_more(plan, tmp_path):
    """Kills: a last step beyond the plan; a finished run that a second call goes on with."""
    with Ledger(tmp_path / "ledger") as ledger:
        steps = run(plan, quadratic(), GOOD, Streams.secure(0), ledger=ledger)
        assert [step.index for step in steps] == list(range(plan.steps))
        assert next(steps, None) is None
        list(run(plan, quadratic(), GOOD, Streams.secure(0), ledger=ledger))
        assert ledger.charged == plan.steps


@pytest.mark.parametrize("algorithm", [*PLANS, "mezo"])
@pytest.mark.parametrize("data", [GOOD, BROKEN], ids=["good", "broken"])
def test_a_run_prints_logs_and_warns_of_nothing(algorithm, data, capfd, caplog):
    """Kills: "empty batch, skipped"; a warning of numpy's when a loss overflows; a logged loss."""
    plan = PLANS.get(algorithm) or mezo(**COMMON, batch_size=2)
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(list(run(plan, quadratic(), data, Streams.secure(0)))) == plan.steps
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


class Counted(OsEntropy):
    """Counts what is drawn at each step."""

    def __init__(self):
        self.drawn = []

    def at(self, step):
        self.drawn.append([step, 0])
        return self

    def bits(self, count):
        self.drawn[-1][1] += count
        return super().bits(count)

    def normal(self, size):
        self.drawn[-1][1] += 64 * size
        return super().normal(size)


def noise_drawn(plan, data):
    noise = Counted()
    list(run(plan, quadratic(), data, Streams(0, OsEntropy(), noise)))
    return noise.drawn


@EVERY
def test_each_step_draws_its_noise_once_whatever_the_records_are(plan):
    """Kills: a step without noise when its batch is empty (run below); a second draw after an overflow."""
    drawn = noise_drawn(plan, GOOD)
    assert [step for step, _ in drawn] == list(range(plan.steps))
    assert len({count for _, count in drawn}) == 1
    assert drawn[0][1] > 0
    rare = replace(plan, sampler=replace(plan.sampler, sample_rate=1e-9))
    assert noise_drawn(plan, BROKEN) == noise_drawn(rare, GOOD) == drawn


def test_a_skipped_empty_batch_is_seen(monkeypatch):
    step = STEPS["dpzero"]

    def skipping(model, records, us, stage, divisor, mechanism, noise):
        return step(model, records, us, stage, divisor, mechanism, noise) if len(records) else (0.0,)

    monkeypatch.setitem(STEPS, "dpzero", skipping)
    rare = replace(PLANS["dpzero"], sampler=replace(PLANS["dpzero"].sampler, sample_rate=1e-9))
    assert {count for _, count in noise_drawn(rare, GOOD)} == {0}


class FloatNoise(GaussianMechanism):
    """Double-precision noise on a double-precision sum."""

    def release(self, values, noise):
        clipped = np.clip(values, -self.clip_threshold, self.clip_threshold)
        return clipped.sum() + self.noise_multiplier * self.clip_threshold * noise.normal(1)[0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_what_a_step_releases_is_on_the_grid_and_nothing_finer(dtype):
    """Every sum is a whole multiple of C / 2**24. Kills: floating-point noise, whose low bits tell neighbours apart."""
    threshold = 0.75
    plan = dpzero(**COMMON | {"steps": 50}, **NOISE | {"clip_threshold": threshold})
    data = torch.tensor(np.random.default_rng(0).standard_normal((12, 3)), dtype=dtype)

    def off_the_grid(plan):
        model = Quadratic(torch.ones(3, dtype=dtype), torch.zeros(3, dtype=dtype))
        steps = run(plan, model, data, Streams.secure(0))
        whole = np.array([step.scalars[0] * 12 / threshold * 2**24 for step in steps])
        return np.abs(whole - np.rint(whole)).max()

    assert off_the_grid(plan) < 1e-6
    assert off_the_grid(replace(plan, mechanism=FloatNoise(threshold, 1.0))) > 1e-2


def test_a_frozen_embedding_does_not_keep_the_tokens_that_it_saw():
    """Kills: max_norm, which rescales in eval mode too, and only, the rows of the tokens that were there."""
    layer = nn.Embedding(9, 3, max_norm=0.1)
    before = layer.weight.detach().clone()
    layer.eval()(torch.tensor([2, 5]))
    assert (layer.weight != before).any(1).nonzero().flatten().tolist() == [2, 5], "the mutant"
    with pytest.raises(Refusal, match="the weights would tell which tokens there are"):
        ModuleModel(nn.Sequential(layer, nn.Flatten(), nn.Linear(6, 1)), each)


class Fragile(ModuleModel):
    """Stops for records that hold a number above 5; nothing looks at them beforehand."""

    def __init__(self):
        torch.manual_seed(0)
        super().__init__(nn.Linear(3, 1), self.fragile)

    def check_records(self, data, passes):
        """Leave all to the run."""

    @staticmethod
    def fragile(module, records):
        if (records > 5).any():
            raise RuntimeError("a private value")
        return each(module, records)


def scalars_of(data, plan, model):
    return [step.scalars for step in run(plan, model, data, Streams.not_private(1, 2))]


@EVERY
def test_a_record_whose_loss_fails_in_a_step_counts_as_0_and_stops_no_run(plan):
    """Kills: an exception at the step that drew it, which says that it is there."""
    bad, nothing = GOOD.clone(), GOOD.clone()
    bad[[2, 7]], nothing[[2, 7]] = 9.0, torch.nan
    model, without = Fragile(), Fragile()
    assert scalars_of(bad, plan, model) == scalars_of(nothing, plan, without)
    for name in model.params:
        assert torch.equal(model.params[name], without.params[name])
    assert len(scalars_of(torch.full((12, 3), 9.0), plan, Fragile())) == plan.steps


SHAPES = [
    lambda m, r: each(m, r)[:, None],
    lambda m, r: each(m, r).repeat(2),
    lambda m, r: each(m, r)[:, None, None].expand(-1, 3, 5),
]


@pytest.mark.parametrize("loss", SHAPES)
@pytest.mark.parametrize("size", [None, 1])
def test_no_refusal_tells_how_many_records_a_batch_has(loss, size):
    """Kills: the shape of the losses in a message: their number is private."""

    class Late(ModuleModel):
        """Goes wrong in a step, where the batch is private."""

        made_up = None

        def check_records(self, data, passes):
            """Leave all to the run."""

    plan = dpzero(**COMMON | {"n": 700, "steps": 1}, **NOISE, batch_size=300)
    model = Late(nn.Linear(3, 1), loss, physical_batch_size=size)
    streams = Streams.not_private(1, 2)
    batch = len(next(plan.sampler.batches(700, range(1), streams.private)))
    with pytest.raises(Refusal) as refusal:
        list(run(plan, model, torch.ones(700, 3), streams))
    assert 200 < batch < 400
    assert str(batch) not in str(refusal.value)
    assert str(2 * batch) not in str(refusal.value)


def test_an_empty_batch_reaches_nobodys_code():
    """Kills: a model's own error when nobody is drawn."""
    sizes = []

    class Watched:
        def __len__(self):
            return 12

        def __getitem__(self, rows):
            sizes.append(len(rows))
            return GOOD[rows]

    def loss(module, records):
        sizes.append(len(records))
        return each(module, records)

    rare = replace(PLANS["dpzero"], sampler=replace(PLANS["dpzero"].sampler, sample_rate=1e-9))
    for size in (None, 4):
        model = ModuleModel(nn.Linear(3, 1), loss, physical_batch_size=size)
        assert len(list(run(rare, model, Watched(), Streams.secure(0)))) == rare.steps
    assert 0 not in sizes
