"""What a transcript alone gives away, whatever its sums are."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpzo import Refusal, Relation, Step, dp_aggzo, dpzero, mezo
from dpzo.audit import audit_steps
from dpzo.mechanisms import LaplaceMechanism
from dpzo.randomness import OsEntropy, SeededEntropy

C, T = 0.5, 500
SAME = {"steps": T, "step_size": 1.0, "zo_eps": 1.0, "clip_threshold": C, "relation": Relation.ADD_REMOVE}
PLAN = dpzero(n=50, noise_multiplier=2.0, **SAME)
LAPLACE = replace(PLAN, mechanism=LaplaceMechanism(C, 2.0))
MANY = dp_aggzo(n=50, directions=3, noise_multiplier=2.0, **SAME)


def transcript(plan, values=(), noise=None, mechanism=None):
    """Steps whose clipped sums are those of ``values``, the same at every step."""
    K = plan.mechanism.directions
    v = np.repeat(np.array(values, dtype=float)[:, None], K, 1) if K > 1 else np.array(values, dtype=float)
    mechanism, noise = mechanism or plan.mechanism, noise or OsEntropy()
    sums = [mechanism.release(v, noise.at(t)).reshape(K) / plan.sampler.divisor(plan.n) for t in range(plan.steps)]
    return [Step(t, 0, 1000 + t, tuple(s.tolist())) for t, s in enumerate(sums)]


def broken(plan, steps, **how):
    return {finding.what for finding in audit_steps(plan, steps, **how) if not finding.passed}


@pytest.mark.statistical
@pytest.mark.parametrize("plan", [PLAN, LAPLACE, MANY], ids=["gaussian", "laplace", "three directions"])
@pytest.mark.parametrize("values", [[], [9.0] * 3, [-9.0] * 50], ids=["empty", "small", "large"])
def test_sound_steps_pass_whatever_their_sums_are(plan, values):
    assert not broken(plan, transcript(plan, values), whole=True)


@pytest.mark.statistical
@pytest.mark.parametrize("plan", [PLAN, LAPLACE, MANY], ids=["gaussian", "laplace", "three directions"])
def test_half_of_the_noise_shows_on_small_sums(plan):
    less = replace(plan.mechanism, noise_multiplier=1.0)
    assert broken(plan, transcript(plan, mechanism=less)) == {"less noise than planned"}


@given(st.lists(st.floats(-1e3, 1e3), min_size=30, max_size=30), st.integers(0, 2**32))
def test_no_sums_make_noise_look_smaller(sums, seed):
    """Kills: a two-sided test, which large sums would set off."""
    plan = replace(PLAN, stages=(replace(PLAN.stages[0], steps=30),))
    noise = SeededEntropy(seed)
    steps = [
        replace(s, scalars=(s.scalars[0] + extra,))
        for s, extra in zip(transcript(plan, noise=noise), sums, strict=True)
    ]
    assert "less noise than planned" not in broken(plan, steps)


def test_counts():
    steps = transcript(PLAN)
    assert not broken(PLAN, steps[:-1])
    assert broken(PLAN, steps[:-1], whole=True) == {"steps left out"}
    more = [*steps, replace(steps[0], index=T, scalars=(1.0,))]
    assert broken(PLAN, more) == {"steps released", "steps beyond the plan"}
    assert broken(PLAN, [*steps[:9], replace(steps[9], index=3)]) == {"steps released twice"}
    assert not broken(PLAN, [])


@pytest.mark.statistical
def test_releases_without_noise_and_of_the_same_noise():
    steps = transcript(PLAN)
    skipped = [replace(s, scalars=(0.0,)) if s.index < 5 else s for s in steps]
    assert "releases without noise" in broken(PLAN, skipped)
    half = [steps[s.index - s.index % 2] for s in steps]
    half = [replace(s, index=t) for t, s in enumerate(half)]
    assert broken(PLAN, half) == {"releases of the same noise"}


def test_a_run_without_noise_is_refused():
    with pytest.raises(Refusal, match="noise to audit"):
        audit_steps(mezo(n=2, steps=1, step_size=1.0, zo_eps=1.0), [Step(0, 0, 1, (0.5,))])
