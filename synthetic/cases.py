"""What ``synthetic.convergence`` can train: a problem, how to measure a run, and what theory says of it."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dpzo import memory
from dpzo.errors import positive
from dpzo.models.quadratic import Quadratic
from dpzo.theory.quadratic import Direction, Law
from dpzo.theory.stagewise import smoothing_floor
from synthetic.curvature import Curvature, curvature
from synthetic.known import Logistic
from synthetic.problems import RANKS, WAVE_PL, Network, Problem, Tilted, Wave
from synthetic.sweep import Floats

METHODS = ("DPZero", "DPGD-0th")
ZO_EPS = 1e-3  # lambda of all runs


class Case(NamedTuple):
    """A problem to train.

    ``start`` makes a model at x_0; ``height`` is what is drawn of a model; ``steepest`` is the length of the steepest
    record's gradient at x_0 (or a bound on it); ``step_size`` is the theory's; ``curve`` gives, for a method, the noise
    on the mean, a step size and T, the name and the values (T + 1,) of the theory's line, if there is one; ``ending``
    tells of a trained model; ``check`` refuses a step size with which no run makes sense.
    """

    title: str
    drawn: str
    data: Tensor
    d: int
    start: Callable[[], Any]
    height: Callable[[Any], float]
    steepest: float
    step_size: float
    curve: Callable[[str, float, float, int], tuple[str, Floats] | None]
    note: str
    ending: Callable[[Any], str] = lambda model: ""
    check: Callable[[float], None] = partial(positive, "alpha")


def quadratic(n: int, d: int, rank: str, direction: Direction) -> Case:
    """The paper's quadratic; the line is the exact law of both methods, whose noise differs."""
    problem = Problem(n, d, rank, seed=0)
    memory.require(36 * n * d, "runs", "Take a smaller d or n.")  # records, a copy in float64, losses' own copies
    data, spectrum = torch.from_numpy(problem.records).double(), torch.from_numpy(problem.a).double()
    law, mean = Law(problem.spectrum, direction), data.mean(0)
    told_one_by_one = len(law.spectrum.values) == d
    each = np.square(mean.numpy())
    from_start = each if told_one_by_one else np.full(law.spectrum.values.shape, each.mean())

    def curve(method: str, sigma: float, alpha: float, steps: int) -> tuple[str, Floats]:
        return "exact law", law.trajectory(alpha, steps, from_start).loss(sigma)

    return Case(
        title=f"quadratic, d = {d:,}, effective rank {rank}",
        drawn="expected loss above its minimum",
        data=data,
        d=d,
        start=lambda: Quadratic(spectrum, torch.zeros(d, dtype=torch.float64)),
        height=lambda model: float((model.params["x"] - mean).square() @ spectrum) / 2,
        steepest=float((spectrum * data).norm(dim=1).max()),
        step_size=law.stable_below,
        curve=curve,
        note=f"step sizes are shares of the exact stability threshold {law.stable_below:.4g}",
        check=law.check,
    )


def pl(n: int, d: int, rank: str, direction: Direction) -> Case:
    """The non-convex wave; the lines are the bound of ``dpzo.theory.stagewise``, but for its term for clipped values.

    The same one-step inequality holds for both methods, whose noise differs.
    """
    active = math.ceil({"d": d, "sqrt(d)": math.sqrt(d), "log(d)": math.log(d)}[rank])
    wavy = Wave(n, d, max(1, active))
    gap = float(wavy.value(wavy.start))

    def curve(method: str, sigma: float, alpha: float, steps: int) -> tuple[str, Floats]:
        kept = (1 - alpha * WAVE_PL / 2) ** np.arange(steps + 1)
        floor = alpha * wavy.active * sigma**2 / WAVE_PL + smoothing_floor(ZO_EPS, l=1.0, r=wavy.active, mu=WAVE_PL)
        bound = kept * gap + (1 - kept) * floor
        return "bound: says nothing" if bound[-1] >= gap else "bound under PL", bound

    return Case(
        title=f"non-convex, under PL, d = {d:,}, effective rank {wavy.active}",
        drawn="mean of F above its minimum",
        data=wavy.tilts,
        d=d,
        start=lambda: Tilted(wavy),
        height=lambda model: float(wavy.value(model.params["x"])),
        steepest=wavy.lipschitz(gap),
        step_size=1 / (4 * (wavy.active + 2)),
        curve=curve,
        note=f"l = 1, r = {wavy.active}, mu = {WAVE_PL}; step sizes are shares of 1 / (4 l (r + 2)); "
        "the bound leaves out what clips add, and says nothing where it ends above the start (`python -m synthetic.pl` "
        "is where it says something)",
    )


def logistic(n: int, d: int, rank: str, direction: Direction) -> Case:
    """Logistic regression; the lines bound the mean of |grad F|^2 over the steps so far, but for clipped values.

    That is the sum of the one-step inequality of ``dpzo.theory.stagewise``, which differs by the noise alone.
    ``rank`` is that of the features' covariance, whose eigenvalues are j**-p; the Hessian's is told.
    """
    memory.require(24 * n * d, "records", "Take a smaller d or n.")
    problem = Logistic(n, d, RANKS[rank] / 2)
    data, r, l = torch.from_numpy(problem.records), problem.effective_rank, problem.l

    def curve(method: str, sigma: float, alpha: float, steps: int) -> tuple[str, Floats]:
        start = 4 * problem.gap / alpha / np.maximum(np.arange(steps + 1), 1e-9)
        floor = 2 * alpha * l * r * sigma**2 + (l * ZO_EPS) ** 2 * r * (3 * r + 8) / 4
        return "bound, mean so far", np.minimum(start + floor, problem.L**2)

    def height(model: Any) -> float:
        return float(np.square(problem.gradient(model.params["weight"][0].detach().numpy())).sum())

    return Case(
        title=f"logistic regression, d = {d:,}, effective rank {r:.1f}",
        drawn="mean of |grad F|^2",
        data=data,
        d=d,
        start=problem.model,
        height=height,
        steepest=problem.L,
        step_size=1 / (4 * l * (r + 2)),
        curve=curve,
        note=f"L = 1, l = 1/4, r = {r:.2f}; step sizes are shares of 1 / (4 l (r + 2)); the bound is on the "
        "mean over the steps so far, and leaves out what clips add",
    )


def network(n: int, d: int, rank: str, direction: Direction) -> Case:
    """A small network with a teacher: no law is known, so the line is the teacher's own loss.

    It has its own d and rank: those given are not used. The curvature is measured at x_0, and 1 / (4 l (r + 2)) is the
    step size that theorem 3 gives it.
    """
    problem = Network(n)
    height = _mean_loss(problem.data)
    best, model = height(problem.teacher()), problem.student()
    found = measured_curvature(model, problem.data)
    count = model.params.count

    def curve(method: str, sigma: float, alpha: float, steps: int) -> tuple[str, Floats]:
        return "the teacher's loss", np.full(steps + 1, best)

    return Case(
        title=f"tanh network, d = {count:,}, effective rank {found.effective_rank:.1f} at x_0",
        drawn="mean loss",
        data=problem.data,
        d=count,
        start=problem.student,
        height=height,
        steepest=_steepest(problem),
        step_size=1 / (4 * found.norm * (found.effective_rank + 2)),
        curve=curve,
        note=f"at x_0 {_told(found)}; step sizes are shares of 1 / (4 l (r + 2)) with these",
        ending=lambda model: f"at x_T of the last run {_told(measured_curvature(model, problem.data))}",
    )


CASES = {"quadratic": quadratic, "pl": pl, "logistic": logistic, "network": network}
RANK_NAMES = tuple(RANKS)


def measured_curvature(model: Any, data: Tensor) -> Curvature:
    """The curvature of the mean loss where ``model`` is, by products with its Hessian."""
    parameters = [parameter.requires_grad_(True) for parameter in model.params.values()]
    loss = model.loss(model.module, data).mean()
    slopes = torch.autograd.grad(loss, parameters, create_graph=True)
    flat = torch.cat([slope.reshape(-1) for slope in slopes])

    def product(v: Tensor) -> Tensor:
        seconds = torch.autograd.grad(flat @ v, parameters, retain_graph=True, materialize_grads=True)
        return torch.cat([second.reshape(-1) for second in seconds])

    return curvature(product, model.params.count, probes=20, steps=40)


def _told(found: Curvature) -> str:
    return f"the Hessian's norm is {found.norm:.3g} and its effective rank {found.effective_rank:.2f}"


def _mean_loss(data: Tensor) -> Callable[[Any], float]:
    return lambda model: float(model.losses(data).double().mean())


def _steepest(problem: Network) -> float:
    model = problem.student()
    values = {name: value.detach() for name, value in model.params.items()}

    def loss(parameters: dict[str, Tensor], record: Tensor) -> Tensor:
        return model.loss(lambda x: torch.func.functional_call(model.module, parameters, (x,)), record[None])[0]

    slopes = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(values, problem.data)
    return float(sum(slope.flatten(1).square().sum(1) for slope in slopes.values()).max().sqrt())  # type: ignore[union-attr]
