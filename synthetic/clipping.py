"""``python -m synthetic.clipping``: what an active clip does to the exact law of DPZero on quadratics.

Without clipping the law of ``dpzo.theory.quadratic`` is exact. With it, let v = u'A (x - x_i) be a record's derivative,
normal with standard deviation s: s^2 is |grad F|^2 from the common part and sum_j a_j^2 Var (x_i)_j from the record's
own. The mean of the clipped values, seen as a function of the common part w, has the slope P(|v| < C), so to first
order

    clipping multiplies the signal by the gain rho = P(|v| < C) = erf(C / (s sqrt 2)), and leaves the noise as it is:
    alpha (rho w + z) = (rho alpha) (w + z / rho), the law of the step size rho alpha and the noise sigma / rho.

``bent`` follows the law with the gain of each step. The gain is the share of values that are not clipped. As sigma
grows with C, the noise that is felt is proportional to C / rho, which falls to s sqrt(pi / 2) as C falls to 0: a hard
clip asks for a longer step, and no more noise. (Records that lie symmetrically about their mean are assumed; else the
clipped mean has another root.)

Source: ours. NOT PRIVATE: a simulation, with the draws of ``dpzo.run`` (see ``synthetic.sweep``).
"""

import math
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer
from scipy.special import erf
from tqdm import tqdm

from dpzo.theory import noise
from dpzo.theory.quadratic import Law, fourth_moments
from dpzo.theory.spectra import of
from synthetic import report, style
from synthetic.command import at_least, folder, refusals
from synthetic.problems import RANKS, Problem
from synthetic.sweep import Cells, Floats, run

RATIOS = (0.25, 0.5, 1.0, 2.0, 2.5, 3.0, 4.0)  # C over the standard deviation of a record's derivative at x_0
DRAWN = {0.25: "o", 0.5: "s", 1.0: "^", 2.0: "D", 4.0: "v"}
_FREE = 100.0  # clips nothing
_SMALL = 0.01  # a change of the loss that does not matter


def gain(ratio: float) -> float:
    """P(|v| < C) for a normal v, ``ratio`` = C over its standard deviation.

    >>> round(gain(2.0), 4)
    0.9545
    """
    return float(erf(ratio / math.sqrt(2)))


def bent(spread: Floats, a: Floats, alpha: float, steps: int, start: Floats, sigma: float, clip: float) -> Floats:
    """(steps + 1,) expected excess losses, to first order, on the sphere; ``spread`` (d,) is the records' variance."""
    p, q = fourth_moments("sphere", len(a))
    own = float(a**2 @ spread)
    m, losses = start.copy(), [float(start @ a) / 2]
    for _ in range(steps):
        slope = float(a**2 @ m)  # E w^2, the expected |grad F|^2
        ρ = gain(clip / math.sqrt(slope + own))
        m = (1 - 2 * alpha * ρ * a + (alpha * ρ * a) ** 2 * (p - q)) * m + alpha**2 * (q * ρ**2 * slope + sigma**2)
        losses.append(float(m @ a) / 2)
    return np.array(losses)


class Setting(NamedTuple):
    """A problem with one step size and one noise, whatever the threshold: only the clip differs between the runs."""

    problem: Problem
    alpha: float
    sigma: float
    steps: int

    @property
    def a(self) -> Floats:
        """(d,) the spectrum."""
        return self.problem.a.astype(np.float64)

    @property
    def spread(self) -> Floats:
        """(d,) the variance of the records."""
        return self.problem.records.var(0, dtype=np.float64)

    @property
    def start(self) -> Floats:
        """(d,) squared distances at x_0 = 0."""
        return np.square(self.problem.train.mean.astype(np.float64))

    def clip(self, ratio: float) -> float:
        """C for a ratio."""
        return ratio * math.sqrt(float(self.a**2 @ (self.start + self.spread)))

    def exact(self) -> Floats:
        """The law without clipping."""
        return Law(of(self.a), "sphere").trajectory(self.alpha, self.steps, self.start).loss(self.sigma)

    def bent(self, ratio: float) -> Floats:
        """The law to first order in the clip."""
        return bent(self.spread, self.a, self.alpha, self.steps, self.start, self.sigma, self.clip(ratio))


def setting(n: int, d: int, rank: str, steps: int, share: float, epsilon: float = 2.0, delta: float = 1e-6) -> Setting:
    """The noise that a budget asks for when C is the standard deviation itself.

    Raises:
        Refusal: a step size beyond the stability threshold.
    """
    problem = Problem(n, d, rank, seed=0)
    law = Law(problem.spectrum, "sphere")
    law.check(share * law.stable_below)
    whole = Setting(problem, share * law.stable_below, 0.0, steps)
    k = noise.exact_constant(epsilon, delta)
    return whole._replace(sigma=noise.sigma(whole.clip(1.0), steps, n, epsilon, k))


def measure(on: Setting, ratios: tuple[float, ...], marks: list[int], runs: int, bar: bool = False) -> Floats:
    """(runs, ratios + 1, marks) excess losses after so many steps; the last of the ratios clips nothing."""
    ratios = (*ratios, _FREE)
    rows = [(on.clip(ratio), t) for t in sorted(marks, reverse=True) for ratio in ratios]
    clips, lengths = (np.array(part) for part in zip(*rows, strict=True))
    cells = Cells(np.full(len(rows), on.alpha), clips, lengths, np.full(len(rows), on.sigma))
    found = []
    for seed in tqdm(range(runs), unit="run", disable=not bar):
        excess = run(on.problem, "DPZero", cells, seed).train_loss - on.problem.train.least
        found.append(excess.reshape(len(marks), len(ratios)).T[:, ::-1])
    return np.stack(found)


def main(
    d: Annotated[int, typer.Option(help="Dimension.")] = 100,
    rank: Annotated[str, typer.Option(help=f"Effective rank: {', '.join(RANKS)}.")] = "sqrt(d)",
    n: Annotated[int, typer.Option(help="Records.")] = 10_000,
    steps: Annotated[int, typer.Option(help="T.")] = 400,
    runs: Annotated[int, typer.Option(help="Runs to average; each has its own directions and noise.")] = 500,
    share: Annotated[float, typer.Option(help="Step size over the exact stability threshold.")] = 0.2,
    out: Annotated[Path, typer.Option(help="Where the table and the picture go.")] = Path("results"),
) -> None:
    """Measure the loss under clips from hard to mild, beside the law without clipping and the law bent by the gain."""
    with refusals():
        at_least(1, n=n, d=d, steps=steps)
        at_least(2, runs=runs)  # for an interval
        on = setting(n, d, rank, steps, share)
        folder(out)
        marks = sorted({math.ceil(steps * part / 12) for part in range(1, 13)})
        found = measure(on, RATIOS, marks, runs, bar=True)
    text = f"{table(on, found, marks)}\n{when(found)}\n"
    draw(on, found, marks, str(out / "clipping.png"))
    free = found[:, -1, -1] / on.exact()[-1]
    told = (
        f"d = {d:,}, effective rank {rank}, n = {n:,}, T = {steps:,}, {runs} runs, step size {on.alpha:.3g}; s is the "
        "standard deviation of a record's derivative at x_0, and the noise is the same for all C. Without a clip the "
        f"runs end at {free.mean():.3f} ± {1.96 * free.std(ddof=1) / math.sqrt(runs):.3f} of the exact law. The noise "
        "felt is sigma over the gain, had sigma grown with C as a private run's does."
    )
    report.write(out / "clipping.md", f"{text}\n{told}", f"0 to {runs - 1}, and 0 for the records")
    report.show(text)
    print(f"Written: {out}/clipping.md, clipping.png")


def departure(found: Floats, number: int, mark: int) -> tuple[float, float]:
    """The loss under a clip over that without one, both measured on the same draws, and its standard error."""
    clipped, free = found[:, number, mark], found[:, -1, mark]
    ratio = clipped.mean() / free.mean()
    error = (clipped - ratio * free).std(ddof=1) / (math.sqrt(len(found)) * free.mean())
    return float(ratio), float(error)


def when(found: Floats) -> str:
    """From which C on the clip does not matter, and what it does below."""
    harmless = None
    for number in reversed(range(len(RATIOS))):
        changes = [departure(found, number, mark) for mark in range(found.shape[2])]
        if any(abs(ratio - 1) > max(_SMALL, 1.96 * error) for ratio, error in changes):
            break
        harmless = RATIOS[number]
    small = f"{100 * _SMALL:g} %"
    if harmless is None:
        return f"The clip matters at every C that was tried: the loss changes by more than {small}."
    return (
        f"The clip does not matter from C = {harmless:g} s on, where {100 * (1 - gain(harmless)):.2g} % of the "
        f"derivatives are clipped at x_0: at no mark does the loss change by more than {small} or the interval. A "
        "harder clip slows the run as a step size shorter by the gain would, and first order tells by how much."
    )


def table(on: Setting, found: Floats, marks: list[int]) -> str:
    """Markdown: the loss over that without a clip, measured and to first order, near a quarter of the run and at T."""
    early = marks.index(min(marks, key=lambda t: abs(t - on.steps / 4)))
    exact, rows = on.exact(), []
    for number, ratio in enumerate(RATIOS):
        curve, cells = on.bent(ratio), []
        for at in (early, len(marks) - 1):
            measured, error = departure(found, number, at)
            cells += [f"{measured:.4f} ± {1.96 * error:.4f}", f"{curve[marks[at]] / exact[marks[at]]:.4f}"]
        felt = ratio / gain(ratio) / math.sqrt(math.pi / 2)
        rows.append([f"{ratio:g}", f"{1 - gain(ratio):.2g}", *cells, f"{felt:.2f}"])
    columns = ["C / s", "clipped at x_0"]
    for t in (marks[early], marks[-1]):
        columns += [f"loss over unclipped, t = {t}", "first order"]
    return report.table([*columns, "noise felt, over the least"], rows)


def draw(on: Setting, found: Floats, marks: list[int], path: str) -> None:
    """Marks for the runs, lines for the first-order law, black for the law without clipping."""
    import matplotlib as mpl

    figure, grid = style.axes(width=5.6, height=3.8)
    panel, colours = grid[0, 0], mpl.colormaps["viridis"](np.linspace(0, 0.7, len(DRAWN)))
    half = 1.96 * found.std(0, ddof=1) / math.sqrt(len(found))
    ends = []
    for (ratio, mark), colour in zip(DRAWN.items(), colours, strict=True):
        number = RATIOS.index(ratio)
        mean, line = found[:, number].mean(0), on.bent(ratio)
        panel.plot(line, color=colour, linewidth=1)
        look = {"fmt": mark, "markersize": 3.5, "capsize": 2, "linewidth": 1, "color": colour}
        panel.errorbar(marks, mean, half[number], **look)
        ends.append((marks[-1], line[-1], f"C = {ratio:g} s", colour))
    panel.plot(on.exact(), color="black", linestyle="--", linewidth=1)
    ends.append((marks[-1], on.exact()[-1], "no clip: exact law", "black"))
    panel.set(yscale="log", xlabel="step", ylabel="expected loss above its minimum")
    panel.set_title("marks: runs; lines: the law with the gain of each step")
    style.label_ends(panel, ends)
    style.save(figure, path)


if __name__ == "__main__":
    typer.run(main)
