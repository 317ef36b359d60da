"""Exact deltas of short runs, by formulas and quadrature in thirty digits, without any accountant.

A run releases one number a step. F0 is the number's law without the record, F1 with it; l = ln(dF1 / dF0). Sampled at
rate q the two neighbours have the laws F0 and (1-q) F0 + q F1, or under replace-one (1-q) F0 + q F(+1) and
(1-q) F0 + q F(-1). With P over Q the loss is L = ln(dP / dQ), and the hockey-stick divergence of T steps is

    delta_T(t) = E_{x ~ P}[delta_{T-1}(t - L(x))],    delta_1(t) = P(L > t) - e^t Q(L > t).

Write the file anew with ``python -m tests.golden.make``.
"""

import json
from itertools import combinations_with_replacement
from pathlib import Path

import mpmath as mp

FILE = Path(__file__).with_name("deltas.json")
mp.mp.dps = 30


class Gaussian:
    """N(0, m^2) against N(1, m^2): l(x) = (2x - 1) / (2 m^2)."""

    def __init__(self, multiplier):
        self.m = mp.mpf(multiplier)

    def above(self, c):
        """(F0(l > c), F1(l > c))."""
        x = self.m**2 * c + mp.mpf(1) / 2
        return mp.ncdf(-x / self.m), mp.ncdf((1 - x) / self.m)

    def loss(self, x):
        return (2 * x - 1) / (2 * self.m**2)

    def expect(self, g, weights, kinks):
        """The mean of g(l(x)) under weights[0] F0 + weights[1] F1."""
        ends = [-14 * self.m, 1 + 14 * self.m, *(self.m**2 * c + mp.mpf(1) / 2 for c in kinks)]
        inner = [k * self.m for k in range(-14, 16)]
        points = sorted({x for x in (*ends, *inner) if ends[0] <= x <= ends[1]})
        density = [lambda x: mp.npdf(x, 0, self.m), lambda x: mp.npdf(x, 1, self.m)]
        return mp.quad(lambda x: g(self.loss(x)) * sum(w * f(x) for w, f in zip(weights, density, strict=True)), points)


class Laplace:
    """Laplace of scale m around 0 against around 1: l is -1/m left of 0, 1/m right of 1, straight between."""

    def __init__(self, multiplier):
        self.m = mp.mpf(multiplier)

    def above(self, c):
        if c >= 1 / self.m:
            return mp.mpf(0), mp.mpf(0)
        if c < -1 / self.m:
            return mp.mpf(1), mp.mpf(1)
        x = (1 + self.m * c) / 2
        return mp.exp(-x / self.m) / 2, 1 - mp.exp(-(1 - x) / self.m) / 2

    def expect(self, g, weights, kinks):
        far = mp.exp(-1 / self.m) / 2
        atoms = g(-1 / self.m) * (weights[0] / 2 + weights[1] * far)
        atoms += g(1 / self.m) * (weights[0] * far + weights[1] / 2)
        points = sorted({mp.mpf(0), mp.mpf(1), *(x for c in kinks if 0 < (x := (1 + self.m * c) / 2) < 1)})

        def inner(x):
            density = (weights[0] * mp.exp(-x / self.m) + weights[1] * mp.exp(-(1 - x) / self.m)) / (2 * self.m)
            return g((2 * x - 1) / self.m) * density

        return atoms + mp.quad(inner, points)


def divergence(law, q, steps, t, adding):
    """delta_T(t), P being the law with the record, or without it when ``adding``."""
    q = mp.mpf(q)

    def threshold(t):
        """The l at which the loss is t; None when every loss is above (or, adding, below)."""
        level = mp.exp(-t if adding else t) - (1 - q)
        return mp.log(level / q) if level > 0 else None

    if steps == 1:
        c = threshold(t)
        if c is None:
            return mp.mpf(0) if adding else 1 - mp.exp(t)
        s0, s1 = law.above(c)
        if adding:
            s0, s1 = 1 - s0, 1 - s1
            return s0 - mp.exp(t) * ((1 - q) * s0 + q * s1)
        return (1 - q) * s0 + q * s1 - mp.exp(t) * s0

    def loss(l):
        told = mp.log(1 - q + q * mp.exp(l))
        return -told if adding else told

    # delta_{T-1} has kinks at the atoms of the remaining loss and at the ends of its range.
    ends = [mp.log(1 - q)] if isinstance(law, Gaussian) else [mp.log(1 - q + q * mp.exp(s / law.m)) for s in (-1, 1)]
    sums = {mp.fsum(each) for each in combinations_with_replacement(ends, steps - 1)}
    kinks = [threshold(t - (-s if adding else s)) for s in sums]
    weights = (mp.mpf(1), mp.mpf(0)) if adding else (1 - q, q)
    return law.expect(
        lambda l: divergence(law, q, steps - 1, t - loss(l), adding), weights, [c for c in kinks if c is not None]
    )


def replaced(m, q, t):
    """delta_1(t) of (1-q) N(0) + q N(1) against (1-q) N(0) + q N(-1): a quadratic for the x where the loss is t."""
    m, q = mp.mpf(m), mp.mpf(q)
    a, e = q * mp.exp(-1 / (2 * m**2)), mp.exp(t)
    b = (1 - q) * (1 - e)
    x = m**2 * mp.log((-b + mp.sqrt(b**2 + 4 * a**2 * e)) / (2 * a))
    p = (1 - q) * mp.ncdf(-x / m) + q * mp.ncdf((1 - x) / m)
    return p - e * ((1 - q) * mp.ncdf(-x / m) + q * mp.ncdf((-1 - x) / m))


def cases():
    for m in ("0.5", "1", "3"):
        for steps in (1, 3, 100):
            for eps in ("0.1", "1", "6"):  # mu = sqrt(T) / m, one Gaussian
                one = Gaussian(mp.mpf(m) / mp.sqrt(steps))
                yield "gaussian", m, "1", steps, eps, divergence(one, 1, 1, mp.mpf(eps), False)
    for name, law in (("gaussian", Gaussian), ("laplace", Laplace)):
        for m, q in (("0.5", "0.1"), ("1", "0.02"), ("1", "0.5"), ("4", "0.3")):
            for steps in (1, 2):
                for eps in ("0.05", "0.5", "2"):
                    both = [divergence(law(m), q, steps, mp.mpf(eps), adding) for adding in (False, True)]
                    yield name, m, q, steps, eps, max(both)
    for m in ("0.5", "2", "5"):
        for steps in (1, 2, 3):
            for eps in ("0.1", "0.5", "1.5"):
                yield "laplace", m, "1", steps, eps, divergence(Laplace(m), 1, steps, mp.mpf(eps), False)


def rows():
    """What is neither certain nor hopeless, to fifteen digits."""
    for row in all_rows():
        if 1e-12 < float(row[-1]) < 0.99:
            yield row


def all_rows():
    for name, m, q, steps, eps, delta in cases():
        yield [name, m, q, steps, "add-remove", eps, mp.nstr(delta, 15)]
    for m, q in (("0.5", "0.1"), ("1", "0.02"), ("4", "0.3")):
        for eps in ("0.05", "0.5", "2"):
            yield ["gaussian", m, q, 1, "replace-one", eps, mp.nstr(replaced(m, q, mp.mpf(eps)), 15)]


if __name__ == "__main__":
    told = {"columns": ["mechanism", "multiplier", "rate", "steps", "relation", "epsilon", "delta"]}
    lines = ",\n    ".join(json.dumps(row) for row in rows())
    head = json.dumps(told | {"mpmath": mp.__version__, "digits": mp.mp.dps})
    FILE.write_text(f'{head[:-1]},\n "rows": [\n    {lines}\n]}}\n')
