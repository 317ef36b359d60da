"""How fast measured gradients grow with the dimension, beside what the exact law says, with a verdict for each."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from scipy import stats

from dpzo.theory.rates import Problem, theorem_2, theorem_3
from dpzo.theory.spectra import power_law
from synthetic import report
from synthetic.problems import RANKS

Found = dict[tuple[str, str, int], list[float]]
"""||grad F||^2 at the end over that at x_0, for each seed; by method, rank and d."""

BOUNDS = {"DPZero": theorem_3, "DPGD-0th": theorem_2}
_CERTAIN = 0.999  # of an interval that a verdict needs: there are a dozen verdicts
_STARTS = (10, 1000)  # the decades from here on


def norm(squares: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """Root mean square with the ends of its interval (Student's t on the logarithm of the mean square)."""
    middle, half = float(np.sqrt(np.mean(squares))), _quantile(level, len(squares)) * _relative(squares) / 2
    return middle, middle * float(np.exp(-half)), middle * float(np.exp(half))


def exponent(d: Sequence[int], squares: Sequence[Sequence[float]], level: float = 0.95) -> tuple[float, float]:
    """The least-squares slope of log mean squares against log d, with half of its interval.

    Means of different d are independent, each with its standard error; Student's t with the seeds' degrees of freedom.
    """
    x = np.log(d) - np.mean(np.log(d))
    weights = x / (x @ x)
    error = np.sqrt(np.square(weights) @ np.square([_relative(one) for one in squares]))
    half = _quantile(level, min(map(len, squares))) * error
    return float(weights @ np.log([np.mean(one) for one in squares])), float(half)


def text(rows: Iterable[Any], found: Found, n: int, epsilon: float, delta: float) -> str:
    """Markdown: the runs beside the law, then the exponents of d."""
    law = {(row.method, row.rank, row.d): row.norm for row in rows}
    lines, off = [], []
    for (method, rank, d), squares in sorted(found.items(), key=lambda one: (list(RANKS).index(one[0][1]), one[0][2])):
        exact, (middle, low, high) = law[method, rank, d], norm(squares)
        off.append(abs(np.log(np.mean(squares) / exact**2)) / _relative(squares))
        told = [f"{middle:.3g} ({low:.3g} to {high:.3g})", f"{exact:.3g}", f"{off[-1]:.1f}"]
        lines.append([method, rank, f"10^{len(str(d)) - 1}", str(len(squares)), *told])
    columns = ["method", "rank", "d", "seeds", "measured, 95 % interval", "exact law", "off by, in standard errors"]
    told = (
        f"Runs of both methods at the step sizes and lengths above, with the noise that (epsilon, delta) asks for and "
        f"all n = {n:,} records, each clipped at each step. A run meets a record only through its products with the "
        "directions; these are drawn from their exact law given the directions, as 10,000 records of a million "
        "coordinates would take 40 GB. Seeded, so NOT PRIVATE.\n\n"
        f"{report.table(columns, lines)}"
    )
    return f"{told}\n{exponents(law, found, n, epsilon, delta)}"


def exponents(law: dict[tuple[str, str, int], float], found: Found, n: int, epsilon: float, delta: float) -> str:
    """Markdown: for each method and rank the exponent of d in E ||grad F||^2 over that at x_0, measured and by law."""
    lines = []
    for start in _STARTS:
        for method, rank in dict.fromkeys((method, rank) for method, rank, _ in found):
            ds = sorted(d for m, r, d in found if (m, r) == (method, rank) and d >= start)
            if len(ds) < 2:
                continue
            squares = [found[method, rank, d] for d in ds]
            mean, half = exponent(ds, squares)
            exact = _slope(ds, [law[method, rank, d] ** 2 for d in ds])
            bound = _slope(ds, [_bound(method, rank, d, n, epsilon, delta) for d in ds])
            _, wide = exponent(ds, squares, _CERTAIN)
            verdict = "as the law says" if abs(mean - exact) <= wide else f"OFF by {mean - exact:+.3f}"
            decades = f"10^{len(str(ds[0])) - 1} to 10^{len(str(ds[-1])) - 1}"
            lines.append([method, rank, decades, f"{mean:.3f} ± {half:.3f}", f"{exact:.3f}", f"{bound:.2f}", verdict])
    columns = ["method", "rank", "d", "exponent measured", "exact law", "the theorem's bound", "verdict"]
    return (
        "Exponents of d in the mean square of the gradient over that at x_0, ± 95 %, beside the law's on the same "
        "dimensions and that of the bound (Theorem 3 for DPZero, 2 for DPGD-0th). The verdict is OFF if the law's is "
        f"outside of the {100 * _CERTAIN:g} % interval.\n\n{report.table(columns, lines)}"
    )


def _bound(method: str, rank: str, d: int, n: int, epsilon: float, delta: float) -> float:
    spectrum = power_law(d, RANKS[rank])
    at_start = spectrum.sum(spectrum.values**2)
    problem = Problem(
        n=n,
        d=d,
        r=spectrum.effective_rank,
        L=float(np.sqrt(2 * at_start)),
        l=1.0,
        gap=spectrum.trace / 2,
        epsilon=epsilon,
        delta=delta,
        B=spectrum.trace,
        exact=True,
    )
    return BOUNDS[method](problem).bound / at_start


def _slope(d: Sequence[int], values: Sequence[float]) -> float:
    return float(stats.linregress(np.log(d), np.log(values)).slope)


def _relative(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1) / np.sqrt(len(values)) / np.mean(values))


def _quantile(level: float, count: int) -> float:
    return float(stats.t.ppf((1 + level) / 2, count - 1))
