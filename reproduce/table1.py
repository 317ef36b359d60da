"""Table 1: how the error grows with the dimension, measured on the quadratics of Figure 1, beside the theory.

Slopes are of log E ||grad F||^2 against log d, the best cell of Figure 1 at each d. The theory's column is the slope
of each theorem's bound on the same problems, whose Lipschitz constant and gap grow with d too. (Table 1 of the paper
holds them fixed. A quadratic has no global constant: the records' root mean square gradient at x_0 stands for it.) A
bound is an upper bound on the level: the last column says by which factor, at least, the measured values stay below it.
Their slope may be steeper all the same, and is: at a small d the best run is far below its bound, because a quadratic
satisfies the PL inequality, under which the error falls as 1 / (n epsilon)^2 and grows as kappa r, and because no run
has more than the grid's 5120 steps, which are too few at a large d.
"""

import sys
from pathlib import Path
from typing import Annotated, Any

# Run as a file, so that the folder above is not on the path by itself.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import typer
from scipy import stats

from dpzo import Refusal
from dpzo.theory.rates import Problem, dp_gd, theorem_2, theorem_3
from dpzo.theory.spectra import power_law
from reproduce.quadratics import SIZES, chosen, gather, interval
from synthetic.problems import RANKS
from synthetic.sweep import METHODS

BOUNDS = {"DPZero": theorem_3, "DPGD-0th": theorem_2, "DP-GD": dp_gd}
PAPER = {
    "DPGD-0th": ("d sqrt(d)", "d sqrt(r)"),
    "DPZero": ("log(d) sqrt(d)", "log(d) sqrt(r)"),
    "DP-GD": ("sqrt(d)", "sqrt(r)"),
}


def main(
    size: Annotated[str, typer.Option(help=", ".join(SIZES))] = "laptop",
    noise: Annotated[str, typer.Option(help="lemma (the paper's, Lemma 2.2) or exact (2.5 times less).")] = "lemma",
    out: Annotated[Path, typer.Option(help="Where results and table go.")] = Path("results"),
) -> None:
    """Run what Figure 1 has not yet run, then print and write the table."""
    try:
        rows = gather(chosen(size, None, None), noise, out, True)
    except Refusal as refusal:
        print(f"error: {refusal}", file=sys.stderr)
        raise typer.Exit(2) from None
    text = table(rows)
    (out / "table1.md").write_text(text)
    print(text)
    print(f"Written: {out}/table1.md", file=sys.stderr)


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: a line for each method and rank."""
    lines = [
        "| method | effective rank | the paper's rate | slope of the bound | slope measured | against the bound |",
        "| --- | --- | --- | ---: | ---: | --- |",
    ]
    for method in METHODS:
        for rank in RANKS:
            mine = sorted((r for r in rows if r["method"] == method and r["rank"] == rank), key=lambda r: r["d"])
            d = np.array([r["d"] for r in mine], dtype=float)
            squares = np.array([np.square(r["outcome"]["train_gradient"]["values"]) for r in mine])  # (d, seeds)
            mean, half = interval([slope(d, column) for column in squares.T])
            levels = np.array([_bound(method, rank, r) for r in mine])
            bound = slope(d, levels)
            slack = float(min(levels / squares.mean(1)))
            verdict = f"{slack:.0f} times below" if slack >= 1 else f"EXCEEDED, {1 / slack:.1f} times"
            rate = PAPER[method][0 if rank == "d" else 1]
            lines.append(f"| {method} | {rank} | {rate} | {bound:.2f} | {mean:.2f} ± {half:.2f} | {verdict} |")
    return "\n".join(lines) + "\n"


def slope(d: np.ndarray, values: np.ndarray) -> float:
    """The least-squares slope of log values against log d."""
    return float(stats.linregress(np.log(d), np.log(values)).slope)


def _bound(method: str, rank: str, row: dict[str, Any]) -> float:
    spectrum = power_law(row["d"], RANKS[rank])
    constants = Problem(
        n=row["n"],
        d=row["d"],
        r=spectrum.effective_rank,
        L=float(np.sqrt(2 * spectrum.sum(spectrum.values**2))),
        l=1.0,
        gap=spectrum.trace / 2,
        epsilon=row["epsilon"],
        delta=row["delta"],
        B=spectrum.trace,
    )
    return BOUNDS[method](constants).bound


if __name__ == "__main__":
    typer.run(main)
