"""The clip as an error and not as an event: what a step adds to the loss, without the dimension.

A step moves by x' = x - alpha sum_k s_k u_k, s the mean of the records' clipped K-vectors v_i / K plus noise. Let a
record's gradient at x be at most L long. Then c >= 2 says how far above a typical length the threshold is,

    C = L c + l lambda d / 2 for one direction,    C = L (sqrt(K) + c) / K + l lambda d / (2 sqrt(K)) for K >= 2,

and with nu = ``spread``, for alpha <= 1 / (4 l nu),

    E F(x') <= F - (alpha / 4) ||grad F||^2 + smoothing + noise + sampling + clipping,

    smoothing = alpha (l lambda)^2 r (r + 2) (1/4 + (r + 4) / (8 nu)),    noise = alpha^2 l r K sigma^2 / 2,
    sampling = alpha^2 l (1 - q) (sqrt(nu) L + sqrt(r) l lambda d / 2)^2 / (2 B) for Poisson batches of B = q n,
    clipping = alpha L^2 exp(-c^2 / 2).

Neither d nor n is in what clipping costs: it is a mean over records of a mean over u. Gaussian directions, whose length
is not fixed, ask for a little more: see ``threshold``.

Source: ours; Lemmas lem-tilt and lem-descent of the book.
"""

import math
from typing import Literal, NamedTuple, get_args

from dpzo.errors import Refusal, not_negative, positive, whole
from dpzo.theory.problem import Problem

Law = Literal["sphere", "gaussian", "rademacher", "orthonormal"]
LEAST = 2.0  # c, from which on clipping costs alpha L^2 exp(-c^2 / 2) or less


class Step(NamedTuple):
    """What one step adds to E F at most, beside the descent by (alpha / 4) ||grad F||^2.

    L is asked for at the points of the run alone. So all three bounds are on means over those runs that have stayed
    where it holds, a region G: of E ||grad F||^2 1{..}, and of E (F - F*) 1{..}.
    """

    alpha: float
    smoothing: float
    noise: float
    sampling: float
    clipping: float

    @property
    def added(self) -> float:
        """The four together."""
        return self.smoothing + self.noise + self.sampling + self.clipping

    def squared_gradient(self, gap: float, steps: float) -> float:
        """The mean of E ||grad F||^2 over ``steps`` steps from F - F* = ``gap`` is at most this."""
        return 4 * (gap / steps + self.added) / self.alpha

    def under_pl(self, gap: float, steps: float, mu: float) -> float:
        """E F - F* after ``steps`` steps is at most this where ||grad F||^2 >= 2 mu (F - F*)."""
        keep = math.exp(steps * math.log1p(-self.alpha * mu / 2))
        return keep * gap + (1 - keep) * 2 * self.added / (self.alpha * mu)

    def leaving(self, gap: float, steps: float, level: float) -> float:
        """The probability that F - F* exceeds ``level`` within ``steps`` steps is at most this.

        Source: ours, Proposition prop-region of the book, by Ville's inequality.
        """
        return min(1.0, (gap + steps * self.added) / level)


def spread(r: float, d: int, directions: int = 1, law: Law = "sphere") -> float:
    """nu: E ||H^(1/2) U U' a||^2 / K^2 is at most nu l ||a||^2, U the K directions; r + 2 for one.

    (r + K + 1) / K for independent ones; for K <= d orthonormal ones of length sqrt(d) it falls to 1 at K = d, where
    they are all of the space.

    >>> [round(spread(20.0, 1000, K, "orthonormal"), 2) for K in (1, 10, 1000)]
    [21.96, 3.08, 1.0]
    """
    K = _directions(directions, d, law)
    if law == "orthonormal" and d > 1:
        return d * (K * d + d - 2 + (d - K) * r) / (K * (d - 1) * (d + 2))
    return (r + K + 1) / K


def threshold(p: Problem, c: float, zo_eps: float, directions: int = 1, law: Law = "sphere") -> float:
    """C, in units of the derivative, at which clipping costs alpha L^2 exp(-c^2 / 2) a step or less.

    With t = c for one direction and sqrt(K) + c for more it is L t / K + l lambda d / (2 sqrt(K)); t need not be above
    what no slope exceeds (sqrt(d) for orthonormal directions, sqrt(K d) for the sphere and signs), where nothing is
    clipped. For Gaussian directions it is L t / (K sqrt(1 - s)) + l lambda d / (2 (1 - s)), s = l lambda t / L.

    Raises:
        Refusal: c below 2; more than d orthonormal directions; a lambda for which s is above 1/4.

    >>> p = Problem(n=10**6, d=10**8, r=20.0, L=1.0, l=1.0, gap=1.0, epsilon=2.0, delta=1e-6)
    >>> [round(threshold(p, 4.0, 1e-10, K) * math.sqrt(K), 2) for K in (1, 16, 256)]
    [4.0, 2.0, 1.25]
    """
    K = _directions(directions, p.d, law)
    not_negative("zo_eps", zo_eps)
    if not c >= LEAST:
        raise Refusal(f"c from {LEAST:g} on", c, "A smaller threshold is not covered.")
    t = reach(c, p.d, K, law)
    bent = p.l * zo_eps * p.d / 2
    if law != "gaussian":
        return p.L * t / K + bent / math.sqrt(K)
    s = p.l * zo_eps * t / p.L
    if s > 0.25:
        raise Refusal(f"a lambda of at most L / (4 l t) = {p.L / (4 * p.l * t):.3g}", zo_eps, "Take a smaller one.")
    return p.L * t / (K * math.sqrt(1 - s)) + bent / (1 - s)


def reach(c: float, d: int, directions: int = 1, law: Law = "sphere") -> float:
    """t: a threshold at L t / K lets pass all but rare slopes; no more than the most that a slope can be."""
    K = directions
    t = c if K == 1 else math.sqrt(K) + c
    return t if law == "gaussian" else min(t, math.sqrt(d if law == "orthonormal" else K * d))


def step(
    p: Problem,
    *,
    alpha: float,
    zo_eps: float,
    c: float,
    sigma: float,
    directions: int = 1,
    law: Law = "sphere",
    batch: float | None = None,
) -> Step:
    """One step at the threshold ``threshold(p, c, ..)``; ``sigma``: of the noise on each of the K means.

    ``batch`` is the expected size B of Poisson batches, whose sums are divided by it; None: all n records.

    Raises:
        Refusal: a step size above 1 / (4 l nu), a batch above n, or what ``threshold`` refuses.

    Source: ours, Lemma lem-descent of the book.
    """
    K, r, λ = directions, p.r, zo_eps
    ν = spread(r, p.d, K, law)
    positive("alpha", alpha)
    not_negative("sigma", sigma)
    if alpha > (most := 1 / (4 * p.l * ν)) * (1 + 1e-12):
        raise Refusal(f"a step size of at most {most:.6g}", alpha, "Take a smaller one.")
    B = p.n if batch is None else batch
    positive("batch", B)
    if p.n < B:
        raise Refusal(f"a batch of at most n = {p.n} records", B, "Take a smaller one.")
    threshold(p, c, λ, K, law)  # or it is refused
    passes_all = law != "gaussian" and reach(c, p.d, K, law) < reach(c, p.d, K, "gaussian")
    bent = p.l * λ * (p.d + 3 if law == "gaussian" else p.d) / 2  # of a record's slope
    return Step(
        alpha,
        smoothing=alpha * (p.l * λ) ** 2 * r * (r + 2) * (1 / 4 + (r + 4) / (8 * ν)),
        noise=alpha**2 * p.l * r * K * sigma**2 / 2,
        sampling=alpha**2 * p.l * (1 - B / p.n) / B * (math.sqrt(ν) * p.L + math.sqrt(r) * bent) ** 2 / 2,
        clipping=0.0 if passes_all else alpha * p.L**2 * math.exp(-(c**2) / 2),
    )


def clip_cost(c: float, d: int) -> float:
    """Clipping at C = L c + l lambda d / 2, over alpha L^2, for one direction on the sphere or of signs, and any C.

    exp(-c^2 / 2) from c = 2 on, three times that below, at most that of c = 0; and 0 where no slope reaches C.
    """
    if c >= math.sqrt(d) * (1 - 1e-12):
        return 0.0
    return (1.0 if c >= LEAST else 3.0) * math.exp(-(max(c, 0.0) ** 2) / 2)


def _directions(directions: int, d: int, law: Law) -> int:
    if law not in get_args(Law):
        raise Refusal(f"a law among {', '.join(get_args(Law))}", repr(law), "Choose one.")
    whole("directions", directions)
    if law == "orthonormal" and directions > d:
        raise Refusal(f"at most d = {d} orthonormal directions", directions, "There are no more.")
    return directions
