"""Every theorem's parameters and bound as functions of the problem's constants.

k stands for log(e + epsilon / delta), or, by ``Problem(exact=True)``, for the constant of exact composition (smaller,
but for a very large epsilon; see ``dpzo.theory.noise``), with which the same proofs hold. Bounds are on
E ||grad F(x_tau)||^2, tau uniform on the steps, except those under PL, which are on E F(x_T) - F*.
"""

import math
from typing import NamedTuple

from dpzo.errors import Refusal
from dpzo.theory import noise
from dpzo.theory.clipped import Law, reach, spread
from dpzo.theory.problem import Problem, failing_under_pl

__all__ = [
    "THEOREMS",
    "UNDER_PL",
    "Guarantee",
    "Problem",
    "dp_gd",
    "pl_dp_gd",
    "pl_dpgd_zeroth",
    "pl_dpzero",
    "sharper",
    "theorem_1",
    "theorem_2",
    "theorem_3",
]


class Guarantee(NamedTuple):
    """What to run and what is proved of it.

    Attributes:
        alpha: step size; ``zo_eps``: the largest lambda allowed.
        steps: T, a real number. For a run of ceil(T) steps take the noise of ceil(T) steps (``dpzo.theory.noise``),
            which is more than ``sigma``; the bound then grows by at most the factor 1 + 1/T.
        clip: C, in units of the derivative, or of a vector's norm for DPGD-0th and DP-GD.
        sigma: standard deviation of the noise on the mean, at this T.
        bound: the right-hand side.
        fails: conditions of the theorem that these constants do not meet, and, under PL, that the bound says nothing;
            it is claimed when there are none.
    """

    alpha: float
    steps: float
    zo_eps: float
    clip: float
    sigma: float
    bound: float
    fails: tuple[str, ...]


def _guarantee(p: Problem, alpha: float, steps: float, zo_eps: float, clip: float, bound: float) -> Guarantee:
    fails = [] if steps >= 1 else [f"T = {steps:.3g} is below 1: the noise of a single step already exceeds the bound"]
    return Guarantee(alpha, steps, zo_eps, clip, noise.sigma(clip, steps, p.n, p.epsilon, p.k), bound, tuple(fails))


def theorem_1(p: Problem) -> Guarantee:
    """DPGD-0th under smoothness alone: O(d^(3/2)).

    Source: Zhang et al. 2024, Theorem 1.
    """
    rate = math.sqrt(p.d) / p.budget
    return _guarantee(
        p,
        alpha=1 / (4 * p.l * p.d),
        steps=1 / rate,
        zo_eps=4 * p.L / (p.l * p.d) * math.sqrt(rate),
        clip=p.L * p.d,
        bound=16 * (p.gap * p.l + 2 * p.L**2) * p.d * rate,
    )


def theorem_2(p: Problem) -> Guarantee:
    """DPGD-0th under low effective rank: O(d sqrt(r)), still linear in d.

    Source: Zhang et al. 2024, Theorem 2.
    """
    rate = math.sqrt(p.r) / p.budget
    return _guarantee(
        p,
        alpha=1 / (4 * p.l * (p.r + 2)),
        steps=(p.r + 2) / (p.d * rate),
        zo_eps=4 * p.L / (p.l * p.d) * math.sqrt(rate),
        clip=p.L * p.d,
        bound=16 * (p.gap * p.l + 2 * p.L**2) * p.d * rate,
    )


def theorem_3(p: Problem) -> Guarantee:
    """DPZero under low effective rank: O(log(d) sqrt(r)).

    Source: Zhang et al. 2024, Theorem 3; the argument of the clip's logarithm is rederived from its proof.
    """
    rate = math.sqrt(p.r) / p.budget
    tilde = p.L * math.sqrt(_log_of_clip(p))
    return _guarantee(
        p,
        alpha=1 / (4 * p.l * (p.r + 2)),
        steps=(p.r + 2) / (4 * rate),
        zo_eps=min(4 * (2 - math.sqrt(2)) * tilde, p.L / math.sqrt(p.d) * math.sqrt(rate)) / (p.l * p.d),
        clip=4 * tilde,
        bound=(64 * (p.gap * p.l + tilde**2) + 2 * p.L**2) * rate,
    )


def _log_of_clip(p: Problem) -> float:
    inside = (p.r + 2) * p.n * p.budget**2 * (p.d + 8 * (p.r + 2) * p.B * p.l / p.L**2) / p.r
    return max(1.0, math.log(2 * math.sqrt(2 * math.pi) * inside))


def sharper(p: Problem, *, vector: bool = False, directions: int = 1, law: Law = "sphere") -> Guarantee:
    """DPZero, DP-AggZO for several ``directions``, or DPGD-0th for ``vector``: theorem 3 without d, n and B.

    The bound is (32 gap l + 8 K C^2 + 9 L^2) sqrt(r) / b, in which C sqrt(K) is L (c + 1 / (4 c)) for one direction and
    L (1 + c / sqrt(K) + 1 / (4 c)) for more, c^2 = 2 log max(8, b / (2 sqrt(r))): the dimension is in lambda alone. For
    a vector of noise sqrt(r d) stands for sqrt(r), and clip is C sqrt(d). L need hold at x_0 .. x_T only; if it does in
    a region the bound is on runs that stay there.

    Raises:
        Refusal: a vector along several directions or along Gaussian ones, an unknown law, or too many directions.

    Source: ours, Theorem thm-no-dimension of the book.

    >>> p = Problem(n=10**6, d=10**8, r=20.0, L=1.0, l=1.0, gap=1.0, epsilon=2.0, delta=1e-6)
    >>> [round(g.clip, 1) for g in (theorem_3(p), sharper(p))]
    [31.1, 4.7]
    """
    if vector and (directions > 1 or law == "gaussian"):
        raise Refusal("one direction of length sqrt(d) for a vector", (directions, law), "Take the sphere.")
    K, ν = directions, spread(p.r, p.d, directions, law)
    times = p.d if vector else 1
    rate = math.sqrt(p.r * times) / p.budget
    c = math.sqrt(2 * math.log(max(8.0, 1 / (2 * rate))))
    t, unlimited = reach(c, p.d, K, law), reach(c, p.d, K, "gaussian")
    smooth = p.r * (p.r + 2) * (1 + (p.r + 4) / (2 * ν))
    zo_eps = p.L / p.l * min(1 / (4 * c * math.sqrt(K) * (p.d + 2 * unlimited**2)), math.sqrt(rate / smooth))
    C = p.L * (t / K + 1 / (4 * c * math.sqrt(K)))
    return _guarantee(
        p,
        alpha=1 / (4 * p.l * ν),
        steps=ν / (2 * rate),
        zo_eps=zo_eps,
        clip=C * math.sqrt(times),
        bound=(32 * p.gap * p.l + 8 * K * C**2 + 9 * p.L**2) * rate,
    )


def dp_gd(p: Problem) -> Guarantee:
    """DP gradient descent, the first-order reference: O(sqrt(r)).

    From the descent lemma with alpha = 1/l: avg E ||grad F||^2 <= 2 l gap / T + r sigma^2, where sigma^2 grows as T.

    Source: the orders are those of Zhang et al. 2024, Table 1; constants and proof are ours,
    Proposition prop-pl-naive of the book.
    """
    rate = math.sqrt(p.r) / p.budget
    return _guarantee(p, 1 / p.l, 1 / rate, 0.0, p.L, (2 * p.gap * p.l + 32 * p.L**2) * rate)


def pl_dpgd_zeroth(p: Problem) -> Guarantee:
    """DPGD-0th under PL, last iterate: error O(kappa L^2 d^2 r log / (mu n^2 epsilon^2)); r = d: smoothness.

    One step: E gap' <= (1 - alpha mu / 2) gap + alpha^2 l r sigma^2 / 2 + alpha l^2 lambda^2 d^3 / 4, for alpha up to
    1 / (4 l (r + 2)) and up to 1 / (4 l d). As no record's estimate is longer than C = L d, nothing is clipped.

    Raises:
        Refusal: no PL constant.

    Source: the orders are those of Zhang et al. 2024, Corollaries F.2 and F.3; constants and proof are ours,
    Proposition prop-pl-naive of the book.
    """
    alpha = 1 / (4 * p.l * min(p.r + 2, p.d))
    return _under_pl(p, alpha, 2 / (alpha * p.pl), p.L * p.d, alpha * p.l * p.r / p.pl, smoothed=True)


def pl_dp_gd(p: Problem) -> Guarantee:
    """DP-GD under PL, last iterate: error O(kappa L^2 r log / (mu n^2 epsilon^2)).

    One step of alpha = 1/l: E gap' <= (1 - mu/l) gap + r sigma^2 / (2 l).

    Raises:
        Refusal: no PL constant.

    Source: ours, Proposition prop-pl-naive of the book.
    """
    return _under_pl(p, 1 / p.l, p.l / p.pl, p.L, p.r / (2 * p.pl), smoothed=False)


def pl_dpzero(p: Problem) -> Guarantee:
    """DPZero under PL and low effective rank, last iterate: error O(kappa L^2 r log / (mu n^2 epsilon^2)).

    One step of theorem 3's proof contracts the gap: E gap' <= (1 - alpha mu / 2) gap + alpha^2 l r sigma^2 / 2 + (alpha
    l^2 lambda^2 d^3) / 4 + alpha (L^2 d + 8 B l (r + 2)) P(some value is clipped). The noise's floor is alpha l r
    sigma^2 / mu, at most sigma^2 / (4 mu); the clip's, with C = 4 Ltilde, is at most 2 L^2 T / (mu budget^2).

    Raises:
        Refusal: no PL constant.

    Source: the orders are those of Zhang et al. 2024, Corollary F.4; the constants are ours, Proposition prop-pl.
    """
    alpha, clip = 1 / (4 * p.l * (p.r + 2)), 4 * p.L * math.sqrt(_log_of_clip(p))
    rare = 2 * p.L**2 / (p.pl * p.budget**2)
    g = _under_pl(p, alpha, 2 / (alpha * p.pl), clip, 1 / (4 * p.pl), smoothed=True, rare=rare)
    if p.gap > 2 * p.B:
        return g._replace(fails=(f"a gap of {p.gap:.3g}, above 2 B = {2 * p.B:.3g}, contradicts |F| <= B", *g.fails))
    return g


def _under_pl(
    p: Problem, alpha: float, scale: float, clip: float, noisy: float, *, smoothed: bool, rare: float = 0.0
) -> Guarantee:
    # exp(-T / scale) gap + T (noisy sigma_1^2 + rare) + smoothing, sigma_1 the noise of a run of one step. T brings the
    # first down to the target, what the noise of ``scale`` steps leaves, and smoothing adds half of it.
    floor = noisy * noise.sigma(clip, 1.0, p.n, p.epsilon, p.k) ** 2
    target = scale * floor
    steps = scale * (max(1.0, math.log(p.gap / target)) if p.gap > target else 1.0)
    zo_eps = smoothing = 0.0
    if smoothed:
        # The first branch keeps the smoothing from causing clips, as in theorem 3.
        zo_eps = min((2 - math.sqrt(2)) * clip, math.sqrt(target * p.pl / p.d)) / (p.l * p.d)
        smoothing = (p.l * zo_eps) ** 2 * p.d**3 / (2 * p.pl)
    bound = math.exp(-steps / scale) * p.gap + steps * (floor + rare) + smoothing
    g = _guarantee(p, alpha, steps, zo_eps, clip, bound)
    return g._replace(fails=(*g.fails, *failing_under_pl(p, bound)))


THEOREMS = {
    "DPGD-0th, theorem 1": theorem_1,
    "DPGD-0th, theorem 2": theorem_2,
    "DPZero, theorem 3": theorem_3,
    "DP-GD": dp_gd,
}
UNDER_PL = {"DPGD-0th": pl_dpgd_zeroth, "DPZero": pl_dpzero, "DP-GD": pl_dp_gd}
