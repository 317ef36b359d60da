"""Smoothing, rounding and noise: the best radius by search, the window, and errors of a real difference below them."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dpzo import GaussianDirection, Refusal
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


@pytest.mark.parametrize("bad", [{"steps": 0}, {"directions": 0}, {"mu": 1.1}, {"mu": 100.0}, {"gap": 0.0}], ids=str)
def test_a_proposal_refuses(bad):
    with pytest.raises(Refusal):
        propose(**GUESSES | {"difference": Difference(trace=5.0, loss_error=1e-7), "noise_multiplier": 10.0} | bad)


@pytest.mark.parametrize("bad", [{"trace": 0.0}, {"loss_error": -1.0}, {"third": math.nan}], ids=str)
def test_refusals(bad):
    with pytest.raises(Refusal):
        Difference(**{"trace": 1.0, "loss_error": 1e-7} | bad)
