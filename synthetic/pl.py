"""``python -m synthetic.pl``: DPZero's bound under PL against runs on a non-convex problem, at several (d, r).

Every run has the corollary's own step size, number of steps, smoothing, threshold and noise
(``dpzo.theory.rates.pl_dpzero``); the problem's constants are known (``synthetic.problems.Wave``). The n records are a
few distinct ones in equal shares, so that a large n costs nothing. NOT PRIVATE: a simulation.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
import typer
from tqdm import tqdm

from dpzo.theory.rates import Guarantee, Problem, pl_dpzero
from synthetic import report
from synthetic.bounds import Outcome, simulate
from synthetic.command import at_least, folder, refusals
from synthetic.problems import WAVE_PL, Wave
from synthetic.sweep import Floats

CASES = [(10, 1), (40, 2), (40, 6), (200, 3)]  # d, r
_DISTINCT = 8


@dataclass(frozen=True)
class Known:
    """A ``Wave`` with its constants where F <= B = 1.5 F(x_0), as ``synthetic.bounds`` asks for them."""

    wavy: Wave

    l, mu, least = 1.0, WAVE_PL, 0.0

    @property
    def n(self) -> int:
        return self.wavy.n

    @property
    def d(self) -> int:
        return self.wavy.d

    @property
    def effective_rank(self) -> float:
        return float(self.wavy.active)

    @property
    def start(self) -> Floats:
        return self.wavy.start.numpy()

    @property
    def gap(self) -> float:
        return float(self.wavy.value(self.wavy.start))

    @property
    def B(self) -> float:
        return 1.5 * self.gap

    @property
    def L(self) -> float:
        return self.wavy.lipschitz(self.B)

    def losses(self, W: Floats) -> Floats:
        own = self.wavy.value(torch.from_numpy(W)).numpy()
        return np.asarray(own[..., None] + W @ self.wavy.tilts.numpy().T)

    def gradient(self, W: Floats) -> Floats:
        return np.where(np.arange(self.d) < self.wavy.active, (2 * W + 3 * np.sin(2 * W)) / 8, 0.0)

    def steepest(self, W: Floats) -> float:
        g, b = self.gradient(W), self.wavy.tilts.numpy()
        return math.sqrt((np.square(g).sum(1)[:, None] + 2 * g @ b.T + np.square(b).sum(1)).max())


class Found(NamedTuple):
    """The mean of F(x_T) - F* over runs, its standard error, the bound, and what made them."""

    gap: float
    error: float
    bound: float
    guarantee: Guarantee
    problem: Problem
    outcome: Outcome

    @property
    def within(self) -> bool:
        """Whether the corollary's conditions hold, B and so L all along the runs too, and nothing was clipped."""
        p, met = self.problem, self.outcome
        return not self.guarantee.fails and met.highest <= p.B and met.steepest <= p.L and not met.clipped


def measure(d: int, r: int, n: int, runs: int, *, seed: int = 0, sign: float = 1.0, bar: bool = False) -> Found:
    """Make ``runs`` runs at once; ``sign`` = -1 climbs instead, for a test that must see the bound missed."""
    on = Known(Wave(_DISTINCT, d, r, seed=seed))
    problem = Problem(n=n, d=d, r=float(r), L=on.L, l=on.l, gap=on.gap, epsilon=2.0, delta=1e-6, B=on.B, mu=on.mu)
    g = pl_dpzero(problem)
    T, name = math.ceil(g.steps), f"d = {d}, r = {r}"
    with tqdm(total=T, desc=name, unit="step", disable=not bar, leave=False) as progress:
        met = simulate("DPZero under PL", on, problem, runs, seed=seed, sign=sign, advance=progress.update)
    # T was rounded up and the noise with it: the bound grows by at most this factor.
    return Found(met.measured, met.error, g.bound * (1 + 1 / g.steps), g, problem, met)


def main(
    n: Annotated[int, typer.Option(help="Records.")] = 2**20,
    runs: Annotated[int, typer.Option(help="Runs to average.")] = 30,
    seed: Annotated[int, typer.Option(help="Seed of the records, the directions and the noise.")] = 0,
    out: Annotated[Path, typer.Option(help="Where the table goes.")] = Path("results"),
) -> None:
    """Print the measured gap, the bound and their ratio for each (d, r), and write pl.md."""
    with refusals():
        at_least(1, n=n)
        at_least(2, runs=runs)  # for an interval
        folder(out)
    rows = []
    for d, r in CASES:
        found = measure(d, r, n, runs, seed=seed, bar=True)
        ratio = f"{found.bound / found.gap:.0f}"
        verdict = ratio if found.within else "; ".join(found.guarantee.fails) or "B or L was exceeded"
        rows.append(
            [
                *(f"{d}", f"{r}", f"{math.ceil(found.guarantee.steps):,}", f"{found.problem.gap:.3g}"),
                *(f"{found.gap:.2e} ± {1.96 * found.error:.1e}", f"{found.bound:.2e}", verdict),
            ]
        )
    text = report.table(["d", "r", "T", "F(x_0) - F*", "mean of F(x_T) - F*", "bound", "bound / mean"], rows)
    told = f"n = {n:,}, (epsilon, delta) = (2, 1e-6), mu = {WAVE_PL}, l = 1, {runs} runs; ± half of a 95 % interval."
    report.write(out / "pl.md", f"{text}\n{told}", str(seed))
    report.show(text)
    print(f"Written: {out}/pl.md")


if __name__ == "__main__":
    typer.run(main)
