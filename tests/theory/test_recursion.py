"""The recursion of dpzo/theory/quadratic.py, derived.

With e' = e - alpha sum_k ((1/K) u_k' A e + z_k) u_k and A = diag(a), E e_j'^2 is expanded monomial by monomial over
all u and z, given e. That it has no terms e_i e_j (i != j) is what closes the recursion in m_j = E e_j^2.
"""

import numpy as np
import pytest
import sympy as sp
from hypothesis import given
from hypothesis import strategies as st

from dpzo.theory.quadratic import Law
from dpzo.theory.spectra import Spectrum, of
from tests.theory.moments import LAWS, coordinates, mean, moment

ALPHA, S2 = sp.symbols("alpha s2", positive=True)


def derived(method, law, d, K=1):
    """(E e_j'^2 for j = 1 .. d, the symbols e and a), s2 the noise's variance."""
    e, a = coordinates("e", d), coordinates("a", d)
    us = [coordinates(f"u_{k}_", d) for k in range(K)]
    g = [aj * ej for aj, ej in zip(a, e, strict=True)]
    if method == "DP-GD":
        zs = coordinates("z", d)
        after = [e[j] - ALPHA * (g[j] + zs[j]) for j in range(d)]
        return [mean(x**2, [], law, zs, S2) for x in after], e, a
    along = [sum(ui * gi for ui, gi in zip(u, g, strict=True)) for u in us]
    if method == "DPGD-0th":
        zs = coordinates("z", d)
        after = [e[j] - ALPHA * (along[0] * us[0][j] + zs[j]) for j in range(d)]
    else:
        zs = coordinates("z", K)
        after = [e[j] - ALPHA * sum((along[k] / K + zs[k]) * us[k][j] for k in range(K)) for j in range(d)]
    return [mean(x**2, us, law, zs, S2) for x in after], e, a


def claimed(p, q, K, e, a, noises):
    """The docstring's formula."""
    b = (p - q) / K + 1 - sp.Rational(1, K)
    S = sum(ai**2 * ei**2 for ai, ei in zip(a, e, strict=True))
    return [
        (1 - 2 * ALPHA * aj + ALPHA**2 * b * aj**2) * ej**2 + ALPHA**2 * q / K * S + ALPHA**2 * noises * S2
        for aj, ej in zip(a, e, strict=True)
    ]


def same(left, right):
    return all(sp.expand(x - y) == 0 for x, y in zip(left, right, strict=True))


CASES = [(1, 2), (2, 2), (3, 2), (1, 3), (2, 3), (1, 1), (2, 1)]


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(("K", "d"), CASES)
def test_dpzero_with_k_directions(law, K, d):
    p, q = (moment(law, powers, sp.Integer(d)) for powers in ((4,), (2, 2)))
    if d == 1:
        q = sp.Rational(1, 3) if law == "sphere" else q  # nothing pairs with it at d = 1; the formula must not care
    got, e, a = derived("DPZero", law, d, K)
    assert same(got, claimed(p, q, K, e, a, noises=K))
    assert not same(got, claimed(p, q, K, e, a, noises=1)) or K == 1  # mutant: one noise shared by K directions
    assert not same(got, claimed(p + 1, q, K, e, a, noises=K))


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("d", [2, 3])
def test_dpgd_zeroth(law, d):
    p, q = (moment(law, powers, sp.Integer(d)) for powers in ((4,), (2, 2)))
    got, e, a = derived("DPGD-0th", law, d)
    assert same(got, claimed(p, q, 1, e, a, noises=1))


def test_dp_gradient_descent():
    got, e, a = derived("DP-GD", "gaussian", 3)
    assert same(got, [(1 - ALPHA * aj) ** 2 * ej**2 + ALPHA**2 * S2 for aj, ej in zip(a, e, strict=True)])


def test_signs_need_a_diagonal_matrix():
    """In the eigenbasis of [[1, c], [c, 1]] Rademacher u has E w^4 = 2 and E w_1^2 w_2^2 = 0, not 1 and 1."""
    u = coordinates("u", 2)
    w = [(u[0] + u[1]) / sp.sqrt(2), (u[0] - u[1]) / sp.sqrt(2)]
    for law in LAWS:
        rotated = (mean(w[0] ** 4, [u], law), mean(w[0] ** 2 * w[1] ** 2, [u], law))
        straight = (moment(law, (4,), sp.Integer(2)), moment(law, (2, 2), sp.Integer(2)))
        assert rotated == (straight if law != "rademacher" else (2, 0))


EIGENVALUES = st.lists(st.floats(0, 3), min_size=2, max_size=3).filter(lambda a: max(a) > 1e-3)


@given(EIGENVALUES, st.sampled_from(LAWS), st.integers(1, 2), st.floats(1e-3, 2), st.floats(0, 3), st.data())
def test_the_code_takes_the_derived_step(a, law, K, α, σ, data):
    """One step, from the derivation itself; kills any wrong coefficient in ``Law``."""
    start = data.draw(st.lists(st.floats(0, 5), min_size=len(a), max_size=len(a)))
    got, e, names = derived_once("DPZero", law, len(a), K)
    values = dict(zip(names, a, strict=True)) | dict(zip(e, np.sqrt(start), strict=True)) | {ALPHA: α, S2: σ**2}
    expected = [float(x.subs(values)) for x in got]
    last = Law(of(np.array(a)), law, K).trajectory(α, 1, np.array(start)).last
    np.testing.assert_allclose(last[0] + σ**2 * last[1], expected, rtol=1e-9, atol=1e-9)


_cache = {}


def derived_once(*case):
    if case not in _cache:
        _cache[case] = derived(*case)
    return _cache[case]


def test_the_code_takes_the_gradients_step():
    a, start = np.array([0.0, 0.5, 2.0]), np.array([1.0, 2.0, 3.0])
    last = Law(of(a), "gradient").trajectory(0.3, 1, start).last
    np.testing.assert_allclose(last[0], (1 - 0.3 * a) ** 2 * start, rtol=1e-14)
    np.testing.assert_allclose(last[1], 0.09, rtol=1e-14)


def matrix(law, a, K, α):
    """The transition matrix, written out from the formula that the tests above derive."""
    d = len(a)
    p, q = {"gaussian": (3, 1), "sphere": (3 * d / (d + 2), d / (d + 2)), "rademacher": (1, 1)}[law]
    b = (p - q) / K + 1 - 1 / K
    return np.diag(1 - 2 * α * a + α**2 * b * a**2) + α**2 * q / K * np.outer(np.ones(d), a**2)


@given(
    st.lists(st.floats(0, 3), min_size=1, max_size=6).filter(lambda a: max(a) > 1e-3),
    st.sampled_from(LAWS),
    st.integers(1, 40),
    st.floats(1e-3, 0.5),
    st.integers(0, 12),
)
def test_a_trajectory_is_powers_of_the_matrix(a, law, K, α, steps):
    """Also that the two columns recombine: transient + sigma^2 response."""
    a = np.array(a)
    m, σ = np.linspace(1, 2, len(a)), 0.7
    path = Law(of(a), law, K).trajectory(α, steps, m)
    for t in range(steps + 1):
        assert path.loss(σ)[t] == pytest.approx(a @ m / 2, rel=1e-10)
        assert path.squared_gradient(σ)[t] == pytest.approx(a**2 @ m, rel=1e-10)
        m = matrix(law, a, K, α) @ m + α**2 * K * σ**2


@pytest.mark.parametrize("law", LAWS)
def test_counts_stand_for_repeated_eigenvalues(law):
    told, every = Spectrum(np.array([2.0, 0.5, 0.0]), np.array([3, 4, 2])), np.repeat([2.0, 0.5, 0.0], [3, 4, 2])
    start = np.array([1.0, 3.0, 2.0])
    short = Law(told, law).trajectory(0.05, 20, start)
    long = Law(of(every), law).trajectory(0.05, 20, np.repeat(start, [3, 4, 2]))
    np.testing.assert_allclose(short.losses, long.losses, rtol=1e-12)
    np.testing.assert_allclose(np.repeat(short.last, [3, 4, 2], axis=1), long.last, rtol=1e-12)
