"""The constants that theorems ask for, and what contradicts them."""

import math
from dataclasses import dataclass

from dpzo.errors import Refusal, positive, whole
from dpzo.theory import noise

_LEAST, _MOST = 1e-20, 1e20  # beyond, products of the constants leave the range of floats


@dataclass(frozen=True, kw_only=True)
class Problem:
    """The constants of the assumptions, and the budget.

    Attributes:
        n: records; replace-one neighbours.
        d: dimension.
        r: effective rank, Tr H <= r ||H||, from 1 to d.
        L: every record's loss is L-Lipschitz; under PL its gradient is at most L long on a region G, see ``level``.
        l: F is l-smooth (for theorem 3 and for ours every record's loss).
        gap: F(x_0) - F*.
        epsilon, delta: the budget of the whole run.
        B: |F| <= B along the run (theorem 3 alone; it enters by a logarithm).
        mu: the PL constant on G, for the corollaries under PL.
        level: F - F* up to which L and mu hold, G = {F - F* <= level}; None: on some region G that is not told. They
            never hold on all of R^d: going uphill F - F* grows without end by PL, and PL with L keeps it below
            L^2 / (2 mu). So bounds under PL are on E (F(x_T) - F*) 1{x_0 .. x_T in G}.
        exact: noise by exact composition, or by the paper's Lemma 2.2.

    Raises:
        Refusal: constants out of range (n and d whole, all but delta from 1e-20 to 1e20), or contradictory ones (r > d,
            mu > l, a gap above the level, a level above L^2 / (2 mu): under PL no positive gap goes with L everywhere).
    """

    n: int
    d: int
    r: float
    L: float
    l: float
    gap: float
    epsilon: float
    delta: float
    B: float = 1.0
    mu: float | None = None
    level: float | None = None
    exact: bool = False

    def __post_init__(self) -> None:
        whole("n", self.n)
        whole("d", self.d)
        for name in ("n", "d", "r", "L", "l", "gap", "epsilon", "B", *(["mu"] if self.mu is not None else [])):
            _moderate(name, getattr(self, name))
        if not 1 <= self.r <= self.d:
            raise Refusal(f"an effective rank from 1 to d = {self.d}", self.r, "r is Tr H over the norm of H.")
        if self.mu is not None and self.mu > self.l:
            raise Refusal(f"a PL constant above 0 and at most l = {self.l:g}", self.mu, "PL implies mu <= l.")
        if self.level is not None:
            self._check_level(self.level)
        noise.lemma_constant(self.epsilon, self.delta)

    def _check_level(self, level: float) -> None:
        if isinstance(level, bool) or not isinstance(level, int | float) or not level >= self.gap:
            raise Refusal(f"a level of at least the gap, {self.gap:g}", level, "x_0 is to lie in G.")
        if self.mu is not None and level > (most := self.L**2 / (2 * self.mu)):
            told = "By PL a gradient is longer than L there: L and PL hold together in a region only."
            raise Refusal(f"a level of at most L^2 / (2 mu) = {most:.3g}", level, told)

    @property
    def k(self) -> float:
        """The constant of the noise."""
        of = noise.exact_constant if self.exact else noise.lemma_constant
        return of(self.epsilon, self.delta)

    @property
    def budget(self) -> float:
        """n epsilon / sqrt(k): how many standard errors of noise the data are worth."""
        return self.n * self.epsilon / math.sqrt(self.k)

    @property
    def pl(self) -> float:
        """mu, for the theorems that need it.

        Raises:
            Refusal: no PL constant.
        """
        if self.mu is None:
            raise Refusal("a PL constant mu", None, "Give Problem(mu=...), or use theorem_3, which needs none.")
        return self.mu


def failing_under_pl(p: Problem, bound: float) -> tuple[str, ...]:
    """Say why ``bound`` on F - F* is not claimed or says nothing: PL and L contradict the gap, or it is above the gap.

    x_0 is in the region G on which PL and L hold, so F(x_0) - F* <= ||grad F(x_0)||^2 / (2 mu) <= L^2 / (2 mu). That
    they hold on all of R^d contradicts any positive gap; ``Problem`` refuses it, as ``level=math.inf``.
    """
    fails = []
    if p.gap > (most := p.L**2 / (2 * p.pl)):
        fails.append(f"a gap of {p.gap:.3g}, above L^2 / (2 mu) = {most:.3g}, contradicts PL")
    if bound >= p.gap:
        fails.append(f"the bound {bound:.3g} is not below the gap {p.gap:.3g}: it says nothing")
    return tuple(fails)


def _moderate(name: str, value: float) -> None:
    positive(name, value)
    if not _LEAST <= value <= _MOST:
        came = f"{value:g}" if value < 1 else "more"
        raise Refusal(f"{name} to be from {_LEAST:g} to {_MOST:g}", came, "Measure in other units.")
