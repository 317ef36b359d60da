"""``python -m synthetic.pl``: DPZero's bound under PL against runs on a non-convex problem, at several (d, r).

Every run has the corollary's own step size, number of steps, smoothing, threshold and noise
(``dpzo.theory.rates.pl_dpzero``); the problem's constants are known (``synthetic.problems.Wave``). The n records are a
few distinct ones in equal shares, so that a large n costs nothing. NOT PRIVATE: a simulation.
"""

import math
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
import typer
from tqdm import tqdm

from dpzo.theory import noise
from dpzo.theory.rates import Guarantee, Problem, pl_dpzero
from synthetic import report
from synthetic.command import at_least, folder, refusals
from synthetic.problems import WAVE_PL, Wave

CASES = [(10, 1), (40, 2), (40, 6), (200, 3)]  # d, r
_DISTINCT = 8
_LOST = 1e6  # a run this high has diverged


class Found(NamedTuple):
    """The mean of F(x_T) - F* over runs, its standard error, the bound; the largest F and |v| that were met."""

    gap: float
    error: float
    bound: float
    guarantee: Guarantee
    problem: Problem
    highest: float
    largest: float

    @property
    def within(self) -> bool:
        """Whether B, and so L, held all along the runs, and nothing was clipped."""
        return self.highest <= self.problem.B and self.largest < self.guarantee.clip


def measure(d: int, r: int, n: int, runs: int, *, seed: int = 0, sign: float = 1.0, bar: bool = False) -> Found:
    """Make ``runs`` runs at once; ``sign`` = -1 climbs instead, for a test that must see the bound missed."""
    wavy = Wave(_DISTINCT, d, r, seed=seed)
    x = wavy.start.repeat(runs, 1)
    gap = float(wavy.value(x[0]))
    B = 1.5 * gap
    problem = Problem(
        n=n, d=d, r=float(r), L=wavy.lipschitz(B), l=1.0, gap=gap, epsilon=2.0, delta=1e-6, B=B, mu=WAVE_PL
    )
    g = pl_dpzero(problem)
    T = math.ceil(g.steps)
    σ, highest, largest = noise.sigma(g.clip, T, n, problem.epsilon, problem.k), 0.0, 0.0
    generator = torch.Generator().manual_seed(seed)
    for _ in tqdm(range(T), desc=f"d = {d}, r = {r}", unit="step", disable=not bar, leave=False):
        u = torch.randn(runs, d, generator=generator, dtype=torch.float64)
        u *= math.sqrt(d) / u.norm(dim=1, keepdim=True)
        z = σ * torch.randn(runs, generator=generator, dtype=torch.float64)
        both = wavy.value(torch.stack([x + g.zo_eps * u, x - g.zo_eps * u]))
        v = ((both[0] - both[1]) / (2 * g.zo_eps))[:, None] + u @ wavy.tilts.T
        highest, largest = max(highest, float(both.max())), max(largest, float(v.abs().max()))
        if highest > _LOST:
            break
        x -= sign * g.alpha * (v.clamp(-g.clip, g.clip).mean(1) + z)[:, None] * u
    gaps = wavy.value(x)
    # T was rounded up and the noise with it: the bound grows by at most this factor.
    bound = g.bound * (1 + 1 / g.steps)
    return Found(float(gaps.mean()), float(gaps.std() / math.sqrt(runs)), bound, g, problem, highest, largest)


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
        verdict = f"{found.bound / found.gap:.0f}" if found.within else "its conditions did not hold"
        rows.append(
            [
                *(f"{d}", f"{r}", f"{math.ceil(found.guarantee.steps):,}", f"{found.problem.gap:.3g}"),
                *(f"{found.gap:.2e} ± {1.96 * found.error:.1e}", f"{found.bound:.2e}", verdict),
            ]
        )
    text = report.table(["d", "r", "T", "F(x_0) - F*", "mean of F(x_T) - F*", "bound", "bound / mean"], rows)
    print(text)
    told = f"n = {n:,}, (epsilon, delta) = (2, 1e-6), mu = {WAVE_PL}, l = 1, {runs} runs; ± half of a 95 % interval."
    report.write(out / "pl.md", f"{text}\n{told}", str(seed))
    print(f"Written: {out}/pl.md")


if __name__ == "__main__":
    typer.run(main)
