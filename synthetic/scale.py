"""``python -m synthetic.scale``: the best private gradient norm against the dimension, from 10 to a billion.

For each method, rank and dimension the step size and the number of steps are the best that the budget allows, by the
exact law of the second moments: no simulation and no bound. Clip thresholds are those that clip next to nothing: 4 L
for a scalar, 4 L sqrt(d) for DPGD-0th's vector, L for DP-GD's, with L the root mean square of the records' gradients
at x_0.
"""

import csv
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from tqdm import tqdm

from dpzo import Refusal
from dpzo.theory.noise import exact_constant, sigma
from dpzo.theory.quadratic import Law, best
from dpzo.theory.spectra import Spectrum, power_law
from synthetic import report, style
from synthetic.problems import RANKS
from synthetic.sweep import METHODS

Row = tuple[str, str, int, float, float, int]
"""Method, rank, d, the norm, alpha, T."""


def main(
    largest: Annotated[int, typer.Option(help="The largest power of ten of the dimension.")] = 9,
    n: Annotated[int, typer.Option(help="Records.")] = 10_000,
    epsilon: Annotated[float, typer.Option(help="Target epsilon.")] = 2.0,
    delta: Annotated[float, typer.Option(help="Target delta.")] = 1e-6,
    steps: Annotated[int, typer.Option(help="The most steps that a method may take.")] = 4096,
    out: Annotated[Path, typer.Option(help="Where the picture and the numbers go.")] = Path("results"),
) -> None:
    """Compute every best norm, write scale.csv and scale.md and draw scale.png."""
    try:
        if not 1 <= largest <= 12:
            raise Refusal("a largest power of ten from 1 to 12", largest, "Write --largest 9.")
        rows = [
            (method, rank, 10**power, *least(method, power_law(10**power, RANKS[rank]), n, epsilon, delta, steps))
            for method, rank, power in tqdm(
                [(m, r, p) for r in RANKS for p in range(1, largest + 1) for m in METHODS], unit="problem"
            )
        ]
        out.mkdir(parents=True, exist_ok=True)
    except Refusal as refusal:
        print(f"error: {refusal}", file=sys.stderr)
        raise typer.Exit(2) from None
    with open(out / "scale.csv", "w", newline="") as file:
        csv.writer(file).writerows([("method", "rank", "d", "gradient norm over that at x_0", "alpha", "T"), *rows])
    draw(rows, str(out / "scale.png"))
    told = (
        f"The least root mean square of the gradient over the gradient at x_0, with the step size and T that give it; "
        f"n = {n:,}, (epsilon, delta) = ({epsilon:g}, {delta:g}), at most {steps:,} steps; by the exact law."
    )
    report.write(out / "scale.md", f"{told}\n\n{table(rows)}", "none, nothing is drawn")
    print(table(rows))
    print(f"Written: {out}/scale.md, scale.png, scale.csv")


def table(rows: list[Row]) -> str:
    """Markdown: a line for each rank and dimension, a column for each method."""
    told = {(rank, d, method): f"{norm:.3g} ({alpha:.1e}, {T})" for method, rank, d, norm, alpha, T in rows}
    lines = [
        [rank, f"10^{len(str(d)) - 1}", *(told[rank, d, method] for method in METHODS)]
        for rank, d in dict.fromkeys((rank, d) for rank, d, _ in told)
    ]
    return report.table(["rank", "d", *METHODS], lines)


def least(
    method: str, spectrum: Spectrum, n: int, epsilon: float, delta: float, most_steps: int
) -> tuple[float, float, int]:
    """The least root mean square of the gradient as a share of the start's, with its step size and number of steps."""
    L = float(np.sqrt(2 * spectrum.sum(spectrum.values**2)))  # x_0 = 0, coordinates N(1, 1): E (x_i)_j^2 = 2
    clip = {"DPZero": 4 * L, "DPGD-0th": 4 * L * np.sqrt(spectrum.d), "DP-GD": L}[method]
    law = Law(spectrum, "gradient" if method == "DP-GD" else "sphere")
    noise = sigma(clip, 1.0, n, epsilon, exact_constant(epsilon, delta))
    start = np.ones_like(spectrum.values)
    found = best(law, start, noise, most_steps, of="squared_gradients", grid=24)
    at_start = spectrum.sum(spectrum.values**2)
    if found.value >= at_start:
        return 1.0, 0.0, 0  # not to move is best
    return float(np.sqrt(found.value / at_start)), found.alpha, found.steps


def draw(rows: list[Row], path: str) -> None:
    """Three panels, one a rank."""
    figure, grid = style.axes(1, len(RANKS), sharey=True)
    for on, rank in zip(grid[0], RANKS, strict=True):
        for method in METHODS:
            mine = [(d, norm) for m, r, d, norm, *_ in rows if m == method and r == rank]
            d, norm = zip(*mine, strict=True)
            look = {"color": style.COLOURS[method], "marker": style.MARKS[method], "linestyle": style.LINES[method]}
            on.plot(d, norm, label=method, markersize=4, **look)
        on.set(xscale="log", yscale="log", xlabel="dimension d")
        on.set_title(f"effective rank {rank}", fontsize=9)
    grid[0, 0].set_ylabel("best gradient norm over that at the start", fontsize=9)
    style.legend(figure, grid[0, 0])
    style.save(figure, path)


if __name__ == "__main__":
    typer.run(main)
