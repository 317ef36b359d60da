"""The problems of ``synthetic.convergence``: each is trained by ``dpzo.run``, and its line is what theory says."""

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from synthetic import cases, convergence
from synthetic.cases import CASES, METHODS
from synthetic.problems import Network


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
