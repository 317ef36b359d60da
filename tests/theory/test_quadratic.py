"""What follows from the recursion: the stability threshold, the stationary error, the best (alpha, T), refusals."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpzo import Refusal
from dpzo.theory.quadratic import Law, best, fourth_moments
from dpzo.theory.spectra import flat, of, power_law
from tests.theory.moments import LAWS

SPECTRA = (
    st.lists(st.just(0.0) | st.floats(1e-9, 1e3), min_size=1, max_size=12).filter(lambda a: max(a) > 1e-3).map(np.array)
)
DIRECTIONS = st.integers(1, 50) | st.sampled_from([10**4, 10**7])


def radius(law, a, K, α):
    """The spectral radius of the transition matrix, in the symmetric form that scaling by a gives it."""
    p, q = fourth_moments(law, len(a))
    b, a = (p - q) / K + 1 - 1 / K, a[a > 0]
    symmetric = np.diag(1 - 2 * α * a + α**2 * b * a**2) + α**2 * q / K * np.outer(a, a)
    return float(np.abs(np.linalg.eigvalsh(symmetric)).max())


@given(SPECTRA, st.sampled_from(LAWS), DIRECTIONS)
def test_the_spectral_radius_crosses_one_at_the_threshold(a, law, K):
    """Exactly, for any spectrum, law and K: also where single diagonal entries are negative (Rademacher, small d)."""
    limit = Law(of(a), law, K).stable_below
    assert radius(law, a, K, limit) == pytest.approx(1, abs=1e-9)
    below = radius(law, a, K, limit * (1 - 1e-6))
    assert below < 1 + 1e-13
    if a[a > 0].min() > 1e-2 * a.max():  # else the smallest decays so slowly that the radius is near 1 at any step size
        assert below < 1 - 1e-9
    assert radius(law, a, K, limit * (1 + 1e-6)) > 1 + 1e-9


@given(SPECTRA)
def test_for_one_gaussian_direction_the_threshold_is_song_et_als(a):
    """Song et al. 2026, Theorem 1: the root below 1 / max of sum eta l_i / (2 (1 - eta l_i)) = 1, and its bounds."""
    η = Law(of(a), "gaussian").stable_below
    assert η * a.max() < 1
    assert (η * a / (2 * (1 - η * a))).sum() == pytest.approx(1, rel=1e-6)
    assert 2 / (a.sum() + 2 * a.max()) * (1 - 1e-9) <= η <= 2 / a.sum() * (1 + 1e-9)


@given(SPECTRA, st.sampled_from(LAWS), DIRECTIONS)
def test_crowding_grows_to_one_and_is_infinite_beyond_its_pole(a, law, K):
    method, (p, q) = Law(of(a), law, K), fourth_moments(law, len(a))
    limit, b = method.stable_below, (p - q) / K + 1 - 1 / K
    crowding = [method.crowding(share * limit) for share in (0.1, 0.5, 0.9)]
    assert 0 < crowding[0] < crowding[1] < crowding[2] < 1
    if b > 0:
        assert method.crowding(2.5 / (b * a.max())) == np.inf


@given(SPECTRA, st.sampled_from(LAWS), DIRECTIONS)
def test_the_threshold_lies_between_its_bounds(a, law, K):
    p, q = fourth_moments(law, len(a))
    b = (p - q) / K + 1 - 1 / K
    limit = Law(of(a), law, K).stable_below
    assert 2 / (q / K * a.sum() + b * a.max()) <= limit * (1 + 1e-9)
    assert limit <= 2 * K / (q * a.sum()) * (1 + 1e-9)


@pytest.mark.parametrize("d", [1, 2, 10, 10**6])
def test_thresholds_in_closed_form(d):
    assert Law(flat(d)).stable_below == pytest.approx(2 / (d + 2), rel=1e-12)
    assert Law(flat(d), "sphere").stable_below == pytest.approx(2 / d, rel=1e-12)  # d/(d+2) (d + 2) = d
    spectrum = power_law(d, 0.7)
    assert Law(spectrum, "rademacher").stable_below == pytest.approx(2 / spectrum.trace, rel=1e-12)
    assert Law(spectrum, "gradient").stable_below == pytest.approx(2 / spectrum.largest, rel=1e-12)
    for K in (1, 2, 7):
        assert Law(flat(d), "gaussian", K).stable_below == pytest.approx(2 * K / (d + K + 1), rel=1e-12)


def test_many_directions_become_the_gradient():
    """With K = infinity u'Ae u averages to Ae, so the threshold is the gradient's, 2 / a_max, whatever d is."""
    spectrum = power_law(1000, 0.5)
    thresholds = [Law(spectrum, "sphere", K).stable_below for K in (1, 10, 100, 10**4, 10**7)]
    assert (np.diff(thresholds) > 0).all()
    assert thresholds[-1] == pytest.approx(2.0, rel=1e-3)
    assert Law(spectrum, "gradient").stable_below == 2.0


def test_the_threshold_depends_on_the_whole_spectrum():
    """Same largest eigenvalue, other thresholds: kills a rule by the norm of A alone."""
    assert Law(power_law(1000, 1.0)).stable_below > 10 * Law(flat(1000)).stable_below


@given(SPECTRA, st.sampled_from(LAWS), st.integers(1, 20), st.floats(1e-3, 0.99), st.floats(0.01, 10))
def test_the_stationary_error_is_the_fixed_point(a, law, K, share, σ):
    α, method = share * Law(of(a), law, K).stable_below, Law(of(a), law, K)
    m = method.stationary(α, σ)
    assert np.isinf(m[a == 0]).all()
    curved = a[a > 0]
    m = m[a > 0]
    p, q = fourth_moments(law, len(a))
    b = (p - q) / K + 1 - 1 / K
    move = (-2 * α * curved + α**2 * b * curved**2) * m + α**2 * q / K * (curved**2 @ m) + α**2 * K * σ**2
    assert (np.abs(move) <= 1e-9 * α * curved * m + 1e-12 * α**2 * K * σ**2).all()


@pytest.mark.parametrize("law", [*LAWS, "gradient"])
@pytest.mark.parametrize("K", [1, 3])
def test_the_stationary_error_is_the_trajectorys_limit(law, K):
    if law == "gradient" and K > 1:
        return
    method, a = Law(of(np.array([1.0, 0.6, 0.3, 0.3])), law, K), np.array([1.0, 0.6, 0.3, 0.3])
    for share in (0.1, 0.6):
        α = share * method.stable_below
        path = method.trajectory(α, int(60 / (α * 0.3)), np.full(4, 9.0))
        m = method.stationary(α, 0.4)
        np.testing.assert_allclose(path.last[0] + 0.16 * path.last[1], m, rtol=1e-9)
        assert path.loss(0.4)[-1] == pytest.approx(a @ m / 2, rel=1e-9)
        assert path.squared_gradient(0.4)[-1] == pytest.approx(a**2 @ m, rel=1e-9)


def test_a_step_size_beyond_the_threshold_is_refused_and_by_how_much():
    law = Law(flat(98))
    law.check(0.02 * (1 - 1e-9))
    with pytest.raises(Refusal, match=r"below the stability threshold 0\.02; got 0\.05, 2\.5 times as large"):
        law.check(0.05)
    for call in (lambda α: law.check(α), lambda α: law.stationary(α, 1.0)):
        for α in (0.0200001, 0.0, -1.0, np.nan, np.inf):
            with pytest.raises(Refusal):
                call(α)
    path = law.trajectory(0.021, 4000, np.ones(1))  # the law itself goes on beyond: it grows
    assert path.loss(0.0)[-1] > 1e3 * path.loss(0.0)[0]


def test_laws_that_are_none():
    for direction, K in (("cube", 1), ("gaussian", 0), ("sphere", -1), ("gradient", 2), ("sphere", 1.5),
                         ("sphere", math.nan), ("sphere", True), ("sphere", "2")):  # fmt: skip
        with pytest.raises(Refusal):
            Law(flat(3), direction, K)
    with pytest.raises(Refusal):
        Law(flat(3)).stationary(0.1, 0.0)


@pytest.mark.parametrize(
    ("steps", "start"),
    [(-1, [1.0]), (1.5, [1.0]), (3, [-1.0]), (3, [math.nan]), (3, [math.inf]), (3, [1.0, 1.0]), (3, 1.0), (3, [[1.0]])],
)
def test_a_trajectory_from_nowhere(steps, start):
    with pytest.raises(Refusal):
        Law(flat(3)).trajectory(0.1, steps, np.array(start))


@pytest.mark.parametrize(
    "bad",
    [{"most_steps": -1}, {"most_steps": 2.5}, {"grid": 0}, {"grid": 2.5}, {"of": "last"}, {"start": np.ones(2)},
     *({"noise_per_root_step": noise} for noise in (-0.1, math.nan, math.inf, "1"))],
    ids=str,
)  # fmt: skip
def test_a_search_that_is_refused(bad):
    asked = {"law": Law(flat(3)), "start": np.ones(1), "noise_per_root_step": 0.1, "most_steps": 9}
    assert best(**asked, grid=1).steps == 9
    assert best(**asked | {"most_steps": 0}) == (0.0, 0, 1.5)
    with pytest.raises(Refusal):
        best(**asked | bad)


@pytest.mark.parametrize("law", ["sphere", "gradient"])
@pytest.mark.parametrize("noise", [1e-4, 0.1, 10.0])
@pytest.mark.parametrize("of_what", ["losses", "squared_gradients"])
def test_the_best_step_size_and_length_by_brute_force(law, noise, of_what):
    """Step by step, for each of the same step sizes and many lengths; and a finer grid finds hardly less."""
    a, start, T = np.array([1.0, 0.5, 0.2, 0.05]), np.array([1.0, 2.0, 1.0, 4.0]), 30
    method, weight = Law(of(a), law), a / 2 if of_what == "losses" else a**2
    found = best(method, start, noise, T, of=of_what)
    p, q = (1.0, 0.0) if law == "gradient" else fourth_moments(law, 4)
    b = 1.0 if law == "gradient" else p - q

    def value(α, steps):
        m = start
        for _ in range(steps):
            m = (1 - 2 * α * a + α**2 * b * a**2) * m + α**2 * q * (a**2 @ m) + α**2 * noise**2 * steps
        return weight @ m

    assert found.value == pytest.approx(value(found.alpha, found.steps), rel=1e-10)
    alphas = method.stable_below * np.geomspace(1e-4, 0.999, 40)
    assert found.value <= min(value(α, t) for α in alphas for t in range(0, T + 1, 4)) * (1 + 1e-10)
    assert best(method, start, noise, T, of=of_what, grid=300).value == pytest.approx(found.value, rel=0.02)
    assert found.value <= weight @ start * (1 + 1e-12)  # no step at all is one of the lengths


def test_more_noise_is_never_better():
    law, start = Law(power_law(50, 1.0), "sphere"), np.ones(50)
    values = [best(law, start, noise, 100).value for noise in (0.0, 1e-2, 0.1, 1e3)]
    assert (np.diff(values) >= 0).all()
    assert best(law, start, 1e3, 100) == (0.0, 0, pytest.approx(power_law(50, 1.0).trace / 2))  # not to move
