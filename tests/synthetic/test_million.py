"""Runs that never see a record's coordinates against the library's on the records themselves, and against the law."""

import numpy as np
import pytest
import torch

from dpzo import Plan, Refusal, Relation, Stage, Streams, memory, run
from dpzo.directions import SphereDirection
from dpzo.mechanisms import GaussianMechanism, GaussianVectorMechanism
from dpzo.models.quadratic import Quadratic
from dpzo.sampling import FullBatch
from dpzo.theory.quadratic import Law
from dpzo.theory.spectra import power_law
from synthetic import million, sweep
from synthetic.million import Run, descend, products, simulate
from synthetic.problems import Problem
from synthetic.sweep import Cells

SIGMAS = 7.0


def by_the_library(problem, one, seed):
    kind = GaussianVectorMechanism if one.method == "DPGD-0th" else GaussianMechanism
    plan = Plan(
        algorithm=one.method.lower(),
        n=problem.n,
        sampler=FullBatch(),
        mechanism=kind(one.clip, one.sigma * problem.n / one.clip),
        direction=SphereDirection(),
        stages=(Stage(one.steps, one.alpha, 1e-2),),
        relation=Relation.REPLACE_ONE,
    )
    model = Quadratic(torch.from_numpy(problem.a).double(), torch.zeros(problem.d, dtype=torch.float64))
    for _ in run(plan, model, torch.from_numpy(problem.records).double(), Streams.not_private(seed, seed)):
        pass
    return model.params["x"].numpy()


@pytest.mark.parametrize("method", ["DPZero", "DPGD-0th"])
def test_given_the_products_a_run_is_the_librarys(method):
    """Kills: a clip of the vector taken for the scalar's, noise of another step, a longer run that moves a shorter."""
    problem, seed = Problem(40, 7, "sqrt(d)", seed=1), 3
    runs = [Run(method, problem.rank, 0.1, steps, clip, 0.05) for steps in (20, 5) for clip in (0.4, 50.0)]
    streams = Streams.not_private(seed, seed)
    seeds = [streams.direction_seed(t) for t in range(20)]
    U = np.stack([SphereDirection().draw({"x": torch.empty(7)}, s).dense()["x"].numpy() for s in seeds])
    seen = ((U * problem.a) @ problem.records.T).astype(np.float64)
    got = descend(runs, U, {problem.rank: problem.a}, {problem.rank: seen}, streams)
    for one, x in zip(runs, got, strict=True):
        assert x == pytest.approx(by_the_library(problem, one, seed), rel=1e-3, abs=1e-4)


@pytest.mark.statistical
@pytest.mark.parametrize("d", [3, 40])
def test_products_have_the_law_of_those_with_records(d, monkeypatch):
    """More steps than coordinates, and fewer. Kills: A for A^2, a block left out, a mean that is not the given one."""
    monkeypatch.setattr(million, "_COORDINATES", 16)
    generator = np.random.default_rng(0)
    T, n = 6, 40_000
    U, a = generator.standard_normal((T, d), dtype=np.float32), np.linspace(0.3, 1, d, dtype=np.float32)
    mean = generator.standard_normal(d)
    got = products(U, a, mean, n, generator)
    exact = (U * a).astype(float)
    assert got.mean(1) == pytest.approx(exact @ mean, rel=1e-4, abs=1e-4)
    covariance = exact @ exact.T
    spread = np.sqrt((np.outer(covariance.diagonal(), covariance.diagonal()) + covariance**2) / n)
    assert (np.abs(np.cov(got) - covariance) < SIGMAS * spread + 1e-4).all()


@pytest.mark.statistical
@pytest.mark.parametrize("method", ["DPZero", "DPGD-0th"])
def test_runs_that_clip_end_as_those_on_records_do(method):
    """Against ``sweep`` on real records, many clipped. Kills: independent records at each step, no clipping."""
    d, n, steps, seeds = 12, 30, 20, 150
    clip = 1.0 if method == "DPZero" else np.sqrt(d)
    one = Run(method, "log(d)", 0.05, steps, clip, 0.3)
    cell = Cells(*(np.array([v]) for v in (one.alpha, one.clip, one.steps, one.sigma)))
    mine = np.array([simulate(d, n, [one], seed) for seed in range(seeds)])[:, 0]
    other = []
    for seed in range(seeds, 2 * seeds):
        problem = Problem(n, d, one.rank, seed)
        start = problem.gradient_norm(np.zeros((1, d), np.float32), problem.train)
        other.append(float((sweep.run(problem, method, cell, seed).train_gradient / start)[0] ** 2))
    error = np.sqrt((np.var(mine) + np.var(other)) / seeds)
    assert abs(mine.mean() - np.mean(other)) < SIGMAS * error
    (loose,) = {simulate(d, n, [one._replace(clip=100 * clip)], 0)[0]}
    assert loose < 0.8 * mine.mean()


@pytest.mark.statistical
@pytest.mark.parametrize(("method", "d"), [("DPZero", 300), ("DPZero", 20_000), ("DPGD-0th", 300)])
def test_runs_lie_on_the_exact_law(method, d):
    """Two blocks of coordinates at the larger d. Kills: twice the noise, another step size."""
    n, steps, seeds, spectrum = 1000, 40, 60, power_law(d, 1.0)
    law = Law(spectrum, "sphere")
    alpha = 0.3 * law.stable_below
    loud, quiet = (Run(method, "log(d)", alpha, steps, 1e6, sigma) for sigma in (2.0, 0.2))
    shares = np.array([simulate(d, n, [loud, quiet], seed) for seed in range(seeds)])
    error = shares.std(0, ddof=1) / np.sqrt(seeds)

    def off(row, alpha, sigma):
        slopes = law.trajectory(alpha, steps, np.ones_like(spectrum.values)).squared_gradient(sigma)
        return abs(shares.mean(0)[row] - slopes[-1] / slopes[0]) / error[row]

    assert off(0, alpha, 2.0) < SIGMAS
    assert off(1, alpha, 0.2) < SIGMAS
    assert off(0, alpha, 4.0) > SIGMAS
    assert off(1, alpha / 3, 0.2) > SIGMAS


def test_directions_that_do_not_fit_are_refused(monkeypatch):
    monkeypatch.setattr(memory, "free", lambda: 10_000)
    with pytest.raises(Refusal, match="GiB of free memory"):
        simulate(1000, 10, [Run("DPZero", "d", 0.1, 5, 1.0, 0.1)], 0)
