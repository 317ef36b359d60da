"""Lemma C.2: what smoothing costs, on functions whose smoothness is known, by exact quadrature in d = 1, 2, 3.

f_lambda(x) = E f(x + lambda v), v uniform in the ball of radius sqrt(d). Zhang et al. 2024, Appendix C, for an l-smooth
f: E g_lambda = grad f_lambda, and |grad f_lambda - grad f| <= l lambda d^(3/2) / 2. As grad f_lambda is the mean of
grad f over the ball, and E|v| = d^(3/2) / (d + 1), so is l lambda d^(3/2) / (d + 1): sharper by order d, and checked.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from dpzo.theory.quadratic import fourth_moments

# (value, derivative, the largest second derivative) of h; f(x) = h(w'x) + c h(2 w''x), see ``problem``.
SHAPES = {
    "cos": (np.cos, lambda t: -np.sin(t), 1.0),
    "logistic": (lambda t: np.logaddexp(0, t), expit, 0.25),
    "cut quartic": (  # t^4 / 12 continued by its parabola beyond 1: the second derivative is min(t^2, 1)
        lambda t: np.where(np.abs(t) < 1, t**4 / 12, t**2 / 2 - 2 * np.abs(t) / 3 + 1 / 4),
        lambda t: np.where(np.abs(t) < 1, t**3 / 3, t - 2 * np.sign(t) / 3),
        1.0,
    ),
    "kink": (lambda t: t * np.abs(t) / 2, np.abs, 1.0),  # smooth, but not twice differentiable at 0
}
N = 64


def sphere(d):
    """(points, weights) on the sphere of radius sqrt(d)."""
    if d == 1:
        return np.array([[-1.0], [1.0]]), np.full(2, 0.5)
    θ = 2 * np.pi * (np.arange(N) + 0.5) / N
    circle = np.stack([np.cos(θ), np.sin(θ)], 1)
    if d == 2:
        return np.sqrt(2) * circle, np.full(N, 1 / N)
    z, w = np.polynomial.legendre.leggauss(N // 2)
    ring = np.sqrt(1 - z**2)[:, None, None] * circle
    points = np.concatenate([ring, np.broadcast_to(z[:, None, None], (N // 2, N, 1))], 2)
    return np.sqrt(3) * points.reshape(-1, 3), np.repeat(w / 2, N) / N


def ball(d):
    """(points, weights) in the ball: the radius's density is d rho^(d-1)."""
    ρ, w = np.polynomial.legendre.leggauss(24)
    ρ, w = (ρ + 1) / 2, w / 2
    points, weights = sphere(d)
    return (ρ[:, None, None] * points).reshape(-1, d), np.outer(w * d * ρ ** (d - 1), weights).ravel()


def problem(shape, w):
    """f, grad f, l of f(x) = h(w'x)."""
    h, slope, curvature = SHAPES[shape]
    return lambda x: h(x @ w), lambda x: slope(x @ w)[..., None] * w, curvature * float(w @ w)


def estimates(f, x, u, λ):
    return (f(x + λ * u) - f(x - λ * u)) / (2 * λ)


def draw(seed, d):
    generator = np.random.default_rng(seed)
    return generator.uniform(-2, 2, d), generator.uniform(-1.5, 1.5, d)


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("shape", ["cos", "logistic"])
def test_the_estimator_is_the_smoothed_gradient(shape, d):
    """(i), on analytic functions, where both quadratures are exact to rounding."""
    for seed in range(5):
        x, w = draw(seed, d)
        f, gradient, _ = problem(shape, w)
        (u, weight), (v, inside) = sphere(d), ball(d)
        for λ in (0.05, 0.5):
            got = (weight * estimates(f, x, u, λ)) @ u
            np.testing.assert_allclose(got, inside @ gradient(x + λ * v), rtol=1e-9, atol=1e-10)
            if abs(w).max() > 0.5 and λ == 0.5:
                assert abs(got - inside @ gradient(x + 2 * λ * v)).max() > 1e-6  # of another radius it is not


@given(st.sampled_from(sorted(SHAPES)), st.integers(1, 3), st.integers(0, 10**6), st.floats(0.01, 2))
def test_what_smoothing_costs(shape, d, seed, λ):
    """(ii), and the steps of its proof. The quadratures' own error is allowed for on functions with a kink."""
    x, w = draw(seed, d)
    f, gradient, l = problem(shape, w)
    u, weight = sphere(d)
    slack = 1e-9 if shape in ("cos", "logistic") else 2e-3 * l * λ
    g, true = estimates(f, x, u, λ), gradient(x)
    one_sided = f(x + λ * u) - f(x) - λ * (u @ true)
    assert np.abs(one_sided).max() <= l * λ**2 * d / 2 * (1 + 1e-9) + 1e-12
    assert np.abs(g - u @ true).max() <= l * λ * d / 2 * (1 + 1e-9) + 1e-12
    smoothed = (weight * g) @ u
    bias = np.linalg.norm(smoothed - true)
    assert bias <= l * λ * d**1.5 / (d + 1) + slack <= l * λ * d**1.5 / 2 + slack
    assert true @ true <= 2 * smoothed @ smoothed + l**2 * λ**2 * d**3 / 2 + slack
    assert weight @ (g**2 * (u**2).sum(1)) <= 2 * d * true @ true + l**2 * λ**2 * d**3 / 2 + slack


def test_the_bias_bound_is_attained_in_one_dimension():
    """f = t|t|/2 at 0 has bias exactly l lambda / 2. Kills: half of that."""
    f, gradient, l = problem("kink", np.ones(1))
    u, weight = sphere(1)
    bias = (weight * estimates(f, np.zeros(1), u, 0.3)) @ u - gradient(np.zeros(1))
    assert bias[0] == pytest.approx(l * 0.3 / 2, rel=1e-14)


@pytest.mark.parametrize("d", [2, 3])
def test_the_sharper_bias_bound_is_within_a_factor_two(d):
    """In direction e, f = t|t|/2 has bias l lambda E|v'e|; E|v'e| over E|v| is 2/pi at d = 2, 1/2 at d = 3."""
    f, _, l = problem("kink", np.eye(d)[0])
    u, weight = sphere(d)
    bias = float((weight * estimates(f, np.zeros(d), u, 1.0)) @ u[:, 0])
    assert bias == pytest.approx({2: 2 / np.pi, 3: 0.5}[d] * l * d**1.5 / (d + 1), rel=1e-3)


@given(st.integers(1, 3), st.integers(0, 10**6), st.floats(1e-3, 1e3))
def test_two_points_are_exact_on_quadratics(d, seed, λ):
    """Whatever lambda is: no bias, and E|g|^2 = d |grad|^2. Kills: the one-sided difference."""
    generator = np.random.default_rng(seed)
    A, b = generator.standard_normal((d, d)), generator.standard_normal(d)
    A, x = A + A.T, generator.standard_normal(d)
    u, weight = sphere(d)

    def f(y):
        return ((y @ A) * y).sum(-1) / 2 + y @ b

    g, true = estimates(f, x, u, λ), A @ x + b
    rounding = 1e-12 * (1 + λ + 1 / λ) * (1 + np.abs(A).max())
    np.testing.assert_allclose(g, u @ true, rtol=1e-9, atol=100 * rounding)
    np.testing.assert_allclose((weight * g) @ u, true, rtol=1e-9, atol=100 * rounding)
    p, q = fourth_moments("sphere", d)
    assert weight @ (g**2 * (u**2).sum(1)) == pytest.approx((p + (d - 1) * q) * true @ true, rel=1e-6, abs=1e-5)
    one_sided = (f(x + λ * u) - f(x)) / λ
    if λ > 0.1 and np.abs(np.einsum("ni,ij,nj->n", u, A, u)).max() > 0.1:
        assert np.abs(one_sided - u @ true).max() > 1e-3
