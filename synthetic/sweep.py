"""Many runs of one method at once: all step sizes, thresholds and lengths on common data, directions and noise.

What makes it quick, without changing what is computed:
- directions know nothing of the data, so a block of them is drawn ahead and u' A x_i is one matrix product;
- along u the derivative of record i at x is u' A x - u' A x_i, so the clipped mean over the records is a piecewise
  linear function of u' A x: one sort of the u' A x_i serves every run;
- a run of T steps and one of 2T share nothing but the draws, because the noise depends on T;
- DP-GD, which needs every record's gradient norm at every step, reads the records once a step, in blocks, and only for
  those runs in which the threshold is near enough to bite.

The draws are those of ``dpzo.run`` with ``Streams.not_private(seed, seed)`` and sphere directions: NOT PRIVATE, as a
simulation should be. A test runs the two side by side.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from dpzo import memory
from dpzo.directions import SphereDirection, ahead
from dpzo.errors import Refusal
from dpzo.noise import rounded_gaussian
from dpzo.randomness import Streams
from dpzo.theory.noise import sigma
from synthetic.problems import Array, Problem, Split

Floats = npt.NDArray[np.float64]
METHODS = ("DPZero", "DPGD-0th", "DP-GD")
_BLOCK = 64  # directions at once
_RECORDS = 512  # records at once, so that what is computed of them stays in the cache
_FAR = 1e8  # a run this far away has diverged; it is left where it is
_NOISE_GRID = 2.0**30


class Combination(NamedTuple):
    """A step size, a clip threshold and a number of steps."""

    alpha: float
    clip: float
    steps: int


@dataclass(frozen=True)
class Cells:
    """R runs: step sizes, clip thresholds, lengths and the noise on the mean, each (R,)."""

    alpha: Floats
    clip: Floats
    steps: npt.NDArray[np.int64]
    sigma: Floats

    def __len__(self) -> int:
        return len(self.alpha)

    def __getitem__(self, row: int) -> Combination:
        return Combination(float(self.alpha[row]), float(self.clip[row]), int(self.steps[row]))


def with_noise(runs: Iterable[Combination], n: int, epsilon: float, k: float) -> Cells:
    """These runs, each with the noise sigma = 4 C sqrt(2 T k) / (n epsilon) of its own (see ``dpzo.theory.noise``).

    Longest runs first, so that the runs still under way are always the first rows.
    """
    ordered = sorted(runs, key=lambda run: -run.steps)
    alpha, clip, steps = (np.array(part) for part in zip(*ordered, strict=True))
    return Cells(alpha, clip, steps, np.array([sigma(run.clip, run.steps, n, epsilon, k) for run in ordered]))


def grid(alphas: Iterable[float], clips: Iterable[float], lengths: Iterable[int]) -> list[Combination]:
    """Every combination."""
    return [Combination(*values) for values in itertools.product(alphas, clips, lengths)]


@dataclass(frozen=True)
class Outcome:
    """For each run at its last iterate: gradient norm and mean loss, on training and test data, (R,) each."""

    train_gradient: Floats
    test_gradient: Floats
    train_loss: Floats
    test_loss: Floats


def run(
    problem: Problem, method: str, cells: Cells, seed: int, advance: Callable[[int], object] = lambda steps: None
) -> Outcome:
    """Run every cell from x_0 = 0; ``advance`` is told how many steps were made.

    Raises:
        Refusal: an unknown method, or runs that would not fit in memory.
    """
    if method not in METHODS:
        raise Refusal(f"a method among {', '.join(METHODS)}", repr(method), "Choose one.")
    n, d = problem.records.shape  # drawn here, if they fit
    more = bytes_of_runs(n, d, len(cells), int(cells.steps.max()))
    memory.require(more, "runs", "Take a smaller d or n, or fewer cells at once.")
    x = np.zeros((len(cells), problem.d), dtype=np.float32)
    (_gradient if method == "DP-GD" else _zeroth_order)(problem, method, cells, seed, x, advance)

    def measured(of: Callable[[Array, Split], Floats], split: Split) -> Floats:
        with np.errstate(over="ignore", invalid="ignore"):
            value = of(x, split)
        return np.where(np.isfinite(value), value, np.inf)

    return Outcome(
        measured(problem.gradient_norm, problem.train),
        measured(problem.gradient_norm, problem.test),
        measured(problem.loss, problem.train),
        measured(problem.loss, problem.test),
    )


def _zeroth_order(
    problem: Problem, method: str, cells: Cells, seed: int, x: Array, advance: Callable[[int], object]
) -> None:
    a, n, d = problem.a, problem.n, problem.d
    streams = Streams.not_private(seed, seed)
    vector = method == "DPGD-0th"
    # |u| = sqrt(d), so clipping the vector v u at C clips v at C / sqrt(d).
    clip = cells.clip / np.sqrt(d) if vector else cells.clip
    for first in range(0, int(cells.steps.max()), _BLOCK):
        block = range(first, min(first + _BLOCK, int(cells.steps.max())))
        U = _directions(problem, [streams.direction_seed(t) for t in block])
        S = np.sort((U * a) @ problem.records.T, axis=1).astype(np.float64)
        below = np.concatenate([np.zeros((len(S), 1)), np.cumsum(S, axis=1)], axis=1)
        for row, t in enumerate(block):
            active = int(np.searchsorted(-cells.steps, -t))  # those with steps > t
            c, α, u = clip[:active], cells.alpha[:active], U[row]
            at = (x[:active] @ (a * u)).astype(np.float64)
            low, high = np.searchsorted(S[row], at - c), np.searchsorted(S[row], at + c)
            inside = at * (high - low) - (below[row, high] - below[row, low])
            mean = (c * low + inside - c * (n - high)) / n
            noise = streams.noise.at(t)
            z = float(rounded_gaussian(_NOISE_GRID, 1, noise)[0]) / _NOISE_GRID
            if vector:  # z along u, as long as it is, and the rest of a normal vector across
                w = noise.normal(d)
                z = z / np.sqrt(d) - float(w @ u) / d
                _add(x[:active], -α * cells.sigma[:active], w)
            _add(x[:active], -α * (mean + cells.sigma[:active] * z), u)
            advance(1)


def _gradient(
    problem: Problem, method: str, cells: Cells, seed: int, x: Array, advance: Callable[[int], object]
) -> None:
    a, mean = problem.a, problem.train.mean
    own = np.concatenate([np.square(a * block).sum(1) for block in _blocks(problem.records)])
    farthest = max(float(np.linalg.norm(a * (block - mean), axis=1).max()) for block in _blocks(problem.records))
    noise = Streams.not_private(seed, seed).noise
    α, C = cells.alpha[:, None].astype(np.float32), cells.clip[:, None].astype(np.float32)
    for t in range(int(cells.steps.max())):
        active = int(np.searchsorted(-cells.steps, -t))
        moved = a * (x[:active] - mean)  # the mean gradient, and the clipped one where no record's can exceed C
        bitten = np.linalg.norm(moved, axis=1) + farthest >= cells.clip[:active]
        if bitten.any():
            moved[bitten] = _clipped_mean(problem, own, x[:active][bitten], C[:active][bitten])
        x[:active] -= α[:active] * moved
        _add(x[:active], -cells.alpha[:active] * cells.sigma[:active], noise.at(t).normal(problem.d))
        advance(1)


def nearest(problem: Problem, cells: Cells, seed: int) -> tuple[Floats, Floats]:
    """Lower bounds on DP-GD's training gradient norm and loss at its last iterate, (R,) each, without a run.

    x_T = - alpha (the sum of T clipped means + sigma Z) with Z the sum of the run's own noise, and a clipped mean is no
    longer than C: x_T lies within alpha C T of - alpha sigma Z. What ||A|| = 1 makes of that distance, in the norms of
    the gradient and of the loss, is taken from where - alpha sigma Z is. A thousandth is left for float32.
    """
    noise, a, mean = Streams.not_private(seed, seed).noise, problem.a, problem.train.mean
    total, totals = np.zeros(problem.d), {}
    lengths = {int(steps) for steps in cells.steps}
    for t in range(max(lengths)):
        total += noise.at(t).normal(problem.d)
        if t + 1 in lengths:
            totals[t + 1] = total.copy()
    away = np.stack([mean + α * σ * totals[T] for α, σ, T in zip(cells.alpha, cells.sigma, cells.steps, strict=True)])
    reach = cells.alpha * cells.clip * cells.steps
    gradient, root = (
        np.maximum(0.999 * np.linalg.norm(scale * away, axis=1) - 1.001 * reach, 0) for scale in (a, np.sqrt(a))
    )
    return gradient, problem.train.least + root**2 / 2


def _clipped_mean(problem: Problem, own: Array, x: Array, C: Array) -> Array:
    # |A (x - x_i)|^2 for every run and record by one matrix product, then the weighted sum of the x_i by another;
    # torch's products of a few rows take three quarters of numpy's time.
    a, records, norms, clip = problem.a, *map(torch.from_numpy, (problem.records, own, C))
    squares, twice = torch.from_numpy(np.square(a * x).sum(1, keepdims=True)), torch.from_numpy(-2 * (a * a * x))
    weights, sums = torch.zeros_like(squares), torch.zeros(x.shape)
    for block, own_norms in zip(records.split(_RECORDS), norms.split(_RECORDS), strict=True):
        weight = torch.addmm(own_norms, twice, block.T).add_(squares).clamp_(min=1e-12)
        weight = weight.rsqrt_().mul_(clip).clamp_(max=1.0)
        weights += weight.sum(1, keepdim=True)
        sums.addmm_(weight, block)
    return np.asarray(a * (weights.numpy() * x - sums.numpy()) / problem.n)


def _blocks(records: Array) -> Iterator[Array]:
    return (records[start : start + _RECORDS] for start in range(0, len(records), _RECORDS))


def _add(x: Array, coefficients: Floats, u: npt.NDArray[np.floating]) -> None:
    # A diverging run ends where it is: its coefficient would soon be no number.
    moves = np.where(np.abs(coefficients) < _FAR, coefficients, 0.0).astype(np.float32)
    x += moves[:, None] * u.astype(np.float32)


def _directions(problem: Problem, seeds: list[int]) -> Array:
    drawn = ahead(SphereDirection(), {"x": torch.empty(problem.d)}, seeds)
    return np.stack([u.dense()["x"].numpy() for (u,) in drawn])


def bytes_of_runs(n: int, d: int, runs: int, steps: int) -> int:
    """Bytes that so many runs take besides the records: iterates, a block of directions, products with the records."""
    block = min(_BLOCK, steps)
    return 28 * runs * d + block * (12 * d + 32 * n) + 8 * _RECORDS * (d + runs)
