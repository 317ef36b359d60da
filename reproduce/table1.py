"""Table 1: how the error grows with the dimension, measured on the quadratics of Figure 1, beside the theory.

The first table is of E ||grad F||^2, the second of E F - F*; slopes are of their logarithm against log d, the best
combination of Figure 1 at each d. The theory's columns are the slopes of the bounds on the same problems, whose
Lipschitz constant, gap and PL constant change with d too. (Table 1 of the paper holds them fixed. A quadratic has no
global Lipschitz constant: the records' root mean square gradient at x_0 stands for it.)

The paper's rates are of 1 / (n epsilon), for any smooth function. A quadratic satisfies the PL inequality with its
smallest eigenvalue, and there the error falls as 1 / (n epsilon)^2 and grows as kappa L^2 r / mu, times d^2 for
DPGD-0th: the fair comparison is the second table.

The last columns judge. A slope is steeper than the theory's where it is so by more than its interval; that is possible,
as bounds are on the level, and no run has more than the grid's 5120 steps, which are too few at a large d. A level is
held against its bound at those d where the bound is below the level at x_0; elsewhere staying put would satisfy it.
"""

import itertools
import sys
from pathlib import Path
from typing import Annotated, Any

# Run as a file, so that the folder above is not on the path by itself.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import typer
from scipy import stats

from dpzo import Refusal
from dpzo.theory.rates import Problem, dp_gd, pl_dp_gd, pl_dpgd_zeroth, pl_dpzero, theorem_2, theorem_3
from dpzo.theory.spectra import power_law
from reproduce.quadratics import SIZES, chosen, gather, interval
from synthetic import report
from synthetic.problems import RANKS
from synthetic.sweep import METHODS

BOUNDS = {"DPZero": theorem_3, "DPGD-0th": theorem_2, "DP-GD": dp_gd}
UNDER_PL = {"DPZero": pl_dpzero, "DPGD-0th": pl_dpgd_zeroth, "DP-GD": pl_dp_gd}
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
        rows = gather(chosen(size), noise, out, True)
    except Refusal as refusal:
        print(f"error: {refusal}", file=sys.stderr)
        raise typer.Exit(2) from None
    text = f"{table(rows)}\n{under_pl(rows)}"
    report.write(out / "table1.md", text, ", ".join(map(str, rows[0]["seeds"])))
    report.show(text)
    print(f"Written: {out}/table1.md", file=sys.stderr)


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: a line for each method and rank, squared gradients against the theorems for smooth functions."""
    lines = [
        "| method | effective rank | the paper's rate | slope of the bound "
        "| slope measured | so it grows | against the bound |",
        "| --- | --- | --- | ---: | ---: | --- | --- |",
    ]
    for method, rank, mine, d in _lines(rows):
        squares = np.array([np.square(r["outcome"]["train_gradient"]["values"]) for r in mine])  # (d, seeds)
        mean, half = interval([slope(d, column) for column in squares.T])
        problems = [_constants(rank, r) for r in mine]
        levels = np.array([BOUNDS[method](p).bound for p in problems])
        at_start = np.array([p.L**2 / 2 for p in problems])  # |A 1|^2 is half of the records' mean |A x_i|^2
        rate, theory = PAPER[method][0 if rank == "d" else 1], slope(d, levels)
        told = f"{theory:.2f} | {mean:.2f} ± {half:.2f} | {grows(theory, mean, half)} | "
        told += against(levels, squares, at_start)
        lines.append(f"| {method} | {rank} | {rate} | {told} |")
    return "\n".join(lines) + "\n"


def under_pl(rows: list[dict[str, Any]]) -> str:
    """Markdown: the same for F - F*, against the rates under PL, whose logarithms are left out, and their bounds."""
    lines = [
        "| method | effective rank | rate under PL | its slope | slope measured | so it grows | against the bound |",
        "| --- | --- | --- | ---: | ---: | --- | --- |",
    ]
    for method, rank, mine, d in _lines(rows):
        least = np.array([r["outcome"]["least"] for r in mine])
        excess = np.array([r["outcome"]["train_loss"]["values"] for r in mine]) - least  # (d, seeds)
        mean, half = interval([slope(d, column) for column in excess.T])
        problems = [_constants(rank, r) for r in mine]
        rate = slope(d, np.array([pl_rate(method, p) for p in problems]))
        levels = np.array([UNDER_PL[method](p).bound for p in problems])
        gaps = np.array([p.gap for p in problems])
        name = "kappa L^2 d^2 r / mu" if method == "DPGD-0th" else "kappa L^2 r / mu"
        lines.append(
            f"| {method} | {rank} | {name} | {rate:.2f} | {mean:.2f} ± {half:.2f} | "
            f"{grows(rate, mean, half)} | {against(levels, excess, gaps)} |"
        )
    return "\n".join(lines) + "\n"


def pl_rate(method: str, p: Problem) -> float:
    """kappa L^2 r / mu, times d^2 for DPGD-0th, without constants, logarithms and the budget.

    Source: the orders of Zhang et al. 2024, Corollaries F.3 and F.4; DP-GD's is ours, ``dpzo.theory.rates.pl_dp_gd``.
    """
    assert p.mu is not None
    return p.l / p.mu * p.L**2 * p.r / p.mu * (p.d**2 if method == "DPGD-0th" else 1)


def grows(theory: float, mean: float, half: float) -> str:
    """Whether a measured slope is steeper than the theory's by more than its interval."""
    return "no faster" if mean - half <= theory else f"FASTER, by {mean - theory:.2f}"


def against(bounds: np.ndarray, measured: np.ndarray, at_start: np.ndarray) -> str:
    """How far the mean over seeds of ``measured`` (d, seeds) is below ``bounds`` (d,), where it is nearest.

    Only those bounds count that are below ``at_start`` (d,), the level before the first step.
    """
    slack, says = bounds / measured.mean(1), bounds < at_start
    if (slack < 1).any():
        return f"EXCEEDED, {1 / slack.min():.1f} times"
    if not says.any():
        return f"says nothing: at least {min(bounds / at_start):.2g} times the level at the start"
    where = "" if says.all() else f" at the {says.sum()} of {len(says)} d where it says something"
    return f"{slack[says].min():.0f} times below{where}"


def _lines(rows: list[dict[str, Any]]) -> list[tuple[str, str, list[dict[str, Any]], np.ndarray]]:
    """(method, rank, rows in order of d, their d)."""
    found = []
    for method, rank in itertools.product(METHODS, RANKS):
        mine = sorted((r for r in rows if r["method"] == method and r["rank"] == rank), key=lambda r: r["d"])
        found.append((method, rank, mine, np.array([r["d"] for r in mine], dtype=float)))
    return found


def slope(d: np.ndarray, values: np.ndarray) -> float:
    """The least-squares slope of log values against log d."""
    return float(stats.linregress(np.log(d), np.log(values)).slope)


def _constants(rank: str, row: dict[str, Any]) -> Problem:
    spectrum = power_law(row["d"], RANKS[rank])
    return Problem(
        n=row["n"],
        d=row["d"],
        r=spectrum.effective_rank,
        L=float(np.sqrt(2 * spectrum.sum(spectrum.values**2))),
        l=1.0,
        gap=spectrum.trace / 2,
        epsilon=row["epsilon"],
        delta=row["delta"],
        B=spectrum.trace,
        mu=float(spectrum.values.min()),
        exact=row["noise"] == "exact",
    )


if __name__ == "__main__":
    typer.run(main)
