"""Lemma C.2 for the other laws of u: Gaussian directions smooth as the sphere does, signs do not smooth at all.

With g = v u, v = (f(x + lambda u) - f(x - lambda u)) / (2 lambda), and f l-smooth:

- Gaussian u: E g is the gradient of E f(x + lambda z), z Gaussian. So the bias is at most l lambda E|z| <= l lambda
  sqrt(d), where the way of the paper's proof gives l lambda E|z|^3 / 2 = (d + 1) / 2 times that. And
  E|g|^2 <= 2 (d + 2) |grad f|^2 + l^2 lambda^2 d (d + 2) (d + 4) / 2.
- Signs: E g is in general the gradient of no function, as its curl is not 0. It is grad f itself on quadratics. As
  |v - u'grad f| <= l lambda d / 2 and E u u' = I, the bias is at most l lambda d / 2 by Cauchy and Schwarz.
"""

import itertools

import numpy as np
import pytest
import sympy as sp
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tests.theorems.test_lemma_c1_derived import nodes
from tests.theorems.test_lemma_c2 import SHAPES, draw, estimates, problem
from tests.theory.moments import LAWS, coordinates, mean, radius_moment

D, Λ = sp.symbols("d lambda", positive=True)
X, U = coordinates("x", 2), coordinates("u", 2)


def polynomial(degree):
    """Any polynomial of X of this degree, with a symbol for each coefficient."""
    powers = [k for k in itertools.product(range(degree + 1), repeat=2) if sum(k) <= degree]
    return sum(sp.Symbol(f"c{i}{j}") * X[0] ** i * X[1] ** j for i, j in powers)


def moved(f, scale):
    return f.subs({x: x + scale * u for x, u in zip(X, U, strict=True)}, simultaneous=True)


def mean_estimate(f, law):
    v = sp.expand((moved(f, Λ) - moved(f, -Λ)) / (2 * Λ))
    return [mean(v * u, [U], law) for u in U]


def smoothed(f, law):
    """E f(x + lambda w): w Gaussian, or in the ball, where a moment of degree k is d / (d + k) times the sphere's."""
    if law == "gaussian":
        return mean(moved(f, Λ), [U], law)
    parts = sp.Poly(sp.expand(moved(f, Λ)), *U).terms()
    return sum(mean(c * U[0] ** i * U[1] ** j, [U], law) * sp.Rational(2, 2 + i + j) for (i, j), c in parts)


@pytest.mark.parametrize("law", ["gaussian", "sphere"])
def test_the_mean_estimate_is_the_gradient_of_the_smoothed_function(law):
    """On every quartic of two variables. Kills: the sphere where its ball belongs, another variance."""
    f = polynomial(4)
    blurred = smoothed(f, law)
    for got, x in zip(mean_estimate(f, law), X, strict=True):
        assert sp.expand(got - sp.diff(blurred, x)) == 0
        assert sp.expand(got - sp.diff(f, x)) != 0


def test_the_mean_estimate_of_signs_has_a_curl():
    """lambda^2 / 3 times d1 d2 (d2^2 - d1^2) f: for x1^3 x2 it is -2 lambda^2 everywhere, so no function has it."""
    f = polynomial(4)
    one, two = X

    def curl(f, law):
        first, second = mean_estimate(f, law)
        return sp.expand(sp.diff(first, two) - sp.diff(second, one))

    crossed = sp.diff(f, one, two)
    assert sp.expand(curl(f, "rademacher") - Λ**2 / 3 * (sp.diff(crossed, two, 2) - sp.diff(crossed, one, 2))) == 0
    assert curl(one**3 * two, "rademacher") == -2 * Λ**2
    assert curl(one**3 * two, "gaussian") == curl(one**3 * two, "sphere") == 0


@pytest.mark.parametrize("law", LAWS)
def test_no_law_is_biased_on_quadratics(law):
    f = polynomial(2)
    assert [sp.expand(got - sp.diff(f, x)) for got, x in zip(mean_estimate(f, law), X, strict=True)] == [0, 0]


def test_the_moments_of_a_gaussian_length():
    """E|z|^3 = (d + 1) E|z|, E|z|^4 = d (d + 2), E|z|^6 = d (d + 2) (d + 4), and E|z| is just below sqrt(d)."""
    first = radius_moment(1, D)
    assert sp.simplify(sp.expand_func(radius_moment(3, D) / first) - (D + 1)) == 0
    assert sp.simplify(radius_moment(4, D) - D * (D + 2)) == 0
    assert sp.simplify(radius_moment(6, D) - D * (D + 2) * (D + 4)) == 0
    for d in (1, 2, 3, 100):
        assert np.sqrt(d - 0.5) < float(first.subs(D, d)) < np.sqrt(d)
        assert float(first.subs(D, d)) == pytest.approx(stats.chi(d).mean())


def grid(d):
    """(points, weights) of N(0, I) in R^d; exact for analytic functions to rounding."""
    z, w = np.polynomial.hermite_e.hermegauss(40)
    w = w / w.sum()
    axes = np.meshgrid(*[z] * d, indexing="ij")
    weights = np.prod(np.meshgrid(*[w] * d, indexing="ij"), axis=0)
    return np.stack(axes, -1).reshape(-1, d), weights.ravel()


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("shape", ["cos", "logistic"])
def test_gaussian_smoothing_by_quadrature(shape, d):
    """On analytic functions, where the quadrature is exact. Kills: a smoothing of another width."""
    z, weight = grid(d)
    length = float(radius_moment(1, D).subs(D, d))
    for seed, λ in itertools.product(range(4), (0.05, 0.5)):
        x, w = draw(seed, d)
        f, gradient, l = problem(shape, w)
        g, true = estimates(f, x, z, λ), gradient(x)
        got = (weight * g) @ z
        np.testing.assert_allclose(got, weight @ gradient(x + λ * z), rtol=1e-7, atol=1e-9)
        assert (np.abs(g - z @ true) <= l * λ / 2 * (z**2).sum(1) + 1e-12).all()
        assert np.linalg.norm(got - true) <= l * λ * length
        second = weight @ (g**2 * (z**2).sum(1))
        assert second <= 2 * (d + 2) * true @ true + (l * λ) ** 2 * d * (d + 2) * (d + 4) / 2


@pytest.mark.parametrize("d", [1, 2, 10, 1000])
def test_the_gaussian_bias_bound_is_nearly_attained(d):
    """By f = sum_j x_j |x_j| / 2 at 0, l = 1: E v u_j = lambda E|z_1|^3 / 2 for each j; at d = 1 exactly."""
    bias = np.sqrt(d) * stats.norm.expect(lambda z: abs(z) ** 3) / 2
    bound = float(radius_moment(1, D).subs(D, d))
    assert bias <= bound * (1 + 1e-6)
    assert bias > 0.79 * bound
    if d == 1:
        assert bias == pytest.approx(bound, rel=1e-6)


@given(st.sampled_from(sorted(SHAPES)), st.integers(1, 7), st.integers(0, 10**6), st.floats(0.01, 2))
def test_what_signs_cost(shape, d, seed, λ):
    """All 2^d signs counted. Kills: a bound that forgets d."""
    x, w = draw(seed, d)
    f, gradient, l = problem(shape, w)
    u, weight = nodes("rademacher", d)
    g, true = estimates(f, x, u, λ), gradient(x)
    assert np.abs(g - u @ true).max() <= l * λ * d / 2 * (1 + 1e-9) + 1e-12
    assert np.linalg.norm((weight * g) @ u - true) <= l * λ * d / 2 + 1e-12
    assert weight @ (g**2 * d) <= 2 * d * true @ true + l**2 * λ**2 * d**3 / 2 + 1e-12


def test_the_bias_bound_of_signs_is_attained_in_one_dimension():
    f, gradient, l = problem("kink", np.ones(1))
    u, weight = nodes("rademacher", 1)
    bias = (weight * estimates(f, np.zeros(1), u, 0.3)) @ u - gradient(np.zeros(1))
    assert bias[0] == pytest.approx(l * 0.3 / 2)
