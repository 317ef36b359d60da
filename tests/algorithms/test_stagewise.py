"""DP-ZOSO and DP-ZOPO: their boxes recomputed with numpy, what a stage keeps and ends with, replay, resume, privacy."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch

import dpzo
from dpzo import (
    GaussianDirection,
    Ledger,
    Pruning,
    Refusal,
    Relation,
    Stage,
    Streams,
    digest,
    dp_zopo,
    dp_zoso,
    replay,
    run,
)
from dpzo.directions import seeds_of
from dpzo.models.module import ModuleModel
from dpzo.models.quadratic import Quadratic
from dpzo.stages import doubling
from tests.algorithms.hand import (
    COMMON,
    DATA,
    GENERATOR,
    PRIVATE,
    SPECTRUM,
    START,
    D,
    N,
    clip,
    f,
    normal,
    trained,
    u_of,
)

C, SIGMA = 0.7, 2.5
STAGES = (
    Stage(3, 0.05, 0.1, proximal=2.0),
    Stage(2, 0.02, 0.05, clip_threshold=0.3),
    Stage(3, 0.01, 0.02, proximal=4.0, average=True),
)
SAME = {"n": N, "clip_threshold": C, "noise_multiplier": SIGMA, "relation": Relation.REPLACE_ONE}


def two_points(x, us, record, λ):
    return np.array([(f(x + λ * u, record) - f(x - λ * u, record)) / (2 * λ) for u in us])


def by_hand(stages, P, streams, x):
    """The box of DP-ZOSO, line by line."""
    x, t = x.copy(), 0
    for stage in stages:
        a, iterates = x.copy(), []
        threshold = C if stage.clip_threshold is None else stage.clip_threshold
        for _ in range(stage.steps):
            us = [u_of(GaussianDirection(), seed) for seed in seeds_of(streams.direction_seed(t), P)]
            v = [clip(two_points(x, us, record, stage.zo_eps) / P, threshold) for record in DATA.numpy()]
            entropy = streams.noise.at(t)
            z = np.array([normal(entropy.bits(128)) for _ in range(P)])
            g = (np.sum(v, axis=0) + SIGMA * stage.noise_scale * threshold * z) / N
            x = x - stage.step_size * (sum(s * u for s, u in zip(g, us, strict=True)) + stage.proximal * (x - a))
            iterates.append(x)
            t += 1
        if stage.average:
            x = np.mean(iterates, axis=0)
    return x


@pytest.mark.parametrize("scales", [(1.0, 1.0, 1.0), (1.0, 0.5, 2.0)], ids=str)
@pytest.mark.parametrize("P", [1, 3])
def test_dp_zoso_is_its_box(P, scales):
    """Kills: the anchor as an alias, the pull inside the product with u, C, lambda or noise of another stage than the
    accountant's, a late mean."""
    stages = tuple(replace(s, noise_scale=k) for s, k in zip(STAGES, scales, strict=True))
    x, _ = trained(dp_zoso(stages=stages, directions=P, **SAME))
    np.testing.assert_allclose(x, by_hand(stages, P, Streams.not_private(4, 5), START.numpy()), rtol=1e-6)


def test_each_part_of_a_stage_counts():
    """Kills: a stage's field that is read nowhere (the authors' regulariser was always zero)."""
    ends = [trained(dp_zoso(stages=STAGES, **SAME))[0]]
    for number, change in [(0, {"proximal": 0.0}), (1, {"clip_threshold": None}), (2, {"average": False})]:
        changed = tuple(replace(s, **change) if n == number else s for n, s in enumerate(STAGES))
        ends.append(trained(dp_zoso(stages=changed, **SAME))[0])
    assert len({x.tobytes() for x in ends}) == 4


def test_without_stages_it_is_dpzero():
    one = dp_zoso(stages=(Stage(8, 0.05, 0.1),), **SAME)
    x, steps = trained(one)
    same, others = trained(dpzo.dpzero(**COMMON, **PRIVATE, clip_threshold=C, direction=GaussianDirection()))
    assert np.array_equal(x, same)
    assert digest(steps) == digest(others)


@pytest.mark.parametrize("average", [False, True])
def test_no_copy_is_kept_where_nothing_pulls(average):
    """Kills: a copy in stages without a pull, or after the last step of a stage with one."""
    model, again = Quadratic(SPECTRUM, START), Quadratic(SPECTRUM, START)
    plan = dp_zoso(stages=(*STAGES[:2], replace(STAGES[2], average=average)), **SAME)
    anchors, steps = [], []
    for step in run(plan, model, DATA, Streams.not_private(4, 5)):
        steps.append(step)
        anchors.append(model.params.anchor is not None)
    assert anchors == [True] * 2 + [False] * 3 + [True] * 2 + [False]
    replay(plan, again, steps)
    assert again.params.anchor is None


# --- privacy ---------------------------------------------------------------------------------------------------------


def test_the_accountant_sees_all_stages_at_once():
    plan = dp_zoso(stages=STAGES, **SAME)
    whole = dpzo.dpzero(**COMMON, **PRIVATE, clip_threshold=C)
    assert plan.epsilon(1e-3) == whole.epsilon(1e-3)
    assert plan.epsilon(1e-3, steps=5) == whole.epsilon(1e-3, steps=5)


def test_a_budget_for_each_stage():
    """Gaussian DP adds up: mu^2 = sum T_s (2 / sigma_s)^2; kills the plan's sigma for all."""
    scales = (1.0, 0.5, 2.0)
    plan = dp_zoso(stages=[replace(s, noise_scale=k) for s, k in zip(STAGES, scales, strict=True)], **SAME)
    mu2 = sum(s.steps * (2 / (SIGMA * k)) ** 2 for s, k in zip(STAGES, scales, strict=True))
    single = dpzo.dpzero(**{**COMMON, **PRIVATE, "steps": 1, "noise_multiplier": 2 / mu2**0.5}, clip_threshold=C)
    assert plan.epsilon(1e-3) == pytest.approx(single.epsilon(1e-3), rel=1e-9)
    mu2 = 3 * (2 / SIGMA) ** 2 + (2 / (SIGMA * 0.5)) ** 2
    single = dpzo.dpzero(**{**COMMON, **PRIVATE, "steps": 1, "noise_multiplier": 2 / mu2**0.5}, clip_threshold=C)
    assert plan.epsilon(1e-3, steps=4) == pytest.approx(single.epsilon(1e-3), rel=1e-9)
    assert plan.calibrate(2.0, 1e-3).epsilon(1e-3) == pytest.approx(2.0, rel=1e-3)
    assert [plan.mechanism_of(s).noise_multiplier for s in range(3)] == [SIGMA, SIGMA / 2, 2 * SIGMA]


def test_uneven_noise_wants_steps_that_are_sampled_on_their_own():
    plan = dp_zoso(stages=[replace(STAGES[0], noise_scale=2.0), STAGES[1]], batch_size=3, **SAME)
    with pytest.raises(Refusal, match="uneven noise"):
        replace(plan, sampler=dpzo.sampling.BallsAndBins(2), relation=Relation.ADD_REMOVE)


# --- DP-ZOPO ---------------------------------------------------------------------------------------------------------


def network():
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 1))
    return ModuleModel(module, lambda m, x: m(x)[:, 0].square(), data_free=lambda m: m(torch.ones(1, 5)).sum())


RECORDS = torch.randn(40, 5, generator=GENERATOR)
NET = {"n": 40, "clip_threshold": 1.0, "noise_multiplier": 2.0, "relation": Relation.ADD_REMOVE, "batch_size": 8}
SHARES = doubling(first_steps=2, steps=10, step_size=0.1, zo_eps=1e-2, keep=[0.1, 0.2, 0.4], proximal=0.5, average=True)
STRATEGIES = pytest.mark.parametrize("strategy", ["static", "dynamic", "incremental"])
SCORES = pytest.mark.parametrize("score", ["synflow", "magnitude", "random", "zo-grasp", "authors"])


@STRATEGIES
@SCORES
def test_a_replay_walks_the_same_way(score, strategy):
    plan = dp_zopo(stages=SHARES, pruning=Pruning(score=score, strategy=strategy, weights=(1.2, 0.8)), **NET)
    model, again = network(), network()
    steps = list(run(plan, model, RECORDS, Streams.secure(public_seed=3)))
    assert len(steps) == 10
    replay(plan, again, steps)
    for name, t in model.params.items():
        assert torch.equal(t, again.params[name])


@STRATEGIES
def test_another_mask_than_the_runs_is_refused(strategy, tmp_path):
    """Kills: released numbers applied along coordinates that did not move, as a score of other last bits would."""
    plan, path = dp_zopo(stages=SHARES, pruning=Pruning(strategy=strategy), **NET), tmp_path / "run.ledger"
    model, streams = network(), Streams.secure(public_seed=3)
    with dpzo.Ledger(path) as ledger:
        steps = list(islice(run(plan, model, RECORDS, streams, ledger=ledger), 5))
    assert len({step.mask for step in steps}) == 2  # of the two stages begun
    assert dpzo.ledger.read(path).steps == steps
    elsewhere = replace(plan, pruning=replace(plan.pruning, score="magnitude"))
    again = network()
    start = again.params.snapshot()
    for moved_otherwise in (steps, [replace(step, mask="") for step in steps]):
        with pytest.raises(Refusal, match="along which step 0 moved"):
            replay(elsewhere, again, moved_otherwise)
    assert all(torch.equal(t, start[name]) for name, t in again.params.items())


@STRATEGIES
def test_each_stage_moves_along_the_mask_of_its_strategy(strategy):
    """Kills: masks that are all made of the starting weights, or anew where they must be nested, and the reverse."""
    pruning = Pruning(score="magnitude", largest=False, strategy=strategy)
    stages = tuple(Stage(2, 3.0, 1e-2, keep=keep) for keep in (0.5, 0.5, 0.2))
    model, other, masks, before = network(), network(), {}, None
    at = [model.params.snapshot()]
    for step in run(dp_zopo(stages=stages, pruning=pruning, **NET), model, RECORDS, Streams.not_private(3, 4)):
        masks[step.stage] = step.mask
        at[step.stage + 1 :] = [model.params.snapshot()]
    for number, stage in enumerate(stages):
        other.params.restore(at[0 if strategy == "static" else number])
        before = pruning.mask(other, stage.keep, before)
        assert masks[number] == before.digest
    assert (masks[0] == masks[1]) == (strategy != "dynamic")
    other.params.restore(at[2])
    assert (masks[2] == pruning.mask(other, 0.2).digest) == (strategy == "dynamic")


@STRATEGIES
def test_what_is_frozen_keeps_its_bits_and_the_share_is_kept(strategy):
    stages = tuple(replace(s, average=False) for s in SHARES)
    plan = dp_zopo(stages=stages, pruning=Pruning(score="random", strategy=strategy), **NET)
    model = network()
    before, moved = model.params.snapshot(), []
    for step in run(plan, model, RECORDS, Streams.secure(public_seed=3)):
        changed = torch.cat([(t.data != before[name]).flatten() for name, t in model.params.items()])
        moved.append((step.stage, changed))
        before = model.params.snapshot()
    d = model.params.count
    for stage, changed in moved:
        assert changed.sum() <= np.ceil(stages[stage].keep * d)
        assert changed.sum() >= np.ceil(stages[stage].keep * d) - 1  # a step may round away
    if strategy != "dynamic":  # nested, whether by the same scores or by rule
        assert not (moved[0][1] & ~moved[-1][1]).any()


def test_losses_between_steps_are_those_of_the_weights_that_moved():
    """Kills: packed values that the model never sees (the authors' masked path trains nothing)."""
    plan = dp_zopo(stages=SHARES, pruning=Pruning(score="magnitude"), **NET)
    model = network()
    start = model.params.snapshot()
    list(run(plan, model, RECORDS, Streams.secure(public_seed=3)))
    assert any(not torch.equal(t, start[name]) for name, t in model.params.items())


def test_a_mask_of_all_is_dp_zoso():
    stages = doubling(first_steps=2, steps=10, step_size=0.1, zo_eps=1e-2, proximal=0.5)
    ends = []
    for plan in (dp_zoso(stages=stages, **NET), dp_zopo(stages=stages, pruning=Pruning(score="random"), **NET)):
        model = network()
        steps = list(run(plan, model, RECORDS, Streams.not_private(3, 4)))
        ends.append((digest(replace(step, mask="") for step in steps), *model.params.snapshot().values()))
    assert ends[0][0] == ends[1][0]
    assert all(torch.equal(a, b) for a, b in zip(ends[0][1:], ends[1][1:], strict=True))


# --- stopping and going on -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("taken", [1, 2, 3, 5, 6, 9])
def test_a_run_goes_on_in_the_middle_of_a_stage(tmp_path, taken):
    plan = dp_zopo(stages=SHARES, pruning=Pruning(score="synflow", strategy="dynamic"), **NET)
    whole, parts = network(), network()
    list(run(plan, whole, RECORDS, Streams.not_private(3, 4)))
    with Ledger(tmp_path / "a") as ledger:
        list(islice(run(plan, network(), RECORDS, Streams.not_private(3, 4), ledger=ledger), taken))
    with Ledger(tmp_path / "a") as ledger:
        steps = list(run(plan, parts, RECORDS, Streams.not_private(3, 4), ledger=ledger))
    assert [step.index for step in steps] == list(range(10))
    assert all(torch.equal(t, parts.params[name]) for name, t in whole.params.items())


@STRATEGIES
def test_a_stage_whose_last_steps_were_lost_still_ends(tmp_path, strategy):
    """Kills: a stage passed by without its mask; a mean forgotten when its last step was charged and lost."""
    stages = tuple(Stage(n, 0.1, 1e-2, keep=keep, average=True) for n, keep in ((2, 0.2), (1, 0.5), (2, 0.8)))
    plan = dp_zopo(stages=stages, pruning=Pruning(score="magnitude", strategy=strategy), **NET)
    model, again, streams = network(), network(), Streams.secure(public_seed=3)
    with Ledger(tmp_path / "a") as ledger:
        (first,) = islice(run(plan, model, RECORDS, streams, ledger=ledger), 1)
        ledger.charge(1)  # the processes that would have taken these two steps died in them
        ledger.charge(2)
    after_one = model.params.snapshot()
    with Ledger(tmp_path / "a") as ledger:
        steps = list(run(plan, again, RECORDS, streams, ledger=ledger))
    assert [step.index for step in steps] == [0, 3, 4]
    elsewhere = network()
    replay(plan, elsewhere, steps)
    assert all(torch.equal(t, elsewhere.params[name]) for name, t in again.params.items())
    replay(plan, start := network(), steps[:1])
    assert all(torch.equal(t, after_one[name]) for name, t in start.params.items())
    assert steps[0] == first


@pytest.mark.parametrize("lost", [False, True])
def test_the_mean_of_a_stage_whose_last_step_was_lost_is_of_the_others(tmp_path, lost):
    plan = dp_zoso(stages=(Stage(3, 0.1, 0.1, average=True), Stage(1, 1e-30, 0.1)), **SAME)
    model, iterates = Quadratic(SPECTRUM, START), []
    streams = Streams.not_private(4, 5)
    with Ledger(tmp_path / "a") as ledger:
        for _ in islice(run(plan, model, DATA, streams, ledger=ledger), 2):
            iterates.append(model.params["x"].clone())
        if lost:
            ledger.charge(2)
    again = Quadratic(SPECTRUM, START)
    with Ledger(tmp_path / "a") as ledger:
        *_, last = run(plan, again, DATA, streams, ledger=ledger)
    assert last.index == 3
    assert torch.allclose(again.params["x"], torch.stack(iterates).mean(0)) == lost


def test_weights_from_the_middle_of_a_run_that_looks_back_are_refused(tmp_path):
    plan = dp_zoso(stages=STAGES, **SAME)
    model, streams = Quadratic(SPECTRUM, START), Streams.not_private(4, 5)
    with Ledger(tmp_path / "a") as ledger:
        *_, last = islice(run(plan, model, DATA, streams, ledger=ledger), 4)
        ledger.checkpoint(model.params, last)
    with Ledger(tmp_path / "a") as ledger, pytest.raises(Refusal, match="look back"):
        run(plan, Quadratic(SPECTRUM, model.params["x"]), DATA, streams, ledger=ledger)


# --- refusals --------------------------------------------------------------------------------------------------------


def test_refused_before_anything_is_spent(tmp_path):
    def refuses(match, what):
        with pytest.raises(Refusal, match=match):
            what()

    refuses("dp_zopo", lambda: dp_zoso(stages=SHARES, **NET))
    refuses("at least one stage", lambda: dp_zoso(stages=(), **NET))
    for plan in (dp_zoso, dp_zopo):
        refuses("every stage to be a Stage", lambda plan=plan: plan(stages=[STAGES[0], 2], **NET))
    refuses("a Pruning", lambda: dp_zopo(stages=SHARES, pruning="synflow", **NET))
    late = {"from 2": {"clip_threshold": 1e300}, "at most 2": {"noise_scale": 1e12}}
    for match, of_its_own in late.items():  # not at the stage, when the ones before it are spent
        refuses(match, lambda own=of_its_own: dp_zoso(stages=(Stage(2, 0.1, 0.1), Stage(2, 0.1, 0.1, **own)), **NET))
    refuses(
        "an algorithm|no pruning",
        lambda: run(
            replace(
                dpzo.dpzero(
                    n=40,
                    steps=2,
                    step_size=1.0,
                    zo_eps=1.0,
                    clip_threshold=1.0,
                    noise_multiplier=1.0,
                    relation=Relation.ADD_REMOVE,
                ),
                pruning=Pruning(),
            ),
            network(),
            RECORDS,
            Streams.secure(1),
        ),
    )
    refuses(
        "do not pull",
        lambda: run(
            replace(dp_zoso(stages=(Stage(2, 0.1, 0.1, proximal=1.0),), **NET), algorithm="dpzero"),
            network(),
            RECORDS,
            Streams.secure(1),
        ),
    )
    blind = ModuleModel(torch.nn.Linear(5, 1), lambda m, x: m(x)[:, 0])
    plan = dp_zopo(stages=SHARES, **NET)
    with Ledger(tmp_path / "l") as ledger:
        refuses("data_free", lambda: run(plan, blind, RECORDS, Streams.secure(1), ledger=ledger))
        strict = replace(plan, pruning=Pruning(must_train=("2.bias",)))
        refuses("which must train", lambda: run(strict, network(), RECORDS, Streams.secure(1), ledger=ledger))
        late = (Stage(2, 0.1, 0.1, keep=1.0), Stage(2, 0.1, 0.1, keep=0.02))  # not when the first stage is spent
        strict = replace(strict, stages=late, pruning=Pruning(score="magnitude", must_train=("2.bias",)))
        refuses("which must train", lambda: run(strict, network(), RECORDS, Streams.secure(1), ledger=ledger))
        broken = network()
        broken.params["0.weight"].data[3, 2] = torch.nan
        for strategy in ("static", "dynamic"):
            plan = dp_zopo(stages=SHARES, pruning=Pruning(score="magnitude", strategy=strategy), **NET)
            refuses("finite scores", lambda plan=plan: run(plan, broken, RECORDS, Streams.secure(1), ledger=ledger))
        assert ledger.charged == 0
    assert (tmp_path / "l").read_bytes() == b""


def test_tied_weights_stay_tied():
    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = torch.nn.Linear(5, 5, bias=False), torch.nn.Linear(5, 5, bias=False)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(torch.tanh(self.a(x)))

    model = ModuleModel(Tied(), lambda m, x: m(x).square().sum(1))
    plan = dp_zopo(stages=SHARES, pruning=Pruning(score="magnitude"), **NET)
    list(run(plan, model, RECORDS, Streams.secure(public_seed=3)))
    assert list(model.params) == ["a.weight"]
    assert model.module.a.weight is model.module.b.weight


def test_a_plan_tells_its_stages_and_its_pruning_and_comes_back():
    plan = dp_zopo(stages=SHARES, pruning=Pruning(weights=(1.2, 0.8), must_train=("0.weight",)), **NET)
    assert dpzo.Plan.described(plan.describe()) == plan
    assert D == 6
