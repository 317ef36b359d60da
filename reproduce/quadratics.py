"""Figures 1 and 2 are one experiment, told by gradient norms and by losses; Table 1 is its slopes.

A cell is a method, a rank and a dimension. It runs a grid, the paper's or a part of it, and then what of the paper's
lies beside a winner, until each winner is better than its neighbours along each axis: none lies on an edge but where
the paper's grid ends. At size "full" it then settles the rest of the paper's grid: a combination is given up only when
its mean over seeds is proved to be above the winner's, by the seeds that it has run and a lower bound on the others.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from dpzo import Refusal, memory
from dpzo.theory.noise import exact_constant, lemma_constant
from reproduce.results import Results
from reproduce.workers import Advance, finished, processes
from synthetic.problems import KEPT, RANKS, Problem, bytes_of_records
from synthetic.sweep import METHODS, Cells, Combination, bytes_of_runs, grid, nearest, run, with_noise

MEASURES = ("train_gradient", "test_gradient", "train_loss", "test_loss")
NOISES = {"lemma": lemma_constant, "exact": exact_constant}
_PYTHON = 300 * 2**20
BESIDE = "the neighbours of winners along each axis"
ALL = f"{BESIDE}, and all others that are not proved to lose"
Told = dict[Combination, dict[str, list[float]]]


@dataclass(frozen=True)
class Grid:
    """Step sizes, clip thresholds and numbers of steps to choose the best of."""

    alphas: tuple[float, ...]
    clips: tuple[float, ...]
    lengths: tuple[int, ...]

    def combinations(self) -> list[Combination]:
        """All of them."""
        return grid(self.alphas, self.clips, self.lengths)

    def around(self, one: Combination) -> list[Combination]:
        """Those that are one value away from ``one`` along one axis."""
        found = []
        for name, values in (("alpha", self.alphas), ("clip", self.clips), ("steps", self.lengths)):
            at = values.index(getattr(one, name))
            beside = values[max(at - 1, 0) : at] + values[at + 1 : at + 2]
            found += [one._replace(**{name: value}) for value in beside]
        return found


# Source: Zhang et al. 2024, Table 6.
PAPER = Grid(
    alphas=(1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0),
    clips=(0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0),
    lengths=(10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5120),
)


@dataclass(frozen=True)
class Size:
    """How much of the experiment is run; n, epsilon, delta and the dimensions are the paper's, but in "tiny"."""

    n: int
    dimensions: tuple[int, ...]
    seeds: tuple[int, ...]
    grids: dict[str, Grid]
    epsilon: float = 2.0
    delta: float = 1e-6
    methods: tuple[str, ...] = METHODS
    first_order_then: str = BESIDE


# The zeroth-order methods run the whole of the paper's grid. A run of DP-GD reads every record at every step, so its
# search begins here, where it ends for most dimensions; size "full" shows that nothing else in the grid is better.
FIRST_ORDER = Grid((0.1, 0.3, 1.0), (0.1, 0.3, 1.0, 3.0), (80, 160, 320, 640))
SIZES = {
    "laptop": Size(
        10_000,
        (20, 50, 100, 200, 500, 1000, 2000),
        (0, 1, 2),
        {"DPZero": PAPER, "DPGD-0th": PAPER, "DP-GD": FIRST_ORDER},
    ),
    "tiny": Size(500, (10, 20), (0, 1), dict.fromkeys(METHODS, Grid((0.01, 0.1, 0.3), (0.3, 3.0, 30.0), (20, 80)))),
}
SIZES["full"] = replace(SIZES["laptop"], first_order_then=ALL)


def cells(size: Size, noise: str) -> list[dict[str, Any]]:
    """One for each method, rank and dimension; the longest first, so that no process ends long after the others."""
    return [
        {
            "experiment": "quadratics",
            "method": method,
            "rank": rank,
            "d": d,
            "n": size.n,
            "epsilon": size.epsilon,
            "delta": size.delta,
            "noise": noise,
            "seeds": list(size.seeds),
            "grid": {name: list(values) for name, values in asdict(size.grids[method]).items()},
            "then": size.first_order_then if method == "DP-GD" else BESIDE,
        }
        for d in sorted(size.dimensions, reverse=True)
        for rank in RANKS
        for method in reversed(size.methods)
    ]


def measure(cell: dict[str, Any], advance: Advance) -> dict[str, Any]:
    """Run step sizes, thresholds and lengths for every seed; tell the combination that is best on average over seeds.

    First the cell's grid, then the neighbours in the paper's grid of each winner, until they have all been run; then,
    if the cell says so, the others. A test measure is told of what is best on the training set.
    """
    began = time.perf_counter()
    k = NOISES[cell["noise"]](cell["epsilon"], cell["delta"])
    problems = [Problem(cell["n"], cell["d"], cell["rank"], seed) for seed in cell["seeds"]]

    def noisy(combinations: Iterable[Combination]) -> Cells:
        return with_noise(combinations, cell["n"], cell["epsilon"], k)

    told: Told = {}
    ask: Iterable[Combination] = grid(*cell["grid"].values())
    while ask:
        runs = noisy(ask)
        if told:
            advance(0, int(runs.steps.max()) * len(problems))
        for problem in problems:
            _tell(told, runs, problem, cell["method"], advance)
        ask = {near for name in MEASURES for near in PAPER.around(winner(told, name))} - told.keys()
    beside = len(told)
    if cell["then"] == ALL:
        told |= _settled(told, problems, noisy, advance)
    winners = [winner(told, name) for name in MEASURES]
    return {
        "cells": len(PAPER.combinations()) if cell["then"] == ALL else beside,
        "run_on_all_seeds": len(told),
        "least": [problem.train.least for problem in problems],
        **{name: {"values": told[won][name], **won._asdict()} for name, won in zip(MEASURES, winners, strict=True)},
        "seconds": time.perf_counter() - began,
    }


def _tell(told: Told, runs: Cells, problem: Problem, method: str, advance: Advance) -> None:
    outcome = run(problem, method, runs, problem.seed, advance)
    for row in range(len(runs)):
        mine = told.setdefault(runs[row], {name: [] for name in MEASURES})
        for name in MEASURES:
            mine[name].append(float(getattr(outcome, name)[row]))


def _settled(
    told: Told, problems: list[Problem], noisy: Callable[[Iterable[Combination]], Cells], advance: Advance
) -> Told:
    """DP-GD's other combinations of the paper's grid, but those that lose on both training measures for certain.

    A combination's mean over seeds is at least what it has run and, for seeds to come, ``nearest`` allow. Seed by seed,
    those whose least possible mean is not below the winner's are given up; what is left at the end has run every seed.
    """
    others, more = noisy(set(PAPER.combinations()) - told.keys()), Told()
    measures = ("train_gradient", "train_loss")
    to_beat = np.array([sum(told[winner(told, name)][name]) for name in measures])
    bounds = np.array([nearest(problem, others, problem.seed) for problem in problems])  # (seeds, measures, R)
    least = {others[row]: bounds[:, :, row] for row in range(len(others))}
    for done, problem in enumerate(problems):
        left = [one for one, bound in least.items() if (bound.sum(0) < to_beat).any()]
        if not left:
            return {}
        more = {one: more.get(one, {name: [] for name in MEASURES}) for one in left}
        runs = noisy(left)
        advance(0, int(runs.steps.max()))
        _tell(more, runs, problem, "DP-GD", advance)
        least = {one: least[one] for one in left}
        for one in left:
            least[one][done] = [more[one][name][-1] for name in measures]
    return more


def winner(told: dict[Combination, dict[str, list[float]]], measure: str) -> Combination:
    """The combination of the least mean over seeds, on the training set; of equals, the first run."""
    return min(told, key=lambda one: float(np.mean(told[one][measure.replace("test", "train")])))


def gather(size: Size, noise: str, out: Path, resume: bool, jobs: int | None = None) -> list[dict[str, Any]]:
    """Run what is not in the results yet, on ``jobs`` processes; return one row a cell, with its outcome.

    Raises:
        Refusal: an unknown noise, a file that is no file of results, or cells that do not fit in memory side by side.
    """
    if noise not in NOISES:
        raise Refusal(f"a noise among {', '.join(NOISES)}", repr(noise), "lemma is the paper's.")
    results = Results(out / "quadratics.jsonl", resume=resume)
    everything = cells(size, noise)
    left = [cell for cell in everything if results.get(cell) is None]
    largest = sorted(map(_needed, left))[-processes(jobs, len(left)) :]
    memory.require(sum(largest), "processes", "Take fewer --jobs, or smaller dimensions.")
    steps = sum(max(cell["grid"]["lengths"]) * len(cell["seeds"]) for cell in left)
    for cell, outcome in finished(measure, left, steps, jobs):
        results.add(cell, outcome)
    return [cell | {"outcome": results.get(cell)} for cell in everything]


def _needed(cell: dict[str, Any]) -> int:
    """Bytes that a process takes for a cell: Python with torch, records of the seeds that are kept, and the runs."""
    n, d, drawn = cell["n"], cell["d"], min(KEPT + 1, len(cell["seeds"]))  # one leaves when the next has been drawn
    runs = len(PAPER.combinations()) if cell["then"] == ALL else len(grid(*cell["grid"].values()))
    records = (drawn - 1) * 4 * n * d + bytes_of_records(n, d)
    return _PYTHON + records + bytes_of_runs(n, d, runs, max(PAPER.lengths))


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half of the 95 % interval (Student's t) over seeds."""
    x = np.asarray(values)
    half = stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)) if len(x) > 1 else 0.0
    return float(x.mean()), float(half)


def chosen(size: str, dimensions: str | None = None, seeds: str | None = None, methods: str | None = None) -> Size:
    """The size by name, with other dimensions, seeds or methods if asked for."""
    if size not in SIZES:
        raise Refusal(f"a size among {', '.join(SIZES)}", repr(size), "laptop is the default.")
    try:
        picked: dict[str, Any] = {
            name: tuple(int(part) for part in text.split(","))
            for name, text in (("dimensions", dimensions), ("seeds", seeds))
            if text
        }
    except ValueError as error:
        raise Refusal("whole numbers separated by commas", error, "Write --dimensions 20,200 --seeds 0,1.") from None
    if any(d < 1 for d in picked.get("dimensions", ())):
        raise Refusal("dimensions of 1 or more", dimensions, "Write --dimensions 20,200.")
    if methods is not None:
        names = tuple(name.strip() for name in methods.split(","))
        if unknown := set(names) - set(METHODS):
            raise Refusal(f"methods among {', '.join(METHODS)}", ", ".join(sorted(unknown)), "Write --methods DPZero.")
        picked["methods"] = tuple(name for name in METHODS if name in names)
    return replace(SIZES[size], **picked)
