"""Smoothing, rounding and noise: the best radius by search, the window, and errors of a real difference below them."""

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import gmean

from dpzo import GaussianDirection, Refusal, Relation, dp_zoso
from dpzo.parameters import Parameters
from dpzo.theory.quadratic import Law
from dpzo.theory.spectra import flat, of, power_law
from dpzo.theory.stagewise import exactly_after
from dpzo.theory.tradeoff import FLOAT32, Difference, Guesses, best_zo_eps, errors, propose, window

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


SPECTRA = {
    "all 1": flat(10),
    "1/j": power_law(30, 1.0),
    "1/j, d = 300": power_law(300, 1.0),
    "root": power_law(100, 0.5),
}
LENGTHS, SIGMAS = (200, 1000, 4000), (0.03, 0.3, 3.0)


def of_quadratic(spectrum, mu=None):
    """True guesses for a quadratic at e_j = 1."""
    slope = math.sqrt(spectrum.sum(spectrum.values**2))
    curved = {"trace": spectrum.trace, "curvature": spectrum.largest, "gap": spectrum.trace / 2}
    return Guesses(clip_threshold=1.0, slope=slope, mu=mu, **curved)


def proposed(given, steps, sigma, **changes):
    return propose(given, **{"steps": steps, "noise_multiplier": 100 * sigma, "divisor": 100.0} | changes)


@pytest.fixture(scope="module")
def ratios():
    """The exact loss after a proposal over that of the best constant step: two columns, without and with mu."""
    found = []
    for spectrum in SPECTRA.values():
        law, start = Law(spectrum), np.ones_like(spectrum.values)
        paths = [
            law.trajectory(alpha, max(LENGTHS), start) for alpha in law.stable_below * np.geomspace(1e-3, 0.95, 24)
        ]
        for T, sigma in product(LENGTHS, SIGMAS):
            best = min(path.loss(sigma)[T] for path in paths)
            ends = (
                exactly_after(law, proposed(of_quadratic(spectrum, mu), T, sigma), sigma, start)[-1]
                for mu in (None, spectrum.values.min())
            )
            found.append([end / best for end in ends])
    return np.array(found)


def test_a_proposal_with_mu_is_as_good_as_the_best_constant_step(ratios):
    """On 36 quadratics. Kills: halving stages where the noise leaves no time for them (265 times, for H = I)."""
    print("with mu: worst", ratios[:, 1].max(), "mean", gmean(ratios[:, 1]))
    assert ratios[:, 1].max() < 1.5
    assert gmean(ratios[:, 1]) < 0.9


def test_a_proposal_without_mu_comes_near_it(ratios):
    """Kills: step sizes that are off by an order; and knowing more that is worth less."""
    print("without mu: worst", ratios[:, 0].max(), "mean", gmean(ratios[:, 0]))
    assert ratios[:, 0].max() < 10
    assert gmean(ratios[:, 1]) < gmean(ratios[:, 0]) < 1.35


@pytest.mark.parametrize("mu", [None, 0.2])
def test_the_noises_of_several_directions_add_up(mu):
    """x moves by sum_p g_p u_p, so P times a scalar's variance counts. Kills: one direction's noise for P."""
    given = Guesses(**GUESSES, mu=mu)
    several = proposed(given, 1000, 1.0, directions=4)
    assert several == proposed(given, 1000, 2.0)
    assert several != proposed(given, 1000, 1.0)


@pytest.mark.parametrize("mu", [None, 0.2])
def test_the_noise_is_counted_in_the_threshold_and_divided(mu):
    """What counts is multiplier * C / divisor. Kills: C or the divisor left out."""
    given = Guesses(**GUESSES | {"clip_threshold": 3.0}, mu=mu)
    stages = proposed(given, 1000, 0.5)
    assert {stage.clip_threshold for stage in stages} == {3.0}
    plain = [replace(stage, clip_threshold=3.0) for stage in proposed(Guesses(**GUESSES, mu=mu), 1000, 1.5)]
    assert list(stages) == plain
    assert list(proposed(given, 1000, 0.25, divisor=50.0)) == plain
    assert list(proposed(given, 1000, 0.5, divisor=50.0)) != plain


@pytest.mark.parametrize("d", [1, 3, 40])
@pytest.mark.parametrize("sigma", [0.1, 3.0])
@pytest.mark.parametrize("mu", [None, 0.7])
def test_the_only_step_is_the_one_of_the_greatest_descent(d, sigma, mu):
    """By the exact law. Kills: no 2 ||H|| (d = 1), noise left out, half a step."""
    law = Law(of(np.full(d, 0.7)))
    (stage,) = proposed(of_quadratic(law.spectrum, mu), 1, sigma)

    def after(alpha):
        return law.trajectory(alpha, 1, np.ones(d)).loss(sigma)[1]

    best = stage.step_size
    assert after(best) < min(after(0.99 * best), after(1.01 * best))


@pytest.mark.parametrize(("steps", "sigma"), [(1, 0.1), (40, 1.0), (300, 0.01), (1000, 0.3), (1000, 30.0)])
def test_without_mu_the_stages_hedge_a_recursion_step_by_step(steps, sigma):
    """D' = D - q (slope D / gap)^2 + b: the most doubling stages within a tenth of the least end, to 3 %.

    Kills: slope for its square, b / a for its root, one stage, the largest step, halving where nothing is won.
    """
    given = Guesses(**GUESSES)
    alphas = np.geomspace(1e-6, 1 / (7 + 5 * sigma**2 / given.slope**2), 200)  # up to the steepest

    def ends(lengths, alpha):
        left = np.full_like(alpha, given.gap)
        for s, length in enumerate(lengths):
            eta = alpha / 2**s
            q, b = eta - eta**2 * 3.5, eta**2 * sigma**2 * 2.5
            for _ in range(length):
                left = left - q * (given.slope * left / given.gap) ** 2 + b
        return left

    least = {}
    for many in range(1, (steps + 1).bit_length()):
        first = steps // (2**many - 1)
        lengths = [first * 2**s for s in range(many - 1)]
        least[many] = ends([*lengths, steps - sum(lengths)], alphas).min()
    stages = proposed(given, steps, sigma)
    mine = ends([stage.steps for stage in stages], np.array([stages[0].step_size]))[0]
    best = min(least.values())
    off, tenth = 0.03 * min(best, given.gap - best), 0.1 * min(best, given.gap - best)
    assert mine <= least[len(stages)] + off
    assert least[len(stages)] <= best + tenth + off
    assert all(least[many] >= best + tenth - off for many in least if many > len(stages))


CASES = [(0.5, 1, 3001, 1.0), (0.5, 20, 40_000, 3.0), (0.2, 4, 777, 0.01), (1.0, 30, 99, 1e-5), (1.0, 2, 1, 0.1)]


@pytest.mark.parametrize(("a", "d", "steps", "sigma"), CASES)
def test_proposed_stages_halve_fill_all_steps_and_are_the_best_such(a, d, steps, sigma):
    """For H = a I the recursion is the exact law; up to half of the stable step size.

    Kills: mu for 2 mu, one stage for several, fewer stages than are worth it.
    """
    spectrum = of(np.full(d, a))
    law, start = Law(spectrum), np.ones(d)
    stages = proposed(of_quadratic(spectrum, a), steps, sigma)
    first, S = stages[0], len(stages)
    assert sum(stage.steps for stage in stages) == steps
    assert [stage.steps for stage in stages[:-1]] == [first.steps * 2**s for s in range(S - 1)]
    assert stages[-1].steps >= first.steps * 2 ** (S - 1)
    assert [stage.step_size for stage in stages] == [first.step_size / 2**s for s in range(S)]
    drop = 1 - 2 * a * (alphas := law.stable_below * np.geomspace(1e-5, 0.5, 300)) + alphas**2 * a**2 * (d + 2)
    assert law.trajectory(alphas[9], 1, start).losses[1, 0] == pytest.approx(drop[9] * a * d / 2)
    ends = []
    for many in range(1, min(12, steps.bit_length()) + 1):
        left, alpha, at = a * d / 2, alphas, 0
        for s in range(many):
            length = steps // (2**many - 1) * 2**s if s + 1 < many else steps - at
            keep = 1 - 2 * a * alpha + alpha**2 * a**2 * (d + 2)
            left = keep**length * left + (1 - keep**length) / (1 - keep) * alpha**2 * sigma**2 * d * a / 2
            alpha, at = alpha / 2, at + length
        ends.append(left.min())
    assert exactly_after(law, stages, sigma, start)[-1] <= 1.02 * min(ends)
    assert 1 + int(np.argmin(ends)) >= S


def test_a_proposal_is_what_a_plan_takes():
    stages = proposed(Guesses(**GUESSES, mu=0.2), 1000, 1.0)
    plan = dp_zoso(n=100, stages=stages, clip_threshold=1.0, relation=Relation.ADD_REMOVE, noise_multiplier=100.0)
    assert plan.stages == stages
    assert plan.steps == 1000


@pytest.mark.parametrize(
    "bad", [{"steps": 0}, {"steps": 1.5}, {"directions": 0}, {"noise_multiplier": 0.0}, {"divisor": 1e31}], ids=str
)
def test_a_proposal_refuses(bad):
    with pytest.raises(Refusal):
        proposed(Guesses(**GUESSES), **{"steps": 1000, "sigma": 1.0} | bad)


GUESSES = {"clip_threshold": 1.0, "trace": 5.0, "curvature": 1.0, "slope": 0.5, "gap": 0.5}
EXTREME = [{name: value} for name in (*GUESSES, "mu", "loss_error") for value in (0.0, -1.0, math.nan, 1e200, 1e-200)]


@pytest.mark.parametrize("bad", [*EXTREME, {"curvature": 5.1}, {"slope": 1.02}, {"mu": 0.26}, {"mu": 100.0}], ids=str)
def test_guesses_of_no_loss_are_refused(bad):
    """||H|| <= Tr H; slope^2 <= 2 ||H|| gap; slope^2 >= 2 mu gap."""
    with pytest.raises(Refusal):
        Guesses(**GUESSES | bad)


@pytest.mark.parametrize(
    "good",
    [{"curvature": 5.0}, {"slope": 1.0}, {"mu": 0.25}, {"slope": 1.0, "mu": 1.0}, {"slope": 0.499, "mu": 0.25}],
    ids=str,
)
def test_guesses_of_some_loss_are_taken(good):
    """The relations hold with equality, or miss it by a rounding. Kills: half of what is allowed."""
    Guesses(**GUESSES | good)


@pytest.mark.parametrize("steps", [1, 10**7])
@pytest.mark.parametrize("power", [-29, 29])
def test_a_proposal_takes_all_guesses(steps, power):
    """Squares and products stay finite. Kills: a wider range."""
    scale = 10.0**power
    given = Guesses(clip_threshold=1 / scale, trace=scale, slope=scale, gap=scale, loss_error=1 / scale)
    for sigma, mu in product((1e-31, 1e28), (None, scale / 2)):
        for stage in proposed(replace(given, mu=mu), steps, sigma):
            assert 0 < stage.step_size <= 1 / scale


@pytest.mark.parametrize("bad", [{"trace": 0.0}, {"loss_error": -1.0}, {"third": math.nan}], ids=str)
def test_refusals(bad):
    with pytest.raises(Refusal):
        Difference(**{"trace": 1.0, "loss_error": 1e-7} | bad)
