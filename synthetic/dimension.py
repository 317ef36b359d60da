"""``python -m synthetic.dimension``: the paper's bound and ours side by side over d from 10 to 10^9, and runs.

The problem meets all assumptions everywhere, in any dimension: f(x; b_i) = sum_{j <= r} log cosh(x_j) + b_i'x, the
tilts b_i in pairs +- b e_{r+i}. So L = sqrt(r + b^2), l = 1, H is 1 on r coordinates and 0 elsewhere, and F* = 0. A run
meets u through r + m / 2 of its coordinates only, and these are drawn from their exact law on the sphere; so a billion
dimensions cost nothing. Most of a record's gradient is its tilt, so records are as steep as L allows and thresholds do
clip. NOT PRIVATE: a simulation, in which m distinct records stand for n.
"""

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer
from tqdm import tqdm

from dpzo.theory import noise
from dpzo.theory.clipped import Step, step, threshold
from dpzo.theory.rates import Problem, sharper, theorem_3
from dpzo.types import Floats
from synthetic import report, style
from synthetic.command import at_least, folder, refusals

BOUNDED = tuple(round(x) for x in np.geomspace(10, 10**9, 25))
RUN = (10, 10**3, 10**6, 10**9)
THRESHOLDS = (None, 3.0, 2.5)  # c; None: the theorem's


@dataclass(frozen=True)
class Soft:
    """The problem above: its rank, the length of the tilts, the number of distinct records, and where it starts."""

    r: int = 2
    tilt: float = 6**0.5
    records: int = 16
    start: float = 1.5

    def problem(self, d: int, n: int, epsilon: float, delta: float) -> Problem:
        """Its constants in ``d`` dimensions; B is three times the loss at the start."""
        gap = self.r * math.log(math.cosh(self.start))
        L = math.hypot(math.sqrt(self.r), self.tilt)
        return Problem(
            n=n, d=d, r=float(self.r), L=L, l=1.0, gap=gap, epsilon=epsilon, delta=delta, B=3 * gap, exact=True
        )


class Run(NamedTuple):
    """Mean squared gradient over steps and runs, its standard error, the share clipped, and what bounds it."""

    d: int
    c: float
    clip: float
    steps: int
    measured: float
    error: float
    clipped: float
    bound: float
    allowed: Step


def simulate(on: Soft, p: Problem, c: float | None, runs: int, seed: int = 0, *, noisy: float = 1.0) -> Run:
    """Run DPZero with the theorem's parameters, or at another threshold; ``noisy`` times the noise, for a test."""
    g = sharper(p)
    T, d, r, half = math.ceil(g.steps), p.d, on.r, on.records // 2
    own = math.sqrt(2 * math.log(max(8.0, p.budget / (2 * math.sqrt(p.r)))))
    C = g.clip if c is None else threshold(p, c, g.zo_eps)
    σ = noise.sigma(C, T, p.n, p.epsilon, p.k)
    allowed = step(p, alpha=g.alpha, zo_eps=g.zo_eps, c=own if c is None else c, sigma=σ)
    generator, x = np.random.default_rng(seed), np.full((runs, r), on.start)
    squares, clipped, seen = np.zeros(runs), 0, min(r + half, d)
    for _ in range(T):
        squares += np.square(np.tanh(x)).sum(1)
        z = generator.standard_normal((runs, seen))
        rest = generator.chisquare(d - seen, runs) if d > seen else 0.0
        u = z * np.sqrt(d / (np.square(z).sum(1) + rest))[:, None]
        ahead, back = x + g.zo_eps * u[:, :r], x - g.zo_eps * u[:, :r]
        slope = (_height(ahead) - _height(back)) / (2 * g.zo_eps)
        tilts = on.tilt * u[:, r:]
        v = np.concatenate([slope[:, None] + tilts, slope[:, None] - tilts], axis=1)
        clipped += int((np.abs(v) > C).sum())
        s = v.clip(-C, C).mean(1) + noisy * σ * generator.standard_normal(runs)
        x = x - g.alpha * s[:, None] * u[:, :r]
    told = squares / T
    error = float(told.std(ddof=1) / math.sqrt(runs))
    bound = allowed.squared_gradient(p.gap, T)
    return Run(d, c or own, C, T, float(told.mean()), error, clipped / (T * runs * v.shape[1]), bound, allowed)


def _height(x: Floats) -> Floats:
    return np.asarray(np.logaddexp(x, -x).sum(1) - x.shape[1] * math.log(2))


def main(
    n: Annotated[int, typer.Option(help="Records.")] = 20_000,
    epsilon: Annotated[float, typer.Option(help="Target epsilon, by exact composition.")] = 2.0,
    delta: Annotated[float, typer.Option(help="Target delta.")] = 1e-6,
    runs: Annotated[int, typer.Option(help="Runs to average.")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of the directions and the noise.")] = 0,
    out: Annotated[Path, typer.Option(help="Where the table, the numbers and the picture go.")] = Path("results"),
) -> None:
    """Compute both bounds over d, run at some d, and write dimension.md, dimension.csv and dimension.png."""
    with refusals():
        at_least(1, n=n)
        at_least(2, runs=runs)  # for an interval
        at_least(0, seed=seed)
        folder(out)
    on = Soft()
    rows = bounds(on, n, epsilon, delta)
    cells = [(d, c) for d in RUN for c in THRESHOLDS]
    found = [simulate(on, on.problem(d, n, epsilon, delta), c, runs, seed) for d, c in tqdm(cells, unit="cell")]
    with open(out / "dimension.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("d", *rows[0]._fields[1:]), *rows])
    draw(rows, found, str(out / "dimension.png"))
    text = f"{table(rows)}\n{measured(found)}"
    told = (
        f"n = {n:,}, (epsilon, delta) = ({epsilon:g}, {delta:g}) by exact composition, L^2 = "
        f"{on.r + on.tilt**2:.3g}, r = {on.r}, l = 1, {runs} runs; ± half of a 95 % interval. Bounds are on the mean "
        "over the steps of E ||grad F||^2, which is "
        f"{on.r * math.tanh(on.start) ** 2:.3g} at the start: a larger bound says nothing."
    )
    print(text)
    report.write(out / "dimension.md", f"{text}\n{told}", str(seed))
    print(f"Written: {out}/dimension.md, dimension.csv, dimension.png")


class Row(NamedTuple):
    """Threshold and bound of Theorem 3 and of ours, with one direction and with 64, in ``d`` dimensions."""

    d: int
    paper_clip: float
    paper: float
    clip: float
    ours: float
    clip_64: float
    ours_64: float


def bounds(on: Soft, n: int, epsilon: float, delta: float) -> list[Row]:
    """Both bounds over d; a threshold for 64 directions is told times 8, as the length of a slope."""
    rows = []
    for d in BOUNDED:
        p = on.problem(d, n, epsilon, delta)
        theirs, ours, many = theorem_3(p), sharper(p), sharper(p, directions=64)
        rows.append(Row(d, theirs.clip, theirs.bound, ours.clip, ours.bound, 8 * many.clip, many.bound))
    return rows


def table(rows: list[Row]) -> str:
    """Markdown: some decades of the bounds."""
    lines = [[f"{row.d:,}", *(f"{value:.3g}" for value in row[1:])] for row in rows if math.log10(row.d) % 1 < 1e-6]
    columns = ["d", "C, Theorem 3", "bound", "C, ours", "bound", "8 C, 64 directions", "bound"]
    return report.table(columns, lines)


def measured(found: list[Run]) -> str:
    """Markdown: the runs."""
    lines = [
        [
            *(f"{run.d:,}", f"{run.c:.2f}", f"{run.clip:.3g}", f"{run.steps:,}", f"{run.clipped:.1e}"),
            *(f"{run.measured:.4f} ± {1.96 * run.error:.4f}", f"{run.bound:.3g}", f"{run.bound / run.measured:.0f}"),
        ]
        for run in found
    ]
    return report.table(["d", "c", "C", "T", "share clipped", "measured", "bound", "bound / measured"], lines)


def draw(rows: list[Row], found: list[Run], path: str) -> None:
    """Both bounds over the dimension, and what runs measured."""
    figure, grid = style.axes(columns=2, width=3.8)
    d, lines = [row.d for row in rows], {"Theorem 3": "#c46a1b", "ours": "#174a70", "ours, 64 directions": "#5d7f3f"}
    for on, names, label in (
        (grid[0, 0], ("paper_clip", "clip", "clip_64"), "threshold times root of K"),
        (grid[0, 1], ("paper", "ours", "ours_64"), "mean squared gradient"),
    ):
        on.set(xscale="log", yscale="log", xlabel="dimension d", ylabel=label)
        ends = []
        for name, (told, colour) in zip(names, lines.items(), strict=True):
            values = [getattr(row, name) for row in rows]
            on.plot(d, values, color=colour)
            ends.append((d[-1], values[-1], told, colour))
        if on is grid[0, 1]:
            runs = [run for run in found if run.d in d and run.c == max(one.c for one in found)]
            on.plot([run.d for run in runs], [run.measured for run in runs], "o", color=lines["ours"], markersize=4)
            ends.append((d[-1], runs[-1].measured, "measured, one direction", lines["ours"]))
        style.label_ends(on, ends)
    style.save(figure, path)


if __name__ == "__main__":
    typer.run(main)
