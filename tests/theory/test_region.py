"""PL and a Lipschitz constant hold together in a region only: what is refused, and what is said of runs that leave."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate

from dpzo import Refusal
from dpzo.theory.clipped import step, threshold
from dpzo.theory.problem import Problem

P = Problem(n=10**6, d=1000, r=3.0, L=2.0, l=1.0, gap=0.5, mu=1.0, level=1.0, epsilon=2.0, delta=1e-6)


@given(st.floats(1e-6, 1.9))
def test_everywhere_is_refused_whatever_the_gap_is(gap):
    """L^2 / (2 mu) is 2. Kills: only gaps above it refused; a level of infinity let through."""
    for level in (math.inf, 2.01):
        with pytest.raises(Refusal, match="region"):
            replace(P, gap=gap, level=level)
    assert replace(P, gap=gap, level=2.0).level == 2.0
    assert replace(P, gap=gap, level=None).level is None
    assert replace(P, gap=gap, level=math.inf, mu=None).level == math.inf  # without PL it may hold everywhere


@pytest.mark.parametrize("level", [0.49, -1.0, math.nan, True, "1"])
def test_the_start_is_in_the_region(level):
    with pytest.raises(Refusal, match="gap"):
        replace(P, level=level)


@given(st.floats(0.01, 3), st.floats(0.01, 3), st.floats(0.02, 1))
def test_uphill_a_loss_under_pl_leaves_every_bound(x, y, a):
    """x' = +grad F on F = (a x^2 + y^2) / 2: F(t) >= e^(2 mu t) F(0), mu = a. So no L holds all the way."""
    flow = integrate.solve_ivp(lambda _, w: w * np.array([a, 1.0]), (0, 2), [x, y], rtol=1e-9)
    heights = (a * flow.y[0] ** 2 + flow.y[1] ** 2) / 2
    assert (heights >= np.exp(2 * a * flow.t) * heights[0] * (1 - 1e-6)).all()
    longest = math.sqrt(2 * a * heights.max())  # the L that PL asks for on this path alone
    assert np.hypot(a * flow.y[0, -1], flow.y[1, -1]) >= longest * (1 - 1e-6)


def simulate(sigma, c, steps, runs, level, start, *, seed=0):
    """F after ``steps`` steps, whether F <= level all the way, the share clipped: quadratic on 3 coordinates of 1000.

    Records are tilted by +- sqrt(2) along others, so that each record's gradient is at most 2 long where F <= 1.
    """
    r, tilt = 3, math.sqrt(2)
    alpha, C = 1 / (4 * (r + 2)), threshold(P, c, 0.0)
    generator = np.random.default_rng(seed)
    x, stayed, clipped = np.tile([start, 0.0, 0.0], (runs, 1)), np.ones(runs, bool), 0
    for _ in range(steps):
        z = generator.standard_normal((runs, r + 4))
        u = z * np.sqrt(1000 / (np.square(z).sum(1) + generator.chisquare(1000 - r - 4, runs)))[:, None]
        slope, tilts = (x * u[:, :r]).sum(1)[:, None], tilt * u[:, r:]
        v = np.concatenate([slope + tilts, slope - tilts], axis=1)
        clipped += int((np.abs(v) > C)[stayed].sum())
        s = v.clip(-C, C).mean(1) + sigma * generator.standard_normal(runs)
        x = x - alpha * s[:, None] * u[:, :r]
        stayed &= np.square(x).sum(1) / 2 <= level
    return np.square(x).sum(1) / 2, stayed, clipped / (steps * runs * 8)


@pytest.mark.statistical
def test_the_bound_on_runs_that_stay_holds():
    """E (F(x_T) - F*) 1{stayed} with an active clip, by 2,000 runs. Kills: noise counted at a sixteenth."""
    sigma, c, steps = 1.0, 2.7, 200
    allowed = step(P, alpha=0.05, zo_eps=0.0, c=c, sigma=sigma)
    heights, stayed, clipped = simulate(sigma, c, steps, 2000, 1.0, 1.0)
    bound = allowed.under_pl(P.gap, steps, P.mu)
    told = heights * stayed
    print(f"stayed {stayed.mean():.3f} clipped {clipped:.1e} measured {told.mean():.4f} bound {bound:.4f}")
    assert clipped > 1e-4
    assert told.mean() + 7 * told.std() / math.sqrt(2000) < bound < P.gap
    free = allowed._replace(noise=allowed.noise / 16, clipping=0.0)
    assert told.mean() - 7 * told.std() / math.sqrt(2000) > free.under_pl(P.gap, steps, P.mu)


@pytest.mark.statistical
def test_few_runs_leave():
    """P(F > level within T) <= (gap + T added) / level. Kills: the start or the steps left out; leaving for free."""
    for sigma, steps, level in ((1.0, 50, 1.0), (2.0, 5, 0.51), (3.0, 10, 1.0)):
        allowed = step(P, alpha=0.05, zo_eps=0.0, c=4.0, sigma=sigma)
        _, stayed, _ = simulate(sigma, 4.0, steps, 3000, level, 1.0, seed=1)
        left, error = 1 - stayed.mean(), 6.5 * 0.5 / math.sqrt(3000)
        bound = allowed.leaving(P.gap, steps, level)
        print(f"sigma {sigma} T {steps} level {level}: left {left:.3f} bound {bound:.3f}")
        assert left - error < bound
        if level < 0.6:  # from just below it: the start counts
            assert left - error > steps * allowed.added / level
    far = step(P, alpha=0.05, zo_eps=0.0, c=4.0, sigma=6.0)
    _, stayed, _ = simulate(6.0, 4.0, 100, 2000, 2.0, 0.1)
    assert 1 - stayed.mean() > 0.5 > 0.005 / 2.0  # and so do the steps: without them the bound would be 0.0025
    assert far.leaving(0.005, 100, 2.0) == 1.0
