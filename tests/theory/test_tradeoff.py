"""Smoothing, rounding and noise: the best radius by search, the window, and errors of a real difference below them."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dpzo import GaussianDirection, Refusal, Relation, dp_zoso
from dpzo.parameters import Parameters
from dpzo.theory.quadratic import Law
from dpzo.theory.spectra import of
from dpzo.theory.tradeoff import FLOAT32, Difference, best_zo_eps, errors, propose, window

POSITIVE = st.floats(1e-6, 1e3)


@given(POSITIVE, st.floats(1e-9, 1e-3), st.none() | POSITIVE)
def test_the_best_radius_is_the_least_of_a_search(trace, loss_error, third):
    """Kills: a balance with another constant."""
    of_it = Difference(trace=trace, loss_error=loss_error, third=third)

    def total(zo_eps):
        return sum(errors(zo_eps, of_it, 1.0)[:2])

    best = best_zo_eps(of_it)
    searched = min(map(total, best * np.geomspace(1e-2, 1e2, 801)))
    assert total(best) <= searched * (1 + 1e-9)


@given(POSITIVE, st.floats(1e-9, 1e-3), st.none() | POSITIVE, st.floats(1e-3, 10))
def test_at_the_ends_of_the_window_an_error_is_a_tenth_of_the_noise(trace, loss_error, third, noise):
    of_it = Difference(trace=trace, loss_error=loss_error, third=third)
    low, high = window(of_it, noise)
    assert errors(low, of_it, noise).rounding == pytest.approx(noise / 10)
    assert errors(high, of_it, noise).smoothing == pytest.approx(noise / 10)


def test_a_real_difference_errs_by_less():
    """f = sum_j log cosh(x_j) / 4 in float32: -1/4 <= f'' <= 1/4. Kills: Tr H / 4, rounding without 1 / lambda."""
    d = 40
    x = torch.linspace(-1, 1, d, dtype=torch.float64)

    def f(x, dtype):
        return float(torch.log(torch.cosh(x.to(dtype))).sum() / 4)

    loss_error = 8 * FLOAT32 * f(x, torch.float64)  # a sum of 40 terms rounds a few times
    of_it = Difference(trace=d / 4, loss_error=loss_error)
    for zo_eps in (1e-5, 1e-4, 1e-3, 1e-2, 0.1):
        off = []
        for seed in range(40):
            u = GaussianDirection().draw(Parameters({"x": torch.zeros(d)}), seed).dense()["x"].double()
            slope = float(torch.tanh(x) @ u) / 4
            found = (f(x + zo_eps * u, torch.float32) - f(x - zo_eps * u, torch.float32)) / (2 * zo_eps)
            off.append(abs(found - slope))
        bound = errors(zo_eps, of_it, 1.0)
        assert np.mean(off) <= bound.smoothing + bound.rounding
        if zo_eps <= 1e-4:  # there it is rounding, within two orders of its bound
            assert np.mean(off) >= bound.rounding / 100


@pytest.mark.parametrize("noise_multiplier", [30.0, 100.0])
def test_a_proposal_on_a_quadratic_comes_near_the_best_constant_step(noise_multiplier):
    """By the exact law. Kills: step sizes that are off by an order."""
    spectrum = of(1 / np.arange(1.0, 31.0))
    law, T, start, divisor = Law(spectrum, "gaussian"), 600, np.ones(30), 100.0
    gap, slope = float(spectrum.trace) / 2, math.sqrt(float((spectrum.values**2).sum()))
    (stage,) = propose(
        steps=T,
        noise_multiplier=noise_multiplier,
        clip_threshold=1.0,
        divisor=divisor,
        difference=Difference(trace=float(spectrum.trace), loss_error=1e-7),
        curvature=1.0,
        slope=slope,
        gap=gap,
    )
    sigma = noise_multiplier / divisor

    def after(alpha):
        return law.trajectory(alpha, T, start).loss(sigma)[-1]

    assert after(stage.step_size) <= 1.5 * min(after(a) for a in law.stable_below * np.geomspace(1e-3, 0.9, 40))


GUESSES = {"steps": 1000, "clip_threshold": 1.0, "divisor": 100.0, "curvature": 1.0, "slope": 0.5, "gap": 0.5}


@pytest.mark.parametrize("mu", [None, 0.5])
def test_the_noises_of_several_directions_add_up(mu):
    """x moves by sum_p g_p u_p, so P times a scalar's variance counts. Kills: one direction's noise for P."""
    of_it = Difference(trace=5.0, loss_error=1e-7)
    several = propose(**GUESSES, mu=mu, difference=of_it, noise_multiplier=100.0, directions=4)
    assert several == propose(**GUESSES, mu=mu, difference=of_it, noise_multiplier=200.0)
    assert several != propose(**GUESSES, mu=mu, difference=of_it, noise_multiplier=100.0)


def proposed(a, d, **changes):
    """A proposal for A = a I in R^d from e_j = 1, with sigma = noise_multiplier / 100."""
    at_start = {"slope": a * math.sqrt(d), "gap": a * d / 2}
    fixed = {"clip_threshold": 1.0, "divisor": 100.0, "noise_multiplier": 100.0, "curvature": a}
    return propose(difference=Difference(trace=a * d, loss_error=1e-7), **at_start | fixed | changes)


@pytest.mark.parametrize("d", [1, 3, 40])
@pytest.mark.parametrize("noise_multiplier", [10.0, 300.0])
def test_the_greedy_step_falls_most_in_one_step(d, noise_multiplier):
    """Half of that of the greatest descent by the exact law. Kills: not half, no 2 ||H|| (d = 1), noise left out."""
    law, sigma = Law(of(np.full(d, 0.7))), noise_multiplier / 100
    (stage,) = proposed(0.7, d, steps=1, noise_multiplier=noise_multiplier, gap=1e9)  # so that patience does not count

    def after(alpha):
        return law.trajectory(alpha, 1, np.ones(d)).loss(sigma)[1]

    best = 2 * stage.step_size
    assert after(best) < min(after(0.99 * best), after(1.01 * best))


def test_the_patient_steps_noise_is_a_sixteenth_of_the_gap():
    """By the exact law, where nothing decays in so few steps. Kills: 8 to 2 or 16, T or its root left out."""
    a, d, T = 1e-4, 5, 30
    (stage,) = proposed(a, d, steps=T, noise_multiplier=1e4, slope=1e4)  # so steep that greed does not count
    noise = Law(of(np.full(d, a))).trajectory(stage.step_size, T, np.zeros(d)).loss(100.0)[-1]
    assert stage.step_size * a * T < 1e-3
    assert noise == pytest.approx(a * d / 2 / 16, rel=1e-3)


HALVED = [(0.5, 1, 3001, 100.0), (0.5, 20, 40_000, 300.0), (0.2, 4, 7777, 1.0), (1.0, 30, 999, 1e-3)]


@pytest.mark.parametrize(("a", "d", "steps", "noise_multiplier"), HALVED)
def test_proposed_stages_halve_and_fill_all_steps(a, d, steps, noise_multiplier):
    """By the exact law: each contracts by 4 or a little more (4^(4/3) at small steps) and the loss halves.

    Kills: 0.5 mu for 1.5 mu, a last stage that is not filled up.
    """
    stages, sigma = proposed(a, d, steps=steps, noise_multiplier=noise_multiplier, mu=a), noise_multiplier / 100
    assert len(stages) > 1
    assert sum(stage.steps for stage in stages) == steps
    first = stages[0].steps
    assert [stage.steps for stage in stages[:-1]] == [first * 2**s for s in range(len(stages) - 1)]
    assert 0 <= stages[-1].steps - first * 2 ** (len(stages) - 1) < 2 ** len(stages) - 1
    law, m, gap = Law(of(np.full(d, a))), np.ones(d), a * d / 2
    for s, stage in enumerate(stages, 1):
        path = law.trajectory(stage.step_size, stage.steps, m)
        assert stage.step_size <= 1 / (2 * a * (d + 2)) * (1 + 1e-9)
        assert 4 ** (-4 / 3) * 0.99 < path.losses[-1, 0] / path.losses[0, 0] < 0.25 * (1 + 1e-9)
        assert path.loss(sigma)[-1] <= 2**-s * gap
        m = path.last[0] + sigma**2 * path.last[1]


@pytest.mark.parametrize(("a", "d", "steps", "noise_multiplier"), HALVED)
def test_there_are_as_many_stages_as_fit(a, d, steps, noise_multiplier):
    """One more would not halve the recursion's gap, or start with too long a step. Kills: E* not 9 times smaller."""
    stages, variance = (
        proposed(a, d, steps=steps, noise_multiplier=noise_multiplier, mu=a),
        (noise_multiplier / 100) ** 2,
    )

    def fits(S):
        first, gap, fit = steps / (2**S - 1), a * d / 2, True
        for s in range(1, S + 1):
            step_size = math.log(4) / (first * 2 ** (s - 1)) / (1.5 * a)
            fit &= step_size <= 1.01 / (2 * a * (d + 2))
            gap = gap / 4 + 3 / 4 * step_size * a * d * variance / (3 * a)  # what 1 - 1.5 eta mu, T times, leaves
            fit &= gap <= 2**-s * a * d / 2 * 1.01
        return fit

    assert fits(len(stages))
    assert not fits(len(stages) + 1)


def test_a_proposal_is_what_a_plan_takes():
    of_it = Difference(trace=5.0, loss_error=1e-7)
    stages = propose(**GUESSES, mu=0.5, difference=of_it, noise_multiplier=100.0)
    plan = dp_zoso(n=100, stages=stages, clip_threshold=1.0, relation=Relation.ADD_REMOVE, noise_multiplier=100.0)
    assert plan.stages == stages
    assert plan.steps == 1000


@pytest.mark.parametrize("bad", [{"steps": 0}, {"directions": 0}, {"mu": 1.1}, {"mu": 100.0}, {"gap": 0.0}], ids=str)
def test_a_proposal_refuses(bad):
    with pytest.raises(Refusal):
        propose(**GUESSES | {"difference": Difference(trace=5.0, loss_error=1e-7), "noise_multiplier": 10.0} | bad)


@pytest.mark.parametrize("bad", [{"trace": 0.0}, {"loss_error": -1.0}, {"third": math.nan}], ids=str)
def test_refusals(bad):
    with pytest.raises(Refusal):
        Difference(**{"trace": 1.0, "loss_error": 1e-7} | bad)
