"""The problems of ``synthetic.convergence``: each is trained by ``dpzo.run``, and its line is what theory says."""

import math

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from dpzo import Stage
from dpzo.theory.rates import Problem
from dpzo.theory.stagewise import bounds_after
from synthetic import cases, convergence
from synthetic.cases import CASES, METHODS, ZO_EPS
from synthetic.problems import WAVE_PL, Network


def typer_app():
    import typer

    app = typer.Typer()
    app.command()(convergence.main)
    return app


@pytest.mark.parametrize("problem", CASES)
def test_every_problem_falls_under_dpzero_when_the_noise_is_small(problem):
    """Kills: a step that climbs, a height that is not the model's."""
    case = CASES[problem](200, 12, "log(d)", "sphere")
    alpha = 0.3 * case.step_size if problem == "quadratic" else case.step_size
    found = convergence.measure(case, "DPZero", "sphere", alpha, 1e4, 1e-4, steps=200, runs=2)
    assert found.heights.shape == (2, 201)
    assert (found.heights[:, -1] < 0.8 * found.heights[:, 0]).all()
    assert (found.heights[0] != found.heights[1]).any()  # each run has its own draws


def test_the_noise_of_a_vector_is_that_of_its_clip():
    """Kills: DPGD-0th run with DPZero's threshold."""
    case = CASES["quadratic"](100, 9, "d", "sphere")
    one, other = (convergence.measure(case, m, "sphere", 0.01, 2.0, 1e-6, steps=2, runs=2) for m in METHODS)
    assert other.sigma == pytest.approx(3 * one.sigma)


@pytest.mark.parametrize("problem", CASES)
@pytest.mark.parametrize("rank", ["d", "log(d)"])
def test_no_record_is_steeper_than_is_said(problem, rank):
    """By differentiation at x_0; the clip is a multiple of it. Kills: a twentieth of it."""
    case = CASES[problem](40, 12, rank, "sphere")
    model = case.start()
    leaves = [tensor.requires_grad_(True) for tensor in model.params.values()]
    of_records = model.loss(model.module, case.data) if hasattr(model, "module") else model.losses(case.data)
    slopes = [torch.autograd.grad(loss, leaves, retain_graph=True) for loss in of_records]
    longest = max(float(sum(part.square().sum() for part in slope).sqrt()) for slope in slopes)
    assert longest <= case.steepest * (1 + 1e-6)
    if problem in ("quadratic", "network"):  # there it is the longest itself
        assert longest == pytest.approx(case.steepest, rel=1e-6)


def test_the_line_under_pl_is_the_stagewise_bound_without_its_clips():
    """One stage of it at every t. Kills: no smoothing, another rate, an empty bound that is not told."""
    case = CASES["pl"](4, 12, "log(d)", "sphere")
    wavy, alpha = case.start().problem, case.step_size
    gap = float(wavy.value(wavy.start))
    p = Problem(n=200, d=12, r=3.0, L=1.0, l=1.0, gap=gap, epsilon=2.0, delta=1e-6, mu=WAVE_PL)
    for σ in (1e-3, 3.0):
        name, line = case.curve("DPZero", σ, alpha, 9)
        told = [gap]
        for t in range(1, 10):
            stage = Stage(steps=t, step_size=alpha, zo_eps=ZO_EPS, clip_threshold=100.0)
            told += bounds_after(p, [stage], σ)
        assert line == pytest.approx(told, rel=1e-9)
        assert ("says nothing" in name) == (line[-1] >= gap)
        assert case.curve("DPGD-0th", σ, alpha, 9)[1] == pytest.approx(line)
    at_last = case.curve("DPZero", 0.0, alpha, 10**5)[1][-1]
    assert at_last == pytest.approx(ZO_EPS**2 * 3 * 17 / (8 * WAVE_PL))  # smoothing alone


@pytest.mark.parametrize("method", METHODS)
def test_the_line_of_logistic_regression_is_the_sum_of_its_steps(method):
    """At every t: 4 (F_0 - F*) / (alpha t), noise and smoothing; and the measured mean so far is below it."""
    case = CASES["logistic"](400, 12, "d", "sphere")
    H = np.linalg.eigvalsh((case.data.T @ case.data).numpy() / (4 * 400))
    found = convergence.measure(case, method, "sphere", case.step_size, 50.0, 1e-6, steps=150, runs=4)
    σ, r, l = found.sigma, H.sum() / H.max(), 0.25
    t = np.arange(1, 151)
    told = 4 * math.log(2) / (case.step_size * t) + 2 * case.step_size * l * r * σ**2
    told += (l * ZO_EPS) ** 2 * r * (3 * r + 8) / 4
    assert found.line[1][1:] == pytest.approx(np.minimum(told, 1.0))
    assert found.line[1][-1] < 0.5
    so_far = np.cumsum(found.heights.mean(0)[:-1]) / t
    assert (so_far < found.line[1][1:]).all()


def test_the_network_is_its_teachers_pupil():
    problem = Network(500, inputs=5, hidden=3)
    teacher = problem.teacher().losses(problem.data)
    assert float(teacher.mean()) == pytest.approx(problem.label_noise**2 / 2, rel=0.3)
    assert float(problem.student().losses(problem.data).mean()) > 5 * float(teacher.mean())
    assert torch.equal(problem.student().losses(problem.data), problem.student().losses(problem.data))


def test_the_measured_curvature_is_the_hessians():
    """Against the whole Hessian of a small network. Kills: a loss summed rather than averaged."""
    problem = Network(60, inputs=3, hidden=2)
    model = problem.student()
    names, tensors = zip(*((name, value.detach()) for name, value in model.params.items()), strict=True)

    def loss(flat):
        parts = torch.split(flat, [t.numel() for t in tensors])
        given = {name: part.view(t.shape) for name, part, t in zip(names, parts, tensors, strict=True)}
        return model.loss(lambda x: torch.func.functional_call(model.module, given, (x,)), problem.data).mean()

    hessian = torch.autograd.functional.hessian(loss, torch.cat([t.reshape(-1) for t in tensors]))
    exact = np.abs(np.linalg.eigvalsh(hessian.double().numpy()))
    found = cases.measured_curvature(model, problem.data)
    assert found.norm == pytest.approx(exact.max(), rel=1e-3)
    assert abs(found.trace - exact.sum()) < 7 * found.error + 1e-3 * exact.sum()


@pytest.mark.parametrize("problem", CASES)
def test_the_command_writes_what_it_measured_and_what_made_it(problem, tmp_path):
    asked = ["--problem", problem, "--n", "60", "--d", "5", "--steps", "3", "--runs", "2", "--out", str(tmp_path)]
    told = CliRunner().invoke(typer_app(), asked)
    assert told.exit_code == 0, told.output
    name = "convergence" if problem == "quadratic" else f"convergence_{problem}"
    text = (tmp_path / f"{name}.md").read_text()
    assert all(word in text for word in ("DPZero", "DPGD-0th", "seeds: 0 to 1", "commit", "torch"))
    assert (tmp_path / f"{name}.png").stat().st_size > 5000
    assert len((tmp_path / f"{name}.csv").read_text().splitlines()) == 1 + 2 * 4
