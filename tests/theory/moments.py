"""Moments of the three laws of u, derived: integrals and derivatives by sympy, nothing looked up."""

from functools import cache
from math import prod

import sympy as sp

LAWS = ("gaussian", "sphere", "rademacher")


@cache
def _generating():
    z, t = sp.symbols("z t", real=True)
    return sp.simplify(sp.integrate(sp.exp(t * z - z**2 / 2), (z, -sp.oo, sp.oo)) / sp.sqrt(2 * sp.pi)), t


@cache
def normal_moment(k):
    """E z^k of a standard normal: the k-th derivative at 0 of E e^(tz), itself integrated from the density."""
    generating, t = _generating()
    return sp.diff(generating, t, k).subs(t, 0)


@cache
def _power_integral():
    r, s = sp.symbols("r s", positive=True)
    return sp.integrate(r**s * sp.exp(-(r**2) / 2), (r, 0, sp.oo)), s


@cache
def radius_moment(k, d):
    """E |z|^k of a standard normal vector in R^d (d may be a symbol): its length has density r^(d-1) e^(-r^2/2) / c."""
    integral, s = _power_integral()
    return sp.factor(sp.gammasimp(integral.subs(s, k + d - 1) / integral.subs(s, d - 1)))


@cache
def moment(law, powers, d):
    """E prod_i u_i^powers_i; ``powers`` may leave out coordinates that do not occur."""
    if law == "rademacher":
        return prod(sp.Rational(1**k + (-1) ** k, 2) for k in powers)
    independent = prod(normal_moment(k) for k in powers)
    if law == "gaussian" or independent == 0:
        return independent
    # z = |z| s with |z| and s independent, and u = sqrt(d) s: E z^powers = E |z|^k E s^powers.
    k = sum(powers)
    return sp.factor(d ** sp.Rational(k, 2) * independent / radius_moment(k, d))


def mean(expression, directions, law, normals=(), noise=1):
    """E of a polynomial in independent vectors u (tuples of symbols) and N(0, noise) scalars, monomial by monomial."""
    symbols = [s for u in directions for s in u] + list(normals)
    total = sp.Integer(0)
    for powers, coefficient in sp.Poly(sp.expand(expression), *symbols).terms():
        value, at = coefficient, 0
        for u in directions:
            value *= moment(law, powers[at : at + len(u)], sp.Integer(len(u)))
            at += len(u)
        for k in powers[at:]:
            value *= normal_moment(k) * sp.sympify(noise) ** sp.Rational(k, 2)
        total += value
    return sp.expand(total)


def coordinates(name, d):
    """d symbols for a vector."""
    return sp.symbols(f"{name}1:{d + 1}", real=True)
