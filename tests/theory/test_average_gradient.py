"""The random iterate's squared gradient on a quadratic: an equality, and the bound without d that follows from it.

With w_j = 1 / (2 - alpha b a_j), V = sum_j a_j m_j w_j and h = ``Law.crowding``, a step changes V by exactly
-alpha (1 - h) E ||grad F||^2 + alpha h K^2 sigma^2 / q. Summed over T steps this is the book's equality.
"""

import math

import numpy as np
import pytest
import sympy as sp
from hypothesis import given
from hypothesis import strategies as st

from dpzo.theory.quadratic import Law, fourth_moments
from dpzo.theory.spectra import of, power_law

SPECTRA = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=12).map(np.array)


def coefficients(law, d, K):
    p, q = fourth_moments(law, d)
    return (p - q) / K + 1 - 1 / K, q


@pytest.mark.parametrize("K", [1, 4])
@pytest.mark.parametrize("law", ["sphere", "gaussian", "rademacher"])
@given(a=SPECTRA, share=st.floats(0.01, 0.9), σ=st.floats(1e-3, 10), steps=st.integers(1, 60))
def test_the_sum_of_squared_gradients_is_exact(law, K, a, share, σ, steps):
    """Kills, for K = 4: K sigma^2 for K^2 sigma^2; for all: w_j = 1/2, 1 + h for 1 - h."""
    method, (b, q) = Law(of(a), law, K), coefficients(law, len(a), K)
    α = share * method.stable_below
    path = method.trajectory(α, steps, np.ones_like(a))
    h, w = method.crowding(α), 1 / (2 - α * b * a)
    V = a * w @ np.ones_like(a), a * w @ (np.array([1, σ**2]) @ path.last)
    told = (V[0] - V[1] + steps * α * h * K**2 * σ**2 / q) / (α * (1 - h))
    assert path.squared_gradient(σ)[:steps].sum() == pytest.approx(told, rel=1e-6, abs=1e-9 * V[0] / α)


@pytest.mark.parametrize("law", ["sphere", "gaussian"])
@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("d", [1, 10, 1000])
def test_the_bound_without_the_dimension(d, exponent, law):
    """E ||grad F(x_tau)||^2 <= 2 (F_0 - F*) ||A|| (r + 2) / T + sigma^2 r / (r + 2); kills 1.9 for 2 (d = 1)."""
    spectrum = power_law(d, exponent)
    method, r = Law(spectrum, law), spectrum.effective_rank
    α = 1 / (spectrum.trace + 2 * spectrum.largest)
    ratios = []
    for steps, σ in ((1, 0.0), (3, 0.0), (30, 0.1), (300, 1.0)):
        for start in (np.ones_like(spectrum.values), (spectrum.values == spectrum.largest) * 1.0):
            path = method.trajectory(α, steps, start)
            excess = path.loss(0.0)[0]
            bound = 2 * excess * spectrum.largest * (r + 2) / steps + σ**2 * r / (r + 2)
            ratios.append(path.squared_gradient(σ)[:steps].mean() / bound)
    assert max(ratios) <= 1 + 1e-12


def test_the_bound_is_attained():
    """At d = 1, without noise, as T grows: a constant below 2 would be false."""
    path = Law(power_law(1, 1.0), "gaussian").trajectory(1 / 3, 400, np.ones(1))
    bound = 2 * path.loss(0.0)[0] * (1 + 2) / 400
    assert path.squared_gradient(0.0)[:400].mean() == pytest.approx(bound, rel=1e-9)


def test_the_best_length_of_the_bound():
    """Symbolically: least over T it is 2 s sqrt(2 (F_0 - F*) ||A|| r)."""
    T, s, gap, norm, r = sp.symbols("T s F A r", positive=True)
    bound = 2 * gap * norm * (r + 2) / T + s**2 * T * r / (r + 2)
    (best,) = sp.solve(sp.diff(bound, T), T)
    assert sp.simplify(bound.subs(T, best) - 2 * s * sp.sqrt(2 * gap * norm * r)) == 0


@given(st.floats(1e-3, 0.5), st.sampled_from([2, 4, 8]), st.sampled_from([0.0, 0.5, 1.0]))
def test_directions_trade_for_steps_at_equal_forward_passes(share, K, exponent):
    """K directions at step size K alpha, threshold C / sqrt(K) and T / K steps: the same floor, but for K alpha ||A||.

    Up to half of both stability thresholds, by 0.6 K alpha ||A|| / (1 - h) at most; and by some of it. Kills: a
    threshold C / K, or C; no 1 / (1 - h).
    """
    spectrum = power_law(200, exponent)
    one, many = Law(spectrum, "gaussian"), Law(spectrum, "gaussian", K)
    α, σ = min(share * one.stable_below, many.stable_below / 2 / K), 1.0
    threshold, length = 1 / math.sqrt(K), 1 / math.sqrt(K)  # the noise grows with C sqrt(T)
    floors = [
        method.spectrum.sum(spectrum.values**2 * method.stationary(step_size, noise))
        for method, step_size, noise in ((one, α, σ), (many, K * α, σ * threshold * length))
    ]
    h = one.crowding(α)
    assert h <= 0.5
    assert 0.04 * K * α / (1 - h) <= floors[1] / floors[0] - 1 <= 0.6 * K * α / (1 - h)
