"""The clip as an error (dpzo/theory/clipped.py): its lemmas by exact integration, its formulas, and what breaks them.

Records have gradients alpha_i e_1, and the mean's Hessian is diag(h, k, .., k). So all means over u are integrals over
one number: u_1 for one direction, the length y of U'e_1 for K of them; given it, E u'Hu is known exactly.
"""

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from dpzo import Refusal
from dpzo.theory import noise
from dpzo.theory.clipped import clip_cost, reach, spread, step, threshold
from dpzo.theory.problem import Problem
from dpzo.theory.rates import sharper, theorem_3
from synthetic.breaking import Case, lengths, parts
from tests.theory import test_sharper
from tests.theory.moments import LAWS, coordinates, mean

CLOSE = 1 + 1e-9


def problem(d=10**6, **changes):
    constants = {"n": 10**6, "r": 3.0, "L": 2.0, "l": 0.7, "gap": 0.75, "epsilon": 2.0, "delta": 1e-6}
    return Problem(d=d, **(constants | changes))


# --- the lemmas ------------------------------------------------------------------------------------------------------


def signs(d):
    return np.array(list(itertools.product((-1.0, 1.0), repeat=d)))


@given(st.integers(1, 8), st.integers(0, 10**6), st.floats(0, 3))
def test_the_tilted_moment_of_signs(d, seed, s):
    """E e^(s u'a) u'Hu <= e^(s^2/2) (Tr H + s^2 ||H||), |a| = 1: all signs counted. Kills: s^2 left out."""
    generator = np.random.default_rng(seed)
    a, root = generator.standard_normal(d), generator.standard_normal((d, d))
    a, H, u = a / np.linalg.norm(a), root @ root.T, signs(d)
    left = (np.exp(s * u @ a) * np.einsum("ui,ij,uj->u", u, H, u)).mean()
    assert left <= math.exp(s**2 / 2) * (np.trace(H) + s**2 * np.linalg.norm(H, 2)) * CLOSE


@pytest.mark.parametrize("law", LAWS)
def test_each_term_of_the_tilted_moment_is_at_most_the_gaussians(law):
    """E (u'a)^(2k) u'Hu for k up to 3, with symbols: the Gaussian's is an equality, and for the others less or equal.

    H = h e_1 e_1' + g e_2 e_2', a along e_1. The even moments decide, as odd ones vanish.
    """
    u = coordinates("u", 4)
    for k in range(4):
        for along, across in ((1, 0), (0, 1)):
            got = mean(u[0] ** (2 * k) * (along * u[0] ** 2 + across * u[1] ** 2), [u], law)
            most = mean(u[0] ** (2 * k) * (along * u[0] ** 2 + across * u[1] ** 2), [u], "gaussian")
            assert (got == most) if law == "gaussian" or k == 0 else (0 < got <= most)


@given(st.sampled_from([5, 20, 10**3, 10**6]), st.integers(1, 40), st.floats(2, 6), st.floats(0, 1),
       st.sampled_from(["sphere", "gaussian", "orthonormal"]))  # fmt: skip
@settings(max_examples=60)
def test_what_a_clip_leaves_out(d, K, c, h, law):
    """K E Delta^2 + 2 alpha E Delta'Q Delta of one record, exactly, at most L^2 exp(-c^2 / 2); 3/5 on the sphere.

    Kills: exp(-c^2 / 1.4), a threshold of c / 1.3 or without sqrt(K), 3/5 for 1/8.
    """
    assume(d >= K and (K == 1 or law != "sphere"))
    r = max(1.0, min(d, 3.0))
    y, weight = lengths(d, K, law)
    over = np.maximum(y - reach(c, d, K, law), 0) / K  # L = l = 1
    along = y**2 if law == "gaussian" else np.minimum(y**2, d)
    across = (r - h) if law == "gaussian" else (r - h) * (d - along) / max(d - 1, 1)
    alpha = 1 / (4 * spread(r, d, K, law))
    cost = weight @ (over**2 * (K + 2 * alpha * (h * along + across)))
    assert cost <= (1 if law == "gaussian" else 0.6) * math.exp(-(c**2) / 2)


def test_the_clip_costs_nearly_that_much():
    """On the sphere in many dimensions, H along the gradient. Kills: an exponent of c^2 / 1.4, or 1/8 for 1."""
    y, weight = lengths(10**6, 1, "sphere")
    for c, least in ((2.0, 0.2), (4.0, 0.08), (6.0, 0.04)):
        cost = weight @ (np.maximum(y - c, 0) ** 2 * (1 + y**2 / 6))
        assert least * math.exp(-(c**2) / 2) < cost < clip_cost(c, 10**6)


@given(st.floats(0, 2), st.sampled_from([1.0, 5.0, 100.0]), st.floats(0, 1))
def test_below_two_clipping_costs_three_times_as_much(c, r, h):
    """On the sphere in many dimensions, for every C from 0 on. Kills: 1 in the place of 3."""
    y, weight = lengths(10**6, 1, "sphere")
    cost = weight @ (np.maximum(y - c, 0) ** 2 * (1 + (r - h + h * y**2) / (2 * (r + 2))))
    assert cost <= clip_cost(c, 10**6)
    assert clip_cost(0.0, 10**6) == 3
    assert weight @ (y**2 * (1 + (99 + y**2) / 204)) > 1.4  # at c = 0


@pytest.mark.parametrize("law", ["sphere", "gaussian", "orthonormal"])
@pytest.mark.parametrize(("d", "K"), [(4, 1), (4, 2), (6, 3), (5, 4), (5, 5)])
def test_the_spread_of_k_directions(d, K, law):
    """E |H^(1/2) U U'a|^2 / K^2 by a hundred thousand draws: at most nu ||H|| |a|^2, attained by a along the largest.

    Kills: r + 2 for all K, (r + K) / K, orthonormal directions taken for independent ones.
    """
    generator = np.random.default_rng(d * 10 + K)
    h = np.array([1.0] + [0.3] * (d - 1))
    U = generator.standard_normal((100_000, d, K))
    if law == "sphere":
        U *= math.sqrt(d) / np.linalg.norm(U, axis=1, keepdims=True)
    if law == "orthonormal":
        U = math.sqrt(d) * np.linalg.qr(U)[0]
    y = np.einsum("sdk,sk->sd", U, U[:, 0]) / K  # a = e_1
    each = y**2 @ h
    found, error = each.mean(), each.std(ddof=1) / math.sqrt(len(each))
    nu = spread(h.sum(), d, K, law)
    assert found <= nu + 7 * error + 1e-9
    independent = nu if law != "sphere" else ((d / (d + 2)) * (2 + h.sum()) + K - 1) / K
    assert abs(found - independent) < 7 * error + 1e-9


def test_all_directions_are_the_space():
    """K = d orthonormal ones have a spread of 1 and no clip at L / sqrt(d), which is DP-SGD's at L. Kills: (r + 2)."""
    p = problem(50, r=20.0)
    assert spread(20.0, 50, 50, "orthonormal") == pytest.approx(1)
    assert threshold(p, 8.0, 0.0, 50, "orthonormal") == pytest.approx(p.L / math.sqrt(50))
    assert step(p, alpha=0.1, zo_eps=0.0, c=8.0, sigma=0.0, directions=50, law="orthonormal").clipping == 0
    assert spread(20.0, 50, 1, "orthonormal") == pytest.approx(22 * 50 / 52)
    assert spread(1.0, 1, 1, "orthonormal") == 3


# --- the formulas ----------------------------------------------------------------------------------------------------

SETTINGS = st.tuples(
    st.integers(5, 10**9), st.floats(0, 1), st.integers(1, 200), st.floats(2, 7), st.floats(0, 1), st.floats(0, 3),
    st.floats(0.01, 1), st.sampled_from(["sphere", "gaussian", "rademacher", "orthonormal"]), st.floats(0.001, 1),
)  # fmt: skip


@given(SETTINGS)
def test_each_term_is_the_lemmas(drawn):
    """As the book prints them. Kills: any constant, exponent, or a factor K left out."""
    d, share, K, c, size, sigma, part, law, q = drawn
    K = min(K, d)
    p = problem(d, r=d**share)
    r, L, l, root = p.r, p.L, p.l, c if K == 1 else math.sqrt(K) + c
    λ = size * L / (4 * l * root)
    nu = (r + K + 1) / K
    if law == "orthonormal":
        nu = d * (K * d + d - 2 + (d - K) * r) / (K * (d - 1) * (d + 2))
        root = min(root, math.sqrt(d))
    elif law != "gaussian":
        root = min(root, math.sqrt(K * d))
    alpha, B = part / (4 * l * nu), q * p.n
    got = step(p, alpha=alpha, zo_eps=λ, c=c, sigma=sigma, directions=K, law=law, batch=B)
    bent = l * λ * (d + 3 if law == "gaussian" else d) / 2
    assert got.smoothing == pytest.approx(alpha * l**2 * λ**2 * r * (r + 2) * (0.25 + (r + 4) / (8 * nu)))
    assert got.noise == pytest.approx(alpha**2 / 2 * l * r * K * sigma**2)
    sampled = (math.sqrt(nu) * L + math.sqrt(r) * bent) ** 2
    assert got.sampling == pytest.approx(alpha**2 / 2 * l * (1 / B - 1 / p.n) * sampled)
    full = c if K == 1 else math.sqrt(K) + c
    free = law != "gaussian" and root < full
    assert got.clipping == pytest.approx(0 if free else alpha * L**2 * math.exp(-(c**2) / 2))
    assert got.added == pytest.approx(got.smoothing + got.noise + got.sampling + got.clipping)
    C = threshold(p, c, λ, K, law)
    if law == "gaussian":
        s = l * λ * root / L
        assert L * root / K / math.sqrt(1 - s) + l * λ * d / 2 / (1 - s) == pytest.approx(C)
    else:
        assert L * root / K + l * λ * d / 2 / math.sqrt(K) == pytest.approx(C)
    assert step(p, alpha=alpha, zo_eps=λ, c=c, sigma=sigma, directions=K, law=law).sampling == 0


@given(st.floats(0.1, 9), st.integers(1, 500), st.floats(0.01, 0.9))
def test_the_steps_are_summed_one_by_one(gap, steps, share):
    """The three bounds of a run, from the step's. Kills: 4 for 2, a sum without its contraction, leaving for free."""
    p = problem()
    one = step(p, alpha=share / (4 * p.l * 5), zo_eps=1e-4, c=3.0, sigma=0.4)
    mu, left = 0.3, gap
    for _ in range(steps):
        left = left - one.alpha / 4 * 2 * mu * left + one.added
    assert one.under_pl(gap, steps, mu) == pytest.approx(left)
    assert one.squared_gradient(gap, steps) * one.alpha / 4 * steps == pytest.approx(gap + steps * one.added)
    assert one.leaving(gap, steps, 20 * gap) == pytest.approx(min(1, (gap + steps * one.added) / (20 * gap)))


PROBLEMS = st.tuples(st.floats(0.5, 9), st.floats(2, 9), st.floats(0, 1), st.integers(1, 300),
                     st.sampled_from(["sphere", "gaussian", "rademacher", "orthonormal"]))  # fmt: skip


@given(PROBLEMS)
def test_the_theorem_is_what_its_steps_sum_to(drawn):
    """At its own alpha, T, lambda and C. Kills: 32, 8, 9 or M changed, a lambda or T without K, noise of one mean."""
    log_d, log_n, share, K, law = drawn
    d = int(10**log_d)
    p, K = problem(d, n=int(10**log_n), r=d**share), min(K, d)
    g, b = sharper(p, directions=K, law=law), p.budget
    c = math.sqrt(2 * math.log(max(8, b / (2 * math.sqrt(p.r)))))
    full, nu, root = c if K == 1 else math.sqrt(K) + c, spread(p.r, d, K, law), math.sqrt(K)
    most = {"gaussian": math.inf, "orthonormal": math.sqrt(d)}.get(law, math.sqrt(K * d))
    assert g.clip == pytest.approx(p.L * (min(full, most) / K + 1 / (4 * c * root)))
    free = 1 / (4 * c * root * (d + 2 * full**2))
    smooth = p.r * (p.r + 2) * (1 + (p.r + 4) / (2 * nu)) * b / math.sqrt(p.r)
    assert g.zo_eps == pytest.approx(p.L / p.l * min(free, smooth**-0.5))
    assert (g.alpha, g.steps) == pytest.approx((1 / (4 * p.l * nu), nu * b / (2 * math.sqrt(p.r))))
    assert threshold(p, c, g.zo_eps, K, law) <= g.clip * CLOSE
    one = step(p, alpha=g.alpha, zo_eps=g.zo_eps, c=c, sigma=g.sigma, directions=K, law=law)
    sums, rate = one.squared_gradient(p.gap, g.steps), math.sqrt(p.r) / b
    assert sums <= g.bound * CLOSE
    start, noisy = 32 * p.gap * p.l, 8 * K * g.clip**2
    assert g.bound == pytest.approx((start + noisy + 9 * p.L**2) * rate)
    assert 4 * p.gap / (g.alpha * g.steps) == pytest.approx(start * rate)
    assert 4 * one.noise / one.alpha == pytest.approx(noisy * rate)
    assert 4 * one.smoothing / one.alpha <= p.L**2 * rate * CLOSE
    assert 4 * one.clipping / one.alpha <= 8 * p.L**2 * rate * CLOSE


def test_the_vector_pays_for_the_dimension_and_the_scalar_does_not():
    """DPGD-0th's bound has sqrt(r d) for sqrt(r). Kills: a vector's C without sqrt(d), a scalar's with log d."""
    small, large = (problem(d, n=10**9) for d in (10**3, 10**9))
    assert sharper(small)[1:2] + sharper(small)[3:] == sharper(large)[1:2] + sharper(large)[3:]
    p = problem(100, n=10**9)
    g, b = sharper(p, vector=True), p.budget
    rate = math.sqrt(p.r * 100) / b
    c = math.sqrt(2 * math.log(1 / (2 * rate)))
    C = p.L * (c + 1 / (4 * c))
    assert g.clip == pytest.approx(10 * C)
    smooth = (2 * rate / (p.r * (3 * p.r + 8))) ** 0.5
    assert g.zo_eps == pytest.approx(p.L / p.l * min(smooth, 1 / (4 * c * (100 + 2 * c**2))))
    assert g.steps == pytest.approx((p.r + 2) / (2 * rate))
    assert g.bound == pytest.approx((32 * p.gap * p.l + 8 * C**2 + 9 * p.L**2) * rate)
    noisy = 2 * g.alpha * p.l * p.r * noise.sigma(g.clip, g.steps, p.n, p.epsilon, p.k) ** 2
    assert noisy == pytest.approx(8 * C**2 * rate)


def test_what_is_told_of_a_million_records():
    """n = 10^6, d = 10^8, r = 20: C from 31.1 L to 4.7 L, at which the noise has a fortieth of the variance."""
    p = Problem(n=10**6, d=10**8, r=20.0, L=1.0, l=1.0, gap=1.0, B=10.0, epsilon=2.0, delta=1e-6)
    theirs, ours = theorem_3(p), sharper(p)
    assert (round(theirs.clip, 1), round(ours.clip, 1)) == (31.1, 4.7)
    assert theirs.bound / ours.bound > 15
    many = sharper(p, directions=256)
    assert many.clip * 16 < 1.4
    assert many.steps < ours.steps / 20


@pytest.mark.parametrize(
    "wrong",
    [
        {"c": 1.9}, {"c": math.nan}, {"alpha": 0.1}, {"alpha": 0.0}, {"sigma": -1.0}, {"batch": 1e7}, {"batch": 0.0},
        {"directions": 0}, {"law": "cube"}, {"law": "gaussian", "zo_eps": 0.4}, {"zo_eps": -1.0},
        {"law": "orthonormal", "directions": 10**6 + 1},
    ],
    ids=str,
)  # fmt: skip
def test_refusals(wrong):
    fine = {"alpha": 0.05, "zo_eps": 1e-6, "c": 3.0, "sigma": 0.0}
    assert step(problem(), **fine).sampling == 0
    with pytest.raises(Refusal):
        step(problem(), **(fine | wrong))


def test_what_is_just_allowed():
    """Kills: a step size, a c or a Gaussian radius a quarter larger than the proof allows."""
    p = problem()
    most = 1 / (4 * p.l * spread(p.r, p.d))
    fine = {"alpha": most, "zo_eps": 0.0, "c": 2.0, "sigma": 1.0}
    assert step(p, **fine).alpha == most
    longest = p.L / (4 * p.l * 2.0)
    assert threshold(p, 2.0, longest, 1, "gaussian") > 0
    for wrong in ({"alpha": 1.001 * most}, {"c": 1.999}, {"law": "gaussian", "zo_eps": 1.001 * longest}):
        with pytest.raises(Refusal):
            step(p, **(fine | wrong))


def test_the_cost_of_any_threshold():
    """clip_cost by hand. Kills: any of its constants."""
    for c, d, cost in ((2.0, 100, math.exp(-2)), (1.9, 100, 3 * math.exp(-(1.9**2) / 2)), (-1.0, 100, 3.0)):
        assert clip_cost(c, d) == pytest.approx(cost)
    assert clip_cost(3.0, 9) == clip_cost(math.sqrt(5) * (1 - 1e-13), 5) == 0
    assert clip_cost(2.99, 9) == pytest.approx(math.exp(-(2.99**2) / 2))


def test_a_vector_has_one_direction_of_fixed_length():
    for wrong in ({"directions": 2}, {"law": "gaussian"}):
        with pytest.raises(Refusal, match="vector"):
            sharper(problem(), vector=True, **wrong)


# --- the inequality, whole -------------------------------------------------------------------------------------------

CASES = st.builds(
    Case,
    d=st.sampled_from([5, 30, 1000, 10**6]),
    law=st.sampled_from(["sphere", "gaussian"]),
    c=st.floats(2, 4),
    step=st.floats(0.05, 1),
    zo_eps=st.floats(0, 1),
    weight=st.floats(0.05, 0.95),
    one=st.floats(-1, 1),
    other=st.floats(-1, 1),
    bend=st.floats(-1, 1),
    bend_other=st.floats(-1, 1),
    along=st.floats(0, 1),
    across=st.floats(0, 1),
    sigma=st.floats(0, 1),
    sampled=st.floats(0.01, 1),
)


@given(CASES)
@settings(max_examples=100)
def test_one_step(case):
    """Two kinds of records with kinks at x, clipped, sampled and noised: E F(x') by quadrature is below the bound."""
    change, descent, added = parts(case)
    assert change <= -descent + added.added * CLOSE + 1e-12


NO_TERM = {
    "smoothing": Case(d=5, zo_eps=1.0, one=-0.036, other=-0.036, bend=1.0, bend_other=1.0, along=1.0, across=0.0),
    "noise": Case(d=30, sigma=1.0, across=1.0),
    "sampling": Case(d=30, c=6.0, one=1.0, other=-1.0, across=1.0, sampled=0.1),
    "clipping": Case(d=1000, c=2.0, weight=0.2, one=1.0, other=-0.249),
}


@pytest.mark.parametrize("term", NO_TERM)
def test_without_any_of_its_terms_it_is_false(term):
    """A problem for each. Kills: a term left out."""
    change, descent, added = parts(NO_TERM[term])
    assert change <= -descent + added.added
    assert change > -descent + added.added - getattr(added, term)
    assert getattr(added, term) > 0


@given(st.floats(0.05, 1.2), st.floats(0, 2), st.floats(0.01, 1), st.floats(0.1, 1), st.floats(-2, 2), st.floats(-2, 2))
@settings(max_examples=30)
def test_a_step_that_may_clip_costs_l_squared_d_times_its_chance(C, σ, λ, share, x1, x2):
    """The event's way, R = L^2 d, by quadrature on a logistic loss in the plane."""
    X = np.array([[1.0, 0.0], [0.6, 0.8], [-0.5, 0.5], [0.9, -0.2]])
    r = max(float(np.trace(X.T @ X)) / len(X), 1.0)
    alpha = share / (r + 2)  # l = 1/4
    change, gradient, clipped = test_sharper.one_step(C, σ, λ, alpha, np.array([x1, x2]), X)
    smooth = alpha * 9 / 16 * (λ / 2) ** 2
    assert change <= -alpha / 4 * gradient @ gradient + smooth + alpha**2 / 8 * r * σ**2 + alpha * 2 * clipped + 1e-9


def test_the_beta_laws_are_those_of_the_directions():
    """The quadrature's own law, against scipy's."""
    for d in (5, 1000):
        y, weight = lengths(d, 1, "sphere")
        assert weight.sum() == pytest.approx(1)
        for at in (0.5, 1.5, 2.0):
            assert weight[y > at].sum() == pytest.approx(stats.beta.sf(at**2 / d, 0.5, (d - 1) / 2), abs=2e-3)
    y, weight = lengths(50, 4, "orthonormal")
    assert weight @ y**2 == pytest.approx(4, rel=1e-4)
    y, weight = lengths(50, 4, "gaussian")
    assert weight @ y**4 == pytest.approx(24, rel=1e-4)
