"""The sweep's shortcuts against the library itself, run by run."""

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dpzo import Plan, Refusal, Relation, Stage, Streams, memory, run
from dpzo.directions import SphereDirection
from dpzo.mechanisms import GaussianMechanism, GaussianVectorMechanism
from dpzo.models.quadratic import Quadratic
from dpzo.sampling import FullBatch
from dpzo.theory.noise import exact_constant, sigma
from synthetic import problems, sweep
from synthetic.problems import RANKS, Problem
from synthetic.sweep import Cells, grid, with_noise

N, D, SEED = 40, 7, 3
PROBLEM = Problem(N, D, "sqrt(d)", seed=1)
CELLS = with_noise(grid((0.02, 0.2), (0.3, 50.0), (5, 70)), N, epsilon=20.0, k=exact_constant(20.0, 1e-5))


def by_the_library(method, row):
    clip, steps = float(CELLS.clip[row]), int(CELLS.steps[row])
    multiplier = float(CELLS.sigma[row]) * N / clip
    kind = GaussianVectorMechanism if method == "DPGD-0th" else GaussianMechanism
    plan = Plan(
        algorithm="dpgd-0th" if method == "DPGD-0th" else "dpzero",
        n=N,
        sampler=FullBatch(),
        mechanism=kind(clip, multiplier),
        direction=SphereDirection(),
        stages=(Stage(steps, float(CELLS.alpha[row]), 1e-2),),
        relation=Relation.REPLACE_ONE,
    )
    model = Quadratic(torch.from_numpy(PROBLEM.a).double(), torch.zeros(D, dtype=torch.float64))
    data = torch.from_numpy(PROBLEM.records).double()
    for _ in run(plan, model, data, Streams.not_private(SEED, SEED)):
        pass
    return float(model.gradient(data).norm()), float(model.losses(data).mean())


@pytest.mark.parametrize("method", ["DPZero", "DPGD-0th"])
def test_every_cell_is_the_run_that_the_library_makes(method):
    """Kills: a clip of the vector taken for the scalar's, noise without its step, a sort that loses a record."""
    got = sweep.run(PROBLEM, method, CELLS, SEED)
    for row in range(len(CELLS)):
        gradient, loss = by_the_library(method, row)
        assert got.train_gradient[row] == pytest.approx(gradient, rel=1e-3)
        assert got.train_loss[row] == pytest.approx(loss, rel=1e-3)


def test_gradient_descent_is_the_plain_loop(monkeypatch):
    """Kills: a block of records that is left out, or weighed with another's norms."""
    monkeypatch.setattr(sweep, "_RECORDS", 16)  # two blocks and a half
    got = sweep.run(PROBLEM, "DP-GD", CELLS, SEED)
    noise, a, records = Streams.not_private(SEED, SEED).noise, PROBLEM.a.astype(float), PROBLEM.records.astype(float)
    for row in range(len(CELLS)):
        x = np.zeros(D)
        for t in range(CELLS.steps[row]):
            g = a * (x - records)
            clipped = g * np.minimum(1, CELLS.clip[row] / np.linalg.norm(g, axis=1))[:, None]
            x -= CELLS.alpha[row] * (clipped.mean(0) + CELLS.sigma[row] * noise.at(t).normal(D))
        assert got.train_gradient[row] == pytest.approx(np.linalg.norm(a * (x - records.mean(0))), rel=1e-3)


@given(st.integers(0, 100), st.sampled_from(list(RANKS)))
def test_no_run_comes_nearer_than_its_bound(seed, rank):
    """Kills: a sum of noise that lacks a step, a reach without its step size or threshold."""
    problem = Problem(N, D, rank, seed=seed)
    cells = with_noise(grid((1e-3, 0.02, 0.2), (0.3, 3.0, 50.0), (1, 9)), N, epsilon=20.0, k=exact_constant(20.0, 1e-5))
    got, (gradient, loss) = sweep.run(problem, "DP-GD", cells, seed), sweep.nearest(problem, cells, seed)
    assert (gradient <= got.train_gradient).all()
    assert (loss <= got.train_loss).all()
    short = cells.alpha * cells.clip * cells.steps < 0.01
    assert (gradient[short] > 0.98 * got.train_gradient[short]).all()


@given(st.integers(0, 100), st.floats(0.01, 1.0), st.floats(0.1, 100.0))
def test_a_cell_does_not_know_the_others(seed, alpha, clip):
    one = Cells(np.array([alpha]), np.array([clip]), np.array([9]), np.array([0.1]))
    two = Cells(np.array([0.5, alpha]), np.array([3.0, clip]), np.array([30, 9]), np.array([1.0, 0.1]))
    alone, beside = (sweep.run(PROBLEM, "DPZero", c, seed) for c in (one, two))
    assert beside.test_loss[1] == pytest.approx(alone.test_loss[0], rel=1e-4)


def test_the_grid_has_every_combination_the_longest_first_each_with_its_own_noise():
    assert len(CELLS) == 8
    assert list(CELLS.steps) == [70] * 4 + [5] * 4
    for row in range(8):
        expected = sigma(CELLS.clip[row], CELLS.steps[row], N, 20.0, exact_constant(20.0, 1e-5))
        assert CELLS.sigma[row] == pytest.approx(expected)


def test_a_diverged_run_is_reported_and_harms_no_other():
    cells = Cells(np.array([1e6, 0.02]), np.array([1e6, 50.0]), np.array([70, 70]), np.array([0.0, 0.0]))
    got = sweep.run(PROBLEM, "DPZero", cells, SEED)
    assert got.train_loss[0] > 1e3
    assert np.isfinite(got.train_loss[1])


@pytest.mark.parametrize("rank", RANKS)
def test_the_problem_is_the_papers(rank):
    problem = Problem(400, 50, rank, seed=5)
    assert problem.a.max() == 1
    assert problem.spectrum.trace == pytest.approx(float(problem.a.sum()), rel=1e-6)
    assert problem.records.mean() == pytest.approx(1, abs=0.05)
    assert problem.records.std() == pytest.approx(1, abs=0.05)
    assert not np.array_equal(problem.test.mean, problem.train.mean)
    x = np.zeros((1, 50), dtype=np.float32)
    direct = (0.5 * (problem.records**2) @ problem.a).mean()
    assert problem.loss(x, problem.train)[0] == pytest.approx(direct, rel=1e-4)


def test_refusals(monkeypatch):
    with pytest.raises(Refusal, match="DPZero"):
        sweep.run(PROBLEM, "SGD", CELLS, 0)
    PROBLEM.records  # noqa: B018  (drawn)
    monkeypatch.setattr(memory, "free", lambda: 1000)
    with pytest.raises(Refusal, match="runs that need"):
        sweep.run(PROBLEM, "DPZero", CELLS, 0)
    with pytest.raises(Refusal, match="records that need"):
        sweep.run(Problem(N, D, "d", seed=99), "DPZero", CELLS, 0)


def test_records_of_many_blocks_are_those_of_one(monkeypatch):
    """Kills: a block drawn twice or left out, a variance about another mean."""
    whole = problems._drawn(50, 7, 11)
    monkeypatch.setattr(problems, "_AT_ONCE", 30)
    parts = problems._drawn.__wrapped__(50, 7, 11)
    assert np.array_equal(whole.records, parts.records)
    for one, other in ((whole.train, parts.train), (whole.test, parts.test)):
        np.testing.assert_allclose(one, other, rtol=1e-12)
    np.testing.assert_allclose(parts.train[0], whole.records.mean(0, dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(parts.train[1], whole.records.var(0, dtype=np.float64), rtol=1e-12)


@pytest.mark.parametrize(("n", "d", "runs", "steps"), [(20_000, 20, 100, 130), (500, 2000, 300, 2), (4000, 900, 5, 2)])
def test_what_is_said_to_be_needed_is_what_is_needed(n, d, runs, steps):
    """Of numpy's arrays, at most; and not twice as much. Kills: a float64 copy of all records."""
    problems._drawn.cache_clear()
    each = (np.full(runs, value) for value in (1e-3, 1.0, steps, 0.1))
    tracemalloc.start()
    problem = Problem(n, d, "d", 0)
    kept = problem.records.nbytes
    drawing = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    sweep.run(problem, "DPZero", Cells(*each), 0)
    whole = max(drawing, tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
    said = problems.bytes_of_records(n, d)
    assert 0.6 * said < drawing < 1.02 * said
    assert whole < max(said, kept + sweep.bytes_of_runs(n, d, runs, steps)) < 2 * whole
