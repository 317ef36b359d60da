"""``python -m synthetic.convergence``: DPZero on a quadratic, measured by dpzo itself, beside its exact law.

The runs are those of ``dpzo.run`` with seeded noise (NOT PRIVATE: a simulation), the clip threshold so large that next
to nothing is clipped, and the noise what (epsilon, delta) needs by exact composition. The line is computed, not fitted.
"""

import csv
import itertools
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from tqdm import tqdm

import dpzo
from dpzo import Refusal, Relation, Streams
from dpzo.models.quadratic import Quadratic
from dpzo.theory.quadratic import Direction, Law
from synthetic import style
from synthetic.problems import RANKS, Problem
from synthetic.sweep import Floats

LAWS: dict[str, tuple[Direction, dpzo.GaussianDirection | dpzo.SphereDirection]] = {
    "sphere": ("sphere", dpzo.SphereDirection()),
    "gaussian": ("gaussian", dpzo.GaussianDirection()),
}
_RARELY = 5.0  # C over the largest gradient at the start: |u'g| > 5 |g| happens once in two million


def main(
    d: Annotated[int, typer.Option(help="Dimension.")] = 200,
    rank: Annotated[str, typer.Option(help=f"Effective rank: {', '.join(RANKS)}.")] = "log(d)",
    n: Annotated[int, typer.Option(help="Records.")] = 2000,
    epsilon: Annotated[float, typer.Option(help="Target epsilon of the whole run.")] = 2.0,
    delta: Annotated[float, typer.Option(help="Target delta.")] = 1e-6,
    steps: Annotated[int, typer.Option(help="T.")] = 400,
    runs: Annotated[int, typer.Option(help="Runs to average; each has its own directions and noise.")] = 20,
    share: Annotated[float, typer.Option(help="Step size over the exact stability threshold.")] = 0.3,
    direction: Annotated[str, typer.Option(help=f"Law of the directions: {', '.join(LAWS)}.")] = "sphere",
    out: Annotated[Path, typer.Option(help="Where the picture and the numbers go.")] = Path("results"),
) -> None:
    """Measure the expected loss at every step and draw it over the exact law."""
    try:
        if rank not in RANKS or direction not in LAWS:
            raise Refusal(f"a rank among {', '.join(RANKS)} and a law among {', '.join(LAWS)}", (rank, direction), "")
        if runs < 2:
            raise Refusal("two runs or more, for an interval", runs, "Write --runs 20.")
        problem = Problem(n, d, rank, seed=0)
        law = Law(problem.spectrum, LAWS[direction][0])
        alpha = share * law.stable_below
        law.check(alpha)
        measured, predicted, sigma = converge(problem, law, direction, alpha, epsilon, delta, steps, runs)
        out.mkdir(parents=True, exist_ok=True)
    except Refusal as refusal:
        print(f"error: {refusal}", file=sys.stderr)
        raise typer.Exit(2) from None
    path = out / "convergence.png"
    draw(measured, predicted, law, alpha, sigma, f"d = {d:,}, effective rank {rank}", str(path))
    with open(path.with_suffix(".csv"), "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "exact law", "mean of runs", "standard error"])
        error = measured.std(0, ddof=1) / np.sqrt(runs)
        writer.writerows(zip(itertools.count(), predicted, measured.mean(0), error, strict=False))
    off = (measured.mean(0) - predicted)[1:] / error[1:]
    print(f"step size {alpha:.4g}, {share:g} of the threshold {law.stable_below:.4g}; noise on the mean {sigma:.4g}")
    print(
        f"excess loss at T = {steps}: law {predicted[-1]:.4g}, measured {measured[:, -1].mean():.4g} ± {error[-1]:.2g}"
    )
    print(f"largest distance over {steps} steps: {np.abs(off).max():.2f} standard errors; written: {path}")


def converge(
    problem: Problem, law: Law, direction: str, alpha: float, epsilon: float, delta: float, steps: int, runs: int
) -> tuple[Floats, Floats, float]:
    """Excess losses of each run at each step (runs, steps + 1), the exact law's (steps + 1,), and the noise's scale."""
    data = torch.from_numpy(problem.records).double()
    spectrum = torch.from_numpy(problem.a).double()
    steepest = float((spectrum * data).norm(dim=1).max())
    plan = dpzo.dpzero(
        n=problem.n,
        steps=steps,
        step_size=alpha,
        zo_eps=1e-3,
        clip_threshold=_RARELY * steepest,
        target_epsilon=epsilon,
        target_delta=delta,
        relation=Relation.REPLACE_ONE,
        direction=LAWS[direction][1],
    )
    assert isinstance(plan.mechanism, dpzo.mechanisms.GaussianMechanism)
    sigma = plan.mechanism.noise_multiplier * plan.mechanism.clip_threshold / problem.n
    mean = data.mean(0)
    measured = np.empty((runs, steps + 1))
    with tqdm(total=runs * steps, unit="step") as bar:
        for number in range(runs):
            model = Quadratic(spectrum, torch.zeros(problem.d, dtype=torch.float64))
            excess = [float((model.params["x"] - mean).square() @ spectrum) / 2]
            for _ in dpzo.run(plan, model, data, Streams.not_private(number, number)):
                excess.append(float((model.params["x"] - mean).square() @ spectrum) / 2)
                bar.update()
            measured[number] = excess
    path = law.trajectory(alpha, steps, np.square(mean.numpy())) if law.spectrum.d == len(law.spectrum.values) else None
    path = path or law.trajectory(alpha, steps, np.array([float(mean.square().mean())]))
    return measured, path.loss(sigma), sigma


def draw(measured: Floats, predicted: Floats, law: Law, alpha: float, sigma: float, title: str, path: str) -> None:
    """Marks with 95 % intervals for the runs, a line for the law, dashes for where it ends."""
    figure, grid = style.axes(width=5.4, height=3.6)
    on, steps = grid[0, 0], len(predicted) - 1
    at = np.unique(np.linspace(0, steps, 40).astype(int))
    half = 1.96 * measured.std(0, ddof=1) / np.sqrt(len(measured))
    on.errorbar(
        at,
        measured.mean(0)[at],
        half[at],
        fmt="o",
        markersize=3.5,
        color=style.COLOURS["DPZero"],
        capsize=2,
        linewidth=1,
    )
    on.plot(predicted, color="#222", linewidth=1.2)
    floor = law.spectrum.sum(law.spectrum.values * law.stationary(alpha, sigma)) / 2
    on.axhline(floor, color="#888", linestyle="--", linewidth=1)
    style.label(on, steps, float(predicted[-1]), "exact law", "#222")
    on.annotate("where it ends", (0, floor), xytext=(4, 3), textcoords="offset points", fontsize=8, color="#666")
    on.set(yscale="log", xlabel="step", ylabel="expected loss above its minimum")
    on.set_title(f"{title}: mean of {len(measured)} runs, 95 % intervals", fontsize=9)
    on.margins(x=0.12)
    style.save(figure, path)


if __name__ == "__main__":
    typer.run(main)
