"""Lemma C.1, derived for the sphere of radius sqrt(d), Gaussian and Rademacher u, and integrated exactly.

Zhang et al. 2024, Appendix C, states the sphere's moments and tail. Here moments come from sympy (see
``tests/theory/moments.py``), are contracted with symbolic a and H, and are compared with exact quadrature; tails are
compared with the exact laws.
"""

import itertools

import numpy as np
import pytest
import sympy as sp
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dpzo.theory.quadratic import fourth_moments
from tests.theory.moments import LAWS, coordinates, mean, moment, radius_moment

D = sp.symbols("d", positive=True)
PAPER = {"sphere": (3 * D / (D + 2), D / (D + 2)), "gaussian": (3, 1), "rademacher": (1, 1)}


@pytest.mark.parametrize("law", LAWS)
def test_moments_up_to_the_fourth_in_any_dimension(law):
    p, q = PAPER[law]
    assert moment(law, (2,), D) == 1
    assert sp.simplify(moment(law, (4,), D) - p) == 0
    assert sp.simplify(moment(law, (2, 2), D) - q) == 0
    odd = [k for n in (1, 2, 3) for k in itertools.product(range(5), repeat=n) if any(j % 2 for j in k)]
    assert all(moment(law, k, D) == 0 for k in odd if sum(k) <= 5)


def test_the_length_of_a_normal_vector():
    assert sp.simplify(radius_moment(2, D) - D) == 0
    assert sp.simplify(radius_moment(4, D) - D * (D + 2)) == 0


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("d", [1, 2, 3, 50, 10**6])
def test_the_moments_that_the_theory_uses(law, d):
    p, q = fourth_moments(law, d)
    assert p == pytest.approx(float(sp.sympify(PAPER[law][0]).subs(D, d)), rel=1e-15)
    assert q == pytest.approx(float(sp.sympify(PAPER[law][1]).subs(D, d)), rel=1e-15)


def symbols(d):
    u, a = coordinates("u", d), coordinates("a", d)
    H = sp.Matrix(d, d, lambda i, j: sp.Symbol(f"h{min(i, j)}{max(i, j)}", real=True))
    return sp.Matrix(u), sp.Matrix(a), H, u


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("d", [2, 3, 4])
def test_the_contracted_identities(law, d):
    """For any a and symmetric H, with p and q the fourth moments; p = 3q makes the diagonal term vanish."""
    u, a, H, names = symbols(d)
    p, q = moment(law, (4,), sp.Integer(d)), moment(law, (2, 2), sp.Integer(d))
    ua, uHu = u.dot(a), (u.T * H * u)[0]
    fourth = q * (2 * a * a.T + a.dot(a) * sp.eye(d)) + (p - 3 * q) * sp.diag(*[c**2 for c in a])
    claims = [
        (ua, 0),
        (ua**2, a.dot(a)),
        (ua**2 * u.dot(u), None if law == "gaussian" else d * a.dot(a)),  # |u|^2 = d
        (ua**2 * u.dot(u), a.dot(a) * (p + (d - 1) * q)),
        (uHu, H.trace()),
        (ua**2 * uHu, (fourth * H).trace()),
        *((ua * u[i], a[i]) for i in range(d)),
        *((u[i] * u[j], int(i == j)) for i in range(d) for j in range(d)),
        *((ua**2 * u[i] * u[j], fourth[i, j]) for i in range(d) for j in range(d)),
    ]
    for claim, value in claims:
        if value is not None:
            assert sp.expand(mean(claim, [names], law) - value) == 0
    if law != "rademacher":
        assert p == 3 * q
        assert sp.expand((fourth * H).trace() - q * (2 * (a.T * H * a)[0] + a.dot(a) * H.trace())) == 0


def nodes(law, d):
    """(points (N, d), weights): a rule that is exact for polynomials of degree 4 and more in u."""
    if law == "rademacher":
        return np.array(list(itertools.product([-1.0, 1.0], repeat=d))), np.full(2**d, 0.5**d)
    if law == "gaussian":
        x, w = np.polynomial.hermite_e.hermegauss(6)
        grid = np.array(list(itertools.product(x, repeat=d)))
        return grid, np.array([np.prod(c) for c in itertools.product(w / w.sum(), repeat=d)])
    θ = 2 * np.pi * np.arange(12) / 12  # equal weights are exact for trigonometric polynomials below degree 12
    circle = np.stack([np.cos(θ), np.sin(θ)], 1)
    if d == 2:
        return np.sqrt(2) * circle, np.full(12, 1 / 12)
    h, w = np.polynomial.legendre.leggauss(6)  # by Archimedes the height is uniform
    points = [[*(np.sqrt(1 - z * z) * c), z] for z in h for c in circle]
    return np.sqrt(3) * np.array(points), np.repeat(w / w.sum(), 12) / 12


@pytest.mark.parametrize(("law", "d"), list(itertools.product(LAWS, (2, 3))))
def test_the_identities_by_exact_integration(law, d):
    generator = np.random.default_rng(d)
    a, H = generator.standard_normal(d), generator.standard_normal((d, d))
    H = H + H.T
    u, w = nodes(law, d)
    p, q = fourth_moments(law, d)
    weight = w * (u @ a) ** 2
    fourth = q * (2 * np.outer(a, a) + a @ a * np.eye(d)) + (p - 3 * q) * np.diag(a**2)
    np.testing.assert_allclose(w @ u, 0, atol=1e-13)
    np.testing.assert_allclose((u.T * w) @ u, np.eye(d), atol=1e-13)
    np.testing.assert_allclose((u.T * weight) @ u, fourth, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(weight @ np.einsum("ni,ij,nj->n", u, H, u), np.trace(fourth @ H), rtol=1e-11)
    for other in set(LAWS) - {law}:  # no other law has these moments
        v, weights = nodes(other, d)
        assert np.abs((v.T * weights * (v @ a) ** 2) @ v - fourth).max() > 0.1


def lemma(level):
    return 2 * np.sqrt(2 * np.pi) * np.exp(-(level**2) / 8)


LEVELS = np.geomspace(0.01, 60, 400)


@pytest.mark.parametrize("d", [2, 3, 4, 10, 100, 10**4, 10**6])
def test_the_tail_on_the_sphere(d):
    """By rotation u'a is |a| u_1, and u_1^2 / d ~ Beta(1/2, (d-1)/2): exact. A bound 2 exp(-C^2 / 2) holds as well.

    (E u_1^2k <= E z^2k for all k, so the generating function is below the Gaussian's.) The lemma's C may be halved.
    """
    exact = stats.beta(0.5, (d - 1) / 2).sf(np.minimum(LEVELS**2 / d, 1.0))
    assert (exact <= lemma(LEVELS)).all()
    assert (exact <= 2 * np.exp(-(LEVELS**2) / 2)).all()
    if d >= 10**4:  # kills: an exponent a little larger
        assert (exact > 2 * np.exp(-(LEVELS**2) / 1.7)).any()


@pytest.mark.parametrize("k", range(1, 6))
def test_even_moments_of_the_sphere_are_at_most_the_gaussians(k):
    """The ratio is d^k / (d (d+2) .. (d+2k-2)), for every d: this is what makes 2 exp(-C^2 / 2) hold."""
    ratio = sp.simplify(moment("sphere", (2 * k,), D) / moment("gaussian", (2 * k,), D))
    product = sp.prod([1 + sp.Rational(2 * j) / D for j in range(k)])
    assert sp.simplify(ratio * product - 1) == 0


def test_the_tail_of_the_gaussian():
    exact = 2 * stats.norm.sf(LEVELS)
    assert (exact <= lemma(LEVELS)).all()
    assert (exact <= 2 * np.exp(-(LEVELS**2) / 2)).all()
    assert not (exact <= 2 * np.exp(-(LEVELS**2) / 1.9)).all()


@given(st.lists(st.floats(-4, 4).filter(lambda x: abs(x) > 1e-3), min_size=1, max_size=9), st.floats(0.05, 4))
def test_the_tail_of_rademacher_signs_by_enumeration(a, level):
    """Hoeffding: P(|u'a| >= C |a|) <= 2 exp(-C^2 / 2), all 2^d signs counted."""
    u, w = nodes("rademacher", len(a))
    length = np.linalg.norm(a)
    share = w @ (np.abs(u @ a) >= level * length * (1 + 1e-12))
    assert share <= 2 * np.exp(-(level**2) / 2)
    assert share <= lemma(level)
