"""Bounds over the dimension, and runs that clip below ours: what the theorem without d says of real runs."""

import math

import pytest
import typer
from typer.testing import CliRunner

from dpzo.theory.rates import sharper, theorem_3
from synthetic import dimension
from synthetic.dimension import Soft, bounds, simulate


@pytest.mark.parametrize("d", [10, 1000, 10**9])
@pytest.mark.parametrize("c", [None, 3.0])
def test_runs_that_clip_are_below_the_bound(d, c):
    """At c = 3 some values are clipped; the bound is below the start and holds. Kills: d^(1/2) times the threshold."""
    on = Soft()
    p = on.problem(d, 3000, 2.0, 1e-6)
    run = simulate(on, p, c, 4)
    start = on.r * math.tanh(on.start) ** 2
    print(f"d {d:.0e} c {run.c:.2f} clipped {run.clipped:.1e} measured {run.measured:.4f} bound {run.bound:.3f}")
    assert run.measured + 7 * run.error < run.bound < start
    if c and d > 100:
        assert 1e-4 < run.clipped < 1e-2


def test_the_runs_know_no_dimension():
    """From a thousand to a billion, what is measured and what is bounded stay. Kills: noise that grows with d."""
    on = Soft()
    small, large = (simulate(on, on.problem(d, 3000, 2.0, 1e-6), None, 8) for d in (10**3, 10**9))
    assert large.bound == pytest.approx(small.bound, rel=1e-3)
    assert large.measured == pytest.approx(small.measured, rel=0.2)


def test_a_run_can_miss_its_bound():
    """With ten times the noise; so that those above are no accident."""
    on = Soft()
    run = simulate(on, on.problem(10**6, 3000, 2.0, 1e-6), None, 4, noisy=10.0)
    assert run.measured > run.bound


def test_the_problem_is_what_it_says():
    """L, l, r and the gap by differences along the axes. Kills: tilts in the active coordinates."""
    on = Soft(r=3, tilt=2.0, start=0.7)
    p = on.problem(50, 100, 1.0, 1e-6)
    assert (p.r, p.l) == (3.0, 1.0)
    assert pytest.approx(math.sqrt(3 + 4)) == p.L
    assert p.gap == pytest.approx(3 * math.log(math.cosh(0.7)))


def test_the_paper_grows_and_ours_does_not():
    rows = bounds(Soft(), 20_000, 2.0, 1e-6)
    assert [row.d for row in rows][:: len(rows) - 1] == [10, 10**9]
    grown = [row for row in rows if row.d >= 1000]
    assert len({row.ours for row in grown}) == len({row.clip for row in grown}) == 1
    assert grown[-1].paper > 1.3 * grown[0].paper > 10 * grown[0].ours
    p = Soft().problem(grown[0].d, 20_000, 2.0, 1e-6)
    assert grown[0][1:5] == (theorem_3(p).clip, theorem_3(p).bound, sharper(p).clip, sharper(p).bound)
    assert grown[0].clip_64 == pytest.approx(8 * sharper(p, directions=64).clip)


def test_the_command_writes_what_it_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(dimension, "RUN", (10, 10**9))
    monkeypatch.setattr(dimension, "THRESHOLDS", (None,))
    app = typer.Typer()
    app.command()(dimension.main)
    told = CliRunner().invoke(app, ["--n", "500", "--runs", "2", "--out", str(tmp_path)])
    assert told.exit_code == 0, told.output
    text = (tmp_path / "dimension.md").read_text()
    assert all(word in text for word in ("C, Theorem 3", "share clipped", "1,000,000,000", "commit"))
    assert len((tmp_path / "dimension.csv").read_text().splitlines()) == 1 + len(dimension.BOUNDED)
    assert (tmp_path / "dimension.png").stat().st_size > 5000
