"""Schedules as data: what the constructors make, and what a stage refuses."""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dpzo import Refusal, Stage
from dpzo.stages import allocated, doubling, fading

AUTHORS = {"first_steps": 1000, "steps": 6000, "step_size": 2e-5, "zo_eps": 1e-6}


def test_the_authors_schedule():
    stages = doubling(**AUTHORS)
    assert [s.steps for s in stages] == [1000, 2000, 3000]
    assert [s.step_size for s in stages] == [2e-5, 1e-5, 5e-6]
    assert {s.zo_eps for s in stages} == {1e-6}
    stages = doubling(**AUTHORS, keep=[0.1, 0.2, 0.4], proximal=5e-4, average=True)
    assert [(s.keep, s.proximal, s.average) for s in stages] == [(k, 5e-4, True) for k in (0.1, 0.2, 0.4)]


RADII = st.floats(1e-300, 1e300)


@example(stages=3, first=1, more=1, start=1e-300, end=1e300)
@given(st.integers(2, 6), st.integers(1, 50), st.integers(1, 500), RADII, RADII)
def test_a_doubling_schedule(stages, first, more, start, end):
    """Kills: lost or added steps, a radius that only grows, misses its end or goes by a ratio that overflows."""
    steps = first * (2 ** (stages - 1) - 1) + more
    made = doubling(first_steps=first, steps=steps, step_size=1.0, zo_eps=start, last_zo_eps=end, stages=stages)
    assert sum(s.steps for s in made) == steps
    assert [s.steps for s in made[:-1]] == [first * 2**k for k in range(stages - 1)]
    assert (made[0].zo_eps, made[-1].zo_eps) == (start, end)
    ratios = np.diff(np.log([s.zo_eps for s in made]))
    np.testing.assert_allclose(ratios, (math.log(end) - math.log(start)) / (stages - 1), atol=1e-9)
    assert doubling(first_steps=first, steps=more, step_size=1.0, zo_eps=start, stages=1) == (Stage(more, 1.0, start),)


@pytest.mark.parametrize(
    "bad",
    [
        {"steps": 3000},  # the third stage would have none
        {"steps": 0},
        {"first_steps": 0},
        {"stages": 0},
        {"stages": 2.0},
        {"step_size": math.nan},
        {"step_size": 0.0},
        {"zo_eps": 0.0},
        {"zo_eps": math.inf},
        {"last_zo_eps": 0.0},
        {"last_zo_eps": -1e-6},
        {"last_zo_eps": math.nan},
        {"last_zo_eps": "1e-6"},
        {"stages": 1, "last_zo_eps": 1.0},  # which no stage would have
        {"step_size": None},
        {"average": "no"},
        {"keep": 0.0},
        {"keep": 1.5},
        {"keep": [0.1, 0.2]},
        {"keep": [0.1, 0.2, math.nan]},
        {"proximal": -1.0},
        {"proximal": math.nan},
        {"proximal": 1e9},
        {"proximal": False},
        {"proximal": "0"},
    ],
    ids=str,
)
def test_what_is_no_schedule_is_refused(bad):
    with pytest.raises(Refusal):
        doubling(**AUTHORS | bad)


@pytest.mark.parametrize(
    "bad", [{"steps": True}, {"clip_threshold": 0.0}, {"noise_scale": 0.0}, {"noise_scale": math.inf}], ids=str
)
def test_what_is_no_stage_is_refused(bad):
    with pytest.raises(Refusal):
        Stage(**{"steps": 1, "step_size": 1.0, "zo_eps": 1.0} | bad)


def test_a_pull_may_reach_the_anchor_and_no_further():
    assert Stage(1, 0.5, 1.0, proximal=2.0).proximal == 2.0
    with pytest.raises(Refusal, match="oversteps"):
        Stage(1, 0.5, 1.0, proximal=math.nextafter(2.0, 3.0))


@given(
    st.lists(st.tuples(st.integers(1, 99), st.floats(1e-6, 1e6), st.floats(0.01, 100)), min_size=2, max_size=5),
    st.lists(st.floats(-1, 1), min_size=5, max_size=5),
    st.booleans(),
)
def test_the_allocation_does_the_least_harm(parts, nudges, own):
    """No other split of the same Gaussian budget has a smaller sum w T sigma^2. Kills: another exponent; C left out."""
    stages = [Stage(steps, 1.0, 1.0, clip_threshold=C if own else None) for steps, _, C in parts]
    weights = np.array([w for _, w, _ in parts])
    scales = np.array([s.noise_scale for s in allocated(stages, weights.tolist())])
    T, clips = np.array([steps for steps, *_ in parts]), np.array([C if own else 1.0 for *_, C in parts])

    def harm(scales):  # after scaling to a budget of 1
        return (weights * T * (scales * clips) ** 2).sum() * (T / scales**2).sum()

    nudged = scales * np.exp(np.array(nudges[: len(T)]))
    assert harm(scales) <= harm(nudged) * (1 + 1e-9)


def test_weights_that_do_not_fit_are_refused():
    for weights in ([1.0], [1.0, 0.0, 1.0], [1.0, math.nan, 1.0]):
        with pytest.raises(Refusal):
            allocated(doubling(**AUTHORS), weights)
    with pytest.raises(Refusal, match="each stage, or for none"):
        allocated([Stage(1, 1.0, 1.0), Stage(1, 1.0, 1.0, clip_threshold=2.0)], [1.0, 1.0])


@given(st.integers(1, 400), st.floats(1.01, 1e6), st.integers(1, 400))
@example(steps=100, fall=16.0, stages=100)
def test_fading_noise_falls_as_the_root_of_what_later_steps_keep(steps, fall, stages):
    """One step size, lengths within one; the variance falls by ``fall`` over the run. Kills: its square, its root."""
    stages = min(stages, steps)
    made = fading(steps=steps, step_size=0.3, zo_eps=1e-3, fall=fall, stages=stages)
    lengths = [stage.steps for stage in made]
    assert (len(made), sum(lengths)) == (stages, steps)
    assert max(lengths) - min(lengths) <= 1
    assert {(stage.step_size, stage.zo_eps) for stage in made} == {(0.3, 1e-3)}
    kept = fall ** (-2 / steps * np.arange(steps)[::-1])  # of noise at each step, at the end
    starts = np.cumsum([0, *lengths[:-1]])
    variances = (np.add.reduceat(kept, starts) / lengths) ** -0.5
    assert [stage.noise_scale**2 for stage in made] == pytest.approx(variances / variances[0], rel=1e-6)
    if stages == steps:
        assert made[-1].noise_scale ** 2 == pytest.approx(fall ** (1 / steps - 1))


@pytest.mark.parametrize("fall", [10.0, 1e6])
def test_forty_stages_are_as_good_as_one_for_each_step(fall):
    """Within 1 % at the same budget, where the error falls a million times. Kills: 36 stages, one noise for two."""
    steps = 4000

    def harm(**few):
        made = fading(steps=steps, step_size=0.1, zo_eps=1e-3, fall=fall, **few)
        variances = np.repeat([stage.noise_scale**2 for stage in made], [stage.steps for stage in made])
        return (1 / variances).sum() * (variances @ fall ** (-2 / steps * np.arange(steps)[::-1]))

    assert harm(stages=steps) < harm() < 1.01 * harm(stages=steps)


@pytest.mark.parametrize("bad", [{"fall": 1.0}, {"fall": math.nan}, {"stages": 0}, {"stages": 11}, {"steps": 1.5}])
def test_noise_that_cannot_fade_is_refused(bad):
    with pytest.raises(Refusal):
        fading(**{"steps": 10, "step_size": 0.1, "zo_eps": 1e-3, "fall": 4.0, "stages": 3} | bad)
