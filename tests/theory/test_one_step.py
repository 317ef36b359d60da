"""The one-step lemmas' terms, each of them needed: what remains of a bound where its worst case is looked for.

On F = sum_j (a_j x_j |x_j| / 2 + b_j x_j) at 0 the difference errs by as much as -H <= Hessian <= H allows, whatever
lambda is: by (lambda / 2) sum_j a_j u_j |u_j|. At a b that it nearly cancels a step hardly descends. So shares of a
bound here are shares of its smoothing term, and lambda's size drops out of them.
"""

import math

import numpy as np
import pytest
import sympy as sp
from hypothesis import given
from hypothesis import strategies as st

from tests.theory.steps import allowed, in_the_plane, kinked, of_clips, of_dimension, of_one_coordinate

TILTS = np.linspace(-2, 0, 201)  # b over l lambda: the error's mean against a slope is positive


def reached(d, smoothing=None, slope=1.0):
    """The largest share of the smoothing term that a step is above the other terms, over tilts; r = 1, lambda large.

    ``slope`` times the gradient's term is taken for it.
    """
    l, λ, α = 1.3, 40.0, 1 / (4 * 1.3 * 3)
    whole = allowed(α, 0.0, l=l, r=1, λ=λ, σ=0, smoothing=smoothing)
    shares = []
    for b in TILTS * l * λ:
        change = of_one_coordinate(lambda x, b=b: l * x * np.abs(x) / 2 + b * x, d, 0.0, λ, α)
        others = slope * allowed(α, b * b, l=l, r=1, λ=0, σ=0)
        shares.append((change - others) / whole)
    return max(shares)


@given(
    st.tuples(st.floats(0, 1), st.floats(0.1, 1)), st.tuples(st.floats(-2, 2), st.floats(-2, 2)),
    st.floats(0, 2), st.floats(0.1, 50), st.floats(0.1, 1),
)  # fmt: skip
def test_all_forms_hold_on_the_worst_functions(a, b, σ, scale, share):
    """In the plane, with noise, at any lambda (what it scales is scaled with it). Kills: lambda for lambda^2."""
    a, b, σ = np.array(a), scale * np.array(b), scale * σ
    l, r = a.max(), a.sum() / a.max()
    α, λ = share / (4 * l * (r + 2)), scale
    change, _ = in_the_plane(kinked(a, b), math.inf, σ, λ, α, np.zeros(2))
    for smoothing in (None, *of_dimension(2)):
        bound = allowed(α, b @ b, l=l, r=r, λ=λ, σ=σ, smoothing=smoothing)
        assert change <= bound + 1e-9 * scale**2


def test_the_smoothing_term_is_needed():
    """From 12 % of it in the line to 24 % in high dimension; of the paper's d^3 / 4 and our 9 d^2 / 16 at d = 1.

    Kills: no smoothing term, a tenth of it; 23 % of it where d is large.
    """
    shares = [reached(d) for d in (1, 2, 10, 1000)]
    print("shares of r (3 r + 8) / 16 at r = 1:", shares)
    assert shares == sorted(shares)
    assert shares[0] > 0.11
    assert 0.23 < shares[-1] <= 1
    paper, smaller = (reached(1, smoothing) for smoothing in of_dimension(1))
    print("of d^3 / 4:", paper, "of 9 d^2 / 16:", smaller)
    assert 0.3 < paper <= 1
    assert 0.14 < smaller <= 1


def test_the_gradients_term_is_needed():
    """A coefficient of 3/4 is false, 0.7 is not on these functions; the proof gives 1/4. Kills: 3/4 for 1/4."""
    assert reached(1000, slope=2.8) <= 1
    assert reached(1000, slope=3.0) > 1
    # On quadratics of high dimension it is 1 - q / 8 at the largest step size. Kills: 1/4 -> 0.9.
    α, b = 1 / 12, 0.7
    change = of_one_coordinate(lambda x: x * x / 2 + b * x, 1000, 0.0, 1.0, α)
    assert change == pytest.approx(-α * b * b * (1 - 1000 / 1002 / 8), rel=1e-4)


@pytest.mark.parametrize("d", [1, 1000])
def test_the_noises_term_is_attained(d):
    """On a quadratic, at its least point: an equality. Kills: noise halved, or a thousandth less."""
    α, σ = 0.03, 1.7
    change = of_one_coordinate(lambda x: x * x / 2, d, σ, 1.0, α)
    assert change == pytest.approx(allowed(α, 0.0, l=1, r=1, λ=0, σ=σ), rel=1e-6)


def test_the_clips_term_is_needed():
    """A quarter of it: with a threshold near 0 nothing moves, and the lemma promised a descent. Kills: R / 4.1."""
    α, L = 0.01, 3.0
    change = of_one_coordinate(lambda x: L * x, 1, 0.0, 1.0, α, C=1e-9)
    bound = allowed(α, L**2, l=1e-9, r=1, λ=0, σ=0) + of_clips(α, L=L, d=1, P=1.0)
    assert change <= bound
    assert change > bound - of_clips(α, L=L, d=1, P=1.0) * (1 - 1 / 4.1)


def test_the_proof_sums_to_the_constants():
    """-e w <= (w^2 + e^2) / 2, g^2 <= 2 (w^2 + e^2), |e| <= lambda q / 2 and the moments of q: symbolically.

    The functions above leave room for other constants; this proof leaves none. Kills: 1/4 -> 0.26, 3 r + 8 -> 3 r + 7.
    """
    l, r, λ, S, σ, α, d = sp.symbols("l r lambda S sigma alpha d", positive=True)

    def after(bias2, q2, q3):
        """The mean of -alpha g w + alpha^2 (g^2 + z^2) q / 2, given E e^2, E e^2 q and E w^2 q."""
        w2q = l * (r + 2) * S
        return -α * S + α * (S + bias2) / 2 + α**2 / 2 * (2 * w2q + 2 * q3 + σ**2 * l * r), q2

    largest = 1 / (4 * l * (r + 2))
    e2 = λ**2 / 4 * l**2 * r * (r + 2)
    e2q = λ**2 / 4 * l**3 * r * (r + 2) * (r + 4)
    mine, _ = after(e2, None, e2q)
    claimed = sp.nsimplify(allowed(α, S, l=l, r=r, λ=λ, σ=σ), rational=True)
    assert sp.simplify((mine - claimed).subs(α, largest)) == 0
    # The forms that know d: |E g u - grad F| <= l lambda d^(3/2) / 2 (the paper's) or l lambda sqrt(d), |e| <= l lambda
    # d / 2. What they leave is not negative for 1 <= r <= d.
    for factor, bias2 in zip(of_dimension(d), ((l * λ) ** 2 * d**3 / 4, (l * λ) ** 2 * d), strict=True):
        theirs, _ = after(bias2, None, (l * λ * d / 2) ** 2 * l * r)
        bound = sp.nsimplify(allowed(α, S, l=l, r=r, λ=λ, σ=σ, smoothing=factor), rational=True)
        left = sp.simplify((bound - theirs).subs(α, largest) / (largest * (l * λ) ** 2))
        for at, rank in ((1, 1), (2, 1), (2, 2), (50, 7), (10**6, 10**3)):
            assert left.subs({d: at, r: rank}) >= 0
    # The last one is tight where r is large: d / 2 + d^2 / 16 is 9 d^2 / 16 at d = 1. Kills: 9 -> 8.
    small = sp.simplify((d / 2 + d**2 / 16 - of_dimension(d)[1]).subs(d, 1))
    assert abs(float(small)) < 1e-12
