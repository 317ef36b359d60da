"""Every theorem's parameters and bound: the orders in d, r and n, what the proofs require, and what is refused."""

import math
from dataclasses import replace

import numpy as np
import pytest
import sympy as sp
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dpzo import Refusal
from dpzo.theory import noise
from dpzo.theory.problem import failing_under_pl
from dpzo.theory.rates import (
    THEOREMS,
    UNDER_PL,
    Problem,
    dp_gd,
    pl_dp_gd,
    pl_dpgd_zeroth,
    pl_dpzero,
    sharper,
    theorem_1,
    theorem_2,
    theorem_3,
)
from dpzo.theory.stagewise import constant, stagewise

BASE = Problem(n=10**9, d=10**4, r=50.0, L=2.0, l=3.0, gap=0.7, epsilon=2.0, delta=1e-6, B=5.0, mu=0.1)


def slope(theorem, name, low, high, of=lambda g: g.bound, **fixed):
    """The exponent of the bound in one constant."""
    ends = [of(theorem(replace(BASE, **{name: value}, **fixed))) for value in (low, high)]
    return math.log(ends[1] / ends[0]) / math.log(high / low)


def test_orders_in_the_dimension():
    """Table 1. Theorem 3's dimension is a logarithm inside C; DP-GD has none."""
    wide = (100, 10**8)
    assert slope(theorem_1, "d", *wide) == pytest.approx(1.5)
    assert slope(theorem_2, "d", *wide) == pytest.approx(1.0)
    assert slope(dp_gd, "d", *wide) == 0
    small, large = (theorem_3(replace(BASE, d=d)) for d in wide)
    assert slope(theorem_3, "d", *wide) < 0.02
    # C^2 = 16 L^2 log(.. (d + ..)): at most 16 L^2 log(10^6) more.
    assert 0 < large.clip**2 - small.clip**2 <= 16 * BASE.L**2 * math.log(10**6)
    assert (large.bound - small.bound) / (large.clip**2 - small.clip**2) == pytest.approx(
        4 * math.sqrt(BASE.r) / BASE.budget
    )


def test_orders_in_the_rank():
    for theorem in (theorem_2, dp_gd):
        assert slope(theorem, "r", 4, 400) == pytest.approx(0.5)
    assert slope(theorem_1, "r", 4, 400) == 0
    assert slope(theorem_3, "r", 4, 400) == pytest.approx(0.5, abs=0.02)


def test_orders_in_records_and_length():
    for theorem in (theorem_1, theorem_2, dp_gd):
        assert slope(theorem, "n", 10**9, 10**12) == pytest.approx(-1)
        assert slope(theorem, "epsilon", 0.1, 1.0) == pytest.approx(
            -1, abs=0.08
        )  # and a little by log(e + eps / delta)
    assert slope(theorem_3, "n", 10**9, 10**12) == pytest.approx(-1, abs=0.05)
    steps = [slope(t, "n", 10**9, 10**12, of=lambda g: g.steps) for t in THEOREMS.values()]
    assert steps == pytest.approx([1, 1, 1, 1])
    assert slope(theorem_1, "d", 100, 10**6, of=lambda g: g.steps) == pytest.approx(-0.5)
    assert slope(theorem_2, "d", 100, 10**6, of=lambda g: g.steps) == pytest.approx(-1)
    assert slope(theorem_3, "d", 100, 10**6, of=lambda g: g.steps) == 0  # no more steps in high dimension


def test_theorem_2_at_full_rank_is_theorem_1():
    """The same clip, noise and bound; alpha and T apart by (d + 2) / d."""
    p = replace(BASE, r=float(BASE.d))
    one, two = theorem_1(p), theorem_2(p)
    assert (two.bound, two.clip, two.zo_eps) == pytest.approx((one.bound, one.clip, one.zo_eps))
    assert two.steps / one.steps == pytest.approx((p.d + 2) / p.d)
    assert one.alpha / two.alpha == pytest.approx((p.d + 2) / p.d)


PROBLEMS = st.builds(
    Problem,
    n=st.integers(100, 10**7),
    d=st.integers(2, 10**6),
    r=st.floats(1, 2),
    L=st.floats(0.1, 10),
    l=st.floats(0.1, 10),
    gap=st.floats(0.1, 10),
    epsilon=st.floats(0.1, 10),
    delta=st.sampled_from([1e-5, 1e-8]),
    B=st.floats(0.1, 10),
    exact=st.booleans(),
)
PROBLEMS |= PROBLEMS.map(lambda p: replace(p, r=max(1.0, math.sqrt(p.d))))
CLOSE = 1 + 1e-9


@given(PROBLEMS)
def test_each_bound_is_what_its_recursion_sums_to(p):
    """The recursion's terms at the theorem's own alpha, T, lambda, C and sigma are at most the printed bound.

    Also not far below it: a bound whose constant is lost would be as false as one that is too small.
    """
    variance = lambda g: g.sigma**2  # noqa: E731
    one, two, three, gd = (t(p) for t in (theorem_1, theorem_2, theorem_3, dp_gd))
    smoothing = lambda g: (p.l * g.zo_eps) ** 2 * p.d**3  # noqa: E731
    start = lambda g: 4 * p.gap / (g.alpha * g.steps)  # noqa: E731
    assert one.bound == pytest.approx(start(one) + smoothing(one) + 2 * p.l * one.alpha * p.d * variance(one))
    total = start(two) + smoothing(two) + 2 * p.l * two.alpha * p.r * variance(two)
    assert total == pytest.approx(two.bound)
    clipped = (
        2 * math.sqrt(2 * math.pi) * p.n * three.steps * math.exp(-((three.clip / math.sqrt(2)) ** 2) / (8 * p.L**2))
    )
    rare = 4 * (p.L**2 * p.d + 8 * p.B * p.l * (p.r + 2)) * clipped
    total = start(three) + smoothing(three) + 2 * p.l * three.alpha * p.r * variance(three) + rare
    assert 0.9 * three.bound <= total <= three.bound * CLOSE
    assert gd.bound == pytest.approx(2 * p.gap * p.l / gd.steps + p.r * variance(gd))


@given(PROBLEMS, st.booleans())
def test_the_sharper_bound_is_what_its_recursion_sums_to(p, vector):
    """The book's one-step inequality at sharper's own parameters: no term is lost, no constant is too large.

    ``test_clipped.py`` checks the inequality itself. Kills: D left out of the threshold, the noise or the rate.
    """
    g, D = sharper(p, vector=vector), p.d if vector else 1
    assume(not g.fails)
    C, variance = g.clip / math.sqrt(D), g.sigma**2  # the vector's variance, on each coordinate, is D times a scalar's
    assert g.sigma == pytest.approx(noise.sigma(C, g.steps, p.n, p.epsilon, p.k) * math.sqrt(D))
    c = math.sqrt(2 * math.log(max(8.0, p.budget / (2 * math.sqrt(p.r * D)))))
    smoothing = (p.l * g.zo_eps) ** 2 * p.r * (3 * p.r + 8) / 2
    assert smoothing <= p.L**2 * math.sqrt(p.r * D) / p.budget * CLOSE
    assert p.L * min(c, math.sqrt(p.d)) + p.l * g.zo_eps * p.d / 2 <= C * CLOSE
    rare = 4 * p.L**2 * math.exp(-(c**2) / 2)
    assert rare <= 8 * p.L**2 * math.sqrt(p.r * D) / p.budget * CLOSE
    total = 4 * p.gap / (g.alpha * g.steps) + 2 * g.alpha * p.l * p.r * variance
    assert total + 9 * p.L**2 * math.sqrt(p.r * D) / p.budget == pytest.approx(g.bound, rel=1e-9)


def test_what_is_sharper():
    """A third of the threshold or less, without d and n in it; a larger lambda, a smaller bound, no B."""
    three, ours, vector = theorem_3(BASE), sharper(BASE), sharper(BASE, vector=True)
    assert ours.fails == vector.fails == ()
    assert ours.clip < three.clip / 3
    assert ours.zo_eps / three.zo_eps > BASE.d
    assert ours.bound < three.bound / 4
    assert sharper(replace(BASE, B=1e9)) == ours
    assert sharper(replace(BASE, d=10**9))._replace(zo_eps=0.0) == ours._replace(zo_eps=0.0)
    assert vector.bound / ours.bound == pytest.approx(math.sqrt(BASE.d), rel=0.25)  # less a little in the logarithm
    assert vector.clip / ours.clip == pytest.approx(math.sqrt(BASE.d), rel=0.15)
    assert slope(sharper, "d", 100, 10**8) == 0
    assert slope(sharper, "r", 4, 400) == pytest.approx(0.5, abs=0.03)  # less a little in the logarithm
    assert slope(sharper, "n", 10**9, 10**12) == pytest.approx(-1, abs=0.05)
    fewest = sharper(Problem(n=1, d=1, r=1.0, L=1.0, l=1.0, gap=1.0, epsilon=1e-6, delta=0.5))
    assert "below 1" in fewest.fails[0]


@given(PROBLEMS)
def test_theorem_3_never_clips_for_smoothings_sake(p):
    """C >= C_0 + l lambda d / 2 with C = sqrt(2) C_0: the condition under which the tail bound speaks of clipping."""
    p = replace(p, mu=p.l / 2)
    for g in (theorem_3(p), pl_dpzero(p)):
        assert g.clip * CLOSE >= g.clip / math.sqrt(2) + p.l * g.zo_eps * p.d / 2


def test_the_pl_radius_is_capped_where_the_budget_is_small():
    """Kills: lambda from the smoothing's floor alone, which would cause clips that the proof counts out."""
    p = Problem(n=100, d=4, r=2.0, L=1.0, l=1.0, gap=1.0, epsilon=1.0, delta=1e-6, mu=0.01)
    g = pl_dpzero(p)
    assert p.l * g.zo_eps * p.d / 2 == pytest.approx(g.clip * (1 - 1 / math.sqrt(2)))


@given(PROBLEMS)
def test_sigma_is_that_of_t_steps_at_c(p):
    p = replace(p, mu=p.l / 3)
    for theorem in (*THEOREMS.values(), *UNDER_PL.values()):
        g = theorem(p)
        assert g.sigma == pytest.approx(4 * g.clip * math.sqrt(2 * g.steps * p.k) / (p.n * p.epsilon))
        assert (g.steps < 1) == any("below 1" in why for why in g.fails)


@given(PROBLEMS)
def test_rounding_t_up_costs_at_most_its_share(p):
    """With ceil(T) steps and their noise, the recursion of theorem 3 is at most (1 + 1/T) times the bound."""
    g = theorem_3(p)
    T = math.ceil(g.steps)
    s2 = noise.sigma(g.clip, T, p.n, p.epsilon, p.k) ** 2
    clipped = 2 * math.sqrt(2 * math.pi) * p.n * T * math.exp(-((g.clip / math.sqrt(2)) ** 2) / (8 * p.L**2))
    total = 4 * p.gap / (g.alpha * T) + (p.l * g.zo_eps) ** 2 * p.d**3 + 2 * p.l * g.alpha * p.r * s2
    total += 4 * (p.L**2 * p.d + 8 * p.B * p.l * (p.r + 2)) * clipped
    assert total <= g.bound * (1 + 1 / g.steps) * CLOSE


def test_the_choices_of_t_are_what_the_proofs_balance():
    """Symbolically: alpha, T and C of each theorem in the recursion give its bound, constants included."""
    d, r, L, l, gap, b, tilde = sp.symbols("d r L l F b Lt", positive=True)  # b = n epsilon / sqrt(k)

    def terms(alpha, T, C, trace, smooth):
        return sp.simplify(4 * gap / (alpha * T) + smooth + 2 * l * alpha * trace * 32 * C**2 * T / b**2)

    claims = [
        (1 / (4 * l * d), b / sp.sqrt(d), L * d, d, 16 * L**2 * d**sp.Rational(3, 2) / b,
         16 * (gap * l + 2 * L**2) * d * sp.sqrt(d) / b),
        (1 / (4 * l * (r + 2)), b * (r + 2) / (d * sp.sqrt(r)), L * d, r, 16 * L**2 * d * sp.sqrt(r) / b,
         16 * (gap * l + 2 * L**2) * d * sp.sqrt(r) / b),
        (1 / (4 * l * (r + 2)), b * (r + 2) / (4 * sp.sqrt(r)), 4 * tilde, r, 2 * L**2 * sp.sqrt(r) / b,
         (64 * (gap * l + tilde**2) + 2 * L**2) * sp.sqrt(r) / b),
    ]  # fmt: skip
    for alpha, T, C, trace, smooth, bound in claims:
        assert sp.simplify(terms(alpha, T, C, trace, smooth) - bound) == 0


def test_too_few_records_fail_and_say_so():
    few = replace(BASE, n=20, r=1.0)
    for theorem in (theorem_1, theorem_2):
        assert "below 1" in theorem(few).fails[0]
    assert theorem_1(BASE).fails == theorem_3(BASE).fails == dp_gd(BASE).fails == ()


def test_exact_noise_makes_every_bound_smaller_at_usual_budgets():
    for theorem in (*THEOREMS.values(), *UNDER_PL.values()):
        assert theorem(replace(BASE, exact=True)).bound < 0.9 * theorem(BASE).bound
        large = replace(BASE, epsilon=300.0)
        assert theorem(replace(large, exact=True)).bound > theorem(large).bound


def contracted(p, T):
    """What the recursion of pl_dpzero (see test_pl.py) sums to after T steps with the noise of T."""
    g = pl_dpzero(p)
    s2 = noise.sigma(g.clip, T, p.n, p.epsilon, p.k) ** 2
    clipped = 2 * math.sqrt(2 * math.pi) * p.n * T * math.exp(-((g.clip / math.sqrt(2)) ** 2) / (8 * p.L**2))
    a_step = g.alpha**2 * p.l * p.r * s2 / 2 + g.alpha * (p.l * g.zo_eps) ** 2 * p.d**3 / 4
    a_step += g.alpha * (p.L**2 * p.d + 8 * p.B * p.l * (p.r + 2)) * clipped
    return math.exp(-g.alpha * p.mu * T / 2) * p.gap + 2 / (g.alpha * p.mu) * a_step


@given(PROBLEMS, st.floats(0.01, 1))
def test_the_pl_bound_is_what_its_recursion_sums_to(p, share):
    """Up to r / (r + 2), which the bound rounds to 1; and another T would not do much better."""
    p = replace(p, mu=share * p.l)
    g = pl_dpzero(p)
    rest = g.bound - math.exp(-g.alpha * p.mu * g.steps / 2) * p.gap
    assert p.r / (p.r + 2) * rest / CLOSE <= contracted(p, g.steps) - (g.bound - rest) <= rest * CLOSE
    if g.steps > 2.2 / (g.alpha * p.mu):  # the noise's floor, not the start, is what limits T
        assert contracted(p, g.steps) < 1.5 * min(contracted(p, g.steps * c) for c in (0.1, 0.3, 0.6, 2, 4))
    else:
        assert g.steps == pytest.approx(2 / (g.alpha * p.mu), rel=0.11)


def test_no_term_of_the_pl_bound_is_left_out():
    """At a large rank r / (r + 2) is 1, and all three floors are told apart. Kills: no clipping term (0.02 %)."""
    p = replace(BASE, d=10**7, r=10.0**6, n=10**12)
    assert contracted(p, pl_dpzero(p).steps) == pytest.approx(pl_dpzero(p).bound, rel=1e-5)


def contracted_unclipped(theorem, p, T):
    """What DPGD-0th's and DP-GD's recursions sum to after T steps with the noise of T, and their rate."""
    g = theorem(p)
    s2 = noise.sigma(g.clip, T, p.n, p.epsilon, p.k) ** 2
    if theorem is pl_dp_gd:
        rate, added = p.mu / p.l, p.r * s2 / (2 * p.l)
    else:
        rate = g.alpha * p.mu / 2
        added = g.alpha**2 * p.l * p.r * s2 / 2 + g.alpha * (p.l * g.zo_eps) ** 2 * p.d**3 / 4
    return math.exp(-rate * T) * p.gap + added / rate, rate


@pytest.mark.parametrize("theorem", [pl_dpgd_zeroth, pl_dp_gd])
@given(p=PROBLEMS, share=st.floats(0.01, 1))
def test_the_other_pl_bounds_are_what_their_recursions_sum_to(theorem, p, share):
    """An equality; nothing is ever clipped; and another T, or a smaller lambda, would not do much better.

    Kills: noise or smoothing left out or halved, a threshold without d, T from another contraction.
    """
    p = replace(p, mu=share * p.l)
    g = theorem(p)
    total, rate = contracted_unclipped(theorem, p, g.steps)
    assert g.bound == pytest.approx(total, rel=1e-9)
    assert g.clip == (p.L if theorem is pl_dp_gd else p.L * p.d)  # the longest that a record's estimate can be
    if g.steps > 1.1 / rate:
        assert total < 1.5 * min(contracted_unclipped(theorem, p, g.steps * c)[0] for c in (0.1, 0.3, 0.6, 2, 4))
    else:
        assert g.steps == pytest.approx(1 / rate, rel=0.11)
    smoothing = (p.l * g.zo_eps) ** 2 * p.d**3 / (2 * p.mu)
    assert smoothing <= 0.5 * (g.bound - math.exp(-rate * g.steps) * p.gap) * CLOSE


def test_corollary_f2_is_a_rank_of_d():
    """alpha = 1 / (4 l d) there, and the same d^3; a rank of d - 1, too, may step as far. Kills: r + 2 everywhere."""
    p = replace(BASE, d=50, r=50.0)
    assert pl_dpgd_zeroth(p).alpha == 1 / (4 * p.l * 50) == theorem_1(p).alpha
    assert pl_dpgd_zeroth(replace(p, r=49.0)).alpha == 1 / (4 * p.l * 50)
    assert pl_dpgd_zeroth(replace(p, r=47.0)).alpha == 1 / (4 * p.l * 49) == theorem_2(replace(p, r=47.0)).alpha
    small, large = (pl_dpgd_zeroth(replace(BASE, n=10**12, d=d, r=float(d))).bound for d in (10**3, 10**5))
    assert math.log(large / small) / math.log(100) == pytest.approx(3, abs=0.2)  # less its logarithm


def test_orders_under_pl_of_the_vector_methods():
    """kappa L^2 d^2 r / (mu b^2) and kappa L^2 r / (mu b^2), times a logarithm."""
    many = {"n": 10**12}
    assert slope(pl_dpgd_zeroth, "d", 10**4, 10**6, **many) == pytest.approx(2, abs=0.2)
    assert slope(pl_dp_gd, "d", 10**4, 10**8) == 0
    for theorem in (pl_dpgd_zeroth, pl_dp_gd):
        assert slope(theorem, "r", 100, 10**4, **many) == pytest.approx(1, abs=0.1)
        assert slope(theorem, "n", 10**12, 10**15) == pytest.approx(-2, abs=0.2)
        assert slope(theorem, "mu", 0.01, 0.1, **many) == pytest.approx(-2, abs=0.15)
        assert slope(theorem, "L", 2, 20, **many) == pytest.approx(2, abs=0.2)
        with pytest.raises(Refusal, match="PL constant"):
            theorem(replace(BASE, mu=None))


@pytest.mark.parametrize("theorem", UNDER_PL.values())
def test_contradictions_under_pl_are_told(theorem):
    """A gap that L and mu forbid, a bound above the gap; and, for DPZero alone, a gap that B forbids."""
    assert theorem(replace(BASE, n=10**12)).fails == ()
    assert "contradicts PL" in theorem(replace(BASE, n=10**12, gap=20.1, B=100.0)).fails[0]  # L^2 / (2 mu) = 20
    assert theorem(replace(BASE, n=10**12, gap=19.9, B=100.0)).fails == ()
    few = theorem(replace(BASE, n=10))
    assert few.bound > BASE.gap
    assert "says nothing" in few.fails[0]
    assert failing_under_pl(BASE, 0.999 * BASE.gap) == ()
    assert "says nothing" in failing_under_pl(BASE, BASE.gap)[0]
    told = theorem(replace(BASE, n=10**12, B=0.34)).fails  # 2 B is below the gap of 0.7
    assert told == () if theorem is not pl_dpzero else "2 B" in told[0]
    assert theorem(replace(BASE, n=10**12, B=0.36)).fails == ()


def test_the_orders_under_pl():
    """kappa L^2 r log / (mu n^2 epsilon^2): no d but in logarithms, and kappa / mu."""
    assert slope(pl_dpzero, "n", 10**9, 10**12) == pytest.approx(-2, abs=0.2)
    assert slope(pl_dpzero, "r", 50, 5000) == pytest.approx(1, abs=0.1)
    assert slope(pl_dpzero, "d", 10**4, 10**8) < 0.03
    assert slope(pl_dpzero, "mu", 0.01, 0.1) == pytest.approx(-2, abs=0.15)
    assert slope(pl_dpzero, "d", 10**4, 10**8, of=lambda g: g.steps) == pytest.approx(0, abs=0.01)
    with pytest.raises(Refusal, match="PL constant"):
        pl_dpzero(replace(BASE, mu=None))


@pytest.mark.parametrize(
    "wrong",
    [
        *({name: x} for name in ("n", "d", "L", "l", "gap", "epsilon", "B") for x in (0, -1, math.nan, math.inf)),
        {"r": 10**4 + 1.0}, {"r": 0.5}, {"r": math.nan},
        {"mu": 3.5}, {"mu": 0.0}, {"mu": -1.0}, {"mu": math.nan},
        {"delta": 0.0}, {"delta": 1.0}, {"delta": -1e-5}, {"delta": math.nan}, {"delta": 1e-300},
        *({name: x} for name in ("r", "mu", "delta", "L") for x in ("3", True)), {"r": None}, {"delta": None},
        {"n": 10.5}, {"d": 1e4}, {"n": 10**400}, {"epsilon": 1e-300}, {"L": 1e-21}, {"gap": 1e21},
    ],
)  # fmt: skip
def test_constants_that_are_refused(wrong):
    with pytest.raises(Refusal):
        replace(BASE, **wrong)


EXTREMES = st.sampled_from([1e-20, 1e-3, 1.0, 1e20])


@settings(max_examples=25)
@given(st.sampled_from([1, 10**20]), st.sampled_from([1, 10**20]), st.booleans(), EXTREMES, EXTREMES, EXTREMES,
       EXTREMES, EXTREMES, st.sampled_from([1e-200, 1e-6, 1 - 1e-16]), st.booleans())  # fmt: skip
def test_what_is_not_refused_is_answered(n, d, full, L, l, gap, epsilon, B, delta, exact):
    """At the ends of what is allowed every theorem has finite numbers. Kills: limits of 1e30."""
    p = Problem(
        n=n, d=d, r=float(d) if full else 1.0, L=L, l=l, gap=gap, epsilon=epsilon, B=B, delta=delta, mu=l, exact=exact
    )  # fmt: skip
    theorems = (*THEOREMS.values(), *UNDER_PL.values(), sharper, lambda p: sharper(p, vector=True))
    for q in (p, replace(p, mu=1e-20)):
        for theorem in theorems:
            g = theorem(q)
            assert all(math.isfinite(x) for x in g[:-1])
            assert min(g[0], g[1], g[3], g[4], g[5]) > 0
        for made in (stagewise(q), constant(q)):
            assert math.isfinite(made.bound)


def test_a_rank_of_d_and_a_mu_of_l_are_allowed():
    p = replace(BASE, r=float(BASE.d), mu=BASE.l)
    assert np.isfinite(pl_dpzero(p).bound)
