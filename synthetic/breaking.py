"""``python -m synthetic.breaking``: a search for a problem on which the theorem without the dimension is false.

One step of DPZero on problems whose exact expectation is one integral. Two kinds of records, shares p and 1 - p, have
at x = 0 the losses f(x) = a x_1 + k x_1 |x_1| / 2 + (k' / 2) |x_rest|^2, each with its own slope a and its own kink k.
All that the theorem assumes holds there: |a| <= L, |k|, k' <= l, and H = diag(|mean k|, k', .., k'). Two-point
estimates, clip, noise, Poisson sampling and x' are as the algorithm has them; given u_1 all the rest of the mean is
known. (Sampling's noise is a normal number of the same variance, on which alone the theorem rests.) The search
maximises

    (E F(x') - F + (alpha / 4) ||grad F||^2) / (smoothing + noise + sampling + clipping),

which the theorem keeps at 1 or below. NOT PRIVATE: no data.
"""

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer
from scipy import optimize, stats

from dpzo.theory.clipped import Law, Step, spread, step, threshold
from dpzo.theory.problem import Problem
from dpzo.types import Floats
from synthetic import report
from synthetic.command import at_least, folder, refusals

_NODES = 1001


@dataclass(frozen=True, kw_only=True)
class Case:
    """A problem and a step on it; L = l = 1, so that ``one`` to ``across`` are shares of what is allowed.

    Attributes:
        step: alpha over its largest value; ``zo_eps``: lambda over a quarter of 1 / c.
        weight: p; ``one``, ``other`` the slopes; ``bend``, ``bend_other`` the kinks.
        along: how far |mean k| is stretched to what H has there; ``across``: k'.
        sigma: the noise; ``sampled``: q, of n = 100 records.
    """

    d: int
    law: Law = "sphere"
    c: float = 3.0
    step: float = 1.0
    zo_eps: float = 0.0
    weight: float = 0.5
    one: float = 0.0
    other: float = 0.0
    bend: float = 0.0
    bend_other: float = 0.0
    along: float = 0.0
    across: float = 1.0
    sigma: float = 0.0
    sampled: float = 1.0


class Parts(NamedTuple):
    """E F(x') - F, (alpha / 4) ||grad F||^2, and what the theorem adds."""

    change: float
    descent: float
    added: Step


@cache
def lengths(d: int, directions: int, law: Law) -> tuple[Floats, Floats]:
    """Nodes y and weights of the law of |U'a|, |a| = 1."""
    K = directions
    square = stats.chi2(K) if law == "gaussian" else stats.beta(K / 2, (d - K) / 2, scale=d) if d > K else None
    if square is None:
        return np.array([math.sqrt(d)]), np.ones(1)
    most = min(math.sqrt(K) + 9.0, math.inf if law == "gaussian" else math.sqrt(d))
    edges = np.linspace(0.0, most, _NODES)
    if law != "gaussian" and most == math.sqrt(d):
        edges = most * np.sin(np.linspace(0, np.pi / 2, _NODES))  # crowded where the law of few dimensions is
    middle = (edges[1:] + edges[:-1]) / 2
    weight = np.diff(square.cdf(edges**2)) if K > 1 else 2 * _density(middle, d, law) * np.diff(edges)
    return middle, np.asarray(weight / weight.sum())


def _density(t: Floats, d: int, law: Law) -> Floats:
    if law == "gaussian":
        return np.asarray(stats.norm.pdf(t))
    inside = np.log1p(-np.minimum(t**2 / d, 1 - 1e-15)) * (d - 3) / 2
    return np.asarray(np.exp(inside - inside.max()))


def parts(case: Case) -> Parts:
    """Integrate one step of ``case``."""
    k = np.array([case.bend, case.bend_other])
    a, share = np.array([case.one, case.other]), np.array([case.weight, 1 - case.weight])
    bend, slope = float(share @ k), float(share @ a)
    along = abs(bend) + case.along * (1 - abs(bend))
    trace = along + (case.d - 1) * case.across
    p = Problem(n=100, d=case.d, r=min(max(1.0, trace), case.d), L=1.0, l=1.0, gap=1.0, epsilon=1.0, delta=1e-6)
    λ = case.zo_eps / (4 * case.c) / (case.d if case.law == "gaussian" else 1)
    alpha = case.step / (4 * p.l * spread(p.r, p.d, 1, case.law))
    added = step(p, alpha=alpha, zo_eps=λ, c=case.c, sigma=case.sigma, law=case.law, batch=case.sampled * p.n)
    C = threshold(p, case.c, λ, 1, case.law)
    t, weight = lengths(case.d, 1, case.law)
    t = np.concatenate([-t, t])[:, None]
    weight = np.concatenate([weight, weight]) / 2
    v = np.clip(a * t + λ / 2 * k * t * np.abs(t), -C, C)  # the rest of u is even in both losses, and cancels
    mean, variance = v @ share, (v**2 @ share) * (1 / case.sampled - 1) / p.n
    z, of_z = np.polynomial.hermite_e.hermegauss(9)
    spread_of = np.sqrt(case.sigma**2 + variance)[:, None]
    s = mean[:, None] + spread_of * z  # noise and sampling enter F through x_1 |x_1| alone but by their variance
    x_1 = -alpha * s * t
    length = (case.d - 1) if case.law == "gaussian" else np.maximum(case.d - t**2, 0)
    after = slope * x_1 + bend / 2 * x_1 * np.abs(x_1) + case.across / 2 * alpha**2 * s**2 * length
    change = float(weight @ (after @ of_z / of_z.sum()))
    return Parts(change, alpha / 4 * slope**2, added)


def ratio(case: Case) -> float:
    """What the step adds over what the theorem allows."""
    found = parts(case)
    return (found.change + found.descent) / found.added.added if found.added.added else -math.inf


_FREE = {
    "c": (2.0, 5.0), "step": (0.02, 1.0), "zo_eps": (0.0, 1.0), "weight": (0.01, 0.99), "one": (0.0, 1.0),
    "lean": (-1.0, 1.0), "bend": (-1.0, 1.0), "bend_other": (-1.0, 1.0), "along": (0.0, 1.0), "flat": (0.0, 1.0),
    "sigma": (0.0, 1.0), "sampled": (0.01, 1.0),
}  # fmt: skip
# What is held, so that one term alone is at work; and all but the noise, whose term is an equality on quadratics.
_NONE = {"zo_eps": 0.0, "bend": 0.0, "bend_other": 0.0, "sigma": 0.0, "sampled": 1.0}
_ALONE: dict[str, dict[str, float]] = {
    "all but noise": {"sigma": 0.0},
    "noise": {name: value for name, value in _NONE.items() if name != "sigma"} | {"one": 0.0, "lean": 0.0},
    "sampling": {name: value for name, value in _NONE.items() if name != "sampled"},
    "smoothing": {"sigma": 0.0, "sampled": 1.0, "c": 12.0},
    "clipping": _NONE,
}


def _case(d: int, law: Law, x: dict[str, float]) -> Case:
    # The mean slope, of either sign, and k' over many orders: harm is done where a step hardly descends.
    lean, flat = x.pop("lean"), x.pop("flat")
    slope = math.copysign(10 ** (5 * (abs(lean) - 1)), lean) if lean else 0.0
    other = (slope - x["weight"] * x["one"]) / (1 - x["weight"])
    return Case(d=d, law=law, other=max(-1.0, min(1.0, other)), across=10 ** (-6 * flat), **x)


def search(term: str, d: int, law: Law, tries: int, seed: int) -> tuple[float, Case]:
    """The largest ratio that differential evolution finds, and its case."""
    free = {name: ends for name, ends in _FREE.items() if name not in _ALONE[term]}

    def case(x: Floats) -> Case:
        return _case(d, law, _ALONE[term] | dict(zip(free, map(float, x), strict=True)))

    found = optimize.differential_evolution(
        lambda x: -ratio(case(x)), list(free.values()), maxiter=tries, popsize=8, seed=seed, tol=0, polish=False
    )
    return -float(found.fun), case(found.x)


def main(
    tries: Annotated[int, typer.Option(help="Generations of each search.")] = 40,
    seed: Annotated[int, typer.Option(help="Seed of the searches.")] = 0,
    out: Annotated[Path, typer.Option(help="Where the table goes.")] = Path("results"),
) -> None:
    """Search for a step that breaks the theorem, for each term alone and for all of them; write breaking.md."""
    with refusals():
        at_least(1, tries=tries)
        at_least(0, seed=seed)
        folder(out)
    rows, worst = [], 0.0
    for d in (5, 100, 10**6):
        for law in ("sphere", "gaussian"):
            for term in _ALONE:
                value, case = search(term, d, law, tries, seed)  # type: ignore[arg-type]
                worst = max(worst, value)
                slope = case.weight * case.one + (1 - case.weight) * case.other
                told = f"slope {slope:.1e}, " + ", ".join(
                    f"{name} {getattr(case, name):.2g}" for name in ("c", "step", "weight", "one", "bend", "across")
                )
                rows.append([f"{d:,}", law, term, f"{value:.3f}", told])
                print(" | ".join(rows[-1]))
    text = report.table(["d", "directions", "terms at work", "largest ratio", "found at"], rows)
    verdict = "No step breaks the theorem" if worst <= 1 + 1e-9 else "The theorem is BROKEN"
    told = (
        f"{verdict}: the largest ratio of what a step adds to what is allowed is {worst:.3f}. The terms of noise and "
        f"sampling are attained. {tries} generations of differential evolution a row, each step integrated exactly."
    )
    print(told)
    report.write(out / "breaking.md", f"{text}\n{told}", str(seed))
    print(f"Written: {out}/breaking.md")


if __name__ == "__main__":
    typer.run(main)
