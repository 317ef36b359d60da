"""DP-AggZO against its box, against DPZero where K = 1, and what its K directions cost."""

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch

import dpzo.directions
from dpzo import Refusal, Relation, Streams, dp_aggzo, dpzero, run
from dpzo.directions import seeds_of
from dpzo.models.quadratic import Quadratic
from tests.algorithms.hand import (
    ALPHA,
    BATCHES,
    COMMON,
    DATA,
    DIRECTIONS,
    PRIVATE,
    SIGMA,
    SPECTRUM,
    START,
    batches,
    clip,
    normal,
    trained,
    two_point,
    u_of,
)

CLIPS = pytest.mark.parametrize("kind", ["jointly", "each"])


@DIRECTIONS
@BATCHES
@CLIPS
@pytest.mark.parametrize("C", [0.05, 100.0])
def test_by_hand(direction, batch_size, kind, C):
    """Kills: K directions summed, not averaged; one scalar's step along another's direction; noise shared."""
    K, step = 3, C / 2**24
    plan = dp_aggzo(
        **COMMON, **PRIVATE, directions=K, clip_threshold=C, clip=kind, batch_size=batch_size, direction=direction
    )
    x, steps = trained(plan)
    streams, y = Streams.not_private(4, 5), START.numpy().copy()
    for t, (records, divisor) in enumerate(batches(batch_size, streams)):
        us = [u_of(direction, seed) for seed in seeds_of(streams.direction_seed(t), K)]  # line 2
        v = np.array([two_point(y, u, records) for u in us]).T.reshape(-1, K) / K  # line 3
        if kind == "jointly":
            whole = [np.trunc(clip(v_i, C) / step) for v_i in v]
        else:
            whole = [np.array([round(clip(v_ik, C) / step) for v_ik in v_i]) for v_i in v]
        source = streams.noise.at(t)
        z = [round(SIGMA * 2**24 * normal(source.bits(128))) for _ in range(K)]
        s = (sum(whole, np.zeros(K)) + z) * step / divisor  # line 4
        for s_k, u_k in zip(s, us, strict=True):
            y = y - ALPHA * s_k * u_k  # line 5
        assert steps[t].seed == streams.direction_seed(t)
        assert steps[t].scalars == pytest.approx(s, rel=1e-9)
    np.testing.assert_allclose(x, y, rtol=1e-9)


@DIRECTIONS
@BATCHES
@CLIPS
@pytest.mark.parametrize("C", [0.2, 100.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_one_direction_is_dpzero_bit_for_bit(direction, batch_size, kind, C, dtype):
    """Kills: a joint clip that rounds one coordinate otherwise than DPZero's."""
    same = {**COMMON, **PRIVATE, "clip_threshold": C, "batch_size": batch_size, "direction": direction}
    x, steps = trained(dp_aggzo(**same, directions=1, clip=kind), START.to(dtype))
    y, expected = trained(dpzero(**same), START.to(dtype))
    assert steps == expected
    assert np.array_equal(x, y)


@DIRECTIONS
@pytest.mark.parametrize("limits", [(1, 0), (1, 2**28), (2**16, 2**28)], ids=["regenerated", "held", "ahead"])
def test_held_or_not_the_run_is_the_same_bits(direction, limits, monkeypatch):
    plan = dp_aggzo(**COMMON, **PRIVATE, directions=4, clip_threshold=1.0, direction=direction)
    x, steps = trained(plan)
    monkeypatch.setattr(dpzo.directions, "_AHEAD", limits[0])
    monkeypatch.setattr(dpzo.directions, "_HELD", limits[1])
    y, again = trained(plan)
    assert again == steps
    assert np.array_equal(x, y)


def test_each_directions_scalar_has_noise_of_its_own():
    """Kills: one draw for a step's K scalars, whose differences would then be released bare."""
    plan = dp_aggzo(**COMMON, **PRIVATE, directions=4, clip_threshold=1e-9)
    _, steps = trained(plan, streams=Streams.secure(1))
    for step in steps:
        assert all(abs(a - b) > 1e-16 for a, b in combinations(step.scalars, 2))


SAME = {**COMMON, "clip_threshold": 1.0, "relation": Relation.REPLACE_ONE}


def test_jointly_k_directions_cost_what_one_costs():
    one = dpzero(**SAME, noise_multiplier=SIGMA).epsilon(1e-5)
    for K in (1, 2, 16, 1000):
        assert dp_aggzo(**SAME, noise_multiplier=SIGMA, directions=K).epsilon(1e-5) == one
        assert dp_aggzo(**SAME, target_epsilon=one, target_delta=1e-5, directions=K).mechanism.noise_multiplier == (
            pytest.approx(SIGMA, rel=1e-3)
        )


@pytest.mark.parametrize("K", [1, 2, 16])
def test_each_costs_root_k_times_the_noise(K):
    jointly = dp_aggzo(**SAME, noise_multiplier=SIGMA, directions=K).epsilon(1e-5)
    each = dp_aggzo(**SAME, noise_multiplier=SIGMA * math.sqrt(K), directions=K, clip="each")
    assert each.epsilon(1e-5) == pytest.approx(jointly, rel=1e-9)
    cheap = dp_aggzo(**SAME, noise_multiplier=SIGMA, directions=K, clip="each").epsilon(1e-5)
    assert cheap == pytest.approx(jointly) if K == 1 else cheap > 1.3 * jointly


@pytest.mark.parametrize(
    "change",
    [
        {"clip": "both"},
        {"clip": None},
        {"clip": "Jointly"},
        {"directions": 0},
        {"directions": 2.0},
        {"directions": True},
    ],
    ids=str,
)
def test_what_no_run_can_do_is_refused(change):
    with pytest.raises(Refusal):
        dp_aggzo(**{**SAME, "noise_multiplier": 1.0, "directions": 2, **change})


def test_an_empty_batch_moves_along_all_directions():
    plan = dp_aggzo(**{**COMMON, "n": 1}, **PRIVATE, directions=3, clip_threshold=1.0, batch_size=1)
    plan = replace(plan, sampler=replace(plan.sampler, sample_rate=1e-9))
    (step, *_) = run(plan, Quadratic(SPECTRUM, START), DATA[:1], Streams.not_private(4, 5))
    source = Streams.not_private(4, 5).noise.at(0)
    expected = [SIGMA * normal(source.bits(128)) / 1e-9 for _ in range(3)]
    assert step.scalars == pytest.approx(expected, rel=1e-6)
