from dataclasses import replace

import pytest
import torch
from torch import nn

from dpzo import (
    GaussianDirection,
    ModuleModel,
    Refusal,
    Relation,
    SphereDirection,
    Stage,
    Step,
    Streams,
    digest,
    dp_aggzo,
    dpgd_zeroth,
    dpzero,
    mezo,
    replay,
    run,
)

PRIVATE = {"clip_threshold": 1.0, "noise_multiplier": 1.0, "relation": Relation.ADD_REMOVE}
COMMON = {"n": 8, "steps": 12, "step_size": 0.05, "zo_eps": 0.01, "batch_size": 4}
DATA = torch.linspace(-1, 1, 24).view(8, 3)


def network(dtype=torch.float32):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 20), nn.Tanh(), nn.LayerNorm(20), nn.Linear(20, 1)).to(dtype)


def adapt(module, trainable=None):
    def loss(module, records):
        return (module(records.to(module[0].weight.dtype))[:, 0] - 1).square()

    return ModuleModel(module, loss, trainable)


def plans(direction):
    return [
        dpzero(**COMMON, **PRIVATE, direction=direction),
        mezo(**COMMON, direction=direction),
        dp_aggzo(**COMMON, **PRIVATE, direction=direction, directions=3),
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("trainable", [None, ["3.weight", "0.bias"]], ids=["all", "some"])
@pytest.mark.parametrize("plan", plans(GaussianDirection()) + plans(SphereDirection()), ids=lambda p: p.algorithm)
def test_replay_gives_the_trained_weights_bit_for_bit(plan, trainable, dtype):
    plan = replace(plan, stages=(Stage(7, 0.05, 0.01), Stage(5, 0.02, 0.01)))
    trained, base = adapt(network(dtype), trainable), adapt(network(dtype), trainable)
    steps = list(run(plan, trained, DATA, Streams.secure(3)))
    start = base.params.snapshot()
    replay(plan, base.params, steps)
    for name, tensor in trained.params.items():
        assert torch.equal(base.params[name], tensor)
        assert not torch.equal(start[name], tensor)
    for name, tensor in trained.module.named_parameters():
        assert torch.equal(dict(base.module.named_parameters())[name], tensor)


def test_replay_stops_where_the_steps_stop():
    plan = dpzero(**COMMON, **PRIVATE)
    trained, base = adapt(network()), adapt(network())
    steps = run(plan, trained, DATA, Streams.secure(3))
    taken = [next(steps) for _ in range(5)]
    replay(plan, base.params, taken)
    assert all(torch.equal(base.params[name], t) for name, t in trained.params.items())


def test_dpgd_zeroths_steps_hold_no_scalar_and_cannot_be_replayed():
    plan = dpgd_zeroth(**COMMON, **PRIVATE)
    steps = list(run(plan, adapt(network()), DATA, Streams.secure(3)))
    assert all(step.scalars == () for step in steps)
    base = adapt(network())
    before = base.params.snapshot()
    with pytest.raises(Refusal):
        replay(plan, base.params, steps)
    assert all(torch.equal(base.params[name], t) for name, t in before.items())


@pytest.mark.parametrize("scalars", [(1.0,), (1.0, 2.0, 3.0, 4.0), ()], ids=len)
def test_another_number_of_scalars_than_the_plans_directions_cannot_be_replayed(scalars):
    """Kills: a transcript of K directions replayed along some of them."""
    plan, base = dp_aggzo(**COMMON, **PRIVATE, directions=3), adapt(network())
    before = base.params.snapshot()
    with pytest.raises(Refusal, match="step 1"):
        replay(plan, base.params, [Step(0, 0, 5, (1.0, 2.0, 3.0)), Step(1, 0, 6, scalars)])
    assert all(torch.equal(base.params[name], t) for name, t in before.items())


STEPS = [Step(0, 0, 5, (1.25,)), Step(1, 0, 6, (-0.5,)), Step(2, 1, 7, ())]


@pytest.mark.parametrize("position", [0, 1])
@pytest.mark.parametrize(
    "change",
    [
        {"index": 9},
        {"stage": 9},
        {"seed": 9},
        {"scalars": (1.0,)},
        {"scalars": (1.2500000000000002,)},
        {"scalars": (0.0,)},
        {"scalars": (-0.0,)},
        {"scalars": ()},
        {"scalars": (1.25, 1.25)},
    ],
    ids=str,
)
def test_the_digest_sees_any_change(position, change):
    changed = list(STEPS)
    changed[position] = replace(changed[position], **change)
    assert digest(changed) != digest(STEPS)


def test_the_digest_sees_order_length_and_the_sign_of_zero():
    others = [STEPS[:2], STEPS[1:], STEPS[::-1], STEPS + STEPS[-1:], []]
    assert len({digest(steps) for steps in [STEPS, *others]}) == 6
    assert digest([Step(0, 0, 0, (0.0,))]) != digest([Step(0, 0, 0, (-0.0,))])


def test_the_digest_is_fixed_for_ever():
    assert digest(iter(STEPS)) == digest(STEPS)
    assert digest([]) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
