"""``python -m synthetic.bounds``: each theorem's bound beside runs with its own parameters, on a grid.

Logistic regression meets the assumptions everywhere. A quadratic is under PL, too, but has no Lipschitz constant: L is
twice the longest record's gradient at x_0, and a run that leaves the region where they hold is told.

A theorem is about full batches of n records. Here they are a few distinct ones in equal shares, so that a large n costs
nothing; T is rounded up and the noise with it, which costs the bound the factor 1 + 1/T. NOT PRIVATE: a simulation.
"""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer
from scipy import stats
from tqdm import tqdm

from dpzo.theory import noise
from dpzo.theory.rates import THEOREMS, UNDER_PL, Guarantee, Problem, sharper
from synthetic import report
from synthetic.command import at_least, folder, refusals
from synthetic.known import Bowl, Known, Logistic

BOUNDS: dict[str, Callable[[Problem], Guarantee]] = {
    **THEOREMS,
    "DPZero, sharper": sharper,
    "DPGD-0th, sharper": partial(sharper, vector=True),
    **{f"{method} under PL": bound for method, bound in UNDER_PL.items()},
}
N, EPSILON, DELTA, D = (300, 20_000, 60_000), (0.5, 2.0), 1e-6, (10, 100, 1000)
FALLS = (0.0, 1.0)  # as j**-fall: eigenvalues of a quadratic, deviations of a logistic regression's features
_DISTINCT = 16


class Outcome(NamedTuple):
    """The mean of what the theorem bounds, its standard error over runs, the share of clipped values, what was met."""

    measured: float
    error: float
    clipped: float
    highest: float
    steepest: float


def constants(of: Known, n: int, epsilon: float) -> Problem:
    """What the theorems ask for; B is ten times what F is at the start."""
    return Problem(
        n=n, d=of.d, r=min(of.effective_rank, of.d), L=of.L, l=of.l, gap=of.gap, epsilon=epsilon, delta=DELTA,
        B=10 * (of.gap + of.least), mu=of.mu,
    )  # fmt: skip


def simulate(
    method: str,
    on: Known,
    p: Problem,
    runs: int,
    *,
    seed: int = 0,
    sign: float = 1.0,
    advance: Callable[[], object] = lambda: None,
) -> Outcome:
    """Make ``runs`` runs at once with the theorem's parameters.

    ``sign`` = -1 climbs instead, for a test that must see a bound missed; ``advance`` is called after every step.
    """
    g, d = BOUNDS[method](p), p.d
    T, generator = math.ceil(g.steps), np.random.default_rng(seed)
    σ = noise.sigma(g.clip, T, p.n, p.epsilon, p.k)
    kind = method.split()[0].rstrip(",")
    C = g.clip / math.sqrt(d) if kind == "DPGD-0th" else g.clip  # |v u| = |v| sqrt(d)
    W, squares, clipped, highest, steepest = np.tile(on.start, (runs, 1)), np.zeros(runs), 0, 0.0, 0.0
    for _ in range(T):
        gradient = on.gradient(W)
        squares += np.square(gradient).sum(1)
        steepest = max(steepest, on.steepest(W))
        if kind == "DP-GD":
            move = gradient + σ * generator.standard_normal(W.shape)  # up to C = L no record is clipped
            highest = max(highest, float(on.losses(W).mean(1).max()))
        else:
            u = generator.standard_normal(W.shape)
            u *= math.sqrt(d) / np.linalg.norm(u, axis=1, keepdims=True)
            both = on.losses(np.stack([W + g.zo_eps * u, W - g.zo_eps * u]))
            highest = max(highest, float(both.mean(2).max()))
            v = (both[0] - both[1]) / (2 * g.zo_eps)
            clipped += int((np.abs(v) > C).sum())
            mean = v.clip(-C, C).mean(1, keepdims=True)
            if kind == "DPZero":
                move = (mean + σ * generator.standard_normal((runs, 1))) * u
            else:
                move = mean * u + σ * generator.standard_normal(W.shape)
        W -= sign * g.alpha * move
        advance()
        if not highest < 1e6:  # it has diverged
            break
    told = on.losses(W).mean(1) - on.least if under_pl(method) else squares / T
    error = float(told.std(ddof=1) / math.sqrt(runs))
    return Outcome(float(told.mean()), error, clipped / (T * runs * on.n), highest, steepest)


def under_pl(method: str) -> bool:
    """Whether the bound is on F(x_T) - F*, not on E ||grad F(x_tau)||^2."""
    return method.endswith("under PL")


class Row(NamedTuple):
    """A cell of the grid: its bound, T, what was measured if it was run, and why it counts for nothing, if it does."""

    method: str
    name: str
    p: Problem
    bound: float
    steps: int
    found: Outcome | None
    why_not: str

    @property
    def slack(self) -> float | None:
        """The bound over what was measured, where the bound is claimed."""
        return self.bound / self.found.measured if self.found and not self.why_not else None

    def missed(self, runs: int) -> bool:
        """Whether the mean is above the bound by more than chance: Student's t, one in a million."""
        assert self.found is not None
        return self.found.measured - stats.t.isf(1e-6, runs - 1) * self.found.error > self.bound


def grid() -> Iterator[tuple[str, str, Known, Problem]]:
    """(method, name of the problem, problem, constants), those under PL on quadratics alone."""
    families: dict[str, Callable[[int, int, float], Known]] = {"logistic": Logistic, "quadratic": Bowl}
    for (name, family), d, fall in itertools.product(families.items(), D, FALLS):
        on = family(_DISTINCT, d, fall)
        for method, n, epsilon in itertools.product(BOUNDS, N, EPSILON):
            if on.mu is not None or not under_pl(method):
                yield method, name, on, constants(on, n, epsilon)


def idle(method: str, p: Problem, most_steps: int) -> str:
    """Say why a cell is not run, or nothing."""
    g = BOUNDS[method](p)
    trivial, name = (p.gap, "the gap") if under_pl(method) else (p.L**2, "L^2")
    if g.steps < 1:
        return "T < 1"
    if g.bound >= trivial:
        return f"the bound is above {name}"
    if g.fails:
        return "its conditions fail"
    return "too long to run here" if g.steps > most_steps else ""


def measure(
    method: str,
    name: str,
    on: Known,
    p: Problem,
    runs: int,
    most_steps: int,
    seed: int,
    advance: Callable[[], object] = lambda: None,
) -> Row:
    """Run a cell, if that makes sense."""
    g = BOUNDS[method](p)
    bound, why_not, found = g.bound * (1 + 1 / g.steps), idle(method, p, most_steps), None
    if not why_not:
        found = simulate(method, on, p, runs, seed=seed, advance=advance)
        needs_b = BOUNDS[method] in (THEOREMS["DPZero, theorem 3"], UNDER_PL["DPZero"])
        if found.steepest > p.L or (needs_b and found.highest > p.B):
            why_not = "L was exceeded" if found.steepest > p.L else "B was exceeded"
    return Row(method, name, p, bound, math.ceil(g.steps), found, why_not)


def main(
    runs: Annotated[int, typer.Option(help="Runs to average in a cell.")] = 8,
    most_steps: Annotated[int, typer.Option(help="Cells whose T is above this are named and not run.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Seed of the directions and the noise.")] = 0,
    out: Annotated[Path, typer.Option(help="Where the table goes.")] = Path("results"),
) -> None:
    """Measure E |grad F|^2, or E F - F* under PL, beside each bound on a grid of (n, d, r, eps); write bounds.md."""
    with refusals():
        at_least(2, runs=runs)  # for an interval
        at_least(1, most_steps=most_steps)
        at_least(0, seed=seed)
        folder(out)
    cells = list(grid())
    total = sum(math.ceil(BOUNDS[m](p).steps) for m, _, _, p in cells if not idle(m, p, most_steps))
    with tqdm(total=total, unit="step") as bar:
        rows = [measure(*cell, runs, most_steps, seed, bar.update) for cell in cells]
    text = f"{summary(rows, runs)}\n{table(rows)}"
    told = (
        f"delta = {DELTA:g}, noise by Lemma 2.2, {runs} runs a cell; ± half of a 95 % interval over runs. The slack is "
        "the bound over what was measured: about 1 where DP-GD's recursion under PL is an equality (A = I). MISSED is "
        "a mean above its bound by more than chance (one in a million). A bound on the squared gradient that is above "
        "L^2, or on the gap above that at x_0, says nothing and is not run."
    )
    report.write(out / "bounds.md", f"{text}\n{told}", str(seed))
    report.show(summary(rows, runs))
    print(f"Written: {out}/bounds.md")


def summary(rows: list[Row], runs: int) -> str:
    """Markdown: for each method how much slack its bound has, and what became of its cells."""
    lines = []
    for method in BOUNDS:
        mine = [row for row in rows if row.method == method]
        slack = sorted(row.slack for row in mine if row.slack is not None)
        told = [f"{value:.3g}" for value in (slack[0], float(np.median(slack)), slack[-1])] if slack else [""] * 3
        why = Counter(row.why_not for row in mine if row.why_not)
        missed = any(row.missed(runs) for row in mine if row.slack is not None)
        verdict = "MISSED" if missed else "holds" if slack else ""
        idle = "; ".join(f"{count} {reason}" for reason, count in why.most_common())
        lines.append([method, str(len(mine)), str(len(slack)), *told, verdict, idle])
    columns = ["bound", "cells", "claimed and run", "least slack", "median", "largest", "verdict", "others"]
    return report.table(columns, lines)


def table(rows: list[Row]) -> str:
    """Markdown: every cell."""
    lines = []
    for row in rows:
        found = f"{row.found.measured:.2e} ± {1.96 * row.found.error:.0e}" if row.found else ""
        numbers = [f"{row.p.n:,}", f"{row.p.d:,}", f"{row.p.r:.2f}", f"{row.p.epsilon:g}", f"{row.steps:,}"]
        last = row.why_not or f"{row.slack:.3g}"
        lines.append([row.method, row.name, *numbers, found, f"{row.bound:.2e}", last])
    columns = ["bound", "problem", "n", "d", "r", "epsilon", "T", "measured", "bound's value", "slack"]
    return report.table(columns, lines)


if __name__ == "__main__":
    typer.run(main)
