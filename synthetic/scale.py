"""``python -m synthetic.scale``: the best private gradient norm against the dimension, from 10 to a billion.

For each method, rank and dimension the step size and the number of steps are the best that the budget allows, by the
exact law of the second moments: no simulation and no bound. Clip thresholds are those that clip next to nothing at
x_0, for every method (``threshold``).

Up to a million dimensions the zeroth-order methods are then run at these step sizes and lengths (``synthetic.million``)
with all n records and their clipping, and lie on the law or do not. Each dimension and seed is a line of scale.jsonl,
kept as soon as it is run: the same command goes on.
"""

import csv
import time
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from scipy import stats
from tqdm import tqdm

from dpzo import Refusal
from dpzo.theory.noise import exact_constant, sigma
from dpzo.theory.quadratic import Law, best
from dpzo.theory.spectra import Spectrum, power_law
from synthetic import command, growth, report, style
from synthetic.million import Run, simulate
from synthetic.problems import RANKS
from synthetic.results import Results
from synthetic.sweep import METHODS

SIMULATED = ("DPZero", "DPGD-0th")  # DP-GD needs the records' whole gradients


class Row(NamedTuple):
    """A method on a problem: the least root mean square gradient as a share of the start's, and what gives it."""

    method: str
    rank: str
    d: int
    norm: float
    alpha: float
    steps: int


def main(
    largest: Annotated[int, typer.Option(help="The largest power of ten of the dimension.")] = 9,
    simulated: Annotated[int, typer.Option(help="The largest power of ten that is also run; 0: none.")] = 6,
    seeds: Annotated[int, typer.Option(help="Runs of each; each has its own records, directions and noise.")] = 8,
    n: Annotated[int, typer.Option(help="Records.")] = 10_000,
    epsilon: Annotated[float, typer.Option(help="Target epsilon.")] = 2.0,
    delta: Annotated[float, typer.Option(help="Target delta.")] = 1e-6,
    steps: Annotated[int, typer.Option(help="The most steps that a method may take.")] = 512,
    out: Annotated[Path, typer.Option(help="Where the picture and the numbers go.")] = Path("results"),
) -> None:
    """Compute every best norm, run what can be run, write scale.csv, scale.jsonl and scale.md and draw scale.png."""
    with command.refusals():
        if not 1 <= largest <= 12:
            raise Refusal("a largest power of ten from 1 to 12", largest, "Write --largest 9.")
        if seeds < 2:
            raise Refusal("two seeds or more, for an interval", seeds, "Write --seeds 8.")
        command.at_least(1, n=n, steps=steps)
        rows = [
            Row(method, rank, 10**power, *least(method, power_law(10**power, RANKS[rank]), n, epsilon, delta, steps))
            for method, rank, power in tqdm(
                [(m, r, p) for r in RANKS for p in range(1, largest + 1) for m in METHODS], unit="problem"
            )
        ]
        results = Results(out / "scale.jsonl")
        found = run(rows, min(simulated, largest), seeds, n, epsilon, delta, results)
    with open(out / "scale.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("method", "rank", "d", "gradient norm over that at x_0", "alpha", "T", "of runs, by seed"))
        writer.writerows((*row, " ".join(f"{v:.6g}" for v in np.sqrt(found.get(row[:3], [])))) for row in rows)
    draw(rows, found, str(out / "scale.png"))
    told = (
        f"The least root mean square of the gradient over the gradient at x_0, with the step size and T that give it; "
        f"n = {n:,}, (epsilon, delta) = ({epsilon:g}, {delta:g}), at most {steps:,} steps; by the exact law."
    )
    parts = [f"{told}\n\n{table(rows)}"]
    if found:
        parts.append(growth.text(rows, found, n, epsilon, delta))
    report.write(
        out / "scale.md", "\n".join(parts), f"1000 k to 1000 k + {seeds - 1} for d = 10^k" if found else "none"
    )
    report.show("\n".join(parts))
    print(f"Written: {out}/scale.md, scale.png, scale.csv, scale.jsonl")


def table(rows: list[Row]) -> str:
    """Markdown: a line for each rank and dimension, a column for each method."""
    told = {(row.rank, row.d, row.method): f"{row.norm:.3g} ({row.alpha:.1e}, {row.steps})" for row in rows}
    lines = [
        [rank, f"10^{len(str(d)) - 1}", *(told[rank, d, method] for method in METHODS)]
        for rank, d in dict.fromkeys((rank, d) for rank, d, _ in told)
    ]
    return report.table(["rank", "d", *METHODS], lines)


RARE = 2 * float(stats.norm.sf(4))  # P(|u'g| > 4 |g|): 6e-5


def threshold(method: str, spectrum: Spectrum) -> float:
    """The clip threshold of a record's scalar or vector that about ``RARE`` of the records exceed at x_0 = 0.

    With L^2 the mean of |A x_i|^2 it is 4 L for DPZero's scalar, and sqrt(d) times that for DPGD-0th's vector. DP-GD's
    is a quantile of |A x_i| itself: its square, sum_j a_j^2 x_ij^2 with x_ij of law N(1, 1), is near a gamma law of the
    same mean 2 sum a_j^2 and variance 6 sum a_j^4. (In trials at ranks d, sqrt(d) and log(d) with d up to a thousand it
    was exceeded by 0.003 % to 0.12 %.)

    >>> from dpzo.theory.spectra import flat
    >>> [round(threshold(m, flat(10_000)) / (2 * 10_000) ** 0.5, 2) for m in ("DPZero", "DPGD-0th", "DP-GD")]
    [4.0, 400.0, 1.02]
    """
    mean, variance = 2 * spectrum.sum(spectrum.values**2), 6 * spectrum.sum(spectrum.values**4)
    if method == "DP-GD":
        return float(np.sqrt(stats.gamma.isf(RARE, mean**2 / variance, scale=variance / mean)))
    return 4 * float(np.sqrt(mean * (spectrum.d if method == "DPGD-0th" else 1)))


def least(
    method: str, spectrum: Spectrum, n: int, epsilon: float, delta: float, most_steps: int
) -> tuple[float, float, int]:
    """The least root mean square of the gradient as a share of the start's, with its step size and number of steps."""
    law = Law(spectrum, "gradient" if method == "DP-GD" else "sphere")
    noise = sigma(threshold(method, spectrum), 1.0, n, epsilon, exact_constant(epsilon, delta))
    start = np.ones_like(spectrum.values)
    found = best(law, start, noise, most_steps, of="squared_gradients", grid=24)
    at_start = spectrum.sum(spectrum.values**2)
    if found.value >= at_start:
        return 1.0, 0.0, 0  # not to move is best
    return float(np.sqrt(found.value / at_start)), found.alpha, found.steps


def run(
    rows: list[Row], largest: int, seeds: int, n: int, epsilon: float, delta: float, results: Results
) -> growth.Found:
    """The squared norms of the simulated runs, by method, rank and d: what ``results`` does not hold is run."""
    k = exact_constant(epsilon, delta)
    cells = []
    for power in range(1, largest + 1):
        mine = [row for row in rows if row.d == 10**power and row.method in SIMULATED and row.steps]
        runs = []
        for method, rank, d, _, alpha, steps in mine:
            clip = threshold(method, power_law(d, RANKS[rank]))
            # To five digits, so that another machine's last bits do not make another cell.
            runs.append(Run(method, rank, float(f"{alpha:.5g}"), steps, clip, sigma(clip, steps, n, epsilon, k)))
        told = [[run.method, run.rank, run.alpha, run.steps] for run in runs]
        budget = {"n": n, "epsilon": epsilon, "delta": delta}
        # Each dimension has seeds of its own: the intervals of growth.py take dimensions to be independent.
        cells += [
            ({"experiment": "scale", "d": 10**power, "seed": 1000 * power + seed, "runs": told, **budget}, runs)
            for seed in range(seeds)
        ]
    missing = [(cell, runs) for cell, runs in cells if results.get(cell) is None]
    work = sum(cell["d"] * max(one.steps for one in runs) for cell, runs in missing)
    with tqdm(total=work, unit="coordinate", unit_scale=True, smoothing=0) as bar:
        for cell, runs in missing:
            began = time.perf_counter()
            shares = simulate(cell["d"], n, runs, cell["seed"], lambda made, d=cell["d"]: bar.update(made * d))
            results.add(cell, {"squares": shares, "seconds": time.perf_counter() - began})
    found: growth.Found = {}
    for cell, runs in cells:
        outcome: dict[str, Any] = results.get(cell) or {}
        for one, share in zip(runs, outcome["squares"], strict=True):
            found.setdefault((one.method, one.rank, cell["d"]), []).append(share)
    return found


def draw(rows: list[Row], found: growth.Found, path: str) -> None:
    """Three panels, one a rank: the exact law as lines, runs as marks with 95 % intervals."""
    figure, grid = style.axes(1, len(RANKS), sharey=True)
    for on, rank in zip(grid[0], RANKS, strict=True):
        for method in METHODS:
            line = [(row.d, row.norm) for row in rows if (row.method, row.rank) == (method, rank)]
            colour, name = style.COLOURS[method], f"{method}, exact law"
            on.plot(*zip(*line, strict=True), color=colour, linestyle=style.LINES[method], linewidth=1.4, label=name)
            marks = [(d, *growth.norm(values)) for (m, r, d), values in found.items() if (m, r) == (method, rank)]
            if marks:
                d, mean, low, high = map(np.array, zip(*marks, strict=True))
                look = {"color": colour, "fmt": style.MARKS[method], "markersize": 4, "capsize": 2, "linewidth": 1}
                on.errorbar(d, mean, [mean - low, high - mean], label=f"{method}, runs", **look)
        on.set(xscale="log", yscale="log", xlabel="dimension d")
        on.set_title(f"effective rank {rank}", fontsize=9)
    grid[0, 0].set_ylabel("best gradient norm / that at x_0", fontsize=9)
    style.legend(figure, grid[0, 0])
    style.save(figure, path)


if __name__ == "__main__":
    typer.run(main)
