"""``python -m synthetic.convergence``: DPZero and DPGD-0th on a problem whose answer is known, run by dpzo itself.

The runs are those of ``dpzo.run`` with seeded noise (NOT PRIVATE: a simulation), the clip threshold so large that
little is clipped, and the noise what (epsilon, delta) needs by exact composition. Lines are computed, not fitted: the
exact law on the quadratic, bounds on the non-convex problem and on logistic regression, the teacher's loss for the
network.
"""

import csv
import itertools
import math
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer
from tqdm import tqdm

import dpzo
from dpzo import Refusal, Relation, Streams
from dpzo.theory.quadratic import Direction
from synthetic import report, style
from synthetic.cases import CASES, METHODS, RANK_NAMES, ZO_EPS, Case
from synthetic.command import at_least, folder, refusals
from synthetic.sweep import Floats

LAWS: dict[str, tuple[Direction, dpzo.GaussianDirection | dpzo.SphereDirection]] = {
    "sphere": ("sphere", dpzo.SphereDirection()),
    "gaussian": ("gaussian", dpzo.GaussianDirection()),
}
_RARELY = 5.0  # C over the largest gradient at the start: |u'g| > 5 |g| happens once in two million
_SHARES = {"quadratic": 0.3, "pl": 1.0, "logistic": 1.0, "network": 1.0}


class Measured(NamedTuple):
    """Heights of one method, (runs, T + 1), its noise on the mean, theory's line, and what is to be told of its end."""

    heights: Floats
    sigma: float
    line: tuple[str, Floats] | None
    ending: str


def main(
    problem: Annotated[str, typer.Option(help=f"Problem: {', '.join(CASES)}.")] = "quadratic",
    d: Annotated[int, typer.Option(help="Dimension; the network has its own.")] = 50,
    rank: Annotated[str, typer.Option(help=f"Effective rank, but the network's: {', '.join(RANK_NAMES)}.")] = "log(d)",
    n: Annotated[int, typer.Option(help="Records.")] = 10_000,
    epsilon: Annotated[float, typer.Option(help="Target epsilon of the whole run.")] = 2.0,
    delta: Annotated[float, typer.Option(help="Target delta.")] = 1e-6,
    steps: Annotated[int, typer.Option(help="T.")] = 400,
    runs: Annotated[int, typer.Option(help="Runs to average; each has its own directions and noise.")] = 20,
    share: Annotated[float | None, typer.Option(help="Step size over the theory's, which the run tells.")] = None,
    direction: Annotated[str, typer.Option(help=f"Law of the directions: {', '.join(LAWS)}.")] = "sphere",
    out: Annotated[Path, typer.Option(help="Where the picture and the numbers go.")] = Path("results"),
) -> None:
    """Measure the mean loss at every step of both methods and draw it beside what theory says."""
    with refusals():
        for value, among in ((problem, CASES), (rank, RANK_NAMES), (direction, LAWS)):
            if value not in among:
                raise Refusal(f"one of {', '.join(among)}", repr(value), "See --help.")
        at_least(1, n=n, d=d, steps=steps)
        at_least(2, runs=runs)  # for an interval
        case = CASES[problem](n, d, rank, LAWS[direction][0])
        alpha = (_SHARES[problem] if share is None else share) * case.step_size
        case.check(alpha)
        folder(out)
        with tqdm(total=len(METHODS) * runs * steps, unit="step") as bar:
            found = {
                method: measure(case, method, direction, alpha, epsilon, delta, steps, runs, bar) for method in METHODS
            }
    name = "convergence" if problem == "quadratic" else f"convergence_{problem}"
    save(found, out / f"{name}.csv")
    draw(case, found, str(out / f"{name}.png"))
    text = f"{case.title}; step size {alpha:.4g}; {case.note}.\n\n{table(found)}"
    told = (
        f"n = {n:,}, (epsilon, delta) = ({epsilon:g}, {delta:g}), T = {steps:,}, {runs} runs, directions: {direction}. "
        + " ".join(f"{method}: {one.ending}." for method, one in found.items() if one.ending)
    )
    report.write(out / f"{name}.md", f"{text}\n{told}", f"0 to {runs - 1}, and 0 for the problem")
    report.show(text)
    print(f"Written: {out}/{name}.md, {name}.png, {name}.csv")


def measure(
    case: Case,
    method: str,
    direction: str,
    alpha: float,
    epsilon: float,
    delta: float,
    steps: int,
    runs: int,
    bar: "tqdm[None] | None" = None,
) -> Measured:
    """Run ``method`` from each of the seeds 0, 1, ..; its model's height is taken at every step."""
    make, scale = (dpzo.dpzero, 1.0) if method == "DPZero" else (dpzo.dpgd_zeroth, math.sqrt(case.d))
    plan = make(
        n=len(case.data),
        steps=steps,
        step_size=alpha,
        zo_eps=ZO_EPS,
        clip_threshold=_RARELY * case.steepest * scale,
        target_epsilon=epsilon,
        target_delta=delta,
        relation=Relation.REPLACE_ONE,
        direction=LAWS[direction][1],
    )
    mechanism = plan.mechanism
    assert isinstance(mechanism, dpzo.mechanisms.GaussianMechanism | dpzo.mechanisms.GaussianVectorMechanism)
    sigma = mechanism.noise_multiplier * mechanism.clip_threshold / plan.n
    heights = np.empty((runs, steps + 1))
    for seed in range(runs):
        model = case.start()
        heights[seed, 0] = case.height(model)
        for step in dpzo.run(plan, model, case.data, Streams.not_private(seed, seed)):
            heights[seed, step.index + 1] = case.height(model)
            if bar is not None:
                bar.update()
    return Measured(heights, sigma, case.curve(method, sigma, alpha, steps), case.ending(model))


def table(found: dict[str, Measured]) -> str:
    """Markdown: where each method starts and ends, and the theory's line at the end."""
    rows = []
    for method, (heights, sigma, line, _) in found.items():
        error = heights.std(0, ddof=1) / np.sqrt(len(heights))
        told = ["", ""]
        if line is not None:
            told = [f"{line[1][-1]:.4g} ({line[0]})", ""]
        if line is not None and line[0] == "exact law":
            told[1] = f"{np.abs((heights.mean(0) - line[1])[1:] / error[1:]).max():.1f}"
        end = f"{heights[:, -1].mean():.4g} ± {1.96 * error[-1]:.2g}"
        rows.append([method, f"{sigma:.3g}", f"{heights[:, 0].mean():.4g}", end, *told])
    columns = ["method", "noise on the mean", "at x_0", "at x_T", "theory at x_T", "furthest, in standard errors"]
    return report.table(columns, rows)


def save(found: dict[str, Measured], path: Path) -> None:
    """Every step of both methods, as CSV."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["method", "step", "mean of runs", "standard error", "theory"])
        for method, (heights, _, line, _) in found.items():
            error = heights.std(0, ddof=1) / np.sqrt(len(heights))
            theory = itertools.repeat("") if line is None else line[1]
            writer.writerows(
                (method, *row) for row in zip(itertools.count(), heights.mean(0), error, theory, strict=False)
            )


def draw(case: Case, found: dict[str, Measured], path: str) -> None:
    """Marks with 95 % intervals for the mean of the runs, lines for theory."""
    figure, grid = style.axes(width=6.4, height=3.8)
    on = grid[0, 0]
    ends, lines = [], [one.line for one in found.values() if one.line is not None]
    common = len(lines) > 1 and all(np.array_equal(values, lines[0][1]) for _, values in lines)
    for method, (heights, _, line, _) in found.items():
        colour, last = style.COLOURS[method], heights.shape[1] - 1
        at = np.unique(np.linspace(0, last, 40).astype(int))
        mean, (low, high) = heights.mean(0), interval_of_mean(heights[:, at])
        look = {"color": colour, "fmt": style.MARKS[method], "markersize": 3.5, "capsize": 2, "linewidth": 1}
        on.errorbar(at, mean[at], [mean[at] - low, high - mean[at]], **look)
        ends.append((last, mean[last], method, colour))
        if line is not None and not common:
            name, values = line
            on.plot(values, color=colour, linestyle=style.LINES[method], linewidth=1.2)
            ends.append((last, values[-1], f"{method}, {name.partition(',')[0]}", colour))  # the table tells all of it
    if common:
        name, values = lines[0]
        on.plot(values, color="black", linewidth=1.2)
        ends.append((len(values) - 1, values[-1], name, "black"))
    on.set(yscale="log", xlabel="step", ylabel=case.drawn)
    on.set_title(f"{case.title}:\nmean of {len(heights)} runs with 95 % intervals")
    style.label_ends(on, ends)
    style.save(figure, path)


def interval_of_mean(heights: Floats) -> tuple[Floats, Floats]:
    """(low, high), (T,) each: the 95 % interval of the mean of (runs, T) by the bootstrap; positive as the runs are."""
    again = np.random.default_rng(0).integers(len(heights), size=(2000, len(heights)))
    low, high = np.quantile(heights[again].mean(1), (0.025, 0.975), axis=0)
    return low, high


if __name__ == "__main__":
    typer.run(main)
