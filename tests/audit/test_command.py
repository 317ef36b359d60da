"""``dpzo audit``: a table, a verdict, an exit code."""

from dataclasses import replace
from typing import get_args

import pytest
import torch
import typer
from typer.testing import CliRunner

from dpzo import Ledger, Refusal, Relation, Step, Streams, dpgd_zeroth, dpzero, run
from dpzo.algorithms import STEPS
from dpzo.audit import command
from dpzo.audit.command import audit
from dpzo.mechanisms import Mechanism
from dpzo.models.quadratic import Quadratic
from tests.audit import mutants

app = typer.Typer()
app.command()(audit)
SAME = {
    "n": 8, "steps": 200, "step_size": 1e-3, "zo_eps": 1e-3, "clip_threshold": 0.5, "noise_multiplier": 2.0,
    "relation": Relation.ADD_REMOVE,
}  # fmt: skip


def invoke(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "200"})


def kept(path, plan, steps=None):
    """The ledger of a run, cut short after ``steps``."""
    model = Quadratic(torch.ones(3), torch.zeros(3))
    with Ledger(path) as book:
        for step in run(plan, model, torch.randn(8, 3), Streams.secure(3), ledger=book):
            if steps is not None and step.index + 1 == steps:
                break
    return path


@pytest.mark.statistical
def test_the_library_passes():
    result = invoke("--releases", 600)
    assert result.exit_code == 0, result.output
    attacked = {kind.__name__ for kind in get_args(Mechanism)} - {"PlainSum", "GaussianVectorMechanism"} | set(STEPS)
    for name in (attacked - {"mezo"}) | {"sampled"}:
        assert name in result.output
    assert "BROKEN" not in result.output


@pytest.mark.statistical
def test_a_broken_library_fails(monkeypatch):
    monkeypatch.setattr(command, "GaussianMechanism", mutants.ClipDropped)
    result = invoke("--releases", 600)
    assert result.exit_code == 1
    rows = [line for line in result.output.splitlines() if "ClipDropped, K = 1, replace-one" in line]
    assert [row.count("BROKEN") for row in rows] == [1]


@pytest.mark.statistical
@pytest.mark.parametrize("steps", [None, 50, 1])
def test_the_ledger_of_a_sound_run_passes(tmp_path, steps):
    result = invoke("--ledger", kept(tmp_path / "run.ledger", dpzero(**SAME), steps))
    assert result.exit_code == 0, result.output
    assert "noise from" in result.output


def test_a_ledger_without_scalars_is_counted_only(tmp_path):
    result = invoke("--ledger", kept(tmp_path / "run.ledger", dpgd_zeroth(**SAME)))
    assert result.exit_code == 0, result.output
    assert "noise from" not in result.output


@pytest.mark.statistical
def test_the_ledger_of_a_build_that_seeds_its_noise_fails(tmp_path, monkeypatch):
    monkeypatch.setitem(STEPS, "dpzero", mutants.noise_after_seeding(False))
    result = invoke("--ledger", kept(tmp_path / "run.ledger", dpzero(**SAME)))
    assert result.exit_code == 1
    assert "noise from torch manual_seed(direction's seed)" in result.output
    assert result.output.count("BROKEN") == 1


def forged(path, plan, charges, releases):
    """A well-sealed ledger that says what it is told to."""
    with Ledger(path) as book:
        book.begin(plan, Quadratic(torch.ones(3), torch.zeros(3)).params, Streams.secure(3), torch.zeros(8, 3))
        for index in charges:
            book.charge(index)
        for step in releases:
            book.release(step)
    return path


def test_a_ledger_with_more_steps_than_its_plan_fails(tmp_path):
    plan = dpzero(**(SAME | {"steps": 3}))
    noise = [Step(t, 0, t + 9, (t / 7 - 0.31,)) for t in range(4)]
    sound = invoke("--ledger", forged(tmp_path / "a", plan, range(3), noise[:3]))
    assert sound.exit_code == 0, sound.output
    many = invoke("--ledger", forged(tmp_path / "b", plan, range(4), noise))
    assert (many.exit_code, many.output.count("BROKEN")) == (1, 3)
    uncharged = invoke("--ledger", forged(tmp_path / "c", plan, range(2), noise[:3]))
    assert (uncharged.exit_code, uncharged.output.count("BROKEN")) == (1, 1)
    twice = invoke("--ledger", forged(tmp_path / "d", plan, range(3), [*noise[:2], replace(noise[2], index=1)]))
    assert (twice.exit_code, twice.output.count("BROKEN")) == (1, 1)


def test_no_ledger_is_refused(tmp_path):
    result = invoke("--ledger", tmp_path / "nothing")
    assert isinstance(result.exception, Refusal)
