"""Figures 1 and 2 are one experiment, told by gradient norms and by losses; Table 1 is its slopes."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from tqdm import tqdm

from dpzo import Refusal
from dpzo.theory.noise import exact_constant, lemma_constant
from reproduce.results import Results
from synthetic.problems import RANKS, Problem
from synthetic.sweep import METHODS, grid, run

MEASURES = ("train_gradient", "test_gradient", "train_loss", "test_loss")


@dataclass(frozen=True)
class Grid:
    """Step sizes, clip thresholds and numbers of steps to choose the best of."""

    alphas: tuple[float, ...]
    clips: tuple[float, ...]
    lengths: tuple[int, ...]


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


# The cells that won, and their neighbours, when `--size full --seeds 0 --dimensions 20,200` ran the paper's whole grid;
# whether a winner lies on an edge of these is told by every table.
SCREENED = Grid((0.01, 0.03, 0.1, 0.3, 1.0), (0.1, 0.3, 1.0, 3.0), (320, 640, 1280, 2560, 5120))
SIZES = {
    "laptop": Size(
        10_000,
        (20, 50, 100, 200, 500, 1000, 2000),
        (0, 1, 2),
        {
            "DPZero": SCREENED,
            "DPGD-0th": SCREENED,
            "DP-GD": Grid((0.1, 0.3, 1.0), (0.1, 0.3, 1.0, 3.0), (80, 160, 320, 640)),
        },
    ),
    "full": Size(10_000, (20, 50, 100, 200, 500, 1000, 2000), (0, 1, 2), dict.fromkeys(METHODS, PAPER)),
    "tiny": Size(500, (10, 20), (0, 1), dict.fromkeys(METHODS, Grid((0.01, 0.1, 0.3), (0.3, 3.0, 30.0), (20, 80)))),
}


def cells(size: Size, noise: str) -> list[dict[str, Any]]:
    """One for each method, rank and dimension; cheap ones first, so that the bar's estimate is never too low."""
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
        }
        for d in size.dimensions
        for rank in RANKS
        for method in METHODS
    ]


def measure(cell: dict[str, Any], advance: Callable[[int], object]) -> dict[str, Any]:
    """Run every step size, threshold and length for every seed; tell the cell that is best on average over seeds.

    A test measure is told of the runs that are best on the training set, never of those best on the test set.
    """
    began = time.perf_counter()
    k = (lemma_constant if cell["noise"] == "lemma" else exact_constant)(cell["epsilon"], cell["delta"])
    runs = grid(*map(tuple, cell["grid"].values()), cell["n"], cell["epsilon"], k)  # type: ignore[arg-type]
    outcomes = []
    for seed in cell["seeds"]:
        problem = Problem(cell["n"], cell["d"], cell["rank"], seed)
        outcomes.append(run(problem, cell["method"], runs, seed, advance))
    told: dict[str, Any] = {
        "cells": len(runs),
        "least": [Problem(cell["n"], cell["d"], cell["rank"], s).train.least for s in cell["seeds"]],
    }
    for name in MEASURES:
        chosen_by = np.stack([getattr(o, name.replace("test", "train")) for o in outcomes])
        best = int(chosen_by.mean(0).argmin())
        told[name] = {
            "values": [float(getattr(o, name)[best]) for o in outcomes],
            "alpha": float(runs.alpha[best]),
            "clip": float(runs.clip[best]),
            "steps": int(runs.steps[best]),
        }
    return told | {"seconds": time.perf_counter() - began}


def gather(size: Size, noise: str, out: Path, resume: bool) -> list[dict[str, Any]]:
    """Run what is not in the results yet; return one row a cell, with its outcome."""
    results = Results(out / "quadratics.jsonl", resume=resume)
    everything = cells(size, noise)
    left = [cell for cell in everything if results.get(cell) is None]
    total = sum(max(cell["grid"]["lengths"]) * len(cell["seeds"]) for cell in left)
    with tqdm(total=total, unit="step", smoothing=0.02, dynamic_ncols=True, disable=not left) as bar:
        for cell in left:
            bar.set_description(f"{cell['method']}, rank {cell['rank']}, d = {cell['d']}")
            results.add(cell, measure(cell, bar.update))
    return [cell | {"outcome": results.get(cell)} for cell in everything]


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half of the 95 % interval (Student's t) over seeds."""
    x = np.asarray(values)
    half = stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)) if len(x) > 1 else 0.0
    return float(x.mean()), float(half)


def chosen(size: str, dimensions: str | None, seeds: str | None) -> Size:
    """The size by name, with other dimensions or seeds if asked for."""
    if size not in SIZES:
        raise Refusal(f"a size among {', '.join(SIZES)}", repr(size), "laptop is the default.")
    try:
        picked = {
            name: tuple(int(part) for part in text.split(","))
            for name, text in (("dimensions", dimensions), ("seeds", seeds))
            if text
        }
    except ValueError as error:
        raise Refusal("whole numbers separated by commas", error, "Write --dimensions 20,200 --seeds 0,1.") from None
    if any(d < 1 for d in picked.get("dimensions", ())):
        raise Refusal("dimensions of 1 or more", dimensions, "Write --dimensions 20,200.")
    return replace(SIZES[size], **picked)
